"""Answers that http.client reads. Each has one deadline and one size limit, and its status counts.

Interim answers are skipped. Bytes that come after an answer, or are left of an answer that was not read to its end, are
never taken for the next one, because the connection is not used again.
"""

from __future__ import annotations

import http.client
import io
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from fastemit._interfaces import ANSWER_LIMIT
from fastemit._process import sockets
from fastemit._signals import raise_of_signal_handler
from fastemit._time import monotonic

#: The most bytes of one answer, with its head. http.client limits lines and headers, but not the trailers after the
#: last chunk: if a server sends them for ever, http.client reads them at full speed until the timeout.
WHOLE_ANSWER_LIMIT: Final = 1024 * 1024
#: The most interim answers (1xx) before the final one. A server that sends more is broken.
INTERIM_LIMIT: Final = 100
#: The headers that say how an answer ends, and those that the delivery needs. All others are read and forgotten.
_HEADERS: Final = frozenset(
    {b"connection", b"content-length", b"keep-alive", b"location", b"proxy-connection", b"retry-after"}
    | {b"transfer-encoding"}
)
#: How many bytes of one line of the head are looked at, and how many lines of headers are kept.
_LINE_LIMIT: Final = 8192
_KEPT_LIMIT: Final = 32


class _UntilDeadline(io.RawIOBase):
    """The reading side of a socket. It gives up at one point in time, even if bytes still arrive.

    Args:
        begun: bytes that somebody else has read already. They come first.
    """

    def __init__(self, sock: Any, deadline: float, begun: bytes = b"") -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline
        self._begun = begun
        self._bytes = 0
        #: Nothing more may be read.
        self.ended = False

    def readable(self) -> bool:
        return True

    @property
    def began(self) -> bool:
        """Whether there was a byte."""
        return self._bytes > 0

    def readinto(self, buffer: Any) -> int | None:
        if self.ended:
            return 0
        if self._begun:
            begun, self._begun = self._begun[: len(buffer)], self._begun[len(buffer) :]
            buffer[: len(begun)] = begun
            self._bytes += len(begun)
            return len(begun)
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if self._bytes > WHOLE_ANSWER_LIMIT:
            raise http.client.HTTPException(f"an answer of more than {WHOLE_ANSWER_LIMIT} bytes")
        self._sock.settimeout(left)
        thread = threading.get_ident()
        sockets.reading[thread] = self._sock
        try:
            count: int | None = self._raw.readinto(buffer)
        finally:
            sockets.reading.pop(thread, None)
        self._bytes += count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Part(Enum):
    """Where in an answer the reader is."""

    STATUS = 0
    INTERIM_HEADERS = 1
    HEADERS = 2
    BODY = 3


class _AnswerReader(io.BufferedReader):
    """Reads an answer, and only those headers that matter.

    http.client refuses an answer with more than 100 headers, or with a line of more than 64 kB. Then the events would
    be sent again and again, and the collector would count them each time. So a long line is cut, and a header that
    nobody needs is left out.
    """

    part = _Part.STATUS
    #: Whether the headers end where the connection breaks, because the status has been read and decides.
    status_decides = False
    #: Whether they ended so.
    broken = False
    #: Whether something came after the answer, known when it is closed.
    surplus = False
    _kept = 0
    _keeps = False

    raw: _UntilDeadline

    def close(self) -> None:
        if not self.closed:
            self.raw.ended = True
            self.surplus = bool(self.peek(1))
        super().close()

    def readline(self, size: int | None = -1, /) -> bytes:
        if self.part is _Part.BODY:
            return super().readline(size)
        if self.part is _Part.STATUS:
            return self._cut_line()
        try:
            return self._header()
        except (OSError, http.client.HTTPException) as error:
            raise_of_signal_handler(error)
            if self.part is _Part.INTERIM_HEADERS or not self.status_decides:
                raise
            self.broken = True
            return b""

    def begin_headers(self, part: _Part) -> None:
        self.part = part
        self._kept, self._keeps = 0, False

    def _cut_line(self) -> bytes:
        line = rest = super().readline(_LINE_LIMIT)
        while rest and not rest.endswith(b"\n"):
            rest = super().readline(_LINE_LIMIT)
        return line if line.endswith(b"\n") or not line else line + b"\r\n"

    def _header(self) -> bytes:
        """The next header that is asked for, or the end of them."""
        while True:
            line = self._cut_line()
            if line in (b"\r\n", b"\n", b""):
                return line
            if line[:1] not in b" \t":
                name = line.partition(b":")[0].strip().lower()
                self._keeps = name in _HEADERS and self._kept < _KEPT_LIMIT
            if self._keeps:
                self._kept += 1
                return line


class _BoundedSocket:
    """What `http.client.HTTPResponse` wants of a socket: a file to read from."""

    def __init__(self, sock: Any, deadline: float, begun: bytes = b"") -> None:
        self._raw = _UntilDeadline(sock, deadline, begun)

    def makefile(self, _mode: str) -> _AnswerReader:
        return _AnswerReader(self._raw)


class Response(http.client.HTTPResponse):
    """An answer that skips every interim answer before it. http.client skips only 100.

    It takes a 103 for the answer itself, and then the answer to the next request would be this one's.
    """

    _interim = 0
    fp: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reader: _AnswerReader = self.fp

    @property
    def began(self) -> bool:
        """Whether a byte of it came."""
        return self._reader.raw.began

    @property
    def surplus(self) -> bool:
        """Whether something came after it that may be taken for the answer to the next request."""
        return self._reader.surplus

    def _read_status(self) -> tuple[str, int, str]:
        reader: _AnswerReader = self.fp
        while True:
            reader.part = _Part.STATUS
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == 101:
                reader.begin_headers(_Part.HEADERS)
                return version, status, reason
            self._interim += 1
            if self._interim > INTERIM_LIMIT:
                raise http.client.HTTPException(f"more than {INTERIM_LIMIT} interim answers")
            reader.begin_headers(_Part.INTERIM_HEADERS)
            http.client.parse_headers(self.fp)

    def begin(self) -> None:
        reader: _AnswerReader = self.fp
        reader.status_decides = True
        super().begin()
        reader.part = _Part.BODY
        lengths = ",".join(self.headers.get_all("content-length") or ()).split(",")
        if len({length.strip() for length in lengths}) > 1:
            # The end of the answer is not known. urllib3 would raise.
            del self.headers["content-length"]
            self.length = None
            reader.broken = True
        if self._interim or self.status == 101 or reader.broken:
            self.will_close = True

    def read_rest(self) -> bool:
        """Read up to `ANSWER_LIMIT` bytes of the body. Returns whether the connection can be used again.

        The status has been answered, so nothing that happens here changes the outcome.
        """
        try:
            read_out(self.read)
        except (OSError, http.client.HTTPException) as error:
            raise_of_signal_handler(error)
            return False
        # http.client raises nothing for a body that is cut short. It only knows that there should be more.
        return self.isclosed() and not self.will_close and not self.length and not self.surplus


def read_out(read: Callable[[int], bytes]) -> bool:
    """Read what is left of a body, up to `ANSWER_LIMIT` bytes; whether that was all.

    Args:
        read: gives up to so many bytes, and none at the end.
    """
    left = ANSWER_LIMIT
    while left > 0:
        data = read(min(left, 16384))
        if not data:
            return True
        left -= len(data)
    return False


def answer_of(sock: Any, deadline: float, method: str, begun: bytes = b"") -> Response:
    """An answer for http.client to read.

    Args:
        deadline: on the monotonic clock, for all of it.
        begun: what has been read of it from the socket.
    """
    bounded: Any = _BoundedSocket(sock, deadline, begun)
    return Response(bounded, method=method)
