"""Events that were not taken at the first attempt: their order, halving, poison among them, and too large ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastemit.testing import Collector, Request
from tests.conftest import MakeEmitter
from tests.support.buffer import of_size
from tests.support.emitters import QUICK, Recorder, feed, numbered, numbers, requests_of
from tests.support.slow import slow
from tests.support.waiting import until

MANY = 1000


@pytest.fixture
def emitter(make_emitter: MakeEmitter, recorder: Recorder) -> Any:
    """Sends when it is told to; retries by itself at once."""
    return make_emitter(
        batch_size=MANY, on_success=recorder.success, on_failure=recorder.failure, max_retry_delay_seconds=0.005
    )


def when(condition: Callable[[list[int]], object], status: int) -> Callable[[Request], int]:
    """An answer for `respond`: `status` where the numbers of the events meet a condition, else 200."""
    return lambda request: status if condition(numbers(request.events)) else 200


# -- order -------------------------------------------------------------------------------------------------------------


def test_kept_events_go_before_newer_ones(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(503, headers={"Retry-After": "30"})
    emitter = make_emitter(batch_size=MANY)
    feed(emitter, *numbered(0, 1, 2))
    emitter.flush()
    feed(emitter, *numbered(3, 4))
    emitter.flush()
    assert requests_of(collector) == [[0, 1, 2], [0, 1, 2, 3, 4]]


def test_order_holds_over_many_failures(collector: Collector, make_emitter: MakeEmitter) -> None:
    for _ in range(6):
        collector.respond(500)
        collector.respond(200)
        collector.respond(reset=True)
    emitter = make_emitter(batch_size=1, max_request_bytes=1024, max_retry_delay_seconds=0.005, overflow="block")
    feed(emitter, *numbered(*range(1000)))
    assert numbers(collector.wait_for(1000)) == list(range(1000))
    until(lambda: emitter.stats().sent_events == 1000)


def test_identical_events_are_not_one(collector: Collector, emitter: Any) -> None:
    collector.respond(500)
    feed(emitter, *numbered(*[7] * 5))
    emitter.flush()
    assert numbers(collector.wait_for(5)) == [7] * 5


def test_kept_events_count_against_the_capacity(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(503, headers={"Retry-After": "30"})
    emitter = make_emitter(batch_size=5, buffer_capacity=5, overflow="drop_newest")
    feed(emitter, *numbered(*range(5)))
    until(lambda: emitter.retry_delay)
    feed(emitter, *numbered(5, 6, 7))
    assert (emitter.stats().queued_events, emitter.stats().dropped_events["overflow"]) == (5, 3)
    emitter.flush()
    assert numbers(collector.events) == [0, 1, 2, 3, 4]


def test_a_request_that_times_out_halves_the_next_and_a_success_doubles_it_back(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    collector.respond(hang=True, times=2)
    emitter = make_emitter(batch_size=100, request_timeout=(5, 0.25), max_retry_delay_seconds=QUICK)
    feed(emitter, *numbered(*range(64)))
    emitter.batch_size = 4
    collector.wait_for(64)
    sizes = [len(request.events) for request in collector.requests]
    assert sizes[:3] == [64, 32, 16]
    assert max(sizes[3:]) == 32


def test_a_request_that_times_out_is_not_made_smaller_than_batch_size(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    collector.respond(hang=True, times=2)
    emitter = make_emitter(batch_size=10, request_timeout=(5, 0.25), max_retry_delay_seconds=QUICK)
    feed(emitter, *numbered(*range(10)))
    collector.wait_for(10)
    assert [len(request.events) for request in collector.requests] == [10, 10, 10]


# -- 413 and 414 -------------------------------------------------------------------------------------------------------


def test_413_halves_and_resends_at_once(collector: Collector, make_emitter: MakeEmitter, recorder: Recorder) -> None:
    collector.respond(when(lambda seen: len(seen) > 4, 413), times=None)
    emitter = make_emitter(batch_size=MANY, on_success=recorder.success, on_failure=recorder.failure)
    feed(emitter, *numbered(*range(16)))
    emitter.flush()
    assert numbers(collector.events) == list(range(16))
    assert [len(request.events) for request in collector.requests] == [16, 8, 4, 4, 8, 4, 4]
    assert (recorder.failures, len(recorder.successes), emitter.retry_delay) == ([], 4, 0)


@pytest.mark.parametrize("status", [413, 414])
def test_413_and_414_with_one_event_drop_it(
    collector: Collector, emitter: Any, recorder: Recorder, status: int
) -> None:
    collector.respond(status)
    feed(emitter, *numbered(0))
    emitter.flush()
    assert (emitter.stats().dropped_events["rejected"], emitter.retry_delay) == (1, 0)
    assert [(count, numbers(events)) for count, events in recorder.failures] == [(0, [0])]


def test_414_with_more_events_keeps_them(collector: Collector, emitter: Any) -> None:
    collector.respond(414)
    feed(emitter, *numbered(0, 1))
    emitter.flush()
    assert numbers(collector.wait_for(2, timeout=2)) == [0, 1]


@pytest.mark.parametrize("poisonous", [0, 99, 137, 199])
def test_413_finds_the_one_event_among_two_hundred(
    collector: Collector, emitter: Any, recorder: Recorder, poisonous: int
) -> None:
    collector.respond(when(lambda seen: poisonous in seen, 413), times=None)
    feed(emitter, *numbered(*range(200)))
    emitter.flush()
    assert numbers(collector.events) == [number for number in range(200) if number != poisonous]
    assert [(count, numbers(events)) for count, events in recorder.failures] == [(0, [poisonous])]
    assert emitter.stats().dropped_events["rejected"] == 1
    assert len(collector.requests) <= 1 + 2 * 8


def test_a_half_that_fails_keeps_the_rest_in_its_place(collector: Collector, emitter: Any) -> None:
    for status in (413, 200, 500):
        collector.respond(status)
    feed(emitter, *numbered(*range(8)))
    emitter.flush()
    feed(emitter, *numbered(8))
    emitter.flush()
    assert numbers(collector.wait_for(9)) == list(range(9))
    assert requests_of(collector)[:3] == [list(range(8)), [0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("retry", [True, False])
def test_custom_retry_codes_rule_413_for_one_event_only(collector: Collector, emitter: Any, retry: bool) -> None:
    emitter.custom_retry_codes = {413: retry}
    collector.respond(413, times=2)
    feed(emitter, *numbered(0, 1))
    emitter.flush()
    until(lambda: emitter.stats().queued_events + emitter.stats().in_flight_events == 0)
    assert requests_of(collector)[:2] == [[0, 1], [0]]
    assert numbers(collector.events) == ([0, 1] if retry else [1])


# -- poison ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, slow(502), slow(504)])
@pytest.mark.parametrize("poisonous", [0, 13, 39])
def test_one_event_that_is_answered_5xx_does_not_hold_up_the_rest(
    collector: Collector, emitter: Any, status: int, poisonous: int
) -> None:
    collector.respond(when(lambda seen: poisonous in seen, status), times=None)
    feed(emitter, *numbered(*range(40)))
    emitter.flush()
    others = [number for number in range(40) if number != poisonous]
    assert sorted(numbers(collector.wait_for(39))) == others
    # What is new gets through as well, while the one goes on failing.
    feed(emitter, *numbered(40))
    emitter.async_flush()
    assert sorted(numbers(collector.wait_for(40))) == [*others, 40]
    collector.respond(200, times=None)
    assert numbers(collector.wait_for(41))[-1] == poisonous
    assert sum(emitter.stats().dropped_events.values()) == 0


def test_a_batch_is_split_after_five_answers_of_5xx(collector: Collector, emitter: Any) -> None:
    collector.respond(500, times=5)
    feed(emitter, *numbered(*range(8)))
    emitter.flush()
    assert numbers(collector.wait_for(8)) == list(range(8))
    assert [len(request.events) for request in collector.requests] == [8] * 5 + [4, 4]


@pytest.mark.parametrize("answer", [{"status": 503}, {"status": 429}, {"status": 404}, {"reset": True}], ids=str)
def test_a_batch_is_not_split_for_what_no_event_can_be_at_fault_for(
    collector: Collector, emitter: Any, answer: dict[str, Any]
) -> None:
    collector.respond(times=8, **answer)
    feed(emitter, *numbered(*range(8)))
    emitter.flush()
    assert numbers(collector.wait_for(8)) == list(range(8))
    assert [len(request.events) for request in collector.requests] == [8] * 9


# -- too large ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(make_emitter: MakeEmitter, recorder: Recorder) -> Any:
    """Requests of 2 KiB, which an event of 3,000 bytes is too large for."""
    return make_emitter(
        batch_size=MANY,
        max_request_bytes=2048,
        max_retry_delay_seconds=QUICK,
        on_success=recorder.success,
        on_failure=recorder.failure,
    )


def test_an_event_too_large_for_a_request_is_sent_alone(collector: Collector, small: Any, recorder: Recorder) -> None:
    feed(small, of_size(100), of_size(3000), of_size(100))
    small.flush()
    assert [len(request.events) for request in collector.requests] == [1, 1, 1]
    assert (small.stats().sent_events, len(recorder.successes)) == (3, 3)


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 500},
        {"status": 404},
        {"status": 503, "headers": {"Retry-After": "1"}},
        {"hang": True, "accept": False},
    ],
    ids=str,
)
def test_an_event_too_large_for_a_request_is_not_sent_again(
    collector: Collector, small: Any, recorder: Recorder, answer: dict[str, Any]
) -> None:
    small.request_timeout = (5, 0.25)
    collector.respond(**answer)
    feed(small, of_size(3000), *numbered(1))
    small.flush()
    small.flush()
    assert numbers(collector.wait_for(1)) == [1]
    assert (small.stats().dropped_events["oversize"], small.stats().sent_events) == (1, 1)
    assert [(count, len(events)) for count, events in recorder.failures] == [(0, 1)]
    assert [len(request.events) for request in collector.requests] == [1, 1]


@pytest.mark.parametrize("status", [400, 413, 414])
def test_an_event_too_large_for_a_request_may_be_rejected(collector: Collector, small: Any, status: int) -> None:
    collector.respond(status)
    feed(small, of_size(3000))
    small.flush()
    assert small.stats().dropped_events == {"overflow": 0, "rejected": 1, "oversize": 0, "closed": 0}


def test_an_event_too_large_for_a_request_is_kept_when_the_connection_is_refused(
    collector: Collector, small: Any
) -> None:
    collector.close()
    feed(small, of_size(3000))
    small.flush()
    assert small.stats().queued_events + small.stats().in_flight_events == 1
    collector.start()
    assert len(collector.wait_for(1)) == 1


@pytest.mark.parametrize("answer", [{"reset": True}, {"hang_up": True}], ids=str)
def test_an_event_too_large_for_a_request_is_kept_when_the_connection_breaks(
    collector: Collector, small: Any, answer: dict[str, Any]
) -> None:
    collector.respond(**answer)
    feed(small, of_size(3000))
    small.flush()
    assert len(collector.wait_for(1)) == 1
