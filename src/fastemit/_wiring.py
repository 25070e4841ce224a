"""Makes the parts of an emitter from its settings: the transport, and the files of a spool."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fastemit._interfaces import RequestTransport
from fastemit._settings import Settings

if TYPE_CHECKING:
    from fastemit._spool import Spool
    from fastemit._transport import Endpoint


def transport_of(address: Endpoint, settings: Settings, connections: int) -> RequestTransport:
    """Make the transport of an emitter with so many senders."""
    if settings.session is not None:
        from fastemit._transport import SessionTransport

        return SessionTransport(settings.session, address, settings.request_timeout, settings.headers)
    # Imported here, because the import of urllib3 opens a socket, to see whether there is IPv6.
    from fastemit._transport import HttpTransport

    return HttpTransport(
        address,
        settings.request_timeout,
        connections=connections,
        headers=settings.headers,
        ca_certs=settings.ca_certs,
        pool_manager=settings.pool_manager,
    )


def open_spool(path: str, endpoint: str, method: str, sync: float | None, any_endpoint: bool = False) -> Spool:
    """Open the files of an emitter that keeps its events in this directory.

    Raises:
        ValueError: the directory cannot be used. The message says why.
        NotImplementedError: the system has no such files.
    """
    if sys.platform == "win32":
        raise NotImplementedError("spool is for Linux and macOS, and not for Windows")
    # Imported here, because Windows does not have what this module needs.
    from fastemit._spool import Spool

    return Spool(path, endpoint, method, sync, any_endpoint=any_endpoint)
