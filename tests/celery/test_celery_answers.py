"""What each answer of the collector means to a Celery worker: attempts, halves and events that are dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastemit.testing import Collector
from fastemit.testing._request import Request
from tests.support.celery_workers import (
    PATIENCE,
    QUICK,
    MakeEmitter,
    RedisServer,
    Worker,
    app_of,
    arrived,
    patiently,
    requested,
    running,
)
from tests.support.delivery import numbers, put

# -- what an answer means --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503, 301, 404])
def test_events_that_are_to_be_kept_are_sent_again(
    status: int, worker: Worker, make: MakeEmitter, collector: Collector
) -> None:
    collector.respond(status, times=2)
    emitter = make(**QUICK)
    put(emitter, 3)
    emitter.flush()
    collector.wait_for(3, PATIENCE)
    assert requested(collector) == [[0, 1, 2]] * 3


def test_the_sent_timestamp_is_that_of_the_attempt(worker: Worker, make: MakeEmitter, collector: Collector) -> None:
    collector.respond(503, headers={"Retry-After": "1"})
    emitter = make(max_retry_delay_seconds=1)
    emitter.input({"n": 0, "stm": "5"})
    emitter.flush()
    collector.wait_for(1, PATIENCE)
    first, second = (int(request.events[0]["stm"]) for request in collector.requests)
    assert second - first >= 1000


def test_retry_after_is_waited_for(worker: Worker, make: MakeEmitter, collector: Collector) -> None:
    collector.respond(429, headers={"Retry-After": "2"})
    emitter = make()
    put(emitter)
    emitter.flush()
    collector.wait_for(1, PATIENCE)
    first, second = collector.requests
    assert second.arrived - first.arrived >= 2


def test_retry_after_is_not_waited_for_longer_than_the_longest_delay(
    worker: Worker, make: MakeEmitter, collector: Collector
) -> None:
    collector.respond(503, headers={"Retry-After": "3600"})
    emitter = make(**QUICK)
    put(emitter)
    emitter.flush()
    collector.wait_for(1, PATIENCE)


def test_a_collector_that_is_down_is_waited_for(worker: Worker, make: MakeEmitter, collector: Collector) -> None:
    emitter = make(**QUICK)
    collector.close()
    retries = worker.log.count("Retry in")
    put(emitter, 3)
    emitter.flush()
    patiently(lambda: worker.log.count("Retry in") >= retries + 2)
    collector.start()
    collector.wait_for(3, PATIENCE)
    assert arrived(collector) == [0, 1, 2]


@pytest.mark.parametrize("status", [400, 401, 403, 410, 422])
def test_events_that_are_not_wanted_are_dropped(
    status: int, worker: Worker, make: MakeEmitter, collector: Collector
) -> None:
    collector.respond(status)
    emitter = make(**QUICK)
    put(emitter, 3)
    emitter.flush()
    collector.wait_for_requests(1, PATIENCE)
    put(emitter, 3, 3)
    emitter.flush()
    collector.wait_for(3, PATIENCE)
    assert requested(collector) == [[0, 1, 2], [3, 4, 5]]


def test_a_batch_that_is_too_large_is_halved_until_it_passes(
    worker: Worker, make: MakeEmitter, collector: Collector
) -> None:
    collector.respond(lambda request: 413 if len(request.events) > 2 else 200, times=None)
    emitter = make(batch_size=1000)
    put(emitter, 7)
    emitter.flush()
    collector.wait_for(7, PATIENCE)
    assert [len(request.events) for request in collector.requests] == [7, 3, 1, 2, 4, 2, 2]
    assert numbers(collector.events) == list(range(7))


def test_a_single_event_that_is_too_large_is_dropped(worker: Worker, make: MakeEmitter, collector: Collector) -> None:
    collector.respond(lambda request: 413 if 3 in numbers(request.events) else 200, times=None)
    emitter = make(batch_size=1000)
    put(emitter, 6)
    emitter.flush()
    collector.wait_for(5, PATIENCE)
    assert arrived(collector) == [0, 1, 2, 4, 5]


def test_only_the_kept_half_of_a_batch_is_sent_again(worker: Worker, make: MakeEmitter, collector: Collector) -> None:
    for status in (413, 200, 413, 503):
        collector.respond(status)
    emitter = make(batch_size=1000, **QUICK)
    put(emitter, 8)
    emitter.flush()
    collector.wait_for(8, PATIENCE)
    # The fourth was kept, and the rest behind it was not tried.
    first = [list(range(8)), [0, 1, 2, 3], [4, 5, 6, 7], [4, 5]]
    assert requested(collector)[:4] == first
    assert sorted(requested(collector)[4:]) == [[4, 5], [6, 7]]


def test_a_poisonous_event_is_left_alone_in_the_end(worker: Worker, make: MakeEmitter, collector: Collector) -> None:
    def answer(request: Request) -> int:
        return 500 if 2 in numbers(request.events) else 200

    collector.respond(answer, times=None)
    emitter = make(batch_size=1000, **QUICK)
    put(emitter, 4)
    emitter.flush()
    collector.wait_for(3, PATIENCE)
    assert arrived(collector) == [0, 1, 3]
    assert requested(collector)[:6] == [[0, 1, 2, 3]] * 5 + [requested(collector)[5]]
    # And it is sent as soon as it is wanted.
    collector.respond(200, times=None)
    collector.wait_for(4, PATIENCE)
    assert arrived(collector) == [0, 1, 2, 3]


def test_a_request_that_is_not_answered_in_time_is_made_in_halves(
    server: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = server.database(5)
    collector.respond(hang=True, times=None)
    with running(tmp_path, broker):
        emitter = make(celery_app=app_of(broker), request_timeout=0.2, batch_size=1000, **QUICK)
        put(emitter, 4)
        emitter.flush()
        patiently(lambda: {4, 2, 1} <= {len(events) for events in requested(collector)})
        collector.respond(200, times=None)
        collector.release()
        patiently(lambda: set(arrived(collector)) == {0, 1, 2, 3})


def test_an_event_larger_than_a_request_is_given_up_once_it_was_answered(
    worker: Worker, make: MakeEmitter, collector: Collector
) -> None:
    collector.respond(503)
    emitter = make(max_request_bytes=1024, **QUICK)
    emitter.input({"n": 0, "page": "x" * 2000})
    emitter.flush()
    collector.wait_for_requests(1, PATIENCE)
    put(emitter, 1, 1)
    emitter.flush()
    collector.wait_for(1, PATIENCE)
    assert requested(collector) == [[0], [1]]
