"""An answer counts by its status, however its headers are, and an old connection is replaced."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from fastemit._interfaces import Outcome
from fastemit._transport import connections
from fastemit._transport.endpoint import parse_endpoint
from fastemit._transport.http import HttpTransport
from fastemit.testing import Collector
from tests.support.delivery import OK, RawServer, Rig, answering, put, read_request, within

MANY = b"".join(b"X-%d: y\r\n" % number for number in range(150))
LONG = b"X: " + b"y" * 70_000 + b"\r\n"


def to(url: str, timeout: tuple[float, float] = (2.0, 2.0)) -> HttpTransport:
    return HttpTransport(parse_endpoint(url), timeout)


def send(transport: HttpTransport, method: str) -> Outcome:
    return transport.post(b"{}") if method == "post" else transport.get("e=pv")


#: Heads behind which the connection can be used again.
KEPT = {
    "150 headers": MANY,
    "10,000 headers": b"X: y\r\n" * 10_000,
    "a header of 70 kB": LONG,
    "a header of 500 kB": b"X: " + b"y" * 500_000 + b"\r\n",
    "a long name": b"y" * 70_000 + b": x\r\n",
    "a folded header": b"X: y\r\n" + b" y\r\n" * 1000,
    "a line without a colon": b"no header at all\r\n",
    "a header without a name": b": y\r\n",
    "many cookies": b"Set-Cookie: a=b; Path=/\r\n" * 500,
    "binary": bytes(range(128, 256)) + b": " + bytes(range(128, 256)) + b"\r\n",
    "bare line feeds": b"X: y\nZ: z\n",
    "the same length twice": b"Content-Length: 2\r\n",
    "many and long ones": MANY + LONG + MANY,
}


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("method", ["post", "get"])
def test_the_status_counts_however_the_headers_are_and_the_connection_is_used_again(kind: str, method: str) -> None:
    answer = b"HTTP/1.1 %d Whatever\r\n" + KEPT[kind].replace(b"%", b"%%") + b"Content-Length: 2\r\n\r\nok"
    with answering(answer % 200, answer % 403) as server:
        client = to(server.url)
        with within(1.5):
            assert [send(client, method).status for _ in range(3)] == [200, 403, 200]
        assert server.connections == 1


#: Heads that say two things about where the answer ends, or stop.
LEFT = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nok",
    "two lengths in one": b"Content-Length: 2, 5\r\n\r\nok",
    "a hundred lengths": b"".join(b"Content-Length: %d\r\n" % size for size in range(100)) + b"\r\nok",
}


@pytest.mark.parametrize("kind", LEFT)
@pytest.mark.parametrize("method", ["post", "get"])
def test_the_status_counts_of_an_answer_whose_end_nobody_knows(kind: str, method: str) -> None:
    with answering(b"HTTP/1.1 200 OK\r\n" + LEFT[kind]) as server:
        client = to(server.url, (2.0, 0.1))
        with within(1.5):
            assert [send(client, method) for _ in range(2)] == [Outcome(status=200)] * 2
        assert server.connections == 2


@pytest.mark.parametrize("end", ["silence", "hang up", "reset", "drip", "too much"])
@pytest.mark.parametrize("method", ["post", "get"])
def test_the_status_counts_when_the_headers_have_no_end(end: str, method: str) -> None:
    def handle(sock: socket.socket, number: int) -> None:
        if number > 1:
            server.answer_all(sock)
        server.read(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nX: y\r\nY: ")
        if end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        while end in ("drip", "too much") and not server.over.wait(0.0 if end == "too much" else 0.02):
            sock.sendall(b"y" * (65536 if end == "too much" else 1))
        if end == "silence":
            server.over.wait(5)

    with RawServer(handle) as server:
        client = to(server.url, (2.0, 0.1))
        with within(1.5):
            assert [send(client, method) for _ in range(2)] == [Outcome(status=200)] * 2
        assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize("where", ["interim", "status line"])
def test_what_breaks_before_the_status_is_no_answer(where: str) -> None:
    begin = b"HTTP/1.1 103 Early Hints\r\nX: " if where == "interim" else b"HTTP/1.1 20"

    def handle(sock: socket.socket, _number: int) -> None:
        server.read(sock)
        sock.sendall(begin)
        server.over.wait(5)

    with RawServer(handle) as server:
        outcome = to(server.url, (2.0, 0.2)).post(b"{}")
    assert (outcome.status, outcome.timed_out) == (None, True)


def test_a_long_reason_is_read_and_the_connection_used_again() -> None:
    with answering(b"HTTP/1.1 403 " + b"x" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok") as server:
        client = to(server.url)
        assert [client.post(b"{}").status for _ in range(2)] == [403, 200]
        assert server.connections == 1


@pytest.mark.parametrize("filler", [MANY, LONG], ids=["many", "long"])
def test_what_is_asked_of_the_client_is_found_among_the_other_headers(filler: bytes) -> None:
    head = b"HTTP/1.1 503 Slow\r\n" + filler + b"RETRY-after: 7\r\nLocation: /x\r\n" + filler
    with answering(head + b"Content-Length: 0\r\n\r\n") as server:
        assert to(server.url).post(b"{}") == Outcome(status=503, retry_after="7", location="/x")


@pytest.mark.parametrize("filler", [MANY, LONG], ids=["many", "long"])
def test_interim_answers_with_odd_headers_are_skipped(filler: bytes) -> None:
    final = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
    with answering(b"HTTP/1.1 103 Early Hints\r\n" + filler + b"\r\n" + final) as server:
        assert to(server.url).post(b"{}") == Outcome(status=410)


def test_chunks_are_read_whole_behind_odd_headers() -> None:
    body = b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * 20_000 + b"\r\nok\r\n0\r\nTrailer: x\r\n\r\n"
    with answering(b"HTTP/1.1 200 OK\r\n" + MANY + body) as server:
        client = to(server.url)
        assert [client.post(b"{}").status for _ in range(2)] == [200, 200]
        assert server.connections == 1


@pytest.mark.parametrize("filler", [MANY, LONG], ids=["many", "long"])
@pytest.mark.parametrize("method", ["post", "get"])
def test_an_event_is_sent_once_whatever_the_headers_of_its_answer(rig: Rig, filler: bytes, method: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + filler + b"Content-Length: 2\r\n\r\nok"
    with answering(answer, answer) as server:
        emitter = rig.emitter(endpoint=server.url, method=method, max_retry_delay_seconds=0.01)
        put(emitter, 2)
        assert emitter.drain() is True
        emitter.close()
        assert emitter.stats().failed_requests == 0
        assert len(server.requests) == (1 if method == "post" else 2)


@pytest.mark.parametrize("filler", [MANY, LONG], ids=["many", "long"])
def test_a_proxy_may_answer_connect_with_odd_headers(monkeypatch: pytest.MonkeyPatch, filler: bytes) -> None:
    """The tunnel is there then: what comes through it is no TLS, and says so."""
    through = threading.Event()

    def handle(sock: socket.socket, _number: int) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n" + filler + b"\r\n")
        # A TLS ClientHello, and nothing that was left of the head.
        if sock.recv(1) == b"\x16":
            through.set()

    with RawServer(handle) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        assert to("https://collector.example.com").post(b"{}").status is None
        assert through.wait(5)


# -- age ---------------------------------------------------------------------------------------------------------------


def grow_older(client: Any, seconds: float) -> None:
    """As if the idle connection had been made so much earlier."""
    connection = client._open.pool._connections[-1]
    connection._connected_at -= seconds


@pytest.mark.parametrize("method", ["post", "get"])
def test_a_busy_connection_is_replaced_after_five_minutes(collector: Collector, method: str) -> None:
    client = HttpTransport(parse_endpoint(collector.url, method=method), (2.0, 2.0))
    for _ in range(16):
        assert send(client, method).status == 200
        grow_older(client, 40.0)
    assert [request.connection for request in collector.requests] == [1] * 8 + [2] * 8


def test_the_name_is_looked_up_again_for_a_new_connection(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name has moved while the old address still answers."""
    with Collector() as moved:
        ports = [collector.port]
        resolve = socket.getaddrinfo

        def lookup(host: Any, port: Any, *rest: Any) -> Any:
            return resolve("127.0.0.1", ports[0], *rest) if host == "moving.localhost" else resolve(host, port, *rest)

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        client = to("http://moving.localhost:9090")
        assert client.post(b"{}").status == 200
        ports[0] = moved.port
        for _ in range(8):
            grow_older(client, 40.0)
            assert client.post(b"{}").status == 200
        assert (len(collector.requests), len(moved.requests)) == (8, 1)


def test_a_request_that_lasts_longer_than_a_connection_may_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "AGE_LIMIT", 0.05)

    def handle(sock: socket.socket, _number: int) -> None:
        while server.read(sock):
            server.over.wait(0.1)
            sock.sendall(OK)

    with RawServer(handle) as server:
        client = to(server.url)
        assert [client.post(b"{}").status for _ in range(2)] == [200, 200]
        assert (server.connections, len(server.requests)) == (2, 2)
