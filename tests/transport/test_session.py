"""Sending through a `requests.Session` of the user's, by POST and by GET."""

from __future__ import annotations

import base64
import logging
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import requests
import trustme
from requests.adapters import HTTPAdapter

from fastemit import AsyncEmitter, Emitter
from tests.support.delivery import (
    DEADLINE,
    OK,
    RawServer,
    Rig,
    Script,
    answering,
    put,
    silent,
    within,
)

METHODS = pytest.mark.parametrize("method", ["post", "get"])


@pytest.fixture(autouse=True)
def _no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


# -- what the session has, the request has ---------------------------------------------------------------------------


@METHODS
def test_events_go_through_the_session_over_one_connection(rig: Rig, session: requests.Session, method: str) -> None:
    emitter = rig.emitter(method=method, session=session)
    for number in range(3):
        put(emitter, first=number)
        assert emitter.drain() is True
    assert rig.requests() == [[0], [1], [2]]
    assert {request.method for request in rig.collector.requests} == {method.upper()}
    assert {request.headers["User-Agent"] for request in rig.collector.requests} == {session.headers["User-Agent"]}
    assert rig.collector.connections == 1


def test_a_post_has_the_emitter_s_content_type(rig: Rig, session: requests.Session) -> None:
    emitter = rig.emitter(session=session, headers={"X-Own": "1"})
    put(emitter)
    assert emitter.drain() is True
    (request,) = rig.collector.requests
    assert request.headers["Content-Type"] == "application/json; charset=utf-8"
    assert request.headers["X-Own"] == "1"


@METHODS
def test_cookies_and_headers_persist(rig: Rig, session: requests.Session, method: str) -> None:
    rig.collector.respond(headers={"Set-Cookie": "sp=abc; Path=/"})
    session.headers["X-Team"] = "shop"
    session.cookies.set("own", "1")
    emitter = rig.emitter(method=method, session=session)
    for number in range(2):
        put(emitter, first=number)
        assert emitter.drain() is True
    first, second = rig.collector.requests
    assert (first.headers["Cookie"], first.headers["X-Team"]) == ("own=1", "shop")
    assert set(second.headers["Cookie"].split("; ")) == {"own=1", "sp=abc"}
    assert session.cookies["sp"] == "abc"


@METHODS
def test_the_session_s_params_are_sent_as_by_the_reference(rig: Rig, session: requests.Session, method: str) -> None:
    session.params = {"key": "k 1"}
    emitter = rig.emitter(method=method, session=session)
    put(emitter)
    assert emitter.drain() is True
    (request,) = rig.collector.requests
    assert "key=k+1" in request.query.split("&")


@METHODS
def test_auth_of_the_session_is_used(rig: Rig, session: requests.Session, method: str) -> None:
    session.auth = ("jo", "secret")
    emitter = rig.emitter(method=method, session=session)
    put(emitter)
    assert emitter.drain() is True
    assert rig.collector.requests[0].headers["Authorization"] == requests.auth._basic_auth_str("jo", "secret")


@METHODS
def test_user_and_password_of_the_endpoint_are_used(rig: Rig, session: requests.Session, method: str) -> None:
    endpoint = rig.collector.url.replace("//", "//jo:se%40cret@") + "/pre"
    emitter = rig.emitter(endpoint=endpoint, method=method, session=session)
    put(emitter)
    assert emitter.drain() is True
    (request,) = rig.collector.requests
    assert base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")) == b"jo:se@cret"
    assert request.path.startswith("/pre/")


class Signing(HTTPAdapter):
    """An adapter with a state of its own, which signs what it sends."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.bodies: list[Any] = []
        super().__init__()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self.bodies.append(request.body)
        request.headers["X-Signature"] = f"{self.key}:{len(bytes(request.body or b''))}"
        return super().send(request, *args, **kwargs)


@METHODS
def test_an_adapter_that_is_mounted_sends_the_requests(rig: Rig, session: requests.Session, method: str) -> None:
    adapter = Signing("k")
    session.mount(rig.collector.url, adapter)
    emitter = rig.emitter(method=method, session=session)
    put(emitter)
    assert emitter.drain() is True
    (request,) = rig.collector.requests
    assert request.headers["X-Signature"] == f"k:{request.size}"
    assert adapter.bodies == [request.body or None]


@METHODS
def test_requests_go_through_the_session_s_proxy(rig: Rig, session: requests.Session, method: str) -> None:
    session.proxies = {"http": rig.collector.url}
    emitter = rig.emitter(endpoint="http://collector.invalid", method=method, session=session)
    put(emitter)
    assert emitter.drain() is True
    assert rig.collector.requests[0].target.startswith("http://collector.invalid/")


@METHODS
def test_verify_of_the_session_decides_whom_to_trust(
    rig: Rig, session: requests.Session, method: str, tmp_path: Path
) -> None:
    ca = trustme.CA()
    path = str(tmp_path / "ca.pem")
    ca.cert_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    with answering(context=context) as server:
        emitter = rig.emitter(endpoint=server.url, method=method, session=session)
        put(emitter)
        assert emitter.drain() is False
        assert "certificate verify failed" in (emitter.stats().last_error or "").lower()
        session.verify = path
        assert emitter.drain() is True
        assert emitter.stats().sent_events == 1
        session.close()


# -- answers ---------------------------------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(
    rig: Rig, session: requests.Session, method: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    rig.collector.respond(status, headers={"Location": "/elsewhere?secret=1"})
    emitter = rig.emitter(method=method, session=session)
    with caplog.at_level(logging.WARNING, "fastemit"):
        put(emitter)
        assert emitter.drain() is False
    assert len(rig.collector.requests) == 1
    assert emitter.stats().queued_events == 1
    assert "/elsewhere" in caplog.text
    assert "secret" not in caplog.text


@METHODS
def test_retry_after_is_seen(rig: Rig, session: requests.Session, method: str) -> None:
    emitter = rig.emitter(method=method, session=session)
    put(emitter)
    rig.shut_the_gate(emitter)


@METHODS
def test_the_read_timeout_holds(rig: Rig, session: requests.Session, method: str) -> None:
    with silent() as server:
        emitter = rig.emitter(endpoint=server.url, method=method, session=session, request_timeout=(5, 0.1))
        put(emitter)
        with within(2, at_least=0.05):
            assert emitter.drain() is False
        assert "ReadTimeout" in (emitter.stats().last_error or "")


def test_a_deadline_of_close_holds_without_a_thread(rig: Rig, session: requests.Session) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = rig.emitter(session=session, background=False)
    put(emitter)
    with within(2):
        assert emitter.close(0.2) == 1


@METHODS
def test_a_read_timeout_ends_an_event_larger_than_a_request(rig: Rig, session: requests.Session, method: str) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(method=method, session=session, max_request_bytes=1024, request_timeout=(5, 0.1))
    emitter.input({"a": "x" * 2000})
    assert emitter.drain() is True
    assert emitter.stats().dropped_events["oversize"] == 1


@METHODS
def test_64_kib_of_a_long_answer_are_read_and_the_connection_is_closed(
    rig: Rig, session: requests.Session, method: str
) -> None:
    endless = threading.Event()

    def handle(sock: Any, _number: int) -> None:
        while server.read(sock):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            try:
                while True:
                    sock.sendall(bytes(65536))
            except OSError:
                endless.set()
                return

    with RawServer(handle) as server:
        emitter = rig.emitter(endpoint=server.url, method=method, session=session)
        for number in range(2):
            put(emitter, first=number)
            with within(2):
                assert emitter.drain() is True
        assert endless.wait(DEADLINE)
        assert server.connections == 2


def test_an_answer_that_breaks_off_after_its_status_counts(rig: Rig, session: requests.Session) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", OK) as server:
        emitter = rig.emitter(endpoint=server.url, session=session)
        put(emitter)
        assert emitter.drain() is True
        put(emitter)
        assert emitter.drain() is True
        assert (len(server.requests), server.connections) == (2, 2)


# -- sessions that are none, or broken -------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("error", [RuntimeError("adapter broke"), requests.ConnectionError("down"), KeyError("x")])
def test_whatever_a_session_raises_the_events_are_kept_and_it_is_logged(
    rig: Rig, session: requests.Session, method: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    emitter = rig.emitter(method=method, session=session)
    put(emitter, 2)
    with mock.patch.object(session, "send", side_effect=error), caplog.at_level(logging.WARNING, "fastemit"):
        assert emitter.drain() is False
    assert emitter.stats().queued_events == 2
    assert emitter.retry_delay > 0
    assert type(error).__name__ in caplog.text
    assert emitter.drain() is True
    assert emitter.stats().sent_events == 2


class Bare:
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


@METHODS
@pytest.mark.parametrize("kind", [mock.Mock, mock.MagicMock, Bare])
@pytest.mark.parametrize(("status", "left"), [(200, 0), (400, 0), (302, 1), (503, 1)])
def test_a_session_that_is_a_mock_is_believed_its_status(
    rig: Rig, session: requests.Session, method: str, kind: type[Any], status: int, left: int
) -> None:
    with mock.patch.object(session, method, return_value=kind(status_code=status)) as call:
        emitter = rig.emitter(method=method, session=session)
        put(emitter)
        assert emitter.drain(0.5) is (left == 0)
        assert emitter.stats().queued_events == left
        assert emitter.stats().last_status == status
        assert call.call_args.args == (emitter.endpoint,)
        emitter.close(0)


def test_a_patch_of_the_session_while_it_runs_is_used(rig: Rig, session: requests.Session) -> None:
    emitter = rig.emitter(session=session)
    put(emitter)
    with mock.patch.object(session, "post", return_value=Bare(200)) as post:
        assert emitter.drain() is True
    assert post.call_count == 1
    put(emitter, first=1)
    assert emitter.drain() is True
    assert rig.requests() == [[1]]


@METHODS
def test_a_closed_session_loses_nothing(rig: Rig, method: str) -> None:
    session = requests.Session()
    emitter = rig.emitter(method=method, session=session)
    put(emitter)
    assert emitter.drain() is True
    session.close()
    session.adapters.clear()
    put(emitter, first=1)
    assert emitter.drain() is False
    assert "InvalidSchema" in (emitter.stats().last_error or "")
    assert emitter.stats().queued_events == 1


@pytest.mark.parametrize("session", [object(), "session", requests.Session, mock.Mock(spec=["post"]), 3])
@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
def test_what_cannot_post_and_get_is_no_session(session: Any, cls: type[Emitter]) -> None:
    with pytest.raises(TypeError, match=r"session must be None or a requests\.Session, not "):
        cls("localhost", session=session)


def test_the_session_is_not_closed_by_the_emitter(rig: Rig, session: requests.Session) -> None:
    emitter = rig.emitter(session=session)
    put(emitter)
    assert emitter.close() == 0
    assert session.get(rig.collector.url + "/i?n=1").status_code == 200
    assert rig.collector.connections == 1


# -- fork ------------------------------------------------------------------------------------------------------------

FORK = """
import requests, urllib3
from requests.adapters import HTTPAdapter

class Keyed(HTTPAdapter):
    def __init__(self, key):
        self.key = key
        super().__init__()
    def init_poolmanager(self, *args, **kwargs):
        # As those do that bring their own TLS context or socket options.
        super().init_poolmanager(*args, **kwargs, socket_options=self.key and [])
    def send(self, request, *args, **kwargs):
        request.headers["X-Key"] = self.key
        return super().send(request, *args, **kwargs)

session = requests.Session()
if KEYED:
    session.mount("http://", Keyed("k"))
emitter = Emitter(URL, **{"session": session} if SESSION else {"pool_manager": urllib3.PoolManager()})
put(emitter, 1, 0)
assert emitter.drain(10)
child = os.fork()
put(emitter, 1, 1 if child else 2)
done = emitter.drain(10)
if not child:
    os._exit(0 if done else 7)
assert os.waitpid(child, 0)[1] == 0
put(emitter, 1, 3)
assert done and emitter.drain(10)
"""


@pytest.mark.parametrize("how", ["session", "session with an adapter of its own", "pool_manager"])
def test_a_forked_child_has_connections_of_its_own(rig: Rig, tmp_path: Path, how: str) -> None:
    constants = f"SESSION = {how != 'pool_manager'}\nKEYED = {'adapter' in how}\n"
    assert Script(rig, tmp_path)(constants + FORK).well
    connection = {int(request.events[0]["n"]): request.connection for request in rig.collector.requests}
    assert sorted(connection) == [0, 1, 2, 3]
    assert connection[0] == connection[1] == connection[3] != connection[2]
    if "adapter" in how:
        assert {request.headers.get("X-Key") for request in rig.collector.requests} == {"k"}
