"""Connections that can be cut off by another thread while they connect, shake hands, send or wait.

When the time of a `close` is up, the delivery cuts off its requests that are under way: it shuts the socket down, which
ends the wait of the other thread.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from fastemit._interfaces import Cutoff


def _shut_down(sock: Any) -> None:
    """Shut a socket down, whatever is around it."""
    # TLS within TLS is an object around a socket.
    inner = getattr(sock, "socket", None)
    if inner is not None and not callable(inner):
        return _shut_down(inner)
    # The method of the plain class, because that of TLS would change state that the other thread uses. A socket that
    # is closed meanwhile, or was never connected, raises OSError.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Cuttable:
    """To be inherited before one of urllib3's connections: `Cutoff.current` can end what it does.

    The look-up of a name cannot be cut off, because there is no socket yet. The connection ends after it.
    """

    sock: Any
    host: str
    port: int
    timeout: Any
    source_address: Any
    socket_options: Any
    _dns_host: str

    def _new_conn(self) -> Any:
        cutoff = Cutoff.current()
        if cutoff is None:
            return super()._new_conn()  # type: ignore[misc]
        connection: Any = self
        try:
            return self._connect_to_any(cutoff)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, connection, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(
                self, f"Connection to {self.host} timed out. (connect timeout={self.timeout})"
            ) from error
        except OSError as error:
            raise NewConnectionError(connection, f"Failed to establish a new connection: {error}") from error

    def _connect_to_any(self, cutoff: Cutoff) -> Any:
        """What `urllib3.util.connection.create_connection` does, which gives its socket away only at the end."""
        host = self._dns_host.strip("[]")
        try:
            host.encode("idna")
        except UnicodeError:
            raise LocationParseError(f"'{host}', label empty or too long") from None
        failed: OSError = OSError("getaddrinfo returns an empty list")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, self.port, allowed_gai_family(), socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(self.timeout)
                if self.source_address:
                    sock.bind(self.source_address)
                cutoff.watch(sock, _shut_down)
                sock.connect(address)
                cutoff.check()
                return sock
            except OSError as error:
                sock.close()
                failed = error
                cutoff.check()
            except BaseException:
                sock.close()
                raise
        try:
            raise failed
        finally:
            del failed  # or it would refer to itself by its traceback

    def connect(self) -> None:
        cutoff = Cutoff.current()
        super().connect()  # type: ignore[misc]
        if cutoff is not None:
            cutoff.watch(self.sock, _shut_down)

    def begin_request(self) -> None:
        """A request begins on a connection that is there."""
        cutoff = Cutoff.current()
        if cutoff is not None:
            cutoff.watch(self.sock, _shut_down)


class CuttableTLS(Cuttable):
    """The same for TLS, whose handshake takes the number of the socket over to another object."""

    def connect(self) -> None:
        self._second: Any = None
        try:
            super().connect()
        finally:
            second, self._second = self._second, None
            if second is not None:
                second.close()

    def _new_conn(self) -> Any:
        sock = super()._new_conn()
        cutoff = Cutoff.current()
        if cutoff is not None:
            # A second number of the same connection, for as long as nobody else has it.
            self._second = sock.dup()
            cutoff.watch(self._second, _shut_down)
        return sock
