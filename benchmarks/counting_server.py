"""A collector that only counts events, to be run as its own process.

It prints two ports, and serves until its standard input is closed. Requests to the second port tell it what to do:
`/-/counts`, `/-/reset`, `/-/fail?N` (answer the next N requests 500), `/-/weather?NAME`. Each is answered with the
counts as JSON. With a certificate and a key as arguments, files in PEM, the first port speaks TLS.
With the one argument `bytes` it throws the bodies away and counts no events (-1), as nginx does.

The weather is `fine`; `slow`, where each answer takes 50 ms; `hanging`, where none comes until the weather changes, and
the connection is closed then; or `flapping`, which every 50 ms changes between fine, 503 and hanging up.

Bodies are read into one buffer per connection and searched once, which takes far less of a core than any client takes
to send them; the counts have the CPU time of this process, so that a benchmark can show it.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import sys
import threading
import time

# GET has one event a request. In a POST this is in each event exactly once, and nowhere else, because a quote inside a
# JSON string is escaped. The reference has a space after the colon, fastemit has none.
_EVENT = b'"stm":'
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
_SLOW = 0.05
_FLAP = 0.05
#: Bytes of a body that are in memory at once where it is thrown away.
_PART = 1 << 18
_FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"


class Counts:
    """What came. Thread safety: `_lock` covers everything here.

    Args:
        looks: whether somebody looks for the events in the bodies; otherwise their number is told as -1.
    """

    def __init__(self, looks: bool = True) -> None:
        self._looks = looks
        self._lock = threading.Lock()
        self._failures_due = 0
        self._weather = "fine"
        self._weather_changed = threading.Condition(self._lock)
        self._forget()

    def _forget(self) -> None:
        self._requests = self._events = self._failed_requests = self._failed_events = 0
        self._bytes = self._connections = 0

    def connected(self) -> None:
        with self._lock:
            self._connections += 1

    def received(self, events: int, size: int) -> bytes:
        """Count a request; its answer."""
        with self._lock:
            self._bytes += size
            if self._failures_due:
                self._failures_due -= 1
                self._failed_requests += 1
                self._failed_events += events
                return _FAILED
            self._requests += 1
            self._events += events
            return _OK

    def wait(self) -> bytes | None:
        """What the weather makes of a request: wait, then no answer at all (empty), a failure, or None: as usual."""
        with self._lock:
            weather = self._weather
            if weather == "hanging":
                self._weather_changed.wait_for(lambda: self._weather != "hanging")
                return b""
        if weather == "slow":
            time.sleep(_SLOW)
        elif weather == "flapping":
            return (None, _BUSY, b"")[int(time.monotonic() / _FLAP) % 3]
        return None

    def control(self, command: str) -> bytes:
        name, _, argument = command.partition("?")
        with self._lock:
            if name == "reset":
                self._forget()
            elif name == "fail":
                self._failures_due = int(argument)
            elif name == "weather":
                self._weather = argument
                self._weather_changed.notify_all()
            counts = {
                "requests": self._requests,
                "events": self._events if self._looks else -1,
                "failed_requests": self._failed_requests,
                "failed_events": self._failed_events,
                "bytes": self._bytes,
                "connections": self._connections,
                "cpu_seconds": time.process_time(),
            }
        body = json.dumps(counts).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def thrown_away(connection: socket.socket, size: int, into: memoryview) -> bool:
    """Receive so many bytes of a body that nobody reads. False if the connection ends before."""
    while size > 0:
        received = connection.recv_into(into[: min(size, len(into))])
        if not received:
            return False
        size -= received
    return True


def serve(connection: socket.socket, counts: Counts, looks: bool = True) -> None:
    """Answer the requests of one connection until the client closes it. Nothing is pipelined."""
    buffer = bytearray(65536)
    part = memoryview(bytearray(0 if looks else _PART))
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        filled = 0
        while True:
            end = buffer.find(b"\r\n\r\n", 0, filled)
            if end < 0:
                received = connection.recv_into(memoryview(buffer)[filled:])
                if not received:
                    return
                filled += received
                continue
            head = bytes(buffer[:end])
            length = _LENGTH.search(head)
            size = int(length[1]) if length else 0
            start = end + 4
            if looks:
                if start + size > len(buffer):
                    buffer.extend(bytes(start + size - len(buffer)))
                with memoryview(buffer) as view:
                    while filled < start + size:
                        received = connection.recv_into(view[filled : start + size])
                        if not received:
                            return
                        filled += received
            elif not thrown_away(connection, start + size - filled, part):
                return
            filled = 0
            path = head.split(b" ", 2)[1]
            if path.startswith(b"/-/"):
                connection.sendall(counts.control(path[3:].decode()))
                continue
            answer = counts.wait()
            if answer is not None:
                if not answer:
                    return
                connection.sendall(answer)
            else:
                if not looks:
                    events = 0
                elif path.startswith(b"/i?"):
                    events = 1
                else:
                    events = buffer.count(_EVENT, start, start + size)
                connection.sendall(counts.received(events, size))


def accept(listener: socket.socket, counts: Counts, tls: ssl.SSLContext | None, looks: bool) -> None:
    while True:
        connection, _ = listener.accept()
        counts.connected()
        threading.Thread(target=_serve_quietly, args=(connection, counts, tls, looks), daemon=True).start()


def _serve_quietly(connection: socket.socket, counts: Counts, tls: ssl.SSLContext | None, looks: bool) -> None:
    # A client may close with an answer unread, or in the middle of a handshake. That does not matter here.
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        serve(connection if tls is None else tls.wrap_socket(connection, server_side=True), counts, looks)


def main() -> None:
    looks = sys.argv[1:] != ["bytes"]
    counts = Counts(looks)
    tls = None
    if looks and len(sys.argv) > 1:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*sys.argv[1:])
    ports = []
    for context in (tls, None):
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        ports.append(listener.getsockname()[1])
        threading.Thread(target=accept, args=(listener, counts, context, looks), daemon=True).start()
    print(*ports, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
