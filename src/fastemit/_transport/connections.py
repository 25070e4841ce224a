"""urllib3's connections, with what a client that must not lose events needs in addition.

An answer is bounded as a whole, and counts by its status however its headers are; interim answers are skipped; a
connection that was idle for long, or is old, is replaced; and one that proves closed although it had been answered
before is told apart, since it costs a resend and no backoff.
"""

from __future__ import annotations

import http.client
import io
import os
import queue
import socket
import threading
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from fastemit._interfaces import ANSWER_LIMIT
from fastemit._process import sockets
from fastemit._signals import raise_of_signal_handler
from fastemit._time import monotonic
from fastemit._transport.cutoff import Cuttable, CuttableTLS

if TYPE_CHECKING:
    from fastemit._transport.exchange import Answer

#: Seconds after which an idle connection is not trusted. Load balancers close theirs after 60 (AWS ALB's default).
IDLE_LIMIT: Final = 50.0
#: Seconds after which a connection is replaced between two requests. A name may have moved meanwhile, and a bundle of
#: authorities may have changed, while the old address still answers.
AGE_LIMIT: Final = 300.0
#: Bytes of one answer, head and all. http.client bounds lines and headers, but not the trailers after the last chunk,
#: which it reads to their end: a server that sends them for ever would be listened to until the timeout, at full speed.
WHOLE_ANSWER_LIMIT: Final = 1024 * 1024
#: Interim answers (1xx) before the final one; a server that sends more is not one to talk to.
INTERIM_LIMIT: Final = 100
#: The headers that say how an answer ends, and what the delivery asks for. All others are read and forgotten.
_HEADERS: Final = frozenset(
    {b"connection", b"content-length", b"keep-alive", b"location", b"proxy-connection", b"retry-after"}
    | {b"transfer-encoding"}
)
#: Bytes of one line of the head that are looked at, and lines of headers that are kept.
_LINE_LIMIT: Final = 8192
_KEPT_LIMIT: Final = 32
#: Whether a plain socket takes several pieces in one call; Windows has none of it.
_GATHERS: Final = hasattr(socket.socket, "sendmsg")


class Exchange(threading.local):
    """What the layers of one request under way tell each other; each thread has its own."""

    read_timeout: float = 0.0
    #: Goes behind the address that urllib3 is given: a query that is encoded already, which it need not look through.
    query: str = ""
    #: Bytes may have left on an established connection.
    under_way: bool = False
    #: No byte of an answer came, on a connection that had been answered before.
    stale: bool = False
    #: The head that urllib3 made for this request, where the lean way sent it.
    head: bytes = b""
    #: What came back, where the lean way has read it to its end.
    answer: Answer | None = None


class _UntilDeadline(io.RawIOBase):
    """A socket's reading side that gives up at a point in time, however often something arrives before, or how much.

    Args:
        begun: what somebody else has read already, which comes first.
    """

    def __init__(self, sock: Any, deadline: float, begun: bytes = b"") -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline
        self._begun = begun
        self._bytes = 0
        #: Nothing more is to be read.
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
    """Reads an answer, and of its head what matters.

    http.client refuses an answer with more than 100 headers, or with a line of more than 64 kB: its events would be
    sent again and again, and counted by the collector each time. So a long line is cut, and a header that nobody asks
    for is left out.
    """

    part = _Part.STATUS
    #: Whether the headers end where the line breaks, since the status has been read and decides.
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


class _Response(http.client.HTTPResponse):
    """An answer that skips every interim one before it, not just 100 as http.client does.

    http.client takes a 103 for the answer itself, and the answer to the next request is then this one's.
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
            # Nobody knows where it ends. urllib3 would raise.
            del self.headers["content-length"]
            self.length = None
            reader.broken = True
        if self._interim or self.status == 101 or reader.broken:
            self.will_close = True

    def read_rest(self) -> bool:
        """Read up to `ANSWER_LIMIT` bytes of the body. Whether the connection can be used again after it.

        The status has been answered, so nothing that happens here changes the outcome.
        """
        left = ANSWER_LIMIT
        try:
            while left > 0:
                data = self.read(min(left, 16384))
                if not data:
                    break
                left -= len(data)
        except (OSError, http.client.HTTPException) as error:
            raise_of_signal_handler(error)
            return False
        # http.client says nothing of a body that is cut short, but that there was more to come.
        return self.isclosed() and not self.will_close and not self.length and not self.surplus


def answer_of(sock: Any, deadline: float, method: str, begun: bytes = b"") -> _Response:
    """An answer for http.client to read.

    Args:
        deadline: on the monotonic clock, for all of it.
        begun: what of it has been read from the socket.
    """
    bounded: Any = _BoundedSocket(sock, deadline, begun)
    return _Response(bounded, method=method)


class _Watchful:
    """What both kinds of connection have in addition; see the module."""

    exchange: Exchange
    sock: Any
    timeout: Any
    _answers = 0
    _answered_at = 0.0
    _connected_at = 0.0
    _process = 0
    #: The last answer that http.client has read here.
    _response: _Response | None = None

    def response_class(self, sock: Any, debuglevel: int = 0, method: str | None = None) -> _Response:
        self._response = response = answer_of(sock, monotonic() + self.exchange.read_timeout, method or "")
        return response

    @property
    def is_connected(self) -> bool:
        # urllib3 asks before it uses a connection again, and replaces one that is not.
        now = monotonic()
        if self._answers and (now - self._answered_at > IDLE_LIMIT or now - self._connected_at > AGE_LIMIT):
            return False
        if self._response is not None and self._response.surplus:
            return False
        # What OpenSSL has decrypted already is not to be seen at the socket.
        pending = getattr(getattr(self.sock, "sslobj", self.sock), "pending", None)
        if pending is not None and pending():
            return False
        return super().is_connected  # type: ignore[misc,no-any-return]

    def _new_conn(self) -> Any:
        self._process = process = os.getpid()
        sock = super()._new_conn()  # type: ignore[misc]
        sockets.own(sock, process)
        if process != os.getpid():
            # A signal handler has forked meanwhile: in the child the socket is the parent's.
            sockets.detach(sock)
            raise ConnectionAbortedError("the process was forked while it connected")
        return sock

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._answers = 0
        self._response = None
        self._connected_at = monotonic()
        # urllib3 leaves the connect timeout on while it sends; a large body over a slow line may take longer.
        self.sock.settimeout(self.exchange.read_timeout)
        self.exchange.under_way = True

    def close(self) -> None:
        # A fork that ran no Python hook (uWSGI) may not have been noticed before urllib3's finalizers run.
        if self.sock is not None and self._process != os.getpid():
            sockets.detach(self.sock)
        super().close()  # type: ignore[misc]

    def begin_request(self) -> None:
        """A request begins on a connection that is there."""
        super().begin_request()  # type: ignore[misc]
        self.timeout = self.exchange.read_timeout
        self.exchange.under_way = True

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self.begin_request()
        super().request(method, url + self.exchange.query, *args, **kwargs)  # type: ignore[misc]

    def getresponse(self) -> Any:
        try:
            response = super().getresponse()  # type: ignore[misc]
        except ConnectionError:
            # http.client.RemoteDisconnected is one: the server closed without a byte of an answer.
            began = self._response is not None and self._response.began
            self.exchange.stale = self._answers > 0 and not began
            raise
        self._answers += 1
        self._answered_at = monotonic()
        return response


class _Idle:
    """The connections of a pool that nobody uses, the latest on top, as `queue.LifoQueue` keeps them for urllib3.

    That one takes its lock in a function of Python's. A signal handler that raises there (Celery's soft time limit, an
    alarm) leaves it locked, and whoever sends next waits for ever. Here each step is one call of C's, which no handler
    runs within.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._connections: list[Any] = []

    def qsize(self) -> int:
        return len(self._connections)

    def get(self, **_: Any) -> Any:
        """The one on top; `queue.Empty` tells urllib3 to make another, since its pools here never wait for one."""
        try:
            return self._connections.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, connection: Any, **_: Any) -> None:
        if len(self._connections) >= self._most:
            raise queue.Full
        self._connections.append(connection)


def pool_classes(exchange: Exchange, *over: type) -> dict[str, Any]:
    """urllib3's pools, with connections that are watchful.

    Args:
        over: classes that each connection inherits from before all others.
    """
    plain = type(
        "Connection", (*over, _Watchful, Cuttable, HTTPConnection), {"exchange": exchange, "gathers": _GATHERS}
    )
    tls = type("TLSConnection", (*over, _Watchful, CuttableTLS, HTTPSConnection), {"exchange": exchange})
    return {
        "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": plain, "QueueCls": _Idle}),
        "https": type("TLSPool", (HTTPSConnectionPool,), {"ConnectionCls": tls, "QueueCls": _Idle}),
    }
