"""Which proxy the environment asks for: the same as `requests` takes, form by form."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import requests
import requests.utils

from fastemit import Emitter
from fastemit._transport.endpoint import parse_endpoint
from fastemit._transport.http import HttpTransport
from fastemit._transport.proxies import proxy_for
from fastemit.testing import Collector
from tests.support.delivery import Rig, put

URLS = [
    "http://10.1.2.3",
    "http://10.1.2.3:8080",
    "https://10.1.2.3:8443/prefix",
    "http://192.168.1.7",
    "http://127.0.0.1:9090",
    "http://127.1:9090",
    "http://localhost:9090",
    "https://collector.example.com",
    "http://collector.example.com:8080",
    "http://COLLECTOR.Example.com",
    "http://example.com",
    "http://notexample.com",
    "https://[::1]",
    "http://[::1]:9090",
    "http://[2001:db8::7]:80",
]
#: Each of these as NO_PROXY, and each two of them.
EXCEPTED = [
    "10.0.0.0/8",
    "10.1.2.3/32",
    "10.1.2.99/24",
    "10.1.2.3",
    "10.1.2.3:8080",
    "10/8",
    "10.0.0.0/0",
    "10.0.0.0/33",
    "10.0.0.0/x",
    "10.0.0.0/",
    "10.0.0.300/8",
    "127.0.0.0/8",
    "127.1/32",
    "0.0.0.0/1",
    "192.168.0.0/16",
    "localhost",
    "example.com",
    ".example.com",
    "EXAMPLE.COM",
    "*.example.com",
    "collector.example.com:8080",
    "example.com:8080",
    "com",
    "*",
    "::1",
    "[::1]",
    "::1:9090",
    "2001:db8::/32",
    "db8::7",
    "",
    " ",
]
TABLE = [*EXCEPTED, *map(",".join, itertools.combinations(EXCEPTED[::3], 2)), "elsewhere.example, 10.0.0.0/8 ,::1"]
PROXY = "http://proxy.example:3128"


def of_requests(url: str) -> str | None:
    return requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))


def of_fastemit(url: str) -> str | None:
    return proxy_for(parse_endpoint(url))


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_no_proxy_excepts_what_it_excepts_for_requests(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    for excepted in TABLE:
        monkeypatch.setenv(name, excepted)
        assert {url: of_fastemit(url) for url in URLS} == {url: of_requests(url) for url in URLS}, excepted


def test_the_table_of_exceptions_has_hosts_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    taken = set()
    for excepted in TABLE:
        monkeypatch.setenv("NO_PROXY", excepted)
        taken |= {(url, of_requests(url)) for url in URLS}
    assert taken == {(url, proxy) for url in URLS for proxy in (None, PROXY)}


VARIABLES = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]


@pytest.mark.parametrize("names", [(), *((name,) for name in VARIABLES), *itertools.combinations(VARIABLES, 2)])
@pytest.mark.parametrize("empty", [False, True])
def test_the_variable_that_decides_is_the_one_that_decides_for_requests(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], empty: bool
) -> None:
    for number, name in enumerate(names):
        monkeypatch.setenv(name, "" if empty and number else f"http://{number}.example:3128")
    assert [of_fastemit(url) for url in URLS] == [of_requests(url) for url in URLS]


@pytest.mark.parametrize("requested", ["GET", "POST"])
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_a_header_of_a_cgi_request_is_no_proxy(monkeypatch: pytest.MonkeyPatch, name: str, requested: str) -> None:
    """In a CGI program HTTP_PROXY is what the client sent as a header `Proxy`."""
    monkeypatch.setenv("REQUEST_METHOD", requested)
    monkeypatch.setenv(name, PROXY)
    assert of_fastemit("http://example.com") == of_requests("http://example.com")


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("value", ["{}", "//{}", "http://{}"])
def test_all_proxy_is_gone_through(rig: Rig, monkeypatch: pytest.MonkeyPatch, method: str, value: str) -> None:
    monkeypatch.setenv("ALL_PROXY", value.format(f"{rig.collector.host}:{rig.collector.port}"))
    emitter = rig.emitter(endpoint="http://collector.example.com", method=method)
    put(emitter)
    assert emitter.drain() is True
    assert rig.collector.requests[0].target.startswith("http://collector.example.com/")


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("excepted", ["127.0.0.0/8", "10.0.0.0/8,127.0.0.1/32"])
def test_a_host_of_an_excepted_network_is_reached_as_requests_reaches_it(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, name: str, excepted: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", excepted)
    assert HttpTransport(parse_endpoint(collector.url), (2, 2)).post(b"{}").status == 200
    assert requests.post(collector.url, data=b"{}", timeout=2).request.url == collector.url + "/"


@pytest.mark.parametrize(
    ("name", "endpoint"), [("HTTPS_PROXY", "https://c.example"), ("ALL_PROXY", "http://c.example")]
)
def test_the_error_of_a_proxy_that_is_not_spoken_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, endpoint: str
) -> None:
    monkeypatch.setenv(name, "socks5h://me:secret@127.0.0.1:1080")
    with pytest.raises(ValueError, match=rf"^{name} in the environment must be an http:// or https:// address") as told:
        Emitter(endpoint)
    assert "secret" not in str(told.value)


def test_a_proxy_that_is_not_spoken_matters_to_nobody_who_goes_straight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    made: Any = Emitter("http://10.1.2.3")
    assert made._transport._proxy is None
