"""What the development collector records of what comes in, over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from urllib.parse import urlencode

import pytest
import urllib3

from fastemit.testing import Collector
from tests.support.collector import EVENT, TP2, Client, envelope, event, raw_post, read_all, talk
from tests.support.waiting import until


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
    head = f"POST {TP2} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n\r\n".encode()
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
        (b"GET  /i HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET i HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"G@T /i HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /\xfc HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /i FTP/1.1\r\n\r\n", 400),
        (b"GET /i HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /i HTTP/1.1\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: localhost\r\nHost: y\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: localhost\r\nA : b\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: localhost\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: localhost\r\nA: b\0\r\n\r\n", 400),
        (b"GET /i HTTP/1.1\r\nHost: localhost\r\nA: b\n\r\n", 400),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /i HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /i HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431),
        (b"POST /i HTTP/1.1\r\nHost: localhost\r\n\r\n", 411),
        (b"POST /i HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /i HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST /i HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"POST /i HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /i HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /i HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /i HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n", 400),
        (b"POST /i HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: magic\r\n\r\na", 417),
    ],
)
def test_what_is_no_request_is_refused(collector: Collector, data: bytes, status: int) -> None:
    answer = talk(collector, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    assert collector.requests == []


def test_a_refusal_can_be_read_by_a_client_that_is_still_sending(collector: Collector) -> None:
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(b"POST /i HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n" + b"x" * 5_000_000)
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
