"""Proxies, certificates, headers, and a pool manager of the user's."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import urllib3

from fastemit import Emitter, __version__
from fastemit._interfaces import Outcome
from fastemit._transport import tls as trust
from fastemit._transport.endpoint import parse_endpoint
from fastemit._transport.http import HttpTransport
from tests.support.delivery import RawServer, Rig, answering, put, read_request, silent, within

CA_VARIABLES = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]


@pytest.fixture(autouse=True)
def _no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*CA_VARIABLES, "SSL_CERT_DIR"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Authority:
    """A private certificate authority, in a file."""

    def __init__(self, directory: Path, name: str) -> None:
        self._ca = trustme.CA()
        self.path = str(directory / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.path)

    def server_context(self, name: str = "127.0.0.1") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("another"), "another")


def to(url: str, **settings: Any) -> HttpTransport:
    return HttpTransport(parse_endpoint(url), (2.0, 2.0), **settings)


# -- TLS -------------------------------------------------------------------------------------------------------------


def test_a_collector_of_a_private_authority_is_trusted_when_it_is_named(rig: Rig, ours: Authority) -> None:
    with answering(context=ours.server_context()) as server:
        emitter = rig.emitter(endpoint=server.url, ca_certs=ours.path)
        for number in range(2):
            put(emitter, first=number)
            assert emitter.drain() is True
        assert server.connections == 1
        emitter.close()


@pytest.mark.parametrize("cause", ["an unknown authority", "another host's name"])
def test_a_collector_that_cannot_be_verified_gets_nothing(
    rig: Rig, ours: Authority, another: Authority, cause: str
) -> None:
    known = cause != "an unknown authority"
    context = ours.server_context("127.0.0.1" if not known else "elsewhere.example")
    with answering(context=context) as server:
        emitter = rig.emitter(endpoint=server.url, ca_certs=ours.path if known else another.path)
        put(emitter, 3)
        assert emitter.drain() is False
        stats = emitter.stats()
        emitter.close(0)
        assert server.requests == []
    assert (stats.queued_events, stats.last_status) == (3, None)
    assert "certificate" in (stats.last_error or "").lower()


def test_a_directory_that_openssl_finds_nothing_in_is_an_error(ours: Authority) -> None:
    with pytest.raises(ValueError, match=r"ca_certs must be .* rehash"):
        to("https://127.0.0.1:1", ca_certs=str(Path(ours.path).parent))


@pytest.mark.parametrize("position", range(3))
def test_the_environment_names_authorities_in_this_order(
    monkeypatch: pytest.MonkeyPatch, ours: Authority, another: Authority, position: int
) -> None:
    with answering(context=ours.server_context()) as server:
        for name in CA_VARIABLES[position + 1 :]:
            monkeypatch.setenv(name, another.path)
        monkeypatch.setenv(CA_VARIABLES[position], ours.path)
        assert to(server.url).post(b"{}") == Outcome(status=200)
        monkeypatch.setenv(CA_VARIABLES[position], another.path)
        for name in CA_VARIABLES[position + 1 :]:
            monkeypatch.setenv(name, ours.path)
        assert to(server.url).post(b"{}").status is None


def test_ca_certs_is_stronger_than_the_environment(
    monkeypatch: pytest.MonkeyPatch, ours: Authority, another: Authority
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", another.path)
    with answering(context=ours.server_context()) as server:
        assert to(server.url, ca_certs=ours.path).post(b"{}").status == 200


@pytest.mark.parametrize("name", CA_VARIABLES)
def test_a_file_that_holds_no_certificates_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    monkeypatch.setenv(name, str(empty))
    with pytest.raises(ValueError, match=rf"{name} must be .*empty\.pem"):
        Emitter("https://collector.example.com")
    monkeypatch.setenv(name, str(tmp_path / "missing.pem"))
    with pytest.raises(ValueError, match=rf"{name} must be .*missing\.pem"):
        Emitter("https://collector.example.com")


@pytest.fixture
def _no_system_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nor any that were read before.
    monkeypatch.setattr(trust, "_shared", trust._Contexts())
    monkeypatch.setattr(trust._Certifi, "path", None)
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
    monkeypatch.setattr(trust, "_has_system_authorities", lambda _: False)


@pytest.mark.usefixtures("_no_system_authorities")
def test_no_authority_at_all_is_an_error_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "certifi", None)
    with pytest.raises(ValueError, match=r"ca_certs must name a file .* certifi"):
        Emitter("https://collector.example.com")
    # http needs none.
    Emitter("http://collector.example.com")


@pytest.mark.usefixtures("_no_system_authorities")
def test_certifi_is_the_last_resort(monkeypatch: pytest.MonkeyPatch, ours: Authority) -> None:
    monkeypatch.setitem(sys.modules, "certifi", types.SimpleNamespace(where=lambda: ours.path))
    with answering(context=ours.server_context()) as server:
        assert to(server.url).post(b"{}").status == 200


def test_a_handshake_that_hangs_is_a_failure_to_connect(ours: Authority) -> None:
    with silent() as server:
        client = HttpTransport(parse_endpoint(f"https://127.0.0.1:{server.port}"), (0.2, 5), ca_certs=ours.path)
        with within(0.9, at_least=0.15):
            outcome = client.post(b"{}")
    assert (outcome.status, outcome.timed_out) == (None, False)


def test_a_handshake_that_hangs_does_not_halve_the_requests(rig: Rig, ours: Authority) -> None:
    with silent() as server:
        emitter = rig.emitter(endpoint=f"https://127.0.0.1:{server.port}", ca_certs=ours.path, request_timeout=(0.2, 5))
        put(emitter, 64)
        assert emitter.drain() is False
        assert emitter._delivery._schedule.aim == emitter._buffer.segment_bytes
        emitter.close(0)


def test_a_dripping_answer_is_bounded_with_tls_too(ours: Authority) -> None:
    def handle(sock: socket.socket, _number: int) -> None:
        server.read(sock)
        while not server.over.wait(0.02):
            sock.sendall(b"H")

    with RawServer(handle, ours.server_context()) as server:
        client = HttpTransport(parse_endpoint(server.url), (2, 0.2), ca_certs=ours.path)
        with within(0.8, at_least=0.15):
            outcome = client.post(b"{}")
    assert (outcome.status, outcome.timed_out) == (None, True)


def test_plain_http_to_a_tls_port_and_the_other_way_round_are_errors(rig: Rig, ours: Authority) -> None:
    with answering(context=ours.server_context()) as server:
        assert to(f"http://127.0.0.1:{server.port}").post(b"{}").status is None
    assert to(rig.collector.url.replace("http:", "https:"), ca_certs=ours.path).post(b"{}").status is None


# -- proxies ---------------------------------------------------------------------------------------------------------


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxy(port: int) -> Iterator[RawServer]:
    """A proxy through which every host is 127.0.0.1 and every port the given one."""

    def handle(sock: socket.socket, _number: int) -> None:
        request = read_request(sock)
        server.requests.append(request)
        with socket.create_connection(("127.0.0.1", port), 5) as onward:
            if request.startswith(b"CONNECT "):
                sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                onward.sendall(request)
            back = threading.Thread(target=pump, args=(onward, sock), daemon=True)
            back.start()
            pump(sock, onward)
            back.join(5)

    with RawServer(handle) as server:
        yield server


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_http_goes_through_the_proxy_of_the_environment(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    with proxy(rig.collector.port) as server:
        monkeypatch.setenv(name, f"{scheme}127.0.0.1:{server.port}")
        emitter = rig.emitter(endpoint="http://collector.example.com:8080/prefix")
        put(emitter, 2)
        assert emitter.drain() is True
        emitter.close()
    (request,) = rig.collector.requests
    expected = "http://collector.example.com:8080/prefix/com.snowplowanalytics.snowplow/tp2"
    assert (request.target, request.headers["Host"]) == (expected, "collector.example.com:8080")


def test_https_goes_through_a_tunnel(rig: Rig, monkeypatch: pytest.MonkeyPatch, ours: Authority) -> None:
    with answering(context=ours.server_context("collector.example.com")) as far, proxy(far.port) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.port}")
        emitter = rig.emitter(endpoint="https://collector.example.com", ca_certs=ours.path)
        for number in range(2):
            put(emitter, first=number)
            assert emitter.drain() is True
        emitter.close()
        assert len(server.requests) == 1
        assert server.requests[0].startswith(b"CONNECT collector.example.com:443 HTTP/1.")
        assert [request.split(b" ")[:2] for request in far.requests] == [
            [b"POST", b"/com.snowplowanalytics.snowplow/tp2"]
        ] * 2


def test_the_certificate_is_verified_through_a_tunnel(monkeypatch: pytest.MonkeyPatch, ours: Authority) -> None:
    with answering(context=ours.server_context("elsewhere.example")) as far, proxy(far.port) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.port}")
        assert to("https://collector.example.com", ca_certs=ours.path).post(b"{}").status is None
        assert far.requests == []


def test_a_tunnel_that_is_refused_is_a_failure_to_connect(monkeypatch: pytest.MonkeyPatch, ours: Authority) -> None:
    with answering(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        outcome = to("https://collector.example.com", ca_certs=ours.path).post(b"{}")
    assert (outcome.status, outcome.timed_out) == (None, False)


def test_user_and_password_of_the_proxy_are_sent_to_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", rig.collector.url.replace("//", "//me:secret@"))
    assert to("http://collector.example.com").post(b"{}").status == 200
    (request,) = rig.collector.requests
    assert request.headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()


@pytest.mark.parametrize("value", ["127.0.0.1", "*", "other.example,127.0.0.1"])
def test_no_proxy_goes_straight(rig: Rig, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", value)
    assert to(rig.collector.url).post(b"{}").status == 200
    assert rig.collector.requests[0].target == "/com.snowplowanalytics.snowplow/tp2"


def test_a_proxy_that_is_down_keeps_the_events(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:1")
    emitter = rig.emitter(endpoint="http://collector.example.com")
    put(emitter, 3)
    assert emitter.drain() is False
    assert emitter.stats().queued_events == 3
    assert "secret" not in str(emitter.stats().last_error)


def test_a_proxy_of_another_protocol_is_an_error_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(ValueError, match="HTTP_PROXY in the environment must be an http:// or https:// address"):
        Emitter("http://collector.example.com")


# -- headers ---------------------------------------------------------------------------------------------------------


def test_a_request_says_who_it_is_from_and_what_it_is(rig: Rig) -> None:
    emitter = rig.emitter(headers={"X-Mine": "1"})
    put(emitter)
    emitter.flush()
    headers = rig.collector.requests[0].headers
    assert headers["User-Agent"] == f"fastemit/{__version__}"
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["Content-Length"] == str(rig.collector.requests[0].size)
    assert headers["X-Mine"] == "1"
    assert "Authorization" not in headers
    assert "Transfer-Encoding" not in headers


@pytest.mark.parametrize(
    ("user", "encoded"), [("me:secret", b"me:secret"), ("me", b"me:"), ("m%40e:s%3Acret%2F", b"m@e:s:cret/")]
)
def test_user_and_password_of_the_endpoint_are_sent_and_shown_nowhere(rig: Rig, user: str, encoded: bytes) -> None:
    emitter = rig.emitter(endpoint=rig.collector.url.replace("//", f"//{user}@"))
    put(emitter)
    emitter.flush()
    headers = rig.collector.requests[0].headers
    assert headers["Authorization"] == "Basic " + base64.b64encode(encoded).decode()
    assert "@" not in emitter.endpoint + repr(emitter)


@pytest.mark.parametrize("name", ["User-Agent", "user-agent", "Authorization", "AUTHORIZATION"])
def test_headers_of_the_user_s_are_stronger(rig: Rig, name: str) -> None:
    endpoint = rig.collector.url.replace("//", "//me:secret@")
    emitter = rig.emitter(endpoint=endpoint, headers={name: "mine"})
    put(emitter)
    emitter.flush()
    assert rig.collector.requests[0].headers.getlist(name) == ("mine",)


# -- a pool manager of the user's ------------------------------------------------------------------------------------


class Manager(urllib3.PoolManager):
    error: Exception | None = None
    calls = cleared = 0

    def urlopen(self, *arguments: Any, **settings: Any) -> Any:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return super().urlopen(*arguments, **settings)

    def clear(self) -> None:
        self.cleared += 1
        super().clear()


def test_a_pool_manager_of_the_user_s_is_used_and_not_closed(rig: Rig) -> None:
    with Manager() as manager:
        emitter = rig.emitter(pool_manager=manager)
        for number in range(3):
            put(emitter, first=number)
            emitter.flush()
        emitter.close()
        assert (manager.calls, manager.cleared) == (3, 0)
    assert rig.requests() == [[0], [1], [2]]


@pytest.mark.parametrize("error", [RuntimeError("mine"), urllib3.exceptions.HTTPError("mine"), OSError("mine")])
def test_whatever_a_pool_manager_raises_the_events_are_kept(rig: Rig, error: Exception) -> None:
    with Manager() as manager:
        manager.error = error
        emitter = rig.emitter(pool_manager=manager)
        put(emitter, 3)
        assert emitter.drain() is False
        assert (emitter.stats().queued_events, "mine" in str(emitter.stats().last_error)) == (3, True)
        manager.error = None
        assert emitter.drain() is True


def test_a_timeout_of_a_pool_manager_s_request_is_one(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    with Manager() as manager:
        outcome = HttpTransport(parse_endpoint(rig.collector.url), (2, 0.2), pool_manager=manager).post(b"{}")
    assert (outcome.status, outcome.timed_out) == (None, True)
