"""Slow lines, events that poison their batch, outages that hit many requests at once, and the gate after them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fastemit.testing import Collector, Request
from tests.conftest import MakeEmitter
from tests.support.emitters import DEADLINE, QUICK, Recorder, feed, numbered, numbers
from tests.support.faulty_network import FaultyNetwork
from tests.support.waiting import until

FIVE_THOUSAND = 5000
#: Nothing is sent before it is asked for.
MANY = 6000


pytestmark = pytest.mark.usefixtures("no_short_delay")


def poisoned_by(poisonous: int, status: int) -> Callable[[Request], int]:
    return lambda request: status if poisonous in numbers(request.events) else 200


def others(poisonous: int) -> list[int]:
    return [number for number in range(FIVE_THOUSAND) if number != poisonous]


# -- one event among 5,000 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poisonous", [0, 1, 2500, 3777, 4999])
def test_one_event_of_5000_that_is_too_large_for_the_collector_is_reported_and_dropped_and_the_rest_arrives(
    collector: Collector, make_emitter: MakeEmitter, poisonous: int
) -> None:
    recorder = Recorder()
    collector.respond(poisoned_by(poisonous, 413), times=None)
    emitter = make_emitter(
        batch_size=MANY, max_request_bytes=65536, on_success=recorder.success, on_failure=recorder.failure
    )
    feed(emitter, *numbered(*range(FIVE_THOUSAND)))
    assert emitter.drain(DEADLINE) is True
    assert numbers(collector.events) == others(poisonous)
    assert [(count, numbers(events)) for count, events in recorder.failures] == [(0, [poisonous])]
    assert [number for events in recorder.successes for number in numbers(events)] == others(poisonous)
    stats = emitter.stats()
    assert (stats.sent_events, stats.dropped_events["rejected"], stats.retry_delay) == (FIVE_THOUSAND - 1, 1, 0)


def waited_until_the_rest_arrives(emitter: Any) -> float:
    """Seconds of backoff until all but one event were sent. A flush ends each delay, so that none is waited for."""
    seconds = 0.0
    while emitter.stats().sent_events < FIVE_THOUSAND - 1:
        emitter.flush()
        seconds += emitter.retry_delay
        assert seconds < 10_000
    return seconds


# Where it lies in a first half every time, in none, and between.
@pytest.mark.parametrize("poisonous", [0, 1, 1300, 2499, 2500, 3777, 4999])
def test_one_event_of_5000_that_is_always_answered_500_holds_up_the_rest_for_three_minutes_at_the_most(
    collector: Collector, make_emitter: MakeEmitter, poisonous: int
) -> None:
    collector.respond(poisoned_by(poisonous, 500), times=None)
    emitter = make_emitter(batch_size=MANY)
    feed(emitter, *numbered(*range(FIVE_THOUSAND)))
    # Five failures of the whole and one of a half are 117 s with the worst of luck, and each halving after them 2.
    assert waited_until_the_rest_arrives(emitter) < 180
    assert Counter(numbers(collector.events)) == Counter(others(poisonous))
    assert emitter.stats().queued_events == 1


@pytest.mark.parametrize("poisonous", [0, 2500, 4999])
def test_the_rest_of_5000_arrives_by_itself_and_the_one_when_it_is_taken(
    collector: Collector, make_emitter: MakeEmitter, poisonous: int
) -> None:
    collector.respond(poisoned_by(poisonous, 500), times=None)
    emitter = make_emitter(batch_size=FIVE_THOUSAND, max_retry_delay_seconds=0.005)
    feed(emitter, *numbered(*range(FIVE_THOUSAND)))
    assert sorted(numbers(collector.wait_for(FIVE_THOUSAND - 1))) == others(poisonous)
    collector.respond(200, times=None)
    assert numbers(collector.wait_for(FIVE_THOUSAND))[-1] == poisonous
    until(lambda: emitter.stats().sent_events == FIVE_THOUSAND)


@pytest.mark.parametrize("method", ["post", "get"])
def test_a_new_event_goes_before_one_that_has_failed_again_and_again(
    collector: Collector, make_emitter: MakeEmitter, method: str
) -> None:
    collector.respond(poisoned_by(0, 500), times=None)
    emitter = make_emitter(batch_size=MANY, method=method)
    feed(emitter, *numbered(0))
    for _ in range(6):
        emitter.flush()
    feed(emitter, *numbered(1))
    seen = len(collector.requests)
    emitter.flush()
    assert [numbers(request.events) for request in collector.requests[seen:]] == [[1], [0]]


def test_an_outage_that_answers_500_for_long_loses_and_doubles_nothing(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    collector.respond(500, times=200)
    emitter = make_emitter(batch_size=100, max_request_bytes=2048, max_retry_delay_seconds=0.002, overflow="block")
    feed(emitter, *numbered(*range(1000)))
    assert sorted(numbers(collector.wait_for(1000))) == list(range(1000))
    assert emitter.drain(DEADLINE) is True
    assert emitter.stats().sent_events == 1000


@pytest.mark.parametrize("background", [True, False])
def test_drain_does_not_take_an_event_that_yields_its_place_for_sent(
    collector: Collector, make_emitter: MakeEmitter, background: bool
) -> None:
    collector.respond(500, times=None)
    emitter = make_emitter(batch_size=MANY, background=background)
    feed(emitter, *numbered(0))
    assert [emitter.drain(DEADLINE) for _ in range(8)] == [False] * 8
    collector.respond(200, times=None)
    assert emitter.drain(DEADLINE) is True
    assert numbers(collector.events) == [0]


# -- a slow line -------------------------------------------------------------------------------------------------------


# Slow: the line is.
@pytest.mark.slow
def test_requests_shrink_on_a_slow_uplink_until_they_pass_and_nothing_doubles_for_ever(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    # 1 Mbit/s and a timeout of 4 s, eight times as fast: a full-size request takes two timeouts.
    with FaultyNetwork(collector.port, uplink=1_000_000) as network:
        emitter = make_emitter(network.url, batch_size=MANY, request_timeout=0.5, max_retry_delay_seconds=QUICK)
        feed(emitter, *({"n": f"{number:05}", "text": "x" * 1000} for number in range(1700)))
        emitter.batch_size = 100
        until(lambda: emitter.stats().sent_events == 1700, 30)
        stats = emitter.stats()
        network.client_is_done()
        emitter.close()
        network.settle(30)
        arrived = Counter(numbers(collector.events))
    assert set(arrived) == set(range(1700))
    # Twice only what a request carried that had no answer in time.
    assert sum(arrived.values()) - 1700 <= stats.retried_events
    assert stats.sent_events == 1700
    # Halved, halved again while the line is still busy with what was given up, and two looks whether it has got wider.
    assert 1 <= stats.failed_requests <= 8
    assert max(arrived.values()) <= 5


# -- many at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["503", "hang up", "reset", "time out"])
def test_ten_requests_in_flight_that_fail_together_make_the_delay_grow_once(
    collector: Collector, make_async_emitter: MakeEmitter, how: str
) -> None:
    if how == "503":
        collector.respond(503, hang=True, times=10)
    else:
        collector.respond(hang=True, accept=False, times=10)
    emitter = make_async_emitter(
        thread_count=10,
        batch_size=10,
        max_request_bytes=1024,
        overflow="block",
        request_timeout=0.5 if how == "time out" else 30,
    )
    feed(emitter, *numbered(*range(300)))
    collector.wait_for_requests(10)
    if how == "503":
        collector.release()
    elif how == "hang up":
        collector.drop_connections()
    elif how == "reset":
        collector.close()
    until(lambda: emitter.stats().failed_requests >= 10)
    # One failure: a random part of a second. Two in a row would add as much as the first again.
    assert 0 < emitter.retry_delay <= 1
    assert emitter._delivery._schedule.backoff.generation == 1
    assert emitter.stats().requests == 10
    collector.start()
    collector.release()
    collector.respond(200, times=None)
    assert emitter.drain(DEADLINE) or emitter.drain(DEADLINE)
    assert set(numbers(collector.events)) == set(range(300))


@pytest.mark.parametrize("probe_succeeds", [True, False])
def test_one_of_eight_threads_probes_when_the_gate_reopens_and_all_follow_its_success(
    collector: Collector, make_async_emitter: MakeEmitter, probe_succeeds: bool
) -> None:
    collector.respond(500)
    collector.respond(200 if probe_succeeds else 503, hang=True)
    collector.respond(hang=True, times=8)
    emitter = make_async_emitter(
        thread_count=8, batch_size=1, max_request_bytes=1024, max_retry_delay_seconds=QUICK, overflow="block"
    )
    feed(emitter, *numbered(0))
    collector.wait_for_requests(2)
    feed(emitter, *numbered(*range(1, 500)))
    with pytest.raises(TimeoutError):
        # Long past the end of the delay.
        collector.wait_for_requests(3, 10 * QUICK)
    collector.release()
    follow = 8 if probe_succeeds else 1
    collector.wait_for_requests(2 + follow)
    with pytest.raises(TimeoutError):
        collector.wait_for_requests(3 + follow, 5 * QUICK)
    collector.respond(200, times=None)
    started = time.monotonic()
    while emitter.stats().sent_events < 500 and time.monotonic() - started < DEADLINE:
        collector.release()
        time.sleep(0.002)
    assert sorted(numbers(collector.events)) == list(range(500))
