"""The certificates that TLS connections trust.

The emitters of a process share contexts, which are renewed when the files change.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import ssl
import threading
from typing import Any, Final, NamedTuple

from urllib3.util.ssl_ import create_urllib3_context

from fastemit._process import sockets
from fastemit._system import keep_for_ever
from fastemit.stats import say

_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
#: How many contexts are kept for the next emitter. One takes some 800 kB. Those in use live as long as their emitters.
_KEPT: Final = 16


class _Source(NamedTuple):
    """Where authorities come from.

    Attributes:
        name: what names them, for the log: "ca_certs" or a variable; None for the system.
        path: a file or directory; "" for the system.
    """

    name: str | None
    path: str


_SYSTEM: Final = _Source(None, "")


def _source(ca_certs: str | None) -> _Source:
    """The first of these that is set."""
    if ca_certs is not None:
        # The path is made absolute, so that a later change of the working directory does not matter.
        return _Source("ca_certs", os.path.abspath(ca_certs) if ca_certs else ca_certs)
    for variable in _VARIABLES:
        if path := os.environ.get(variable):
            return _Source(variable, os.path.abspath(path))
    return _SYSTEM


# -- what is on disk ---------------------------------------------------------------------------------------------------


def _stamp(path: str) -> tuple[int, ...] | None:
    """A value that changes when a file or directory is replaced, or written to, or its symbolic link is."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _directory_stamp(path: str) -> object:
    """As `_stamp`, with what the links in a directory lead to, because that may change while the directory does not."""
    entries = []
    with contextlib.suppress(OSError, ValueError):
        entries = [name for name in os.listdir(path) if _HASHED.fullmatch(name)]
    return _stamp(path), [(name, _stamp(os.path.join(path, name))) for name in sorted(entries)]


class _Certifi:
    """The bundle of certifi, which is imported only where the system has no authorities."""

    path: str | None = None


def _state(source: _Source) -> object:
    """A value for the files that a context of this source was made from. If it differs, the context is out of date."""
    if source.path:
        return _directory_stamp(source.path) if os.path.isdir(source.path) else _stamp(source.path)
    paths = ssl.get_default_verify_paths()
    bundles = [paths.cafile, _Certifi.path]
    # A system's directory holds hundreds of links. The tool that changes them makes them all new.
    return [(path, _stamp(path)) for path in (*bundles, paths.capath) if path]


# -- contexts ----------------------------------------------------------------------------------------------------------


def _has_system_authorities(context: ssl.SSLContext) -> bool:
    if context.cert_store_stats()["x509_ca"]:
        return True
    # A directory of authorities is read only when one of them is needed.
    directory = ssl.get_default_verify_paths().capath
    try:
        return directory is not None and any(os.scandir(directory))
    except OSError:
        return False


def _load(context: ssl.SSLContext, source: _Source) -> None:
    name, path = source
    try:
        if os.path.isdir(path):
            # OpenSSL takes any directory, but finds in it only files whose name is their hash.
            if not any(_HASHED.fullmatch(entry) for entry in os.listdir(path)):
                raise ValueError(
                    f"{name} must be a file or directory of PEM certificates, not {path!r}: "
                    "nothing in it is named by its hash, as `openssl rehash` does"
                )
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{name} must be a file or directory of PEM certificates, not {path!r}: {error}") from error


def _load_system(context: ssl.SSLContext) -> None:
    context.load_default_certs()
    if not _has_system_authorities(context):
        try:
            import certifi
        except ImportError:
            raise ValueError(
                "ca_certs must name a file or directory of certificate authorities, since this system has none: "
                "https needs one to verify the collector by (or install certifi)"
            ) from None
        _Certifi.path = certifi.where()
        context.load_verify_locations(cafile=_Certifi.path)


def _new_context(source: _Source) -> ssl.SSLContext:
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.check_hostname = True
    context.set_alpn_protocols(["http/1.1"])
    if source.path:
        _load(context, source)
    else:
        _load_system(context)
    return context


class _Contexts:
    """The contexts of one process, the latest used last.

    A forked child makes its own, because a thread of the parent may have held a lock inside of one, and nobody would
    ever release it in the child.

    Thread safety: any method may be called from any thread. The lock is reentrant, so that a signal handler may make an
    emitter while its own thread makes one. Whoever holds it waits for nothing but the disk.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self._lock = threading.RLock()
        self._known: dict[_Source, tuple[object, ssl.SSLContext]] = {}
        self._complaints: dict[_Source, object] = {}

    def of(self, source: _Source) -> ssl.SSLContext:
        """The context for what is on disk now. Raises `ValueError` if that cannot be used."""
        with self._lock:
            # Their state is noted before they are read, so that a change in between makes them be read again.
            state = _state(source)
            known = self._known.pop(source, None)
            if known is None or known[0] != state:
                known = state, _new_context(source)
                if not source.path:
                    # It may be that of certifi now.
                    known = _state(source), known[1]
            self._known[source] = known
            while len(self._known) > _KEPT:
                self._known.pop(next(iter(self._known)))
            return known[1]

    def complain(self, source: _Source, error: Exception) -> None:
        """Log once what is wrong with the files as they are."""
        state = _state(source)
        with self._lock:
            told = self._complaints.get(source) == state and source in self._complaints
            self._complaints[source] = state
        if not told:
            say(logging.WARNING, "the certificate authorities that were read before are trusted on: %s", error)


_shared = _Contexts()


def _contexts() -> _Contexts:
    global _shared
    if _shared.process != os.getpid():
        # They are never freed, because that takes locks inside of OpenSSL.
        keep_for_ever(_shared)
        _shared = _Contexts()
    return _shared


class Trust:
    """What urllib3 gets in place of an `ssl.SSLContext`. Each handshake uses the context that is shared at that moment.

    Many emitters and threads use the shared context at once, so nothing is ever set on it: what urllib3 sets before
    each handshake ends here. (It is a race inside of OpenSSL to set something on a context while another thread makes a
    connection from it.)

    When the files have changed and cannot be used, the last good context stays in use, and a warning says so. Perhaps
    somebody is writing them, or the process has given up the right to read them.
    """

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._context = _contexts().of(source)
        #: Whether the context checks the name of the host. If not, urllib3 does.
        self.check_hostname = True

    def current(self) -> ssl.SSLContext:
        """The context for a new connection."""
        contexts = _contexts()
        try:
            self._context = contexts.of(self._source)
        except ValueError as error:
            contexts.complain(self._source, error)
        return self._context

    @property
    def verify_mode(self) -> ssl.VerifyMode:
        return ssl.CERT_REQUIRED

    @verify_mode.setter
    def verify_mode(self, value: ssl.VerifyMode) -> None:
        if value != ssl.CERT_REQUIRED:
            raise ValueError(f"verify_mode must be CERT_REQUIRED, not {value!r}: other emitters share the context")

    def set_alpn_protocols(self, protocols: Any) -> None:
        """Does nothing, because the shared context already has HTTP/1.1, and nothing else is spoken here."""

    def wrap_socket(self, sock: Any, **kwargs: Any) -> Any:
        context = self.current()
        if type(context).__module__.partition(".")[0] not in ("ssl", "gevent"):
            # A context of another library, which may verify the certificate itself right after the handshake.
            tls = context.wrap_socket(sock, **kwargs)
            sockets.own(tls)
            return tls
        # It is noted before the handshake, because a fork may interrupt that.
        tls = context.wrap_socket(sock, do_handshake_on_connect=False, **kwargs)
        sockets.own(tls)
        try:
            tls.do_handshake()
        except BaseException:
            tls.close()
            raise
        return tls

    def wrap_bio(self, *args: Any, **kwargs: Any) -> Any:
        return self.current().wrap_bio(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # What else is asked, such as `hostname_checks_common_name`.
        return getattr(self.current(), name)


def trust_in(ca_certs: str | None) -> Trust:
    """What verifies certificates and host names.

    The authorities are those of `ca_certs` (a file or a directory), or else of REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or
    SSL_CERT_FILE in the environment, or else the system's, or else certifi's if that is installed. That is decided
    here, once. When the file or directory has changed, it is read again for the next connection.

    Raises:
        ValueError: a path that is named holds no authorities, or there are none anywhere.
    """
    return Trust(_source(ca_certs))
