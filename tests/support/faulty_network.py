"""A faulty network as a fixture: a TCP proxy between an emitter and its collector, in threads of its own.

It follows the HTTP that passes through it, so that a fault strikes at a chosen point of an exchange and what became of
each request is known: whether the collector had it whole, and whether its answer came through.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: Where in an exchange a fault strikes.
PHASES = ("connect", "headers", "body", "waiting", "status", "answer")
KINDS = ("cut", "reset", "half-close", "silence", "delay", "throttle", "garble")
NOISE = bytes(range(128, 256)) + b"\r\n\r\n"
#: Makes close() send RST: linger is on, for 0 seconds.
LINGER_0 = struct.pack("HH" if sys.platform == "win32" else "ii", 1, 0)
CHUNK = 65536
#: That a throttled message is sent in.
PIECES = 8


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when.

    Attributes:
        kind: "cut" closes both sides, "reset" sends RST to both; "half-close" closes the direction that is being
            written to and leaves the other; "silence" takes all that comes and says nothing; "delay" pauses and goes
            on; "throttle" goes on slowly; "garble" says something that is no HTTP.
        phase: "connect": as the connection is accepted. "headers", "body": in the middle of them, what comes after is
            not passed on. "waiting": the collector has answered, and nothing of it has gone back. "status": in the
            middle of the status line; "answer": between the head of the answer and its body.
        seconds: of a delay; of a throttle, for which the rest of the exchange drips.
    """

    kind: str
    phase: str
    seconds: float = 0.0

    @property
    def stalls(self) -> bool:
        """Whether it is only its own timeout that ends it for the client."""
        # A client that has read as much noise as it expected of an answer does not know, and asks again.
        return self.kind in ("silence", "throttle") or (self.kind, self.phase) == ("garble", "answer")

    def __str__(self) -> str:
        return f"{self.kind} at {self.phase}"


@dataclass
class Passage:
    """One request that came to the proxy.

    Attributes:
        body: of the request, as far as it was read.
        received: the collector had the whole of it, and answered.
        answered: the status of that answer reached the client while it was still there.
        fault: what struck it.
    """

    body: bytes = b""
    received: bool = False
    answered: bool = False
    fault: Fault | None = None

    @property
    def answer_lost(self) -> bool:
        """The one case in which the client has to send again what the collector has."""
        return self.received and not self.answered

    @property
    def numbers(self) -> list[int]:
        """The `n` of its events."""
        return [int(event["n"]) for event in json.loads(self.body)["data"]]


class _Struck(Exception):
    """A fault ended the exchange."""


class FaultyNetwork:
    """Listens on a port of its own and passes on to `port`, by `arm`ed faults and within `uplink` bytes a second.

    Thread safety: every method may be called from any thread; each connection has a thread of its own.

    Args:
        port: the collector's, on the loopback.
        uplink: bytes a second that all requests together may take; None for no bound.
    """

    def __init__(self, port: int, uplink: float | None = None) -> None:
        self._to = ("127.0.0.1", port)
        self._uplink = uplink
        self._line_free_at = 0.0
        self._line = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._armed: list[Fault] = []
        self._over = threading.Event()
        self._ending = False
        self._sockets: set[socket.socket] = set()
        self._dropped: set[socket.socket] = set()  # by this end
        self._threads: list[threading.Thread] = []
        #: How many faults have struck.
        self.hits = 0
        self.connections = 0
        self.passages: list[Passage] = []

    def __enter__(self) -> FaultyNetwork:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        for thread in self._threads:
            thread.join(5.0)
        assert not any(thread.is_alive() for thread in self._threads)

    # -- what a test says --------------------------------------------------------------------------------------------

    def arm(self, fault: Fault, times: int = 1) -> None:
        """Have a fault strike so many times: connections for "connect", requests for every other phase."""
        with self._lock:
            self._armed += [fault] * times

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def drop_connections(self) -> None:
        """End every connection without a word."""
        with self._lock:
            sockets = list(self._sockets)
            self._dropped.update(sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def client_is_done(self) -> None:
        """From here on a client that hangs up has no answer that it missed."""
        self._ending = True

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until no connection is open and nothing is under way, of those that were accepted."""
        deadline = time.monotonic() + timeout
        with self._lock:
            serving = self._threads[1:]
        for thread in serving:
            thread.join(max(deadline - time.monotonic(), 0))
            assert not thread.is_alive(), "a connection does not end"

    # -- the proxy ---------------------------------------------------------------------------------------------------

    def _spawn(self, function: Callable[[], None]) -> None:
        thread = threading.Thread(target=function, name="faulty-network", daemon=True)
        with self._lock:
            # In one step, because `settle` may come as soon as the thread has passed something on.
            thread.start()
            self._threads.append(thread)

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._spawn(lambda client=client: self._serve(client))  # type: ignore[misc]
            self.connections += 1

    def _claim(self, phase_is_connect: bool) -> Fault | None:
        with self._lock:
            if not self._armed or (self._armed[0].phase == "connect") is not phase_is_connect:
                return None
            self.hits += 1
            return self._armed.pop(0)

    @contextlib.contextmanager
    def _registered(self, sock: socket.socket) -> Iterator[None]:
        with self._lock:
            self._sockets.add(sock)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(sock)
            sock.close()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._registered(client), contextlib.suppress(OSError, _Struck):
            fault = self._claim(True)
            if fault is not None:
                _Strike(self, client, None, fault).strike()
            server = socket.create_connection(self._to, 10.0)
            with self._registered(server):
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while self._exchange(client, server, fault):
                    fault = None

    def _exchange(self, client: socket.socket, server: socket.socket, fault: Fault | None) -> bool:
        """Pass one request on and its answer back. False when the client has hung up."""
        begin = client.recv(40)
        if not begin:
            return False
        passage = Passage(fault=fault or self._claim(False))
        with self._lock:
            self.passages.append(passage)
        phase = passage.fault.phase if passage.fault is not None else None
        strike = _Strike(self, client, server, passage.fault)
        if phase == "connect" and passage.fault is not None and passage.fault.kind == "throttle":
            strike.strike()
        strike.send_up(begin)
        if phase == "headers":
            strike.strike()
        head, body = _read_head(client, begin)
        strike.send_up(head[len(begin) :])
        length = _content_length(head)
        half = length // 2
        body += _read(client, half - len(body))
        strike.send_up(body[:half])
        if phase == "body":
            strike.strike()
        body += _read(client, length - len(body))
        passage.body = body
        strike.send_up(body[half:])
        answer_head, rest = _read_head(server, b"")
        answer = rest + _read(server, _content_length(answer_head) - len(rest))
        passage.received = True
        if phase == "waiting":
            strike.strike()
        if _has_hung_up(client):
            return False
        strike.send_down(answer_head[:11])
        if phase == "status":
            strike.strike()
        status_end = answer_head.index(b"\r\n") + 2
        strike.send_down(answer_head[11:status_end])
        # The status decides: what becomes of the headers changes nothing.
        passage.answered = True
        strike.send_down(answer_head[status_end:])
        if phase == "answer":
            strike.strike()
        strike.send_down(answer)
        if passage.fault is None:
            # Who hangs up on an answer that came whole has not waited for it.
            passage.answered = self._stays(client)
        return True

    def _stays(self, client: socket.socket) -> bool:
        return bool(client.recv(1, socket.MSG_PEEK)) or self._ending or client in self._dropped

    def _up(self, server: socket.socket, data: bytes) -> None:
        """Send towards the collector, over a line that all connections share."""
        if self._uplink is not None:
            with self._line:
                now = time.monotonic()
                self._line_free_at = max(self._line_free_at, now) + len(data) / self._uplink
                pause = self._line_free_at - now
            self.pause(pause)
        server.sendall(data)

    def pause(self, seconds: float) -> None:
        if seconds > 0 and self._over.wait(seconds):
            raise _Struck


class _Strike:
    """One fault on one connection."""

    def __init__(
        self, network: FaultyNetwork, client: socket.socket, server: socket.socket | None, fault: Fault | None
    ) -> None:
        self._network = network
        self._client = client
        self._server = server
        self._fault = fault
        self._slow_until: float | None = None

    def strike(self) -> None:
        """Do what the fault says; returns where the exchange goes on."""
        assert self._fault is not None
        getattr(self, "_" + self._fault.kind.replace("-", "_"))()

    def _cut(self) -> None:
        self._end(None)

    def _reset(self) -> None:
        self._end(LINGER_0)

    def _end(self, linger: bytes | None) -> None:
        for sock in (self._server, self._client):
            if sock is not None:
                if linger is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                sock.close()
        raise _Struck

    def _half_close(self) -> None:
        assert self._fault is not None
        if self._fault.phase in ("headers", "body"):
            assert self._server is not None
            self._server.shutdown(socket.SHUT_WR)
            # Whatever the collector still says goes back, and then its end.
            while data := self._server.recv(CHUNK):
                self._client.sendall(data)
        self._client.shutdown(socket.SHUT_WR)
        self._silence()

    def _silence(self) -> None:
        while self._client.recv(CHUNK):
            pass
        raise _Struck

    def _delay(self) -> None:
        assert self._fault is not None
        self._network.pause(self._fault.seconds)

    def _throttle(self) -> None:
        assert self._fault is not None
        self._slow_until = time.monotonic() + self._fault.seconds

    def _garble(self) -> None:
        self._client.sendall(NOISE)
        self._silence()

    def send_up(self, data: bytes) -> None:
        assert self._server is not None
        for piece in self._pieces(data):
            self._network._up(self._server, piece)

    def send_down(self, data: bytes) -> None:
        for piece in self._pieces(data):
            if self._slow_until is not None and _has_hung_up(self._client):
                raise _Struck
            self._client.sendall(piece)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """All at once; or while a throttle is on, in pieces that take its seconds together."""
        size = len(data) if self._slow_until is None else -(-len(data) // PIECES)
        for at in range(0, len(data), size or 1):
            if self._slow_until is not None and self._fault is not None:
                pause = self._fault.seconds / PIECES
                self._network.pause(min(pause, self._slow_until - time.monotonic()))
            yield data[at : at + size]


def _read_head(sock: socket.socket, begun: bytes) -> tuple[bytes, bytes]:
    """The head of a message with the empty line after it, and what was read of its body."""
    data = begun
    while b"\r\n\r\n" not in data:
        data += _some(sock, CHUNK)
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _read(sock: socket.socket, size: int) -> bytes:
    """So many bytes exactly; none where that is less than one."""
    data = bytearray()
    while len(data) < size:
        data += _some(sock, min(size - len(data), CHUNK))
    return bytes(data)


def _some(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size)
    if not data:
        raise _Struck
    return data


def _has_hung_up(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    finally:
        sock.setblocking(True)
