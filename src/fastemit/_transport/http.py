"""Where batches go over HTTP: `HttpTransport`, which is urllib3."""

from __future__ import annotations

import base64

# Every connection looks up its host's name in this encoding. It is imported before there are threads, because a fork in
# the middle of an import leaves a module lock in the child that nobody will ever release. So is the module that reads
# the date of a `Retry-After`.
import email.utils  # noqa: F401
import encodings.idna  # noqa: F401
import http.client
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import BaseSSLError
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError, SSLError
from urllib3.util import Timeout, make_headers, parse_url

from fastemit._interfaces import CONTENT_TYPE, DEFAULT_TIMEOUT, Cutoff, Outcome, RequestTransport
from fastemit._process import sockets
from fastemit._signals import raise_of_signal_handler
from fastemit._transport.answers import Answer
from fastemit._transport.connections import Exchange, pool_classes
from fastemit._transport.exchange import Head, Lean, head_with_length, head_with_query
from fastemit._transport.proxies import proxy_for
from fastemit._transport.responses import read_out
from fastemit._transport.tls import Trust, trust_in
from fastemit._version import __version__
from fastemit.stats import described_without_secrets

if TYPE_CHECKING:
    from fastemit._transport.endpoint import Endpoint


class HttpTransport(RequestTransport):
    """POST and GET over urllib3's pooled connections.

    urllib3 makes the first request of a connection. Further requests use only its pool. A user's pool manager makes all
    of them.

    Thread safety: any number of threads may send at once; each uses a connection of its own.

    Args:
        endpoint: the collector.
        timeout: (connect, read) in seconds; None for `DEFAULT_TIMEOUT`.
        connections: the most connections that are kept open.
        headers: added to each request, in place of the transport's own User-Agent and Authorization.
        ca_certs: file or directory of certificate authorities; None for the environment's or the system's.
        pool_manager: a `urllib3.PoolManager` to send through, with its own settings and its own bounds on an answer.
    """

    #: Whether `exchange` sends requests and reads plain answers; otherwise http.client does, as with unusual answers.
    lean = True

    def __init__(
        self,
        endpoint: Endpoint,
        timeout: tuple[float, float] | None = None,
        connections: int = 1,
        headers: Mapping[str, str] | None = None,
        ca_certs: str | None = None,
        pool_manager: Any = None,
    ) -> None:
        self.timeout = timeout
        self._endpoint = endpoint
        self._connections = connections
        self._headers = {"User-Agent": f"fastemit/{__version__}"}
        if endpoint.username is not None:
            # They are sent in UTF-8 (RFC 7617). urllib3's make_headers knows only latin-1.
            userpass = f"{endpoint.username}:{endpoint.password or ''}".encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(userpass).decode("ascii")
        for name, value in (headers or {}).items():
            self._headers = {key: text for key, text in self._headers.items() if key.lower() != name.lower()}
            self._headers[name] = value
        if endpoint.zoned and not any(name.lower() == "host" for name in self._headers):
            # Python 3.10 would send the zone id with it.
            self._headers["Host"] = endpoint.authority
        self._post_headers = {**self._headers, "Content-Type": CONTENT_TYPE}
        self._users_manager = pool_manager
        self._exchange = Exchange()
        self._proxy = None if pool_manager is not None else proxy_for(endpoint)
        self._trust: Trust | None = None
        if pool_manager is None and (endpoint.scheme == "https" or (self._proxy or "").startswith("https:")):
            self._trust = trust_in(ca_certs)
        #: Pools of the process that this one was forked from. Their sockets have been detached.
        self._inherited: list[Any] = []
        self._manager = self._new_manager()
        self._open: Any = None
        self._pool: Any = None
        #: What the heads of further requests are made from, by method.
        self._heads: dict[str, Head] = {}
        self._aim()

    def _new_manager(self) -> Any:
        if self._users_manager is not None:
            return self._users_manager
        settings: dict[str, Any] = {
            "num_pools": 2,
            # A few more than there are senders, for calls such as `http_post` beside them, because urllib3 warns when
            # a connection finds its pool full.
            "maxsize": self._connections + 8,
            "ssl_context": self._trust,
        }
        manager: urllib3.PoolManager
        if self._proxy is None:
            manager = urllib3.PoolManager(**settings)
        else:
            auth = parse_url(self._proxy).auth
            settings["proxy_headers"] = make_headers(proxy_basic_auth=auth) if auth else None
            context: Any = self._trust
            manager = urllib3.ProxyManager(self._proxy, proxy_ssl_context=context, **settings)
        manager.pool_classes_by_scheme = pool_classes(self._exchange, *((Lean,) if self.lean else ()))
        return manager

    def _aim(self) -> None:
        """Choose who makes the requests: the pool itself, if there is one, because then no URL has to be parsed."""
        if self._users_manager is None and self._proxy is None:
            endpoint = self._endpoint
            # A manager lowers and escapes the letters of a host, which would spoil the name of a zone.
            host = endpoint.host.partition("%")[0]
            self._open = self._pool = self._manager.connection_from_host(host, endpoint.port, endpoint.scheme)
            if endpoint.zoned:
                self._open.host = endpoint.host
            self._address = endpoint.path
        else:
            self._open = self._manager
            self._address = self._endpoint.url if self._proxy is None else self._endpoint.url_for_others
            if self._users_manager is None:
                # The proxy that the manager sends through.
                self._pool = self._manager.connection_from_url(self._address)

    def post(self, body: bytes | memoryview, cap: float | None = None) -> Outcome:
        return self._request("POST", "", body, cap)

    def get(self, query: str, cap: float | None = None) -> Outcome:
        return self._request("GET", f"?{query}", None, cap)

    def _request(self, method: str, query: str, body: bytes | memoryview | None, cap: float | None) -> Outcome:
        connect, read = self.timeout or DEFAULT_TIMEOUT
        if cap is not None:
            connect, read = min(connect, cap), min(read, cap)
        exchange = self._exchange
        exchange.read_timeout = read
        # A request by hand may come from a signal handler that has interrupted this work.
        exchange.meanwhile = None if Cutoff.current() is None else self.meanwhile
        # Each stale connection costs one resend and leaves the pool. So this ends with a new connection, if not before.
        for _ in range(self._connections + 9):
            # With a user's manager nobody knows. A read timeout means that the request was under way.
            exchange.under_way = self._users_manager is not None
            exchange.stale = False
            try:
                answer = self._go_on(method, query, body)
                if answer is None:
                    answer = self._begin(method, query, body, Timeout(connect=connect, read=read))
            except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
                raise_of_signal_handler(error)
                # This is a child that was forked meanwhile, and the request is the parent's.
                if exchange.stale and exchange is self._exchange:
                    continue
                return Outcome(
                    error=described_without_secrets(error), timed_out=exchange.under_way and _is_timeout(error)
                )
            return Outcome(status=answer.status, retry_after=answer.retry_after, location=answer.location)
        return Outcome(error="the server closed every connection that it was sent a request on")

    def _go_on(self, method: str, query: str, body: bytes | memoryview | None) -> Answer | None:
        """A request over a connection that has been used before; None if there is no such connection."""
        head = self._heads.get(method)
        pool, connection = self._pool, None
        idle = None if head is None else pool.pool
        if head is None or idle is None:
            return None
        try:
            connection = idle.take_connected()
            if connection is None:
                return None
            text = head.for_query(query[1:]) if body is None else head.for_body(len(body))
            answer: Answer = connection.converse(method, text, body)
            if answer.keeps:
                # It has no owner for a moment. What a signal handler raises now must not close what others use.
                kept, connection = connection, None
                pool._put_conn(kept)
            return answer
        except (OSError, http.client.HTTPException) as error:
            raise self._as_of_urllib3(error) from error
        finally:
            if connection is not None:
                connection.close()

    def _as_of_urllib3(self, error: OSError | http.client.HTTPException) -> Exception:
        """The error that urllib3 would raise, so that the log has the same line for the same fault."""
        if isinstance(error, TimeoutError):
            read = self._exchange.read_timeout
            return ReadTimeoutError(self._pool, self._address, f"Read timed out. (read timeout={read})")
        if isinstance(error, BaseSSLError):
            return SSLError(error)
        return ProtocolError("Connection aborted.", error)

    def _begin(self, method: str, query: str, body: bytes | memoryview | None, timeout: Timeout) -> Answer:
        """A request that urllib3 makes, mostly on a new connection."""
        exchange, address = self._exchange, self._address
        exchange.answer = None
        if self._users_manager is None:
            exchange.query = query
        else:
            address += query
        response = self._open.urlopen(
            method,
            address,
            body=body,
            headers=self._headers if body is None else self._post_headers,
            timeout=timeout,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        answer, exchange.answer = exchange.answer, None
        if answer is None:
            answer = Answer(
                response.status, response.headers.get("Retry-After"), response.headers.get("Location"), False
            )
            _finish(response)
            return answer
        if answer.keeps:
            response.release_conn()
        else:
            response.close()
        if method not in self._heads:
            first = exchange.head
            head = head_with_query(first, query[1:]) if body is None else head_with_length(first, len(body))
            if head is not None:
                self._heads[method] = head
        return answer

    def close(self) -> None:
        if self._users_manager is None:
            if self._open is not self._manager:
                self._open.close()
            self._manager.clear()
            self._aim()

    def after_fork(self) -> None:
        sockets.detach_inherited()
        if self._users_manager is None:
            self._inherited.append(self._manager)
            self._exchange = Exchange()
            self._manager = self._new_manager()
            self._aim()
        else:
            self._inherited.append(sockets.renewed(self._users_manager))


def _is_timeout(error: BaseException) -> bool:
    if isinstance(error, ProtocolError) and len(error.args) > 1:
        # It timed out while the body was sent.
        return isinstance(error.args[1], TimeoutError)
    return isinstance(error, ReadTimeoutError)


def _finish(response: Any) -> None:
    """Read the rest of an answer, so that its connection can be used again. Close it if there is too much.

    The status has been answered, so nothing that happens here changes the outcome.
    """
    try:
        if not read_out(response.read):
            response.close()
    except (HTTPError, http.client.HTTPException, OSError) as error:
        response.close()
        raise_of_signal_handler(error)
