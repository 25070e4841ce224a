"""A collector that counts events and does nothing else: the other end of `fastemit bench`, in a process of its own.

It prints its port and serves until its standard input ends. `GET /counts` is answered with the number of events that
came since the last such request. It must not be what is measured, so it reads each body into one buffer and counts the
events by one search, which takes a small part of what any client takes to send them.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
from typing import Final

#: It is in each event once and nowhere else: a quote inside a JSON string is escaped.
_EVENT: Final = b'"stm":'
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Count:
    """Events that came. Thread safety: any thread may call anything."""

    def __init__(self) -> None:
        self._events = 0
        self._lock = threading.Lock()

    def add(self, events: int) -> None:
        with self._lock:
            self._events += events

    def take(self) -> int:
        with self._lock:
            events, self._events = self._events, 0
            return events


def _answer(text: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)


def _serve(connection: socket.socket, count: _Count) -> None:
    """Answer the requests of one connection until the client closes it. Nothing is pipelined."""
    buffer = bytearray(1 << 16)
    filled = 0
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            end = buffer.find(b"\r\n\r\n", 0, filled)
            length = _LENGTH.search(buffer, 0, end) if end >= 0 else None
            size = end + 4 + (int(length[1]) if length else 0)
            if end < 0 or filled < size:
                if len(buffer) < max(size, filled + 1):
                    buffer.extend(bytes(max(size, filled + 1) - len(buffer)))
                with memoryview(buffer) as view:
                    received = connection.recv_into(view[filled:])
                if not received:
                    return
                filled += received
                continue
            filled = 0
            if buffer.startswith(b"GET /counts "):
                connection.sendall(_answer(str(count.take()).encode()))
            else:
                count.add(buffer.count(_EVENT, end, size))
                connection.sendall(_answer(b"ok"))


def _serve_quietly(connection: socket.socket, count: _Count) -> None:
    with contextlib.suppress(ConnectionError):
        _serve(connection, count)


def _accept(listener: socket.socket, count: _Count) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve_quietly, args=(connection, count), daemon=True).start()


def main() -> None:
    """Serve until standard input ends, which is when the parent ends, however it does."""
    count = _Count()
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(listener, count), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
