"""What the development collector answers: its script, delays, hanging and broken answers."""

from __future__ import annotations

import http.client
import socket
import time
from typing import Any

import pytest

from fastemit.testing import Collector, Request
from tests.support.collector import EVENT, TP2, Client, envelope, event, raw_post, read_all, talk


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
