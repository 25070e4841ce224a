"""The collector's address: from what the user gives to the URL of a request."""

from __future__ import annotations

import re
from typing import Any, Final

from fastemit._settings import checks

PATHS: Final = {"post": "/com.snowplowanalytics.snowplow/tp2", "get": "/i"}
# These are not compiled here, because most addresses need only `_SCHEME`.
#: An IPv6 address with a zone id, in brackets: what comes before its `%`, the zone, the rest.
_ZONE: Final = r"(?s)((?:[^/?#]*@)?\[[^]%/?#]*)%([^]/?#]*)(\].*)"
_SCHEME: Final = r"([A-Za-z][A-Za-z0-9+.-]*)://"
#: What can only be a host: a name with a dot whose last label is a word, an IP address, or localhost.
_CLEARLY_A_HOST: Final = r"(?i)localhost|(?:[0-9]{1,3}\.){3}[0-9]{1,3}|(?:[^.]+\.)+(?:[^\W\d_]{2,}|xn--[a-z0-9-]+)\.?"
#: What may be a host: it has a dot, a port or brackets, or is localhost.
_MAYBE_A_HOST: Final = r"(?is)localhost|.*[.:\[].*"
_ESCAPE: Final = (
    "in a user or password, / is written %2F, @ is %40, ? is %3F, # is %23, % is %25, [ is %5B and ] is %5D"
)
_ALLOWED: Final = (
    "a collector's address such as 'collector.example.com', 'https://collector.example.com:8443/prefix' or '[::1]:9090'"
)


# A dataclass would compile its methods at each start of a program. A named tuple would show the password to those who
# write down what is in a tuple, such as tools that report errors with local variables.
class Endpoint:
    """A collector's address, taken apart.

    Attributes:
        scheme: "http" or "https".
        host: name or address; IPv6 without brackets, a zone id behind a `%` (`fe80::1%eth0`).
        port: as given, or None for the scheme's own.
        path: what follows the host, for the method asked for.
        username, password: from `user:password@`, or None. Never part of `url`, nor of the repr.
    """

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int | None,
        path: str,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self.scheme: Final = scheme
        self.host: Final = host
        self.port: Final = port
        self.path: Final = path
        self.username: Final = username
        self.password: Final = password

    def __repr__(self) -> str:
        return f"Endpoint(scheme={self.scheme!r}, host={self.host!r}, port={self.port!r}, path={self.path!r})"

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, Endpoint) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def but(self, **changed: Any) -> Endpoint:
        """The same address, but with these parts."""
        return Endpoint(**{**vars(self), **changed})

    @property
    def url(self) -> str:
        """The full collector URI, without user and password."""
        address, percent, zone = self.host.partition("%")
        host = address
        if percent:
            from urllib.parse import quote

            host = f"{address}%25{quote(zone, safe='')}"
        return f"{self.scheme}://{self._with_port(host)}{self.path}"

    @property
    def zoned(self) -> bool:
        """Whether the host is an IPv6 address with a zone id, which only this machine understands."""
        return "%" in self.host

    @property
    def authority(self) -> str:
        """Host and port for others to see: without a zone id."""
        return self._with_port(self.host.partition("%")[0])

    @property
    def url_for_others(self) -> str:
        """`url` for a proxy: without a zone id."""
        return f"{self.scheme}://{self.authority}{self.path}"

    def _with_port(self, host: str) -> str:
        host = f"[{host}]" if ":" in host else host
        return host if self.port is None else f"{host}:{self.port}"


def _is_path(host: str, path: str) -> bool:
    """Whether a path with an `@` can only be a path, and not the rest of a password with a slash and then the host."""
    behind = path.rpartition("@")[2].partition("/")[0]
    return (":" in host or re.fullmatch(_CLEARLY_A_HOST, host) is not None) and not re.fullmatch(_MAYBE_A_HOST, behind)


def parse_endpoint(endpoint: Any, protocol: Any = "https", port: Any = None, method: Any = "post") -> Endpoint:
    """Check and take apart the four arguments that say where events go.

    Args:
        endpoint: the collector, with or without a scheme (any case; it wins over `protocol`), a port, a path
            prefix, a trailing slash, `user:password@`; an IPv6 address in brackets, with `%25eth0` or `%eth0` where it
            has a zone id. User and password are percent-encoded. The path may have an `@` only where it cannot be the
            end of a password with a slash in it: behind a host that is a name with a dot, an IP address or
            localhost, and before something that is none of these. Elsewhere write `%40` in the path.
        protocol: "http" or "https", for an endpoint without a scheme.
        port: 1 to 65535, also as a str of digits, or None for the endpoint's own or else the scheme's.
        method: "post" or "get", which decides the path.

    Raises:
        TypeError, ValueError: naming the argument, its value and what is allowed; a password is not shown.
    """
    # Imported here, so that a program that only imports fastemit does not wait for them. urllib3 needs them too.
    import ipaddress
    from urllib.parse import quote, unquote, urlsplit

    checks.one_of("protocol", protocol, ("http", "https"))
    checks.one_of("method", method, ("get", "post"))
    number = checks.port("port", port)
    if not isinstance(endpoint, str):
        # Any part of it may be a password.
        value = "***" if "@" in repr(endpoint) else repr(endpoint)
        raise TypeError(f"endpoint must be {_ALLOWED}, not {type(endpoint).__name__} {value}")
    if not endpoint.strip():
        raise ValueError(f"endpoint must be {_ALLOWED}, not an empty string")
    # Everything before the last @ is hidden, even if it would not be read as user and password.
    shown = re.sub(rf"(?s)^({_SCHEME})?.*@", r"\1***@", endpoint) if "@" in endpoint else endpoint

    def wrong(why: str) -> ValueError:
        return ValueError(f"endpoint must be {_ALLOWED}, not {shown!r}: {why}")

    if any(c.isspace() or not c.isprintable() for c in endpoint):
        raise wrong("it holds a space or a control character")
    match = re.match(_SCHEME, endpoint)
    if match is None:
        scheme, rest = protocol, endpoint
    else:
        scheme, rest = match[1].lower(), endpoint[match.end() :]
        if scheme not in ("http", "https"):
            raise wrong(f"the scheme {scheme!r} is neither http nor https")
    # A password that is not escaped ends at a / ? or #, and the rest of it is no path. Brackets are for hosts.
    hint = f"; {_ESCAPE}" if "@" in rest and re.search(r"(?s)[/?#\[\]].*@", rest) else ""
    zone = ""
    if "%" in rest and (zoned := re.match(_ZONE, rest)) is not None:
        # RFC 6874 escapes the % before a zone. Most programs and people do not.
        zone = unquote(zoned[2].removeprefix("25")) if zoned[2].startswith("25") else zoned[2]
        if not re.fullmatch(r"[^\s/%\[\]?#]+", zone) or not zone.isprintable():
            raise wrong("behind the % of its host there is no zone id such as eth0; a number 25 is written %2525")
        rest = zoned[1] + zoned[3]
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        own_port = parts.port
        host = parts.hostname
        if "[" in parts.netloc.rpartition("@")[2]:
            # From Python 3.11.4 on urlsplit has looked at what is in brackets; before, it takes anything.
            ipaddress.IPv6Address(host or "")
    except ValueError:
        # The message of the error may hold all of the address.
        raise wrong(f"its host or port cannot be read{hint}") from None
    if parts.query or parts.fragment or "?" in rest or "#" in rest:
        raise wrong(f"a query or fragment has no place in it{hint}")
    if not host:
        raise wrong("it has no host")
    if "@" in parts.path and not _is_path(host, parts.path):
        raise wrong(f"the slash before its last @ may belong to a password{hint}, also in a path that has an @")
    if parts.netloc.endswith(":"):
        raise wrong("a colon stands before no port")
    if own_port == 0:
        raise wrong("port 0 cannot be connected to")
    if ":" not in host:
        try:
            host = host.encode("idna").decode("ascii") if not host.isascii() else host
        except UnicodeError:
            raise wrong(f"{host!r} is no host name") from None
        if not re.fullmatch(r"[A-Za-z0-9_.~-]+", host):
            raise wrong(f"{host!r} is no host name")
    if port is not None and own_port is not None:
        raise ValueError(f"port must be None when the endpoint has one: {shown!r} and port={port!r}")
    username = unquote(parts.username) if parts.username is not None else None
    password = unquote(parts.password) if parts.password is not None else None
    path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~-._") + PATHS[method]
    if zone:
        host = f"{host}%{zone}"
    return Endpoint(scheme, host, number if number is not None else own_port, path, username, password)
