"""urllib3's connections, with what a client that must not lose events needs in addition.

`responses.py` reads the answers. A connection that was idle for long, or is old, is replaced. If the server has closed
a connection that was used before, the request is sent again at once, without a backoff.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import wait_for_read

from fastemit._process import sockets
from fastemit._time import monotonic
from fastemit._transport.cutoff import Cuttable, CuttableTLS
from fastemit._transport.responses import Response, answer_of

if TYPE_CHECKING:
    from fastemit._transport.answers import Answer

#: After so many seconds an idle connection is not used again. Load balancers close theirs after 60 (AWS ALB's default).
IDLE_LIMIT: Final = 50.0
#: After so many seconds a connection is replaced between two requests. The name may lead elsewhere by then, or the
#: authorities may have changed, although the old address still answers.
AGE_LIMIT: Final = 300.0
#: Whether a plain socket takes several pieces in one call. On Windows it does not.
_GATHERS: Final = hasattr(socket.socket, "sendmsg")


class Exchange(threading.local):
    """What the layers tell each other about the request under way. Each thread has its own."""

    read_timeout: float = 0.0
    #: See `RequestTransport.meanwhile`.
    meanwhile: Callable[[], None] | None = None
    #: The query, already encoded. It is added after urllib3 has looked at the address, which saves it the work.
    query: str = ""
    #: There is a connection, and bytes of the request may have left.
    under_way: bool = False
    #: The connection has been used before, and no byte of an answer came.
    stale: bool = False
    #: The head that urllib3 made for this request, if `exchange.py` sent it.
    head: bytes = b""
    #: The answer, if `exchange.py` has read all of it.
    answer: Answer | None = None


class _Watchful:
    """What both kinds of connection have in addition to urllib3's; see the module."""

    exchange: Exchange
    sock: Any
    timeout: Any
    _answers = 0
    _answered_at = 0.0
    _connected_at = 0.0
    _process = 0
    #: The last answer that http.client has read here.
    _response: Response | None = None

    def response_class(self, sock: Any, debuglevel: int = 0, method: str | None = None) -> Response:
        self._response = response = answer_of(sock, monotonic() + self.exchange.read_timeout, method or "")
        return response

    @property
    def is_connected(self) -> bool:
        # urllib3 asks before it uses a connection again, and replaces one that is not.
        if self.sock is None:
            return False
        now = monotonic()
        if self._answers and (now - self._answered_at > IDLE_LIMIT or now - self._connected_at > AGE_LIMIT):
            return False
        if self._response is not None and self._response.surplus:
            return False
        # Bytes that OpenSSL has decrypted already cannot be seen at the socket.
        pending = getattr(getattr(self.sock, "sslobj", self.sock), "pending", None)
        if pending is not None and pending():
            return False
        # What can be read now is the end of the connection, or belongs to no answer.
        return not wait_for_read(self.sock, timeout=0.0)

    def _new_conn(self) -> Any:
        self._process = process = os.getpid()
        sock = super()._new_conn()  # type: ignore[misc]
        sockets.own(sock, process)
        if process != os.getpid():
            # A signal handler has forked meanwhile, so the socket belongs to the parent.
            sockets.detach(sock)
            raise ConnectionAbortedError("the process was forked while it connected")
        return sock

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._answers = 0
        self._response = None
        self._connected_at = monotonic()
        # urllib3 keeps the connect timeout while it sends, but a large body over a slow line may take longer.
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
    """The idle connections of a pool, the latest on top. urllib3 itself uses `queue.LifoQueue` for them.

    `LifoQueue` takes its lock in Python code. If a signal handler raises there (Celery's soft time limit, an alarm),
    the lock stays taken, and whoever sends next waits for ever. Here each step is one call in C, and no signal handler
    runs in the middle of it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._connections: list[Any] = []

    def qsize(self) -> int:
        return len(self._connections)

    def get(self, **_: Any) -> Any:
        """The connection on top. `queue.Empty` makes urllib3 open a new one, because these pools never wait."""
        try:
            return self._connections.pop()
        except IndexError:
            raise queue.Empty from None

    def take_connected(self) -> Any:
        """The connection on top, if it can be used as it is. Otherwise None, and the next `get` gives it to urllib3."""
        try:
            connection = self._connections.pop()
        except IndexError:
            return None
        # urllib3 fills its pools with None for connections that there may be later.
        if connection is not None and connection.is_connected:
            return connection
        self._connections.append(connection)
        return None

    def put(self, connection: Any, **_: Any) -> None:
        if len(self._connections) >= self._most:
            raise queue.Full
        self._connections.append(connection)


def pool_classes(exchange: Exchange, *over: type) -> dict[str, Any]:
    """urllib3's pools, with the connections of this module.

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
