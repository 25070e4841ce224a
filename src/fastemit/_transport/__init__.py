"""The transports over HTTP: where a batch goes, and what came of it.

`HttpTransport` sends over urllib3's pooled connections, `SessionTransport` through a `requests.Session` of the user's.
Both know the collector's address, its certificates and proxies, and nothing of threads, queues or retries: a request is
made in the thread that asks for it, and its `Outcome` says what the collector answered. Emitters and the Celery worker
make transports; only the names below are for them.
"""

from typing import TYPE_CHECKING, Any

from fastemit._transport.endpoint import Endpoint, parse_endpoint
from fastemit._transport.session import SessionTransport

__all__ = ["Endpoint", "HttpTransport", "SessionTransport", "parse_endpoint"]

if TYPE_CHECKING:
    from fastemit._transport.http import HttpTransport
else:

    def __getattr__(name: str) -> Any:
        # With the first emitter and not with the package: urllib3 opens a socket when it is imported, to see whether
        # there is IPv6.
        if name != "HttpTransport":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from fastemit._transport.http import HttpTransport

        return HttpTransport
