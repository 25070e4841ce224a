"""Which proxy the environment asks for, by the rules of `requests`."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

if TYPE_CHECKING:
    from fastemit._transport.endpoint import Endpoint


def _address(text: str) -> int | None:
    """An IPv4 address as a number. As in requests, each form that the C library takes counts: "127.1" is 127.0.0.1."""
    try:
        return int.from_bytes(socket.inet_aton(text), "big")
    except OSError:
        return None


def _is_in(address: int, network: str) -> bool:
    base, slash, length = network.partition("/")
    start = _address(base)
    if not slash or start is None or not length.isdecimal() or not 1 <= int(length) <= 32:
        return False
    return (address ^ start) >> (32 - int(length)) == 0


def _goes_straight(host: str, port: int | None) -> bool:
    """Whether NO_PROXY, or what the system has in its place, excepts this host.

    An IPv4 address is compared with addresses and networks, a name or an IPv6 address with suffixes that begin at a
    dot, with the port and without. Then urllib is asked, because it knows `*` and the
    settings of macOS and Windows.
    """
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    address = _address(host)
    names = [host] if port is None else [host, f"{host}:{port}"]
    for entry in filter(None, excepted.replace(" ", "").split(",")):
        if address is not None:
            if host == entry or _is_in(address, entry):
                return True
            continue
        suffix = entry.lstrip(".")
        if any(name == suffix or name.endswith("." + suffix) for name in names):
            return True
    from urllib.request import proxy_bypass

    with contextlib.suppress(TypeError, OSError):
        return bool(proxy_bypass(host))
    return False


def _may_ask_for_one() -> bool:
    """Whether there may be a proxy. The import that looks for one takes longer than all the rest."""
    return sys.platform in ("darwin", "win32") or any(name.lower().endswith("_proxy") for name in os.environ)


def proxy_for(endpoint: Endpoint) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY asks for and NO_PROXY does not except, or None.

    Raises:
        ValueError: it speaks another protocol than HTTP, or cannot be read. The message names the variable.
    """
    if not _may_ask_for_one():
        return None
    from urllib.request import getproxies

    proxies = getproxies()
    # No other machine understands a zone.
    host = endpoint.host.lower().partition("%")[0]
    keys = (f"{endpoint.scheme}://{host}", endpoint.scheme, f"all://{host}", "all")
    key = next((key for key in keys if key in proxies), None)
    if key is None or not proxies[key] or _goes_straight(host, endpoint.port):
        return None
    proxy = proxies[key]
    if "://" not in proxy:
        proxy = "http://" + proxy.removeprefix("//")
    # Its value is not shown: there may be a password in it.
    wrong = f"{key.upper()}_PROXY in the environment must be an http:// or https:// address"
    try:
        parsed = parse_url(proxy)
    except LocationParseError:
        raise ValueError(f"{wrong}, and its value cannot be read as one") from None
    if "@" in (parsed.path or "") + (parsed.query or "") + (parsed.fragment or ""):
        # What stands before the slash would be taken for the proxy, although it belongs to a password.
        raise ValueError(f"{wrong}; in its user and password, / is written %2F, @ is %40, ? is %3F and # is %23")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(
            f"{wrong}, not {parsed.scheme}://...: fastemit speaks no other proxy protocol; NO_PROXY excepts a host, "
            "and a session=requests.Session() speaks what requests can"
        )
    return proxy
