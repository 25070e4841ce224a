"""What is secret stays so: in every log line of fastemit, in `stats()`, in reprs and in what is raised."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import requests
import urllib3

from fastemit import AsyncEmitter, Emitter, EmitterConfiguration
from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.delivery import answering
from tests.support.emitters import feed

#: Nothing listens there.
REFUSED = "127.0.0.1:1"
EVENT = {"e": "pv", "u": "hush"}
Tell = Callable[[Any], str]


@pytest.fixture
def tell(caplog: pytest.LogCaptureFixture) -> Tell:
    """All that an emitter tells of an attempt to send an event that holds what is secret."""
    caplog.set_level(logging.DEBUG)

    def told(emitter: Any) -> str:
        feed(emitter, EVENT)
        emitter.flush()
        emitter.close(0)
        feed(emitter, EVENT)
        lines = [record.getMessage() for record in caplog.records if record.name == "fastemit"]
        assert len(lines) >= 1
        return "\n".join([*lines, repr(emitter.stats()), repr(emitter), emitter.endpoint])

    return told


def session(**settings: Any) -> requests.Session:
    made = requests.Session()
    made.trust_env = False
    for name, value in settings.items():
        setattr(made, name, value)
    return made


# -- a password in the endpoint ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("answer", [{}, {"status": 401}, {"status": 500}, {"reset": True}], ids=str)
def test_the_password_of_the_endpoint(
    collector: Collector, make_emitter: MakeEmitter, tell: Tell, method: str, answer: dict[str, Any]
) -> None:
    collector.respond(**answer, times=None)
    emitter = make_emitter(collector.url.replace("//", "//user:hush@"), method=method, batch_size=100)
    assert "hush" not in tell(emitter)
    assert "Authorization" in collector.requests[0].headers


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_password_of_an_endpoint_that_refuses(
    make_emitter: MakeEmitter, tell: Tell, method: str, scheme: str
) -> None:
    emitter = make_emitter(f"{scheme}://user:hush@{REFUSED}", method=method, batch_size=100)
    assert "hush" not in tell(emitter)


@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://user:hush@host",
        "http://user:hush@",
        "http://user:hush@host:port",
        "http://user:hu@sh@host/?q",
        "u:hush@ ",
    ],
)
def test_the_password_of_an_endpoint_that_is_refused_at_construction(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint must be") as raised:
        Emitter(endpoint)
    assert "hu" not in str(raised.value)


# -- headers, proxies, sessions ----------------------------------------------------------------------------------------


def test_the_value_of_a_header(collector: Collector, make_emitter: MakeEmitter, tell: Tell) -> None:
    emitter = make_emitter(headers={"X-Key": "hush"}, batch_size=100)
    assert "hush" not in tell(emitter)
    assert collector.requests[0].headers["X-Key"] == "hush"


@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
def test_the_value_of_a_header_that_is_refused_at_construction(cls: type[Emitter]) -> None:
    with pytest.raises(ValueError, match="headers must be") as raised:
        cls("example.com", headers={"X-Key": "hush\n"})
    assert "hush" not in str(raised.value)


def test_what_a_configuration_holds() -> None:
    assert "hush" not in repr(EmitterConfiguration(headers={"X-Key": "hush"}))


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_password_of_a_proxy_that_refuses(
    make_emitter: MakeEmitter, tell: Tell, monkeypatch: pytest.MonkeyPatch, method: str, scheme: str
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", f"http://user:hush@{REFUSED}")
    emitter = make_emitter(f"{scheme}://127.0.0.2", method=method, batch_size=100)
    assert "hush" not in tell(emitter)
    assert emitter.stats().failed_requests == 1


@pytest.mark.parametrize("method", ["post", "get"])
def test_the_payload_and_the_auth_of_a_session(make_emitter: MakeEmitter, tell: Tell, method: str) -> None:
    users = session(auth=("user", "hush"), headers={"X-Key": "hush"}, params={"key": "hush"})
    emitter = make_emitter(f"http://user:hush@{REFUSED}", session=users, method=method, batch_size=100)
    told = tell(emitter)
    assert "hush" not in told
    assert "ConnectionError" in told


@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {"X-Key": "hush\n"}},
        {"headers": {"X-Key": " hush"}},
        {"proxies": {"http": f"http://user:hush@{REFUSED}"}},
        {"proxies": {"http": "http://user:hush@[bad"}},
        {"proxies": {"http": "http:///hush"}},
        {"proxies": {"http": "hush://hush"}},
        {"auth": ("user", "hush\u20ac")},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["post", "get"])
def test_what_a_session_is_given_that_it_refuses(
    collector: Collector, make_emitter: MakeEmitter, tell: Tell, settings: dict[str, Any], method: str
) -> None:
    emitter = make_emitter(session=session(**settings), method=method, batch_size=100)
    assert "hush" not in tell(emitter)
    assert emitter.stats().failed_requests == 1


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize(
    "manager",
    [
        lambda: urllib3.ProxyManager(f"http://user:hush@{REFUSED}"),
        lambda: urllib3.ProxyManager(f"http://{REFUSED}", proxy_headers={"Proxy-Authorization": "hush\n"}),
        lambda: urllib3.PoolManager(headers={"X-Key": "hush"}),
    ],
    ids=["password", "proxy header", "header"],
)
def test_what_a_pool_manager_holds(
    make_emitter: MakeEmitter, tell: Tell, manager: Callable[[], urllib3.PoolManager], method: str
) -> None:
    emitter = make_emitter(f"http://{REFUSED}", pool_manager=manager(), method=method, batch_size=100)
    assert "hush" not in tell(emitter)
    assert emitter.stats().failed_requests == 1


class Quoting(urllib3.PoolManager):
    """Adds a header that http.client refuses, with a message that quotes it."""

    def urlopen(self, method: str, url: str, redirect: bool = True, **kw: Any) -> Any:  # type: ignore[override]
        return super().urlopen(method, url, redirect=redirect, **{**kw, "headers": {"X-Key": "hush\n"}})


def test_a_header_of_a_pool_manager_that_is_refused(make_emitter: MakeEmitter, tell: Tell) -> None:
    emitter = make_emitter(pool_manager=Quoting(), batch_size=100)
    told = tell(emitter)
    assert "hush" not in told
    assert "ValueError" in told


# -- what the other end says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    [
        "http:user:hush@host/",
        "http://user:hu/hush@host/",
        "user:hush@host",
        "/elsewhere#hush",
        "//user:hush@host/?hush",
    ],
)
def test_the_user_and_the_query_of_a_location(
    collector: Collector, make_emitter: MakeEmitter, tell: Tell, location: str
) -> None:
    collector.respond(302, headers={"Location": location})
    told = tell(make_emitter(batch_size=100))
    assert "hush" not in told
    assert "not following its Location: " in told


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: /a\x1b[31m\x07\x9bb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /a\r\n WARNING all is lost\r\nContent-Length: 0\r\n\r\n",
        b"\x1b[31mnonsense\x07\r\n\r\n",
    ],
    ids=["terminal", "folded", "no answer"],
)
def test_an_answer_cannot_write_control_characters_or_lines_of_its_own(
    make_emitter: MakeEmitter, tell: Tell, answer: bytes
) -> None:
    with answering(answer) as server:
        told = tell(make_emitter(server.url, batch_size=100))
    assert [line for line in told.split("\n") if not line.isprintable()] == []
    assert [line for line in told.split("\n") if line.strip().startswith("WARNING")] == []


def test_an_answer_cannot_fill_the_log(collector: Collector, make_emitter: MakeEmitter, tell: Tell) -> None:
    collector.respond(302, headers={"Location": "/" + "x" * 50_000})
    assert len(tell(make_emitter(batch_size=100))) < 3000


# -- what becomes of the rest of a message -----------------------------------------------------------------------------


def test_the_reason_of_a_failure_is_still_told(make_emitter: MakeEmitter, tell: Tell) -> None:
    told = tell(make_emitter(f"http://{REFUSED}", batch_size=100))
    assert "Connection refused" in told
    assert REFUSED in told
