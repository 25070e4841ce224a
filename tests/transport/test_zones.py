"""An IPv6 address with a zone id: connected to with it, and told to nobody else."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
import urllib3

from fastemit import Emitter
from fastemit._transport.endpoint import parse_endpoint
from fastemit._transport.http import HttpTransport
from tests.support.delivery import OK, answering, read_request
from tests.support.emitters import TP2


def link_local() -> str | None:
    """An address of this machine that is none without its zone."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            digits, _, _, scope, _, name = line.split()
            if scope == "20":
                return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)) + "%" + name
    return None


class Server:
    """Listens at an IPv6 address, and answers each request well."""

    def __init__(self, host: str, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        address = socket.getaddrinfo(host, 0, socket.AF_INET6, socket.SOCK_STREAM)[0][4]
        self._listener = socket.socket(socket.AF_INET6)
        self._listener.bind(address)
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), contextlib.closing(sock):
                sock.settimeout(5)
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_side=True)
                with sock:
                    if request := read_request(sock):
                        self.requests.append(request)
                        sock.sendall(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))


def host_header(request: bytes) -> bytes:
    found = re.search(rb"\r\nHost: ([^\r]*)\r\n", request)
    assert found is not None
    return found[1]


#: An address that a zone changes nothing of, which each machine has, and one that needs it.
ADDRESSES = ["::1%1"] + [address for address in [link_local()] if address is not None]


@pytest.mark.parametrize("kind", ["own", "pool"])
@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("percent", ["%", "%25"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_a_collector_with_a_zone_id_is_reached(address: str, percent: str, method: str, kind: str) -> None:
    settings: dict[str, Any] = {}
    if kind == "pool":
        settings = {"pool_manager": urllib3.PoolManager()}
    with Server(address) as server:
        endpoint = f"http://[{address.replace('%', percent)}]:{server.port}"
        with Emitter(endpoint, method=method, batch_size=1, **settings) as emitter:
            emitter.input({"e": "pv"})
            assert emitter.drain(5) is True
        expected = f"[{address.partition('%')[0]}]:{server.port}".encode()
        assert [host_header(request) for request in server.requests] == [expected]
    for each in settings.values():
        each.clear()


def test_a_session_which_could_never_find_it_is_refused() -> None:
    wrong = pytest.raises(ValueError, match=r"^endpoint must be without a zone id")
    with requests.Session() as session, wrong as error:
        Emitter("[fe80::1%eth0]", session=session)
    assert "fe80::1%25eth0" in str(error.value)


@pytest.mark.parametrize(
    ("endpoint", "host", "uri"),
    [
        ("http://[fe80::1%25eth0]:9090", "fe80::1%eth0", "http://[fe80::1%25eth0]:9090"),
        ("http://[fe80::1%eth0]:9090", "fe80::1%eth0", "http://[fe80::1%25eth0]:9090"),
        ("http://[FE80::A%25Eth0]/a/", "fe80::a%Eth0", "http://[fe80::a%25Eth0]/a"),
        ("[fe80::1%251]", "fe80::1%1", "https://[fe80::1%251]"),
        ("[fe80::1%1]", "fe80::1%1", "https://[fe80::1%251]"),
        ("[fe80::1%2525]", "fe80::1%25", "https://[fe80::1%2525]"),
        ("[fe80::1%25br-lan.100_x~]", "fe80::1%br-lan.100_x~", "https://[fe80::1%25br-lan.100_x~]"),
        ("[fe80::1%25eth0%3A1]", "fe80::1%eth0:1", "https://[fe80::1%25eth0%3A1]"),
        ("[fe80::1%eth0:1]", "fe80::1%eth0:1", "https://[fe80::1%25eth0%3A1]"),
        ("user:hush%25@[fe80::1%25eth0]:1", "fe80::1%eth0", "https://[fe80::1%25eth0]:1"),
    ],
)
def test_forms_with_a_zone_id(endpoint: str, host: str, uri: str) -> None:
    assert parse_endpoint(endpoint).host == host
    assert Emitter(endpoint).endpoint == uri + TP2
    # What it says is taken again for the same.
    assert parse_endpoint(uri).host == host


@pytest.mark.parametrize(
    "endpoint",
    [
        "[fe80::1%]",
        "[fe80::1%25]",
        "[fe80::1%25a%2Fb]",
        "[fe80::1%25a%20b]",
        "[fe80::1%25a%00]",
        "[fe80::1%a/b]",
        "[fe80::1%a?b]",
        "[fe80::1%eth0",
        "[nonsense%eth0]",
        "[127.0.0.1%eth0]",
        "fe80::1%eth0",
        "example.com%eth0",
    ],
)
def test_bad_forms_with_a_zone_id_are_value_errors_that_name_the_endpoint(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"^endpoint must be a collector's address such as") as error:
        Emitter(endpoint)
    assert repr(endpoint) in str(error.value)


@pytest.mark.parametrize("zone", ["Eth0", "eth0:1", "br-lan.100"])
def test_a_zone_is_looked_up_as_it_is_written(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    asked = []
    resolve = socket.getaddrinfo

    def lookup(host: Any, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with answering() as server:
        client = HttpTransport(parse_endpoint(f"http://[fe80::1%25{zone.replace(':', '%3A')}]:{server.port}"), (2, 2))
        assert client.post(b"{}").status == 200
        client.close()
        assert client.post(b"{}").status == 200
    assert asked == [f"fe80::1%{zone}"] * 2


def test_a_certificate_is_verified_by_the_address_without_the_zone(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("::1").configure_cert(context)
    with Server("::1", context) as server:
        endpoint = parse_endpoint(f"https://[::1%251]:{server.port}")
        assert HttpTransport(endpoint, (2, 2), ca_certs=str(tmp_path / "ca.pem")).post(b"{}").status == 200
        assert host_header(server.requests[0]) == f"[::1]:{server.port}".encode()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_is_not_told_the_zone(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with answering() as proxy:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy.url)
        HttpTransport(parse_endpoint(f"{scheme}://[fe80::1%25eth0]:9090"), (0.3, 0.3)).post(b"{}")
        (request,) = proxy.requests
    first, _, rest = request.partition(b"\r\n")
    expected = {"http": f"POST http://[fe80::1]:9090{TP2} HTTP/1.1", "https": "CONNECT [fe80::1]:9090 HTTP/1."}[scheme]
    assert first.startswith(expected.encode())
    assert b"eth0" not in request
    assert rest


@pytest.mark.parametrize("percent", ["%", "%25"])
def test_a_proxy_may_have_a_zone_itself(monkeypatch: pytest.MonkeyPatch, percent: str) -> None:
    with Server("::1") as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://[::1{percent}1]:{proxy.port}")
        assert HttpTransport(parse_endpoint("http://collector.example.com"), (2, 2)).post(b"{}").status == 200
        assert len(proxy.requests) == 1


def test_no_proxy_excepts_an_address_whatever_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "fe80::1")
    made: Any = HttpTransport(parse_endpoint("http://[fe80::1%25eth0]:9090"))
    assert made._proxy is None
