"""How much the development collector keeps, and how long it waits for a client."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

import pytest

from fastemit.testing import Collector
from tests.support.collector import EVENT, TP2, Client, envelope, event, raw_post, read_all
from tests.support.waiting import until

BAD = {"e": "pv"}


def room_for(requests: int) -> int:
    """`max_bytes` for so many POSTs of one event."""
    return requests * (1000 + len(TP2) + len(envelope(event(1))))


# -- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asks", [True, False], ids=["asked for between", "asked for at the end"])
def test_the_oldest_events_go_and_are_counted(asks: bool) -> None:
    with Collector(max_bytes=room_for(3)) as collector, Client(collector) as client:
        for number in range(1, 10):
            client.post(event(number))
            if asks:
                assert collector.events[-1] == collector.good[-1] == event(number)
        assert collector.events == collector.good == [event(7), event(8), event(9)]
        assert [request.events for request in collector.requests] == [[event(7)], [event(8)], [event(9)]]
        assert collector.totals == (9, 9, 0, 6)
        assert json.loads(client.request("GET", "/micro/all")[1]) == {"total": 9, "good": 9, "bad": 0, "forgotten": 6}
        collector.reset()
        assert collector.totals == (0, 0, 0, 0)
        assert json.loads(client.request("GET", "/micro/all")[1]) == {"total": 0, "good": 0, "bad": 0}


def test_bad_events_and_other_requests_go_as_well() -> None:
    with Collector(max_bytes=room_for(2)) as collector, Client(collector) as client:
        client.post(BAD, event(1))
        client.request("POST", TP2, b"{")
        assert (len(collector.good), len(collector.bad)) == (1, 2)
        client.request("GET", "/else")
        client.post(event(2))
        client.post(event(3))
        assert (collector.good, collector.bad) == ([event(2), event(3)], [])
        assert collector.totals == (5, 3, 2, 3)


def test_what_was_accepted_later_than_it_came_goes_in_the_order_of_arrival() -> None:
    with Collector(max_bytes=room_for(3)) as collector, Client(collector) as late, Client(collector) as client:
        collector.respond(hang=True)
        thread = threading.Thread(target=late.post, args=(event(1),))
        thread.start()
        collector.wait_for_requests(1)
        client.post(event(2))
        collector.release()
        thread.join(10)
        assert collector.events == collector.good == [event(2), event(1)]
        client.post(event(3))
        client.post(event(4))
        assert collector.events == collector.good == [event(2), event(3), event(4)]
        assert collector.totals == (4, 4, 0, 1)


def test_what_is_accepted_after_it_was_forgotten_is_counted() -> None:
    with Collector(max_bytes=room_for(1)) as collector, Client(collector) as late, Client(collector) as client:
        collector.respond(hang=True)
        thread = threading.Thread(target=late.post, args=(event(1),))
        thread.start()
        collector.wait_for_requests(1)
        client.post(event(2))
        collector.release()
        thread.join(10)
        assert collector.events == [event(2)]
        assert collector.totals == (2, 2, 0, 1)


def test_the_newest_request_stays_whatever_its_size() -> None:
    with Collector(max_bytes=1) as collector, Client(collector) as client:
        client.post(event(1))
        client.post(event(2), event(3))
        assert collector.wait_for(2) == [event(2), event(3)]


def test_a_wait_for_what_may_be_forgotten_says_so_at_once() -> None:
    with Collector(max_bytes=room_for(2)) as collector, Client(collector) as client:
        for number in range(3):
            client.post(event(number))
        with pytest.raises(RuntimeError, match=r"forgotten \(1 request with 1 event\), because more than max_bytes="):
            collector.wait_for(3, timeout=60)


def test_requests_without_bodies_are_bounded_too() -> None:
    with Collector(max_bytes=10_000, keep_bodies=False) as collector, Client(collector) as client:
        for number in range(30):
            client.post(event(number))
        assert len(collector.requests) == 9


def test_without_a_bound_all_is_kept() -> None:
    with Collector(max_bytes=None) as collector, Client(collector) as client:
        for number in range(30):
            client.post(event(number))
        assert len(collector.events) == 30


def test_nothing_is_counted_twice_or_not_at_all_by_many_clients_at_once() -> None:
    with Collector(max_bytes=room_for(20)) as collector:

        def send(first: int) -> None:
            with Client(collector) as client:
                for number in range(first, first + 100):
                    client.post(event(number))

        threads = [threading.Thread(target=send, args=(first,)) for first in range(0, 600, 100)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            totals = collector.totals
            assert len(collector.good) <= 26
            assert totals.good + totals.bad >= totals.forgotten
        totals = collector.totals
        assert (totals.requests, totals.good, totals.bad) == (600, 600, 0)
        assert len(collector.good) == len(collector.events) == 600 - totals.forgotten


# -- clients that are slow -------------------------------------------------------------------------------------------


def connected(collector: Collector) -> socket.socket:
    return socket.create_connection((collector.host, collector.port), timeout=10)


@pytest.mark.parametrize("begun", [b"", raw_post(envelope(EVENT))[:20], raw_post(envelope(EVENT))[:-5]])
def test_a_client_from_which_nothing_comes_is_let_go(begun: bytes) -> None:
    with Collector(idle_timeout=0.1) as collector, connected(collector) as sock:
        sock.sendall(begun)
        assert read_all(sock) == b""
        until(lambda: collector.open_connections == 0)


def test_a_client_that_sends_a_byte_now_and_then_is_let_go() -> None:
    with Collector(idle_timeout=0.2) as collector, connected(collector) as sock:
        # All of it would take two seconds.
        with contextlib.suppress(ConnectionError):
            for byte in raw_post(envelope(EVENT)):
                sock.sendall(bytes([byte]))
                threading.Event().wait(0.01)
        until(lambda: collector.open_connections == 0)
        assert collector.requests == []


def test_a_client_that_does_not_read_its_answer_is_let_go() -> None:
    with Collector(idle_timeout=0.2) as collector, connected(collector) as sock:
        collector.respond(body=b"x" * 50_000_000)
        sock.sendall(raw_post(envelope(EVENT)))
        collector.wait_for_requests(1)
        until(lambda: collector.open_connections == 0)


def test_a_client_that_waits_for_its_answer_is_not_let_go() -> None:
    with Collector(idle_timeout=0.1) as collector, Client(collector) as client:
        collector.respond(delay=0.5)
        assert client.post(EVENT) == 200


def test_a_connection_in_use_outlives_the_timeout() -> None:
    with Collector(idle_timeout=0.5) as collector, Client(collector) as client:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            assert client.post(EVENT) == 200
            threading.Event().wait(0.02)
        assert collector.connections == 1


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_bytes": 0}, "max_bytes=0: 1 or more"),
        ({"max_bytes": 1.5}, "max_bytes=1.5: a whole number"),
        ({"idle_timeout": -1}, "idle_timeout=-1: a finite number of seconds, 0 or more"),
        ({"idle_timeout": "1"}, "idle_timeout='1': a number of seconds"),
    ],
)
def test_bounds_are_checked(settings: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        Collector(**settings)
