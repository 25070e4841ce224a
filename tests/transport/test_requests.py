"""What a request is: its envelope and headers, how much it carries, when it goes, and on which connection."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import urllib3

import fastemit
from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.buffer import OVERHEAD, PREFIX, of_size
from tests.support.emitters import DEADLINE, QUICK, TP2, feed, join, numbered, numbers, requests_of, threads_of
from tests.support.waiting import until

MANY = 100_000  # a batch size that is never reached


# -- envelope ----------------------------------------------------------------------------------------------------------


def test_the_body_is_the_payload_data_envelope(collector: Collector, make_emitter: MakeEmitter) -> None:
    make_emitter(batch_size=2).input({"e": "pv"})
    make_emitter(batch_size=1).input({"e": "se", "ž": 1})
    (event,) = collector.wait_for(1)
    assert collector.requests[0].body.decode() == (
        '{"schema":"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4",'
        f'"data":[{{"e":"se","ž":"1","stm":"{event["stm"]}"}}]}}'
    )


def test_method_path_and_headers(collector: Collector, make_emitter: MakeEmitter) -> None:
    make_emitter(batch_size=1).input({"e": "pv"})
    (request,) = collector.wait_for_requests(1)
    headers = {name: request.headers[name] for name in ("Content-Type", "User-Agent", "Content-Length", "Host")}
    assert (request.method, request.target, request.version) == ("POST", TP2, "HTTP/1.1")
    assert headers == {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": f"fastemit/{fastemit.__version__}",
        "Content-Length": str(len(request.body)),
        "Host": f"{collector.host}:{collector.port}",
    }
    assert "Authorization" not in request.headers


def test_headers_of_the_users_are_added_and_win(collector: Collector, make_emitter: MakeEmitter) -> None:
    endpoint = f"http://user:hush@{collector.host}:{collector.port}"
    headers = {"X-Team": "shop", "user-agent": "mine", "AUTHORIZATION": "Bearer token"}
    make_emitter(endpoint, batch_size=1, headers=headers).input({"e": "pv"})
    (request,) = collector.wait_for_requests(1)
    assert request.headers["X-Team"] == "shop"
    assert request.headers.getlist("User-Agent") == ("mine",)
    assert request.headers.getlist("Authorization") == ("Bearer token",)


def test_a_pool_manager_of_the_users_is_sent_through(collector: Collector, make_emitter: MakeEmitter) -> None:
    with urllib3.PoolManager() as manager:
        emitter = make_emitter(batch_size=1, pool_manager=manager)
        feed(emitter, *numbered(0))
        collector.wait_for(1)
        emitter.close()
        # Its connections are the user's to close.
        assert manager.request("GET", f"{collector.url}/health").status == 200
    assert collector.connections == 1


# -- how much ----------------------------------------------------------------------------------------------------------


def test_one_request_carries_all_that_is_queued(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(batch_size=MANY, buffer_capacity=MANY)
    feed(emitter, *numbered(*range(5000)))
    emitter.flush()
    assert requests_of(collector) == [list(range(5000))]


def test_batch_size_and_byte_limit_do_not_bound_a_request(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(hang=True)
    emitter = make_emitter(batch_size=2, byte_limit=100)
    feed(emitter, *numbered(0, 1))
    collector.wait_for_requests(1)
    feed(emitter, *numbered(*range(2, 50)))
    collector.release()
    collector.wait_for(50)
    assert requests_of(collector) == [[0, 1], list(range(2, 50))]


@pytest.mark.parametrize("limit", [1024, 1025, 2000, 4096, 65_536, 1_000_000])
def test_no_request_is_larger_than_max_request_bytes_nor_smaller_than_need_be(
    collector: Collector, make_emitter: MakeEmitter, limit: int
) -> None:
    chance = random.Random(limit)
    sizes = [chance.choice([40, 41, 100, 300, 900]) for _ in range(min(limit // 50, 4000))]
    emitter = make_emitter(batch_size=MANY, max_request_bytes=limit)
    feed(emitter, *(of_size(size) for size in sizes))
    emitter.flush()
    bodies = [request.size for request in collector.requests]
    carried = [len(request.events) for request in collector.requests]
    firsts = [sizes[sum(carried[:index])] for index in range(1, len(carried))]
    assert sum(carried) == len(sizes)
    assert max(bodies) <= limit
    # The next event would not have fitted.
    assert [size for size, first in zip(bodies, firsts, strict=False) if size + first <= limit] == []


@pytest.mark.parametrize(("extra", "expected"), [(-1, [3]), (0, [3]), (1, [2, 1])])
def test_an_exact_fit_is_one_request(
    collector: Collector, make_emitter: MakeEmitter, extra: int, expected: list[int]
) -> None:
    emitter = make_emitter(batch_size=MANY, max_request_bytes=2048)
    feed(emitter, of_size(400), of_size(600), of_size(2048 - OVERHEAD - 1000 + extra))
    emitter.flush()
    assert [len(request.events) for request in collector.requests] == expected
    assert collector.requests[0].size == (2048 + extra if extra <= 0 else OVERHEAD + 1000)


@pytest.mark.parametrize(("extra", "oversize"), [(0, 0), (1, 1)])
def test_one_event_that_fills_a_request_exactly_is_not_oversize(
    collector: Collector, make_emitter: MakeEmitter, extra: int, oversize: int
) -> None:
    collector.respond(500)
    emitter = make_emitter(batch_size=1, max_request_bytes=2048, max_retry_delay_seconds=QUICK)
    emitter.input(of_size(2048 - OVERHEAD + extra))
    until(lambda: emitter.stats().sent_events + emitter.stats().dropped_events["oversize"] == 1)
    assert emitter.stats().dropped_events["oversize"] == oversize


def test_order_holds_over_many_requests(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(max_request_bytes=1024, overflow="block", buffer_capacity=500)
    feed(emitter, *numbered(*range(5000)))
    assert emitter.drain(DEADLINE) is True
    assert numbers(collector.events) == list(range(5000))


@pytest.mark.parametrize("mode", ["Emitter", "AsyncEmitter"])
def test_everything_from_many_producers_arrives_once_and_in_their_order(
    collector: Collector, make_emitter: MakeEmitter, make_async_emitter: MakeEmitter, mode: str
) -> None:
    emitter = (
        make_emitter(max_request_bytes=4096)
        if mode == "Emitter"
        else make_async_emitter(max_request_bytes=4096, thread_count=3, overflow="block")
    )
    producers = threads_of(4, lambda me: feed(emitter, *({"p": me, **event} for event in numbered(*range(1000)))))
    join(producers)
    assert emitter.drain(DEADLINE) is True
    arrived: dict[str, list[int]] = {}
    for event in collector.events:
        arrived.setdefault(event["p"], []).append(int(event["n"]))
    if mode == "AsyncEmitter":
        # Requests of several senders overtake each other.
        arrived = {producer: sorted(theirs) for producer, theirs in arrived.items()}
    assert arrived == {str(producer): list(range(1000)) for producer in range(4)}


# -- bytes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payloads",
    [
        [{}],
        [{"e": "pv"}],
        [{"e": "pv"}, {}],
        [{"ž": "🐎"}, {"x": '"\\\n\x00'}],
        [{"x": "\ud800"}, {1: 2**70}],
        [{"stm": "the caller's"}, {"stm": 1, "e": "pv"}],
        [{"x": "y" * 100}] * 50,
    ],
)
def test_queued_bytes_are_those_that_the_events_take_in_the_body(
    collector: Collector, make_emitter: MakeEmitter, payloads: list[dict[Any, Any]]
) -> None:
    emitter = make_emitter(batch_size=MANY, byte_limit=10**9)
    feed(emitter, *payloads)
    queued = (emitter.stats().queued_bytes, emitter.bytes_queued)
    emitter.flush()
    (request,) = collector.requests
    assert request.body.startswith(PREFIX)
    assert queued == (request.size - OVERHEAD,) * 2
    assert (emitter.stats().sent_bytes, emitter.stats().queued_bytes) == (request.size - OVERHEAD, 0)


def test_queued_bytes_are_the_same_after_a_failure(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(503, headers={"Retry-After": "60"})
    emitter = make_emitter(batch_size=MANY)
    feed(emitter, {"e": "pv"}, {"ž": 1}, {"x": "\ud800"})
    before = emitter.stats().queued_bytes
    emitter.flush()
    assert (emitter.stats().queued_bytes, emitter.stats().queued_events) == (before, 3)


# -- when --------------------------------------------------------------------------------------------------------------


def test_ten_events_wake_the_sender_by_default(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter()
    feed(emitter, *numbered(*range(9)))
    assert (emitter.reached_limit(), emitter.stats().queued_events) == (False, 9)
    feed(emitter, *numbered(9))
    collector.wait_for(10)
    assert requests_of(collector) == [list(range(10))]


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("size", [1, 3])
def test_batch_size_wakes_the_sender(
    collector: Collector, make_emitter: MakeEmitter, background: bool, size: int
) -> None:
    emitter = make_emitter(batch_size=size, background=background)
    feed(emitter, *numbered(*range(size)))
    assert numbers(collector.wait_for(size)) == list(range(size))


@pytest.mark.parametrize("background", [True, False])
def test_byte_limit_wakes_the_sender(collector: Collector, make_emitter: MakeEmitter, background: bool) -> None:
    emitter = make_emitter(batch_size=MANY, byte_limit=1000, background=background)
    feed(emitter, of_size(999))
    assert emitter.reached_limit() is False
    feed(emitter, of_size(40))
    assert len(collector.wait_for(2)) == 2
    assert len(collector.requests) == 1


@pytest.mark.parametrize("background", [True, False])
def test_a_buffer_full_of_bytes_wakes_the_sender(
    collector: Collector, make_emitter: MakeEmitter, background: bool
) -> None:
    emitter = make_emitter(batch_size=MANY, max_buffer_bytes=2048, background=background)
    feed(emitter, *(of_size(500) for _ in range(5)))
    assert len(collector.wait_for(4)) >= 4
    assert sum(emitter.stats().dropped_events.values()) == 0


def test_a_buffer_full_of_events_wakes_the_sender(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(batch_size=MANY, buffer_capacity=5)
    feed(emitter, *numbered(*range(5)))
    assert numbers(collector.wait_for(5)) == list(range(5))


@pytest.mark.parametrize(("name", "value"), [("batch_size", 3), ("byte_limit", 100)])
def test_a_limit_assigned_later_wakes_the_sender(
    collector: Collector, make_emitter: MakeEmitter, name: str, value: int
) -> None:
    emitter = make_emitter(batch_size=MANY)
    feed(emitter, *numbered(0, 1, 2))
    setattr(emitter, name, value)
    assert numbers(collector.wait_for(3)) == [0, 1, 2]


def test_input_does_not_wait_for_the_request(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(hang=True)
    emitter = make_emitter(batch_size=1)
    feed(emitter, *numbered(*range(100)))
    (request,) = collector.wait_for_requests(1)
    assert request.status is None
    collector.release()
    assert numbers(collector.wait_for(100)) == list(range(100))


# -- connections -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 400, 500])
def test_one_connection_for_many_requests(collector: Collector, make_emitter: MakeEmitter, status: int) -> None:
    collector.respond(status, times=20)
    emitter = make_emitter(batch_size=MANY)
    for number in range(20):
        feed(emitter, *numbered(number))
        emitter.flush()
    assert (len(collector.requests), collector.connections) == (20, 1)


def test_each_sender_has_at_most_one_connection(collector: Collector, make_async_emitter: MakeEmitter) -> None:
    emitter = make_async_emitter(batch_size=1, thread_count=3, overflow="block")
    feed(emitter, *numbered(*range(500)))
    assert emitter.drain(DEADLINE) is True
    assert collector.connections <= 3


def test_a_connection_that_the_server_closed_while_idle_costs_a_resend_and_no_backoff(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    failures: list[Any] = []
    emitter = make_emitter(batch_size=1, on_failure=lambda *args: failures.append(args))
    feed(emitter, *numbered(0))
    collector.wait_for(1)
    # Read, and never answered: the connection was closed when the request arrived.
    collector.respond(hang_up=True)
    feed(emitter, *numbered(1))
    assert numbers(collector.wait_for(2)) == [0, 1]
    until(lambda: emitter.stats().sent_events == 2)
    assert (failures, emitter.retry_delay, emitter.stats().failed_requests) == ([], 0, 0)
    assert requests_of(collector) == [[0], [1], [1]]


def test_connections_that_the_server_dropped_between_requests_cost_nothing(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    emitter = make_emitter(batch_size=MANY)
    for number in range(5):
        feed(emitter, *numbered(number))
        emitter.flush()
        collector.drop_connections()
    assert (numbers(collector.events), emitter.stats().failed_requests) == ([0, 1, 2, 3, 4], 0)


def test_a_hang_up_on_a_new_connection_is_a_failure(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(hang_up=True)
    emitter = make_emitter(batch_size=1, max_retry_delay_seconds=QUICK)
    feed(emitter, *numbered(0))
    until(lambda: emitter.stats().sent_events == 1)
    assert (emitter.stats().requests, emitter.stats().failed_requests) == (2, 1)


def test_a_server_that_announces_the_close_gets_a_new_connection(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    collector.respond(200, times=3, close=True)
    emitter = make_emitter(batch_size=MANY)
    for number in range(3):
        feed(emitter, *numbered(number))
        emitter.flush()
    assert (numbers(collector.events), collector.connections) == ([0, 1, 2], 3)
    assert emitter.stats().failed_requests == 0


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        ({"body": b"x" * 1000}, 1),
        ({"body": b"x" * 60_000}, 1),
        ({"body": b"x" * 200_000}, 2),
        ({"interim": (103, 103)}, 2),
    ],
    ids=["short", "long", "too long", "interim"],
)
def test_a_connection_that_may_hold_the_rest_of_an_answer_is_not_used_again(
    collector: Collector, make_emitter: MakeEmitter, answer: dict[str, Any], connections: int
) -> None:
    collector.respond(200, **answer)
    collector.respond(400)
    emitter = make_emitter(batch_size=MANY)
    for number in range(3):
        feed(emitter, *numbered(number))
        emitter.flush()
    assert [request.status for request in collector.requests] == [200, 400, 200]
    assert (emitter.stats().sent_events, emitter.stats().dropped_events["rejected"]) == (2, 1)
    assert collector.connections == connections


def test_requests_go_through_the_proxy_of_the_environment(
    collector: Collector, make_emitter: MakeEmitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:hush@{collector.host}:{collector.port}")
    make_emitter("http://collector.invalid", batch_size=1).input({"e": "pv"})
    (request,) = collector.wait_for_requests(1)
    assert request.target == f"http://collector.invalid{TP2}"
    assert request.headers["Proxy-Authorization"] == "Basic dXNlcjpodXNo"


def test_no_proxy_is_honoured(collector: Collector, make_emitter: MakeEmitter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", collector.host)
    make_emitter(batch_size=1).input({"e": "pv"})
    assert json.loads(collector.wait_for_requests(1)[0].body)["data"][0]["e"] == "pv"
