"""The development collector, over real sockets."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3

from fastemit.testing import Collector, Request

SCHEMA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
TP2 = "/com.snowplowanalytics.snowplow/tp2"
EVENT = {"e": "pv", "p": "srv", "tv": "py-1.1.0"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def envelope(*events: Any) -> bytes:
    return json.dumps({"schema": SCHEMA, "data": list(events)}).encode()


def event(number: int) -> dict[str, str]:
    return {**EVENT, "eid": str(number)}


class Client:
    """One keep-alive connection."""

    def __init__(self, collector: Collector, timeout: float = 10.0) -> None:
        self.connection = http.client.HTTPConnection(collector.host, collector.port, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def post(self, *events: Any) -> int:
        return self.request("POST", TP2, envelope(*events))[0]


@pytest.fixture
def client(collector: Collector) -> Iterator[Client]:
    with Client(collector) as client:
        yield client


def micro(client: Client, path: str, **filters: Any) -> Any:
    if filters:
        status, body = client.request("POST", f"/micro/{path}", json.dumps(filters))
    else:
        status, body = client.request("GET", f"/micro/{path}")
    assert status == 200
    return json.loads(body)


def talk(collector: Collector, data: bytes) -> bytes:
    """Send bytes on a connection of their own, end the sending side, and return all that comes back."""
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    answer = b""
    while data := sock.recv(65536):
        answer += data
    return answer


def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.002)


def raw_post(body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {TP2} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


# What comes in.


def test_events_of_posts_arrive_in_order(collector: Collector, client: Client) -> None:
    assert client.post(event(1), event(2)) == 200
    assert client.post(event(3)) == 200
    assert collector.events == [event(1), event(2), event(3)]


def test_an_event_of_a_get_is_its_query(collector: Collector, client: Client) -> None:
    status, _ = client.request("GET", "/i?" + urlencode({**EVENT, "page": "a b&c=ü", "uid": ""}))
    assert status == 200
    assert collector.events == [{**EVENT, "page": "a b&c=ü", "uid": ""}]


@pytest.mark.parametrize("path", [TP2, "/some/prefix" + TP2, TP2 + "?x=1"])
def test_a_post_path_may_have_a_prefix(collector: Collector, client: Client, path: str) -> None:
    assert client.request("POST", path, envelope(EVENT))[0] == 200
    assert collector.events == [EVENT]


def test_a_get_path_may_have_a_prefix(collector: Collector, client: Client) -> None:
    client.request("GET", "/prefix/i?" + urlencode(EVENT))
    assert collector.events == [EVENT]


@pytest.mark.parametrize(("method", "path"), [("GET", TP2), ("POST", "/i"), ("POST", "/"), ("PUT", TP2)])
def test_other_requests_are_not_found_but_recorded(
    collector: Collector, client: Client, method: str, path: str
) -> None:
    assert client.request(method, path, envelope(EVENT))[0] == 404
    assert [(r.method, r.path, r.status, r.events) for r in collector.requests] == [(method, path, 404, [])]
    assert collector.events == []


def test_a_request_is_recorded_whole(collector: Collector, client: Client) -> None:
    before = time.monotonic()
    client.request("POST", TP2 + "?a=1&b=%20", envelope(EVENT), **{"X-Thing": "one"})
    (request,) = collector.requests
    assert (request.method, request.path, request.query) == ("POST", TP2, "a=1&b=%20")
    assert request.headers["x-thing"] == request.headers["X-THING"] == "one"
    assert "x-THING" in request.headers
    assert "y" not in request.headers
    assert request.headers.get("absent") is None
    assert request.body == envelope(EVENT)
    assert request.size == len(request.body)
    assert before <= request.arrived <= time.monotonic()
    assert (request.status, request.connection) == (200, 1)
    assert request.events == [EVENT]


def test_a_request_cannot_be_changed(collector: Collector, client: Client) -> None:
    client.post(EVENT)
    with pytest.raises(AttributeError):
        collector.requests[0].status = 500  # type: ignore[misc]


def test_repeated_headers_are_joined(collector: Collector) -> None:
    talk(collector, raw_post(envelope(EVENT), "X-A: 1", "x-a: 2"))
    headers = collector.requests[0].headers
    assert headers["X-A"] == "1, 2"
    assert headers.getlist("x-a") == ("1", "2")
    assert list(headers) == ["Host", "Content-Length", "X-A"]
    assert len(headers) == 3


def test_connections_are_kept_alive_and_told_apart(collector: Collector, client: Client) -> None:
    client.post(event(1))
    client.post(event(2))
    with Client(collector) as other:
        other.post(event(3))
    assert [request.connection for request in collector.requests] == [1, 1, 2]
    assert collector.connections == 2


def test_a_client_can_close_the_connection(collector: Collector, client: Client) -> None:
    client.request("POST", TP2, envelope(EVENT), Connection="close")
    until(lambda: collector.open_connections == 0)
    assert talk(collector, raw_post(envelope(EVENT), version="1.0")).startswith(b"HTTP/1.1 200 OK\r\n")


def test_urllib3_reuses_its_connection(collector: Collector) -> None:
    with urllib3.PoolManager() as pool:
        for number in range(5):
            answer = pool.request("POST", collector.url + TP2, body=envelope(event(number)))
            assert (answer.status, answer.data) == (200, b"ok")
    assert len(collector.wait_for(5)) == 5
    assert collector.connections == 1


def test_pipelined_requests_are_answered_in_turn(collector: Collector) -> None:
    answer = talk(collector, raw_post(envelope(event(1))) + raw_post(envelope(event(2))))
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert collector.events == [event(1), event(2)]


def test_a_large_body_arrives_whole(collector: Collector, client: Client) -> None:
    large = {**EVENT, "page": "x" * 5_000_000}
    assert client.post(large) == 200
    assert collector.events == [large]


def test_a_chunked_body_arrives_whole(collector: Collector, client: Client) -> None:
    body = envelope(EVENT)
    status, _ = client.request("POST", TP2, iter([body[:7], body[7:20], body[20:]]))
    assert status == 200
    assert collector.requests[0].headers["Transfer-Encoding"] == "chunked"
    assert collector.events == [EVENT]
    assert client.post(EVENT) == 200


def test_chunk_extensions_and_trailers_are_skipped(collector: Collector) -> None:
    body = envelope(EVENT)
    head = f"POST {TP2} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n".encode()
    chunks = b"%X;a=b\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(body), body)
    assert talk(collector, head + chunks).startswith(b"HTTP/1.1 200 ")
    assert collector.events == [EVENT]


def test_expect_100_continue_is_answered_before_the_body_is_sent(collector: Collector) -> None:
    body = envelope(EVENT)
    head, _, _ = raw_post(body, "Expect: 100-continue").partition(b"{")
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(head)
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_proxy_request_is_taken_like_any_other(collector: Collector) -> None:
    data = raw_post(envelope(EVENT)).replace(b"POST ", b"POST http://far.example:80")
    talk(collector, data)
    assert collector.requests[0].target == "http://far.example:80" + TP2
    assert collector.requests[0].path == TP2
    assert collector.events == [EVENT]


def test_ipv6(client: Client) -> None:
    try:
        collector = Collector("::1").start()
    except OSError:
        pytest.skip("no IPv6 here")
    with collector, urllib3.PoolManager() as pool:
        assert collector.url == f"http://[::1]:{collector.port}"
        pool.request("POST", collector.url + TP2, body=envelope(EVENT))
        assert collector.events == [EVENT]


def test_many_clients_at_once(collector: Collector) -> None:
    def send(worker: int) -> None:
        with Client(collector) as client:
            for number in range(50):
                client.post(event(worker * 1000 + number))

    threads = [threading.Thread(target=send, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    events = collector.wait_for(400)
    for thread in threads:
        thread.join()
    for worker in range(8):
        mine = [int(e["eid"]) for e in events if int(e["eid"]) // 1000 == worker]
        assert mine == [worker * 1000 + number for number in range(50)]


def test_many_connections_one_after_the_other(collector: Collector) -> None:
    for _ in range(300):
        assert b" 200 " in talk(collector, raw_post(envelope(EVENT)))
    assert collector.connections == 300
    until(lambda: collector.open_connections == 0)
    assert len(collector._threads) < 20


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\nHost: x\n\n", 400),
        (b"GET  /i HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET i HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"G@T /i HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xfc HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /i FTP/1.1\r\n\r\n", 400),
        (b"GET /i HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /i HTTP/1.1\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: x\r\nA: b\0\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: x\r\nA: b\n\r\n", 400),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /i HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /i HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431),
        (b"POST /i HTTP/1.1\r\nHost: x\r\n\r\n", 411),
        (b"POST /i HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /i HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST /i HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"POST /i HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /i HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /i HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /i HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n", 400),
        (b"POST /i HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: magic\r\n\r\na", 417),
    ],
)
def test_what_is_no_request_is_refused(collector: Collector, data: bytes, status: int) -> None:
    answer = talk(collector, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    assert collector.requests == []


def test_a_refusal_can_be_read_by_a_client_that_is_still_sending(collector: Collector) -> None:
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(b"POST /i HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n" + b"x" * 5_000_000)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("length", [10, 60, 150])
def test_a_request_that_breaks_off_leaves_nothing(collector: Collector, length: int) -> None:
    assert talk(collector, raw_post(b"x" * 200)[:length]) == b""
    until(lambda: collector.open_connections == 0)
    assert collector.requests == []


def test_without_bodies_only_sizes_are_kept() -> None:
    with Collector(keep_bodies=False) as collector, Client(collector) as client:
        client.post(EVENT)
        client.post(EVENT, EVENT)
        client.request("POST", TP2, iter([b"abc"]))
        requests = collector.wait_for_requests(3)
        assert [r.size for r in requests] == [len(envelope(EVENT)), len(envelope(EVENT, EVENT)), 3]
        assert [r.body for r in requests] == [b"", b"", b""]
        with pytest.raises(RuntimeError, match="keep_bodies=False"):
            collector.wait_for(1)
        assert client.request("GET", "/micro/all")[0] == 501


# Waiting.


def test_wait_for_returns_when_the_events_are_there(collector: Collector, client: Client) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(collector.wait_for(2)))
    thread.start()
    client.post(event(1))
    client.post(event(2))
    thread.join(10)
    assert found == [event(1), event(2)]


def test_wait_for_says_how_many_arrived(collector: Collector, client: Client) -> None:
    collector.respond(503)
    client.post(event(1))
    client.post(event(1), event(2))
    with pytest.raises(TimeoutError) as caught:
        collector.wait_for(3, timeout=0.05)
    expected = "2 of 3 events arrived within 0.05 s; requests by answer: 503: 1, 200: 1"
    assert str(caught.value) == expected


def test_wait_for_requests_counts_unanswered_ones(collector: Collector, client: Client) -> None:
    collector.respond(hang_up=True)
    with pytest.raises(http.client.RemoteDisconnected):
        client.post(EVENT)
    assert [r.status for r in collector.wait_for_requests(1)] == [None]
    with pytest.raises(TimeoutError, match=r"^1 of 2 requests arrived .*: no answer: 1$"):
        collector.wait_for_requests(2, timeout=0.01)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"count": -1}, "count=-1: 0 or more"),
        ({"count": "1"}, "count='1': a whole number"),
        ({"count": 1, "timeout": -1}, "timeout=-1: a finite number of seconds, 0 or more"),
        ({"count": 1, "timeout": None}, "timeout=None: a number of seconds"),
    ],
)
def test_wait_for_checks_its_arguments(collector: Collector, arguments: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        collector.wait_for(**arguments)


# Scripted answers.


def test_answers_come_in_the_order_of_the_script(collector: Collector, client: Client) -> None:
    collector.respond(503)
    collector.respond(500, times=2)
    collector.respond(202)
    assert [client.post(event(n)) for n in range(5)] == [503, 500, 500, 202, 200]
    assert [r.status for r in collector.requests] == [503, 500, 500, 202, 200]
    assert collector.events == [event(3), event(4)]


def test_an_answer_for_ever_ends_with_the_next(collector: Collector, client: Client) -> None:
    collector.respond(500, times=None)
    assert [client.post(EVENT) for _ in range(4)] == [500] * 4
    collector.respond(429)
    assert [client.post(EVENT) for _ in range(2)] == [429, 200]
    collector.respond(500, times=None)
    collector.reset()
    assert client.post(EVENT) == 200


def test_headers_and_body(collector: Collector, client: Client) -> None:
    collector.respond(503, headers={"Retry-After": "2", "X-A": "b"}, body=b"later")
    client.connection.request("POST", TP2, envelope(EVENT))
    answer = client.connection.getresponse()
    assert (answer.status, answer.reason, answer.read()) == (503, "Service Unavailable", b"later")
    assert (answer.headers["Retry-After"], answer.headers["X-A"]) == ("2", "b")
    assert client.post(EVENT) == 200


def test_a_content_length_of_the_script_is_sent_as_it_is(collector: Collector) -> None:
    collector.respond(headers=[("Content-Length", "50")], body=b"short", close=True)
    answer = talk(collector, raw_post(envelope(EVENT)))
    assert answer.count(b"Content-Length") == 1
    assert answer.endswith(b"\r\n\r\nshort")


def test_a_204_has_no_body(collector: Collector, client: Client) -> None:
    collector.respond(204)
    assert client.request("POST", TP2, envelope(EVENT)) == (204, b"")
    assert client.post(EVENT) == 200
    assert collector.events == [EVENT, EVENT]


def test_the_status_can_depend_on_the_request(collector: Collector, client: Client) -> None:
    collector.respond(lambda request: 413 if len(request.body) > 300 else 200, times=None)
    assert [client.post(EVENT), client.post(*[EVENT] * 20), client.post(EVENT)] == [200, 413, 200]
    assert collector.events == [EVENT, EVENT]


def test_a_failing_status_function_is_reported(collector: Collector, client: Client) -> None:
    def fail(request: Request) -> int:
        raise KeyError("mistake")

    collector.respond(fail)
    assert client.post(EVENT) == 500
    with pytest.raises(RuntimeError, match=r"respond\(status=") as caught:
        collector.wait_for(1)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_delay(collector: Collector, client: Client) -> None:
    collector.respond(200, delay=0.1)
    began = time.monotonic()
    assert client.post(EVENT) == 200
    assert time.monotonic() - began >= 0.1
    assert collector.events == [EVENT]


def test_events_are_accepted_only_when_the_answer_goes_out(collector: Collector) -> None:
    collector.respond(200, delay=30)
    with Client(collector, timeout=0.05) as client, pytest.raises(TimeoutError):
        client.post(EVENT)
    assert [r.status for r in collector.wait_for_requests(1)] == [None]
    assert collector.events == []


def test_a_reset_connection(collector: Collector) -> None:
    collector.respond(reset=True)
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(raw_post(envelope(EVENT)))
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    assert [r.status for r in collector.requests] == [None]
    assert collector.events == []


def test_a_connection_closed_without_an_answer(collector: Collector) -> None:
    collector.respond(hang_up=True)
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(raw_post(envelope(EVENT)))
        assert sock.recv(100) == b""
    assert [r.status for r in collector.requests] == [None]
    assert collector.events == []


@pytest.mark.parametrize("way", ["reset", "hang_up", "hang", "status"])
def test_accept_keeps_the_events_of_a_lost_answer(collector: Collector, way: str) -> None:
    collector.respond(accept=True, **({"status": 500} if way == "status" else {way: True}))  # type: ignore[arg-type]
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(raw_post(envelope(EVENT)))
        assert collector.wait_for(1) == [EVENT]
    collector.release()
    assert collector.events == [EVENT]


def test_events_accepted_at_arrival_are_not_accepted_again(collector: Collector) -> None:
    collector.respond(200, hang=True, accept=True)
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(raw_post(envelope(EVENT)))
        collector.wait_for(1)
        collector.release()
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    assert collector.events == [EVENT]


def test_events_of_an_answer_may_be_refused(collector: Collector, client: Client) -> None:
    collector.respond(200, accept=False)
    assert client.post(EVENT) == 200
    assert collector.events == []


@pytest.mark.parametrize("how", ["release", "reset"])
def test_a_hanging_request_is_answered_on(collector: Collector, how: str) -> None:
    collector.respond(202, hang=True)
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(raw_post(envelope(EVENT)))
        assert [r.status for r in collector.wait_for_requests(1)] == [None]
        assert collector.events == []
        getattr(collector, how)()
        assert sock.recv(100).startswith(b"HTTP/1.1 202 ")
    assert collector.events == ([EVENT] if how == "release" else [])
    assert [r.status for r in collector.requests] == ([202] if how == "release" else [])


def test_close_ends_a_hanging_request() -> None:
    collector = Collector().start()
    collector.respond(hang=True)
    collector.respond(delay=60)
    with (
        socket.create_connection((collector.host, collector.port), timeout=10) as hanging,
        socket.create_connection((collector.host, collector.port), timeout=10) as delayed,
    ):
        for number, sock in enumerate((hanging, delayed), 1):
            sock.sendall(raw_post(envelope(EVENT)))
            collector.wait_for_requests(number)
        collector.close()
        assert hanging.recv(100) == delayed.recv(100) == b""


def test_an_answer_cut_after_its_headers(collector: Collector, client: Client) -> None:
    collector.respond(200, close_after_headers=True)
    client.connection.request("POST", TP2, envelope(EVENT))
    answer = client.connection.getresponse()
    assert answer.status == 200
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    assert collector.events == [EVENT]


def test_an_announced_close(collector: Collector) -> None:
    collector.respond(200, close=True)
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(raw_post(envelope(EVENT)))
        answer = read_all(sock)
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nok")


def test_interim_answers_come_before_the_delay(collector: Collector) -> None:
    collector.respond(200, interim=(102, 103), hang=True)
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(raw_post(envelope(EVENT)))
        expected = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"
        interim = b""
        while len(interim) < len(expected):
            interim += sock.recv(100)
        assert interim == expected
        collector.release()
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_dripping_answer(collector: Collector, client: Client) -> None:
    collector.respond(503, drip=0.001, body=b"x" * 50)
    began = time.monotonic()
    assert client.request("POST", TP2, envelope(EVENT)) == (503, b"x" * 50)
    assert time.monotonic() - began >= 0.1
    assert client.post(EVENT) == 200


def test_close_ends_a_dripping_answer() -> None:
    with Collector() as collector:
        collector.respond(200, drip=60)
        with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
            sock.sendall(raw_post(envelope(EVENT)))
            assert sock.recv(100) == b"H"
            collector.close()
            assert sock.recv(100) == b""


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"status": 199}, "status=199: a status from 200 to 599"),
        ({"status": 600}, "status=600"),
        ({"status": "200"}, "status='200'"),
        ({"status": True}, "status=True"),
        ({"times": 0}, "times=0: 1 or more"),
        ({"times": 1.5}, "times=1.5: a whole number"),
        ({"delay": -1}, "delay=-1: a finite number"),
        ({"delay": float("nan")}, "delay=nan: a finite number"),
        ({"drip": "1"}, "drip='1': a number of seconds"),
        ({"body": "text"}, "body='text': bytes"),
        ({"headers": {"A": 1}}, "names and values have to be strings"),
        ({"headers": {"A": "b\r\nC: d"}}, "no line ends"),
        ({"interim": (200,)}, r"interim=\(200,\): statuses from 100 to 199"),
        ({"interim": 103}, "interim=103: a sequence"),
        ({"hang": 1}, "hang=1: True or False"),
        ({"accept": 1}, "accept=1: True, False or None"),
        ({"reset": True, "hang": True}, "reset=True and hang=True: only one"),
        ({"hang_up": True, "body": b"x"}, "body=b'x': there is no answer with hang_up=True"),
    ],
)
def test_respond_checks_its_arguments(collector: Collector, arguments: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        collector.respond(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"host": ""}, "host=''"),
        ({"host": b"x"}, "host=b'x'"),
        ({"port": -1}, "port=-1: 0 or more"),
        ({"port": 65536}, "port=65536: a port from 0 to 65535"),
        ({"port": "80"}, "port='80'"),
        ({"keep_bodies": 1}, "keep_bodies=1: True or False"),
    ],
)
def test_the_collector_checks_its_arguments(arguments: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        Collector(**arguments)


# Micro.


def test_micro_counts_good_and_bad(collector: Collector, client: Client) -> None:
    client.post(EVENT, {"e": "pv"}, EVENT)
    client.request("POST", TP2, b"{")
    assert micro(client, "all") == {"total": 4, "good": 2, "bad": 2}
    assert micro(client, "reset") == {"total": 0, "good": 0, "bad": 0}
    assert micro(client, "all") == {"total": 0, "good": 0, "bad": 0}
    assert collector.events == []


def test_micro_good_shows_events_the_latest_first(client: Client) -> None:
    described = {"schema": "iglu:com.acme/thing/jsonschema/1-0-0", "data": {}}
    ue = {
        **EVENT,
        "e": "ue",
        "ue_pr": json.dumps({"schema": "x", "data": described}),
        "co": json.dumps({"schema": "y", "data": [described]}),
    }
    client.post(EVENT, ue)
    first, second = micro(client, "good")
    assert first["event"] == first["rawEvent"]["parameters"] == ue
    assert first["eventType"] == "ue"
    assert first["schema"] == described["schema"]
    assert first["contexts"] == [described["schema"]]
    assert first["rawEvent"]["api"] == {"vendor": "com.snowplowanalytics.snowplow", "version": "tp2"}
    assert (second["eventType"], second["schema"], second["contexts"]) == ("pv", None, [])


def test_micro_filters(client: Client) -> None:
    base64 = "eyJzY2hlbWEiOiJ4IiwiZGF0YSI6eyJzY2hlbWEiOiJpZ2x1OmEvYi9jLzEtMC0wIiwiZGF0YSI6e319fQ"
    client.post(event(1), {**event(2), "e": "ue", "ue_px": base64}, event(3))
    ids = lambda **filters: [entry["event"]["eid"] for entry in micro(client, "good", **filters)]  # noqa: E731
    assert ids(event_type="pv") == ["3", "1"]
    assert ids(schema="iglu:a/b/c/1-0-0") == ["2"]
    assert ids(contexts=["iglu:none"]) == []
    assert ids(limit=1) == ["3"]
    client.post({})
    assert len(micro(client, "bad", version="tp2")) == 1
    assert micro(client, "bad", version="tp1") == []
    assert client.request("POST", "/micro/good", b"[]")[0] == 400


def test_micro_bad_says_what_is_wrong(collector: Collector, client: Client) -> None:
    client.post({"e": "pv", "p": "srv"})
    (bad,) = micro(client, "bad")
    assert bad["errors"] == ["required property 'tv' is missing"]
    assert bad["rawEvent"]["parameters"] == {"e": "pv", "p": "srv"}
    assert bad["collectorPayload"]["body"] == envelope({"e": "pv", "p": "srv"}).decode()


def test_micro_paths_are_beside_the_script(collector: Collector, client: Client) -> None:
    collector.respond(500, times=None)
    assert client.request("GET", "/health") == (200, b"ok")
    assert micro(client, "all") == {"total": 0, "good": 0, "bad": 0}
    assert client.request("GET", "/micro/else")[0] == 404
    assert client.request("DELETE", "/micro/all")[0] == 405
    assert collector.requests == []
    assert client.post(EVENT) == 500


@pytest.mark.parametrize(
    ("item", "errors"),
    [
        ({}, [f"required property {name!r} is missing" for name in ("tv", "p", "e")]),
        ({**EVENT, "se_va": 1}, ["property 'se_va': string expected, integer found"]),
        ({**EVENT, "se_va": 1.5}, ["property 'se_va': string expected, number found"]),
        ({**EVENT, "uid": None}, ["property 'uid': string expected, null found"]),
        ({**EVENT, "uid": True}, ["property 'uid': string expected, boolean found"]),
        ({**EVENT, "co": {}}, ["property 'co': string expected, object found"]),
        ({**EVENT, "color": "red"}, ["property 'color' is not defined in payload_data 1-0-4"]),
        ([], ["object expected, array found"]),
    ],
)
def test_a_bad_event_is_told_from_a_good_one(
    collector: Collector, client: Client, item: Any, errors: list[str]
) -> None:
    assert client.post(EVENT, item) == 200
    (bad,) = collector.bad
    assert (bad.event, bad.errors) == (item, errors)
    assert collector.good == [EVENT]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is not JSON: Expecting value"),
        (b"{", "the body is not JSON: Expecting property name enclosed in double quotes"),
        (b"\xff", "the body is not JSON: UnicodeDecodeError"),
        (envelope({**EVENT, "uid": float("nan")}), "the body is not JSON: ValueError"),
        (b"[" * 100_000, "the body is not JSON: RecursionError"),
        (b"[]", "the body is not a self-describing JSON: an object with schema and data is expected"),
        (
            b'{"data": [{}]}',
            "the body is not a self-describing JSON: an object with schema and data is expected",
        ),
        (
            envelope(EVENT).replace(b"1-0-4", b"2-0-0"),
            "the schema of the body is not payload_data 1-0-0 to 1-0-4",
        ),
        (envelope(), "data: at least 1 item expected, 0 found"),
        (envelope(EVENT).replace(b"[", b"").replace(b"]", b""), "data: array expected, object found"),
    ],
)
def test_a_bad_body_is_one_bad_entry(collector: Collector, client: Client, body: bytes, error: str) -> None:
    assert client.request("POST", TP2, body)[0] == 200
    (bad,) = collector.bad
    assert (bad.event, bad.errors) == (None, [error])
    assert collector.good == collector.events == []


@pytest.mark.parametrize(
    ("query", "error"),
    [("", "the query string is empty: no event in it"), ("?e=%FF", "the query string is not UTF-8")],
)
def test_a_bad_query_is_one_bad_entry(collector: Collector, client: Client, query: str, error: str) -> None:
    assert client.request("GET", "/i" + query)[0] == 200
    assert [bad.errors for bad in collector.bad] == [[error]]


# Starting and stopping.


def test_reset_forgets(collector: Collector, client: Client) -> None:
    client.post(EVENT)
    collector.respond(500)
    assert collector.good == [EVENT]
    collector.reset()
    assert (collector.events, collector.requests, collector.good, collector.bad) == ([], [], [], [])
    assert client.post(EVENT) == 200
    assert collector.events == [EVENT]
    assert collector.connections == 1


def test_close_leaves_no_threads_and_no_sockets() -> None:
    fds = f"/proc/{os.getpid()}/fd"
    threads = set(threading.enumerate())
    before = len(os.listdir(fds)) if os.path.isdir(fds) else 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collector = Collector()
        with collector:
            clients = [Client(collector) for _ in range(10)]
            for client in clients:
                client.post(EVENT)
            assert collector.open_connections == 10
        assert set(threading.enumerate()) == threads
        collector.close()
    for client in clients:
        client.connection.close()
    assert collector.open_connections == 0
    assert len(collector.events) == 10
    if os.path.isdir(fds):
        assert len(os.listdir(fds)) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((collector.host, collector.port), timeout=10)


def test_the_port_is_unknown_before_the_start() -> None:
    with pytest.raises(RuntimeError, match=r"before start\(\)"):
        _ = Collector().url


def test_a_collector_can_go_down_and_come_back() -> None:
    with Collector() as collector:
        port = collector.port
        with Client(collector) as client:
            client.post(event(1))
            collector.close()
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                client.post(event(2))
        collector.start()
        assert collector.start() is collector
        with Client(collector) as client:
            client.post(event(3))
        assert collector.port == port
        assert collector.events == [event(1), event(3)]


def test_a_port_in_use_is_named(collector: Collector) -> None:
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{collector.port}: ") as caught:
        Collector(port=collector.port).start()
    assert caught.value.errno is not None


def test_dropped_connections_can_be_replaced(collector: Collector) -> None:
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(raw_post(envelope(EVENT)))
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        collector.drop_connections()
        assert sock.recv(100) == b""
    with Client(collector) as client:
        assert client.post(EVENT) == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_holds_no_connection(collector: Collector) -> None:
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(raw_post(envelope(EVENT)))
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        reader, writer = os.pipe()
        started, starts = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.write(starts, b"x")
            os.read(reader, 1)  # lives until the parent closes its end
            os._exit(0)
        try:
            assert os.read(started, 1) == b"x"  # what it inherited has been closed by then
            collector.respond(reset=True)
            sock.sendall(raw_post(envelope(EVENT)))
            with pytest.raises(ConnectionResetError):  # the child's copy of the socket would prevent it
                sock.recv(100)
            collector.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((collector.host, collector.port), timeout=10)
        finally:
            os.close(writer)
            for end in (reader, started, starts):
                os.close(end)
            os.waitpid(child, 0)
