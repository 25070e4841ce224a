"""A request and its answer with little work, over a connection that urllib3 has made.

Nearly every request of an emitter is like the one before, and so is its answer. So urllib3 makes the head once, and
then only its length or query changes. Head and body are sent in one call. A plain answer is received in one call, and
`answers` reads it. Any other answer goes to http.client, with the bytes that were received.
"""

from __future__ import annotations

import errno
import http.client
import re
import threading
from typing import Any, Final, NamedTuple

from urllib3.response import HTTPResponse

from fastemit._interfaces import ANSWER_LIMIT
from fastemit._process import sockets
from fastemit._signals import raise_of_signal_handler
from fastemit._time import monotonic
from fastemit._transport.answers import Answer, read_plain
from fastemit._transport.connections import Exchange
from fastemit._transport.responses import answer_of

#: Bytes of the buffer for answers that each connection has. http.client reads longer heads.
_ROOM: Final = 16 * 1024
#: A request of at most this size is copied into one piece for TLS. A TLS record holds as much, and takes one call.
_RECORD: Final = 16 * 1024
#: A server may answer a request without reading it, and close. Its answer can still be read then.
_CLOSED_EARLY: Final = frozenset({errno.EPIPE, errno.ECONNRESET, getattr(errno, "EPROTOTYPE", errno.EPIPE)})
#: Characters that would end the request line, or its target.
_NO_QUERY: Final = re.compile(r"[^!-~]")

Body = bytes | memoryview


class Head(NamedTuple):
    """The head of all requests of one kind, from the first, which urllib3 made. What differs is put in between."""

    before: bytes
    after: bytes

    def for_body(self, size: int) -> bytes:
        return b"%b%d%b" % (self.before, size, self.after)

    def for_query(self, query: str) -> bytes:
        """Raises `ValueError` if this cannot be a query: it has a space, a line break, or a letter beyond ASCII."""
        if _NO_QUERY.search(query):
            raise ValueError("a query must be of printable ASCII characters without spaces")
        return b"%b%b%b" % (self.before, query.encode("ascii"), self.after)


def head_with_length(head: bytes, size: int) -> Head | None:
    """What to make the heads of further POSTs from; None if that is not clear."""
    mark = b"\r\nContent-Length: "
    before, found, after = head.partition(b"%b%d\r\n" % (mark, size))
    if not found or head.lower().count(mark.lower()) != 1:
        return None
    return Head(before + mark, b"\r\n" + after)


def head_with_query(head: bytes, query: str) -> Head | None:
    """What to make the heads of further GETs from; None if that is not clear."""
    line, found, after = head.partition(b" HTTP/1.1\r\n")
    given = query.encode("ascii", "replace")
    if not found or not line.endswith(given):
        return None
    return Head(line[: len(line) - len(given)], found + after)


class Lean:
    """A base class that comes before one of urllib3's connections.

    Requests that urllib3 makes go this way, too: their pieces are held and sent in one, and urllib3 gets the answer
    when it has been read.
    """

    exchange: Exchange
    sock: Any
    _answers: int
    _answered_at: float
    #: Whether the socket takes several pieces at once. That of TLS does not.
    gathers = False
    _room: memoryview | None = None
    _held: list[Any] | None = None
    _method = ""
    _sent_whole = False
    #: The last plain answer, and what it says. Most answers are the same, byte for byte, until the next second begins.
    _last: tuple[bytes, Answer] | None = None

    # -- as urllib3 calls it -------------------------------------------------------------------------------------------

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        held: list[Any] = []
        self._held = held
        try:
            super().request(method, url, *args, **kwargs)  # type: ignore[misc]
        finally:
            self._held = None
        head, *body = held
        self.exchange.head = head
        self._send(head, body[0] if body else None)

    def send(self, data: Any) -> None:
        held, self._held = self._held, None
        if held is None:
            # The request for a tunnel.
            super().send(data)  # type: ignore[misc]
            return
        if self.sock is None:
            connection: Any = self
            connection.connect()
        held.append(data)
        self._held = held

    def getresponse(self) -> Any:
        self.sock.settimeout(self.exchange.read_timeout)
        answer = self.exchange.answer = self._answer(self._method)
        self._say_idle()
        return HTTPResponse(body=b"", status=answer.status, version=11, preload_content=False)

    def _say_idle(self) -> None:
        """Tell http.client that the answer has been read, because otherwise it would refuse the next request."""
        sock, self.sock = self.sock, None
        try:
            http.client.HTTPConnection.close(self)  # type: ignore[arg-type]
        except BaseException:
            sock.close()
            raise
        self.sock = sock

    # -- over a connection that is there -------------------------------------------------------------------------------

    def converse(self, method: str, head: bytes, body: Body | None) -> Answer:
        """Send a request over a connection that is there, and read its answer.

        Raises:
            OSError, http.client.HTTPException: as http.client does. The connection has to be closed.
        """
        connection: Any = self
        connection.begin_request()
        # To set it is a system call. To ask is none.
        if self.sock.gettimeout() != self.exchange.read_timeout:
            self.sock.settimeout(self.exchange.read_timeout)
        try:
            self._send(head, body)
        except OSError as error:
            raise_of_signal_handler(error)
            if error.errno not in _CLOSED_EARLY:
                raise
        return self._answer(method)

    def _send(self, head: bytes, body: Body | None) -> None:
        self._sent_whole = False
        sock = self.sock
        if body is None:
            sock.sendall(head)
        elif self.gathers:
            sent = sock.sendmsg((head, body))
            if sent < len(head):
                sock.sendall(head[sent:])
                sent = len(head)
            if sent < len(head) + len(body):
                sock.sendall(memoryview(body)[sent - len(head) :])
        elif len(head) + len(body) <= _RECORD:
            sock.sendall(b"".join((head, body)))
        else:
            sock.sendall(head)
            sock.sendall(body)
        self._sent_whole = True

    def _answer(self, method: str) -> Answer:
        room = self._room
        if room is None:
            self._room = room = memoryview(bytearray(_ROOM))
        meanwhile = self.exchange.meanwhile
        if meanwhile is not None and self._sent_whole:
            meanwhile()
        # The collector has all of its time, however long that took here.
        deadline = monotonic() + self.exchange.read_timeout
        count = 0
        try:
            count = self.sock.recv_into(room) if self.gathers else self._receive(room)
            data = bytes(room[:count])
            last = self._last
            answer = last[1] if last is not None and last[0] == data else read_plain(data)
            if answer is None:
                answer = self._other_answer(method, deadline, data)
            else:
                self._last = data, answer
                whole = answer.size == count or self._read_body(answer, count, deadline, room)
                if not (whole and self._sent_whole):
                    answer = answer._replace(keeps=False)
        except ConnectionError:
            self.exchange.stale = self._answers > 0 and not count
            raise
        self._answers += 1
        self._answered_at = monotonic()
        return answer

    def _receive(self, room: memoryview) -> int:
        thread = threading.get_ident()
        sockets.reading[thread] = self.sock
        try:
            count: int = self.sock.recv_into(room)
        finally:
            sockets.reading.pop(thread, None)
        return count

    def _read_body(self, answer: Answer, count: int, deadline: float, room: memoryview) -> bool:
        """Read the rest of an answer. Returns whether that was all: nothing is missing, and nothing came after it.

        The status has been answered, so nothing that happens here changes the outcome.
        """
        left = answer.size - count
        if answer.length >= ANSWER_LIMIT:
            return False
        try:
            while left > 0:
                time_left = deadline - monotonic()
                if time_left <= 0:
                    return False
                self.sock.settimeout(time_left)
                count = self._receive(room)
                if not count:
                    return False
                left -= count
        except OSError as error:
            raise_of_signal_handler(error)
            return False
        return left == 0

    def _other_answer(self, method: str, deadline: float, begun: bytes) -> Answer:
        """Let http.client read the answer."""
        response = answer_of(self.sock, deadline, method, begun)
        try:
            response.begin()
            keeps = response.read_rest()
        finally:
            response.close()
        retry_after, location = response.headers.get_all("Retry-After"), response.headers.get_all("Location")
        return Answer(
            response.status,
            None if retry_after is None else ", ".join(retry_after),
            None if location is None else ", ".join(location),
            keeps and self._sent_whole,
        )
