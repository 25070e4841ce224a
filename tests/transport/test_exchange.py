"""Requests over a connection that is there already: what they look like, and what they leave behind."""

from __future__ import annotations

import hashlib
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from fastemit._interfaces import Outcome
from fastemit._transport import HttpTransport, exchange, parse_endpoint
from fastemit._transport.exchange import Head, head_with_length, head_with_query
from fastemit.testing import Collector
from tests.support.bad_network import Certified
from tests.support.delivery import OK, RawServer, answering, read_request

TIMEOUT = (5.0, 5.0)
HEADERS = {"X-Team": "shop", "Accept": "text/plain; q=0.5", "X-Latin": "caf\xe9"}


class Whole(HttpTransport):
    """As all requests went once, and unusual ones go now."""

    lean = False


def to(url: str, cls: type[HttpTransport] = HttpTransport, method: str = "post", **settings: Any) -> HttpTransport:
    return cls(parse_endpoint(url, method=method), TIMEOUT, **settings)


def idle(client: HttpTransport) -> list[Any]:
    """The connections that the pool keeps, but for places where there never was one."""
    return [connection for connection in client._pool.pool._connections if connection is not None]


# -- what is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proxy", [False, True])
@pytest.mark.parametrize("user", ["", "user:hush@"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_each_request_is_to_the_byte_what_urllib3_makes_of_it(
    monkeypatch: pytest.MonkeyPatch, proxy: bool, user: str, host: str
) -> None:
    with answering() as server:
        url = f"http://{user}{host}:{server.port}/prefix/ž"
        if proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://proxy:secret@127.0.0.1:{server.port}")
            url = f"http://{user}collector.example.com/prefix"
        clients = [to(url, cls, headers=HEADERS) for cls in (HttpTransport, Whole)]
        for client in clients:
            for body in (b"{}", memoryview(b'{"a":1}'), b"x" * 100_000, b""):
                assert client.post(body).status == 200
            for query in ("e=pv", "", "a=%C3%A9&b=%0A&c=+~*", "e=pv"):
                assert client.get(query).status == 200
    assert len(server.requests) == 16
    assert server.requests[:8] == server.requests[8:]
    assert server.connections == 2


class Spy:
    """A socket that notes what is called."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in ("send", "sendall", "sendmsg", "recv", "recv_into"):
            self.calls.append(name)
        return getattr(self._sock, name)


@pytest.mark.skipif(not hasattr(socket.socket, "sendmsg"), reason="this system sends one piece at a time")
def test_a_request_is_one_call_to_send_and_one_to_receive(collector: Collector) -> None:
    client = to(collector.url)
    assert client.post(b"{}").status == 200
    (connection,) = idle(client)
    spy = connection.sock = Spy(connection.sock)
    assert client.post(b'{"a":1}').status == 200
    assert client.get("e=pv").status in (200, 404)
    assert spy.calls == ["sendmsg", "recv_into", "sendall", "recv_into"]


def test_a_request_goes_past_urllib3_where_there_is_a_connection(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = to(collector.url)
    assert client.post(b"{}").status == 200
    monkeypatch.setattr(client._open, "urlopen", None)
    assert client.post(b"{}").status == 200


def test_a_small_request_is_one_record_of_tls(certified: Certified) -> None:
    context, path = certified.context(), certified.path
    with answering(context=context) as server:
        client = to(server.url, ca_certs=path)
        assert client.post(b"{}").status == 200
        (connection,) = idle(client)
        spy = connection.sock = Spy(connection.sock)
        assert [client.post(b"x" * size).status for size in (2, 5000, 200_000)] == [200] * 3
        assert [name for name in spy.calls if name == "sendall"] == ["sendall"] * 4
        assert [len(request.partition(b"\r\n\r\n")[2]) for request in server.requests] == [2, 2, 5000, 200_000]
        client.close()


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("secure", [False, True])
def test_a_large_body_that_is_taken_in_bites_arrives_whole(certified: Certified, kept: bool, secure: bool) -> None:
    context, path = certified.context(), certified.path
    body = bytes(range(251)) * 20_000

    def handle(sock: socket.socket, _number: int) -> None:
        while head := sock.recv(65536):
            while b"\r\n\r\n" not in head:
                head += sock.recv(65536)
            fields, _, piece = head.partition(b"\r\n\r\n")
            left = int(fields.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            digest = hashlib.sha1()
            # Until the client has had to wait.
            time.sleep(0.02)
            while True:
                left -= len(piece)
                digest.update(piece)
                if left <= 0:
                    break
                piece = sock.recv(65536)
            digests.append(digest.digest())
            sock.sendall(OK)

    digests: list[bytes] = []
    with RawServer(handle, context if secure else None) as server:
        client = to(server.url, ca_certs=path)
        if kept:
            assert client.post(b"").status == 200
        assert [client.post(memoryview(body)).status for _ in range(2)] == [200] * 2
        client.close()
    assert digests[-2:] == [hashlib.sha1(body).digest()] * 2


def test_heads_are_made_only_where_it_is_plain_what_differs() -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\nX: Content-Length: 7\r\n\r\n"
    made = head_with_length(post, 7)
    assert made is not None
    assert made.for_body(7) == post
    assert made.for_body(12) == post.replace(b"h: 7\r\nX", b"h: 12\r\nX")
    assert head_with_length(post, 8) is None
    assert head_with_length(post.replace(b"X: ", b""), 7) is None
    get = b"GET /i?a=b HTTP/1.1\r\nHost: a\r\n\r\n"
    assert head_with_query(get, "a=b") == Head(b"GET /i?", b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert head_with_query(get, "a=c") is None


@pytest.mark.parametrize("query", ["a b", "a\r\nX: y", "a\nb", "é", "a\0", "a\x7f"])
def test_a_query_that_is_none_is_refused_and_nothing_of_it_sent(collector: Collector, query: str) -> None:
    client = to(collector.url, method="get")
    assert client.get("e=pv").status == 200
    assert client.get(query).status is None
    assert client.get("e=pv").status == 200
    assert len(collector.requests) == 2


# -- what is left behind -----------------------------------------------------------------------------------------------


def test_the_pool_keeps_no_more_connections_than_it_is_to(collector: Collector) -> None:
    client = to(collector.url, connections=2)
    for _ in range(2):
        collector.respond(hang=True, times=14)
        threads = [threading.Thread(target=client.post, args=(b"{}",)) for _ in range(14)]
        for thread in threads:
            thread.start()
        collector.wait_for_requests(14)
        collector.release()
        for thread in threads:
            thread.join()
        collector.reset()
        assert 2 <= len(idle(client)) <= 10
    client.close()


def test_close_takes_the_connections_and_a_later_request_makes_one(collector: Collector) -> None:
    client = to(collector.url)
    assert [client.post(b"{}").status for _ in range(2)] == [200] * 2
    client.close()
    assert idle(client) == []
    assert client.post(b"{}").status == 200
    assert [request.connection for request in collector.requests] == [1, 1, 2]


class Interrupted(BaseException):
    """What a handler of a signal raises."""


class Interrupt:
    """Raises in the transport, at the n-th line that runs: what a signal handler may do at any."""

    FILES = frozenset({exchange.__file__, sys.modules[HttpTransport.__module__].__file__})

    def __init__(self, line: int) -> None:
        self._left = line
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        self._previous = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._previous)

    def _trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in self.FILES:
            return None
        if event == "line":
            self._left -= 1
            if not self._left:
                raise Interrupted
        return self._trace


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("plain", [False, True])
# For a moment a connection is nobody's: it is closed by being collected, and Python remarks on it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_what_a_signal_handler_raises_at_any_line_leaves_a_transport_that_works(
    method: str, kept: bool, plain: bool
) -> None:
    """The interrupted request's answer, where it had left, is nobody else's."""
    framing = b"Content-Length: 2\r\n\r\nok" if plain else b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

    def handle(sock: socket.socket, _number: int) -> None:
        while request := read_request(sock):
            status = 299 if b"decoy" in request else 200
            sock.sendall(b"HTTP/1.1 %d OK\r\n%b" % (status, framing))

    def send(text: str) -> Outcome:
        return client.post(text.encode()) if method == "post" else client.get(text)

    line = 0
    with RawServer(handle) as server:
        client = to(server.url)
        while True:
            line += 1
            assert send("honest").status == 200
            if not kept:
                client.close()
            try:
                with Interrupt(line):
                    send("decoy")
                break
            except Interrupted:
                pass
            assert len(idle(client)) <= 1
            assert send("honest").status == 200
        client.close()
    assert line > 20
