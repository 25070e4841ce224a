"""Whom TLS connections trust."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator

from urllib3.util.ssl_ import create_urllib3_context

_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def _named(ca_certs: str | None) -> Iterator[tuple[str, str]]:
    """Where authorities are asked for by name: (who says so, path), the strongest first."""
    if ca_certs is not None:
        yield "ca_certs", ca_certs
    for variable in _VARIABLES:
        path = os.environ.get(variable)
        if path:
            yield variable, path


def _has_system_authorities(context: ssl.SSLContext) -> bool:
    if context.cert_store_stats()["x509_ca"]:
        return True
    # A directory of authorities is read only when one of them is needed.
    directory = ssl.get_default_verify_paths().capath
    try:
        return directory is not None and any(os.scandir(directory))
    except OSError:
        return False


def tls_context(ca_certs: str | None) -> ssl.SSLContext:
    """A context that verifies certificates and host names.

    The authorities are those of `ca_certs` (a file or a directory), or else of REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or
    SSL_CERT_FILE in the environment, or else the system's, or else certifi's if that is installed.

    Raises:
        ValueError: a path that is named holds no authorities, or there are none anywhere.
    """
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.check_hostname = True
    for name, path in _named(ca_certs):
        try:
            if os.path.isdir(path):
                # OpenSSL takes any directory, and finds in it only what is named by its hash.
                if not any(_HASHED.fullmatch(entry) for entry in os.listdir(path)):
                    raise ValueError(
                        f"{name} must be a file or directory of PEM certificates, not {path!r}: "
                        "nothing in it is named by its hash, as `openssl rehash` does"
                    )
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"{name} must be a file or directory of PEM certificates, not {path!r}: {error}"
            ) from error
        return context
    context.load_default_certs()
    if not _has_system_authorities(context):
        try:
            import certifi
        except ImportError:
            raise ValueError(
                "ca_certs must name a file or directory of certificate authorities, since this system has none: "
                "https needs one to verify the collector by (or install certifi)"
            ) from None
        context.load_verify_locations(cafile=certifi.where())
    return context
