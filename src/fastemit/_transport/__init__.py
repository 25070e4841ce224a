"""The transports over HTTP: where a batch goes, and what came of it.

`HttpTransport` sends over urllib3's pooled connections, and `SessionTransport` through a user's `requests.Session`.
Both know the collector's address, its certificates and proxies. They know nothing of threads, queues or retries: a
request is made in the thread that asks for it, and its `Outcome` says what the collector answered. Emitters and the
Celery worker make transports, and use only the names below.
"""

from typing import TYPE_CHECKING, Any

from fastemit._transport.endpoint import Endpoint, parse_endpoint

__all__ = ["Endpoint", "HttpTransport", "SessionTransport", "parse_endpoint"]

if TYPE_CHECKING:
    from fastemit._transport.http import HttpTransport
    from fastemit._transport.session import SessionTransport
else:

    def __getattr__(name: str) -> Any:
        # They are imported with the first emitter of their kind and not with the package. Also, urllib3 opens a socket
        # at its import to see whether there is IPv6.
        if name == "HttpTransport":
            from fastemit._transport.http import HttpTransport

            return HttpTransport
        if name == "SessionTransport":
            from fastemit._transport.session import SessionTransport

            return SessionTransport
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
