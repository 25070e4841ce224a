"""Protects the collector from pages in a browser on this machine.

Every program on the machine can reach the collector, and a browser shows pages of strangers. A page may send requests
to the loopback. The owner of the page's name may let that name lead to the loopback, and then the browser takes the
collector's answers for the page's own ("DNS rebinding"). The name is in `Host`, which no page can choose.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastemit.testing._request import Request


class Guard:
    """Says which requests are refused.

    Immutable, so safe to share between threads.

    Args:
        host: the name or address that the collector listens on.
        allowed: names that a `Host` may have besides those of the loopback and `host`.
    """

    def __init__(self, host: str, allowed: Iterable[str]) -> None:
        self._names = frozenset(_bare(name) for name in (host, *allowed))
        # Other machines come by its address then. That is safe, because a bare address cannot be rebound.
        self._takes_addresses = not _is_loopback(_bare(host))

    def refusal(self, request: Request) -> str | None:
        """The reason why a request is refused, for people; None if it is not refused."""
        # A whole URL as the target is sent to a proxy, which no page can do. Before HTTP/1.1 there may be no Host.
        given = request.headers.getlist("Host")
        if not request.target.startswith("/") or not given:
            return None
        name = _bare(_host_of(given[0]))
        if name in self._names or _is_loopback(name) or (self._takes_addresses and _is_address(name)):
            return None
        return (
            f"Host {given[0]!r} is not a name of this collector: call it localhost, "
            "or allow the name: Collector(allowed_hosts=...), fastemit collector --allow-host"
        )

    @staticmethod
    def may_reset(request: Request) -> bool:
        """Whether a request to forget everything comes from a person, a program or a page of the collector's own.

        Browsers say where a request comes from, in headers that no page can change. At a loopback address they always
        send `Sec-Fetch-Site`, so a GET without any of these headers comes from a program such as curl. At other
        addresses a browser may send a GET without them, but a POST of another page always has `Origin`.
        """
        headers = request.headers
        host = headers.get("Host", "")
        marks = [value in ("same-origin", "none") for value in headers.getlist("Sec-Fetch-Site")]
        marks += [_is_page_of(host, value) for name in ("Origin", "Referer") for value in headers.getlist(name)]
        if marks:
            return all(marks)
        return request.method == "POST" or not host or _is_loopback(_bare(_host_of(host)))


def _is_page_of(host: str, url: str) -> bool:
    try:
        return urlsplit(url).netloc.lower() == host.lower() != ""
    except ValueError:
        return False


def _host_of(field: str) -> str:
    """The host in a `Host` header, without the port."""
    if field.startswith("["):
        return field.partition("]")[0] + "]"
    return field.partition(":")[0]


def _bare(name: str) -> str:
    """A name in the form for comparisons: without brackets, zone and the dot at the end."""
    return name.strip("[]").partition("%")[0].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
