"""What the tests of delivery share: a collector with the emitters that end with it, deadlines, raw servers, scripts."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastemit import AsyncEmitter, Emitter
from fastemit._stores.adapter import StoreBuffer
from fastemit.testing import Collector
from tests.support.environment import environment
from tests.support.waiting import DEADLINE, until

#: How long nothing must happen, where that is what is stated.
A_WHILE = 0.1
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def within(seconds: float, at_least: float = 0.0) -> Iterator[None]:
    """What is done here takes less than so many seconds."""
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert at_least <= took < seconds, f"took {took:.3f} s"


class Running:
    """A function that runs in a thread."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self._error = error

    def goes_on(self) -> bool:
        """Whether it is still at it after a while."""
        self._thread.join(A_WHILE)
        return self._thread.is_alive()

    def result(self, timeout: float = DEADLINE) -> Any:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the thread does not end"
        if self._error is not None:
            raise self._error
        return self._result


def put(emitter: Emitter, count: int = 1, first: int = 0) -> None:
    for number in range(first, first + count):
        emitter.input({"n": f"{number:06}"})


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [int(event["n"]) for event in events]


def senders() -> list[threading.Thread]:
    # Python lists for ever, and not as alive, one whose start a signal handler broke off.
    return [each for each in threading.enumerate() if each.name.startswith("fastemit-sender") and each.is_alive()]


class Rig:
    """A collector, and emitters that end with it. At the end nothing of them is left, and their counts add up."""

    def __init__(self) -> None:
        self.collector = Collector().start()
        self._emitters: list[Emitter] = []
        self._before = set(senders())

    def emitter(self, cls: type[Emitter] = Emitter, /, **settings: Any) -> Emitter:
        """One whose `batch_size` is never reached, unless `settings` say otherwise."""
        emitter = cls(**{"endpoint": self.collector.url, "batch_size": 1000, "shutdown_timeout": 2.0, **settings})
        self._emitters.append(emitter)
        return emitter

    def async_emitter(self, **settings: Any) -> Emitter:
        return self.emitter(AsyncEmitter, **settings)

    def requests(self) -> list[list[int]]:
        """The numbers of the events of each request."""
        return [numbers(request.events) for request in self.collector.requests]

    def shut_the_gate(self, emitter: Emitter) -> None:
        """Have the next request answered so that a backoff of a minute runs, and have it made."""
        self.collector.respond(503, headers={"Retry-After": "60"})
        assert emitter.drain(DEADLINE) is False
        assert emitter.retry_delay == 60

    def new_threads(self) -> set[threading.Thread]:
        return set(senders()) - self._before

    def end(self) -> None:
        self.collector.close()
        for emitter in self._emitters:
            emitter.close(0)
        until(lambda: not self.new_threads())
        for emitter in self._emitters:
            if not isinstance(emitter._buffer, StoreBuffer):
                assert emitter._buffer.check() == 0
            assert emitter.stats().in_flight_events == 0


@contextlib.contextmanager
def rigged() -> Iterator[Rig]:
    rig = Rig()
    try:
        yield rig
    finally:
        rig.end()


# -- servers that do what no HTTP server does ------------------------------------------------------------------------


def read_request(sock: socket.socket) -> bytes:
    """One whole request; empty when the client has closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields.get(b"content-length", b"0"))
    while len(body) < length:
        more = sock.recv(65536)
        if not more:
            return b""
        body += more
    return head + b"\r\n\r\n" + body


class RawServer:
    """Runs `handle(socket, number of the connection)` for each connection, in a thread of its own."""

    def __init__(
        self, handle: Callable[[socket.socket, int], None], context: ssl.SSLContext | None = None, backlog: int = 50
    ) -> None:
        self._handle = handle
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self.connections = 0
        self.requests: list[bytes] = []
        #: Set at the end: what a handler waits for.
        self.over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> RawServer:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _spawn(self, function: Callable[[], None]) -> None:
        thread = threading.Thread(target=function, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(sock)
            number = self.connections
            self._spawn(lambda sock=sock, number=number: self._serve(sock, number))  # type: ignore[misc]

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), contextlib.closing(sock):
            sock.settimeout(DEADLINE)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            with sock:
                self._handle(sock, number)

    def read(self, sock: socket.socket) -> bool:
        """Read and keep one request. False when there are no more."""
        request = read_request(sock)
        if request:
            self.requests.append(request)
        return bool(request)

    def answer_all(self, sock: socket.socket, answer: bytes = OK) -> None:
        while self.read(sock):
            sock.sendall(answer)


@contextlib.contextmanager
def answering(*answers: bytes, context: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    """A server that gives these answers in turn, as they are, and then good ones."""
    script = list(answers)

    def handle(sock: socket.socket, _number: int) -> None:
        while server.read(sock):
            sock.sendall(script.pop(0) if script else OK)

    with RawServer(handle, context) as server:
        yield server


@contextlib.contextmanager
def silent() -> Iterator[RawServer]:
    """A server that takes connections, and neither reads nor says anything."""

    def handle(_sock: socket.socket, _number: int) -> None:
        server.over.wait(DEADLINE)

    with RawServer(handle) as server:
        yield server


# -- processes of their own ------------------------------------------------------------------------------------------

_PREAMBLE = """
import atexit, gc, os, sys, threading, time
from fastemit import AsyncEmitter, Emitter

URL = sys.argv[1]

def put(emitter, count=3, first=0):
    for number in range(first, first + count):
        emitter.input({"n": number})

def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)

def the_end():
    print(time.time(), flush=True)
"""


class Ended:
    """What became of a script.

    Attributes:
        status: its exit status.
        errors: what it wrote to stderr.
        lines: what it wrote to stdout.
        seconds: from the last time that `the_end` printed to the end of the process.
    """

    def __init__(self, done: subprocess.CompletedProcess[str], ended: float | None = None) -> None:
        ended = time.time() if ended is None else ended
        self.status = done.returncode
        self.errors = done.stderr
        self.lines = done.stdout.splitlines()
        self.seconds = ended - float(self.lines[-1]) if self.lines else 0.0

    @property
    def well(self) -> bool:
        """Whether it ended with status 0 and without a word of complaint."""
        assert (self.status, self.errors) == (0, "")
        return True


def script_text(script: str, preamble: str = "") -> str:
    """A whole script; `preamble` comes before anything of fastemit."""
    return textwrap.dedent(preamble) + _PREAMBLE + textwrap.dedent(script)


def run_script(directory: Path, script: str, url: str, preamble: str = "", timeout: float = 20.0) -> Ended:
    """Run a script in an interpreter of its own; `preamble` comes before anything of fastemit."""
    path = directory / "script.py"
    path.write_text(script_text(script, preamble))
    # From 3.12 on a fork beside other threads warns; that is what several scripts are about.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(path), url]
    return Ended(
        subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=timeout, check=False)
    )


class Script:
    """Runs scripts that send to the collector of `rig`."""

    def __init__(self, rig: Rig, directory: Path) -> None:
        self.collector = rig.collector
        self._directory = directory

    def __call__(self, script: str, preamble: str = "") -> Ended:
        return run_script(self._directory, script, self.collector.url, preamble)

    @property
    def arrived(self) -> list[int]:
        return sorted(numbers(self.collector.events))
