"""Sending through a `requests.Session` of the user's, with its cookies, headers, auth, adapters and proxies.

requests is not imported here, because whoever gives a session has done so.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastemit._interfaces import ANSWER_LIMIT, CONTENT_TYPE, DEFAULT_TIMEOUT, Outcome, RequestTransport
from fastemit._process import sockets
from fastemit._signals import raise_of_signal_handler
from fastemit.stats import described_without_secrets, say

if TYPE_CHECKING:
    from fastemit._transport.endpoint import Endpoint


class SessionTransport(RequestTransport):
    """Makes each request with `session.post` or `session.get`.

    Thread safety: that of the session. requests says nothing about it. In practice several threads may send through one
    session as long as nobody changes it.

    Args:
        session: anything with `post` and `get` like a `requests.Session`.
        endpoint: where to.
        timeout: (connect, read) in seconds; None for the default. The read part bounds each receive, as in requests.
        headers: added to each request.

    Raises:
        ValueError: the endpoint has a zone id, which requests cannot look up.
    """

    def __init__(
        self,
        session: Any,
        endpoint: Endpoint,
        timeout: tuple[float, float] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if endpoint.zoned:
            raise ValueError(
                f"endpoint must be without a zone id where there is a session, not {endpoint.url!r}: requests looks up "
                "its %25 as it is, and never finds it; leave the session out, or use a pool_manager"
            )
        # requests imports this one at its first request. A fork in the middle would leave the child a locked import.
        # The delivery needs the other for the date of a `Retry-After`.
        import email.utils  # noqa: F401
        import netrc  # noqa: F401

        self.timeout = timeout
        self._session = session
        self._endpoint = endpoint
        self._headers = dict(headers or {})
        self._inherited: list[Any] = []

    def post(self, body: bytes | memoryview, cap: float | None = None) -> Outcome:
        # As bytes: an adapter or an auth of the user's may look at the body, or send it again.
        return self._request(
            self._session.post, cap, data=bytes(body), headers={"Content-Type": CONTENT_TYPE, **self._headers}
        )

    def get(self, query: str, cap: float | None = None) -> Outcome:
        from urllib.parse import parse_qs, urlencode  # requests has it

        # As a mapping, since requests merges nothing else with the session's own `params`.
        params: Any = parse_qs(query, keep_blank_values=True)
        if urlencode(params, doseq=True) != query:
            # The bytes are no UTF-8.
            params = query
        return self._request(self._session.get, cap, params=params, headers=dict(self._headers))

    def _request(self, call: Any, cap: float | None, **how: Any) -> Outcome:
        connect, read = self.timeout or DEFAULT_TIMEOUT
        if cap is not None:
            connect, read = min(connect, cap), min(read, cap)
        if self._endpoint.username is not None:
            how["auth"] = (self._endpoint.username, self._endpoint.password or "")
        try:
            # Streamed, because an answer without an end would otherwise be read into memory.
            response = call(self._endpoint.url, timeout=(connect, read), allow_redirects=False, stream=True, **how)
        except Exception as error:  # noqa: BLE001 - an adapter of the user's may raise anything; the events are kept
            raise_of_signal_handler(error)
            return Outcome(error=described_without_secrets(error), timed_out=_is_read_timeout(error))
        try:
            headers = getattr(response, "headers", None) or {}
            return Outcome(
                status=int(response.status_code),
                retry_after=_text(headers.get("Retry-After")),
                location=_text(headers.get("Location")),
            )
        finally:
            _finish(response)

    def close(self) -> None:
        """Does nothing, because the user closes the session."""

    def after_fork(self) -> None:
        """Give the session's adapters new pools, and its cookies a lock that no thread of the parent holds."""
        cookies: Any = getattr(self._session, "cookies", None)
        if hasattr(cookies, "_cookies_lock"):
            cookies._cookies_lock = threading.RLock()
        adapters = getattr(self._session, "adapters", None)
        for adapter in adapters.values() if isinstance(adapters, dict) else ():
            managers = [
                getattr(adapter, "poolmanager", None),
                *(getattr(adapter, "proxy_manager", None) or {}).values(),
            ]
            self._inherited += [sockets.renewed(manager) for manager in managers]


def _text(value: object) -> str | None:
    # A session that is a mock answers with more mocks.
    return value if isinstance(value, str) else None


def _is_read_timeout(error: BaseException) -> bool:
    requests = sys.modules.get("requests")
    return requests is not None and isinstance(error, requests.exceptions.ReadTimeout)


def _finish(response: Any) -> None:
    """Read the rest of an answer so that its connection can be used again, unless it goes on too long."""
    try:
        left = ANSWER_LIMIT
        for chunk in response.iter_content(16384):
            left -= len(chunk)
            if left <= 0:
                break
        response.close()
    except Exception as error:  # noqa: BLE001 - the status is known, and nothing here changes the outcome
        raise_of_signal_handler(error)
        say(logging.DEBUG, "the rest of an answer was not read: %s", type(error).__name__)
