"""One connection of the collector, in its own thread. It reads requests, and answers as the journal says."""

from __future__ import annotations

import math
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from typing import Any

from fastemit._time import monotonic
from fastemit.testing._answer import OK, Answer, render, render_interim
from fastemit.testing._journal import Journal, Ticket
from fastemit.testing._micro import is_micro
from fastemit.testing._request import BadRequest, ConnectionEnded, Request, read_request

_BUFFER = 64 * 1024
_OK_BYTES = render(OK, 200, "POST", keep=True)
# struct linger is two unsigned shorts on Windows, two ints elsewhere: on, and 0 seconds, which makes close()
# send RST.
_LINGER_0 = struct.pack("HH" if sys.platform == "win32" else "ii", 1, 0)
# How much is still read from a client whose request was refused, and for how long it may pause.
_DRAIN_BYTES = 16 * 1024 * 1024
_DRAIN_PAUSE = 1.0


class Connection:
    """The server's end of one TCP connection.

    Thread safety: `serve` runs in one thread; `cut` may be called from any other, also while the socket is
    being closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        number: int,
        journal: Journal,
        micro: Callable[[Request], bytes],
        refusal: Callable[[Request], str | None],
    ) -> None:
        self._sock = sock
        self._number = number
        self._journal = journal
        self._micro = micro
        self._refusal = refusal
        #: Since when the connection waits for the client; infinite while the client waits for its answer.
        self.waiting_since = monotonic()
        self._scratch = None if journal.keeps_bodies else bytearray()

    def serve(self) -> None:
        """Answer requests until one side ends the connection, and close the socket. Raises no `OSError`."""
        with suppress(OSError, ConnectionEnded), self._sock:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with BufferedReader(self._sock.makefile("rb", buffering=0), _BUFFER) as reader:
                try:
                    while self._exchange(reader):
                        pass
                except BadRequest as error:
                    self._refuse(error)

    def cut(self) -> None:
        """End the connection while its thread serves it. The thread's blocking calls return at once."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """Close the descriptor of a connection that belongs to the parent of this forked process."""
        with suppress(OSError):
            socket.close(self._sock.detach())

    def _exchange(self, reader: BufferedReader[Any]) -> bool:
        """Read one request and answer it. False if the connection must be closed then."""
        self.waiting_since = monotonic()
        if reader.peek(1):
            self.waiting_since = monotonic()
        request = read_request(reader, self._sock.sendall, self._number, self._scratch)
        if request is None:
            return False
        refused = self._refusal(request)
        if refused is not None:
            raise BadRequest(403, refused)
        if is_micro(request.path):
            return self._send(self._micro(request), 0.0) and request.keeps_connection
        answer, ticket = self._journal.arrived(request)
        if answer is OK and request.keeps_connection:
            self._sock.sendall(_OK_BYTES)
            return True
        return self._answer(request, answer, ticket)

    def _answer(self, request: Request, answer: Answer, ticket: Ticket) -> bool:
        self.waiting_since = math.inf
        for interim in answer.interim:
            self._sock.sendall(render_interim(interim))
        if answer.delay and self._journal.closing.wait(answer.delay):
            return False
        if answer.hang and not self._journal.hold(ticket):
            return False
        if answer.reset:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        if answer.reset or answer.hang_up:
            return False
        if answer.is_immediate:
            assert isinstance(answer.status, int)
            status = answer.status
        else:
            status = self._journal.decide(answer, request)
            self._journal.answering(request, answer, status, ticket)
        keep = request.keeps_connection and not answer.ends_connection and not answer.close_after_headers
        data = render(answer, status, request.method, keep=keep)
        return self._send(data, answer.drip) and keep

    def _send(self, data: bytes, gap: float) -> bool:
        if not gap:
            self.waiting_since = monotonic()
            self._sock.sendall(data)
            return True
        for position in range(len(data)):
            if position and self._journal.closing.wait(gap):
                return False
            self._sock.sendall(data[position : position + 1])
        return True

    def _refuse(self, error: BadRequest) -> None:
        """Answer what is no request, and let the client read the answer before the connection is closed.

        A socket that is closed with unread bytes sends RST. The client's kernel then drops the answer that it already
        has.
        """
        answer = Answer(error.status, body=error.reason.encode("utf-8"))
        self._sock.sendall(render(answer, error.status, "", keep=False))
        self._sock.shutdown(socket.SHUT_WR)
        self._sock.settimeout(_DRAIN_PAUSE)
        left = _DRAIN_BYTES
        while left > 0 and (data := self._sock.recv(min(_BUFFER, left))):
            left -= len(data)
