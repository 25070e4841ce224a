"""The endpoint: every form that is allowed, what is refused, and that no password is ever shown."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter
from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.emitters import QUICK, TP2
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("endpoint", "settings", "expected"),
    [
        ("example.com", {}, "https://example.com"),
        ("example.com", {"protocol": "http"}, "http://example.com"),
        ("example.com", {"port": 9090}, "https://example.com:9090"),
        ("example.com:8080", {}, "https://example.com:8080"),
        ("example.com:8080", {"protocol": "http"}, "http://example.com:8080"),
        ("http://example.com", {"protocol": "https"}, "http://example.com"),
        ("https://example.com", {"protocol": "http"}, "https://example.com"),
        ("HTTP://example.com", {}, "http://example.com"),
        ("hTTpS://example.com", {"protocol": "http"}, "https://example.com"),
        ("http://example.com", {"port": 1}, "http://example.com:1"),
        ("example.com/", {}, "https://example.com"),
        ("example.com//", {}, "https://example.com"),
        ("example.com/a/b", {}, "https://example.com/a/b"),
        ("example.com/a/b/", {"port": 65535}, "https://example.com:65535/a/b"),
        ("example.com:80/a", {}, "https://example.com:80/a"),
        ("https://example.com/ž", {}, "https://example.com/%C5%BE"),
        ("localhost", {}, "https://localhost"),
        ("my_collector", {}, "https://my_collector"),
        ("10.0.0.1:80", {}, "https://10.0.0.1:80"),
        ("[::1]", {}, "https://[::1]"),
        ("[::1]:9090", {}, "https://[::1]:9090"),
        ("http://[2001:db8::1]/a/", {}, "http://[2001:db8::1]/a"),
        ("[::1]", {"port": 9090}, "https://[::1]:9090"),
        ("bücher.example", {}, "https://xn--bcher-kva.example"),
        ("user:hush@example.com", {}, "https://example.com"),
        ("HTTP://user:hush@[::1]:9090/a/", {}, "http://[::1]:9090/a"),
        ("user@example.com", {}, "https://example.com"),
    ],
)
@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
def test_good_forms(cls: Any, endpoint: str, settings: dict[str, Any], expected: str) -> None:
    assert cls(endpoint, **settings).endpoint == expected + TP2


def test_as_collector_uri_takes_the_same_forms() -> None:
    assert Emitter.as_collector_uri("HTTP://user:hush@example.com/a/", port=9090) == f"http://example.com:9090/a{TP2}"


def test_as_collector_uri_for_get_ends_in_i() -> None:
    assert Emitter.as_collector_uri("example.com/a", "http", None, "get") == "http://example.com/a/i"


@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        " ",
        "exam ple.com",
        " example.com",
        "example.com\n",
        "example.com\x00",
        "http://",
        "https:///path",
        ":9090",
        "ftp://example.com",
        "file:///etc/passwd",
        "ws://example.com",
        "example.com?a=b",
        "example.com/?",
        "example.com/#top",
        "example.com#",
        "example.com:0",
        "example.com:99999",
        "example.com:-1",
        "example.com:http",
        "example.com:80:80",
        "[::1",
        "::1",
        "[nonsense]",
        "[v1.x]",
        "exa$mple.com",
        "exam\\ple.com",
    ],
)
def test_bad_forms_are_value_errors_that_explain(cls: Any, endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"^endpoint must be a collector's address such as") as error:
        cls(endpoint)
    assert repr(endpoint) in str(error.value) or not endpoint.strip()


@pytest.mark.parametrize("endpoint", ["example.com:80", "http://example.com:80/a", "[::1]:80"])
def test_a_port_given_twice_is_a_value_error_that_names_both(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"^port must be None when the endpoint has one") as error:
        Emitter(endpoint, port=9090)
    assert endpoint in str(error.value)
    assert "9090" in str(error.value)


@pytest.mark.parametrize(
    ("endpoint", "settings"),
    [
        ("user:hush@example.com:80", {"port": 80}),
        ("user:hush@example.com:99999", {}),
        ("user:hush@", {}),
        ("user:hush@exam ple.com", {}),
        ("user:hush@example.com?a", {}),
        ("user:hush@[::1", {}),
        ("ftp://user:hush@example.com", {}),
        ("user:hush@exa$mple.com", {}),
        # What a password must have escaped, and has not.
        ("user:hush/hush@example.com", {}),
        ("user:hush?hush@example.com", {}),
        ("user:hush#hush@example.com", {}),
        ("user:hush@hush@exa$mple.com", {}),
        ("user:hush hush@example.com", {}),
        # Normalized, this host has a slash in it, and urllib.parse says so with all that it has.
        ("user:hush@ex\u2100mple.com", {}),
        (b"https://user:hush@example.com", {}),
        (["https://user:hush@example.com"], {}),
    ],
)
def test_no_message_shows_a_password(endpoint: Any, settings: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        Emitter(endpoint, **settings)
    assert "hush" not in str(error.value)


def test_a_bracket_in_a_password_is_told_how_to_escape() -> None:
    for password in ("hu[sh", "hu]sh"):
        with pytest.raises(ValueError, match=r"\[ is %5B and \] is %5D"):
            Emitter(f"https://user:{password}@collector.example.com")
    assert Emitter("https://user:hu%5Bsh%5D@collector.example.com").endpoint == f"https://collector.example.com{TP2}"


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [
        ("user:hush", b"user:hush"),
        ("user:", b"user:"),
        ("user", b"user:"),
        ("us%40er:hu%3Ash%2F", b"us@er:hu:sh/"),
        ("user:hu:sh", b"user:hu:sh"),
        ("user:%E2%82%AC", "user:\u20ac".encode()),
    ],
)
def test_user_and_password_are_sent_as_basic_authorisation(
    collector: Collector, make_emitter: MakeEmitter, userinfo: str, credentials: bytes
) -> None:
    make_emitter(f"http://{userinfo}@{collector.host}:{collector.port}", batch_size=1).input({"e": "pv"})
    collector.wait_for(1)
    authorization = collector.requests[0].headers["Authorization"]
    assert authorization == "Basic " + base64.b64encode(credentials).decode()


def test_the_password_is_in_no_attribute_repr_or_log(
    collector: Collector, make_emitter: MakeEmitter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    collector.respond(500)
    emitter = make_emitter(
        f"http://user:hush@{collector.host}:{collector.port}", batch_size=1, max_retry_delay_seconds=QUICK
    )
    emitter.input({"e": "pv"})
    collector.wait_for(1)
    collector.close()
    emitter.input({"e": "pv"})
    until(lambda: emitter.stats().failed_requests >= 2)
    told = [emitter.endpoint, repr(emitter), repr(emitter.stats()), caplog.text]
    assert [text for text in told if "hush" in text or "dXNlcjpodXNo" in text] == []


def test_a_prefix_comes_before_the_path(collector: Collector, make_emitter: MakeEmitter) -> None:
    make_emitter(f"{collector.url}/a/b/", batch_size=1).input({"e": "pv"})
    assert [request.path for request in collector.wait_for_requests(1)] == [f"/a/b{TP2}"]


def test_an_ipv6_address_is_connected_to(make_emitter: MakeEmitter) -> None:
    with Collector("::1") as collector:
        make_emitter(f"[::1]:{collector.port}", protocol="http", batch_size=1).input({"e": "pv"})
        assert [event["e"] for event in collector.wait_for(1)] == ["pv"]
