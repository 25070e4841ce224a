"""What an answer means for the events, the callbacks and the backoff: row by row."""

from __future__ import annotations

import itertools
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.emitters import QUICK, Recorder, feed, numbered, numbers, requests_of
from tests.support.waiting import until

SUCCESSES = [200, 201, 202, 204, 206, 299]
REJECTIONS = [400, 401, 403, 410, 422]
FAILURES = [300, 301, 302, 303, 304, 307, 308, 402, 404, 405, 408, 409, 418, 429, 451, 500, 501, 502, 503, 504, 599]
MANY = 1000


@pytest.fixture
def emitter(make_emitter: MakeEmitter, recorder: Recorder) -> Any:
    """Sends when it is told to; retries by itself at once."""
    return make_emitter(
        batch_size=MANY,
        on_success=recorder.success,
        on_failure=recorder.failure,
        max_retry_delay_seconds=QUICK,
    )


@pytest.fixture
def patient(make_emitter: MakeEmitter, recorder: Recorder) -> Any:
    """As `emitter`, with the default backoff."""
    return make_emitter(batch_size=MANY, on_success=recorder.success, on_failure=recorder.failure)


def unstamped(events: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in event.items() if name != "stm"} for event in events]


# -- success -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", SUCCESSES)
def test_2xx_settles_the_events_and_calls_on_success(
    collector: Collector, emitter: Any, recorder: Recorder, status: int
) -> None:
    collector.respond(status)
    feed(emitter, {"n": 0, "x": None}, {"n": 1})
    emitter.flush()
    stats = emitter.stats()
    assert (stats.sent_events, stats.queued_events, stats.requests, stats.failed_requests) == (2, 0, 1, 0)
    assert (stats.last_status, stats.last_error, stats.retry_delay) == (status, None, 0)
    assert recorder.successes == [collector.requests[0].events]
    assert unstamped(recorder.successes[0]) == [{"n": "0", "x": "None"}, {"n": "1"}]
    assert recorder.failures == []


@pytest.mark.parametrize("status", SUCCESSES)
def test_2xx_resets_the_backoff(collector: Collector, emitter: Any, status: int) -> None:
    collector.respond(500, times=2)
    collector.respond(status)
    feed(emitter, *numbered(0))
    emitter.flush()
    until(lambda: emitter.stats().sent_events == 1)
    assert emitter.retry_delay == 0
    assert emitter.retry_timer.is_active() is False


# -- rejection ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", REJECTIONS)
def test_a_rejection_drops_the_events_and_calls_on_failure(
    collector: Collector, emitter: Any, recorder: Recorder, status: int
) -> None:
    collector.respond(status)
    feed(emitter, *numbered(0, 1))
    emitter.flush()
    stats = emitter.stats()
    assert (stats.dropped_events["rejected"], stats.queued_events, stats.retry_delay) == (2, 0, 0)
    assert (stats.last_status, stats.failed_requests, stats.retried_events) == (status, 1, 0)
    assert recorder.failures == [(0, collector.requests[0].events)]
    assert recorder.successes == []


@pytest.mark.parametrize("status", REJECTIONS)
def test_what_was_rejected_is_not_sent_again_and_what_follows_goes_on(
    collector: Collector, emitter: Any, status: int
) -> None:
    collector.respond(status)
    for number in range(3):
        feed(emitter, *numbered(number))
        emitter.flush()
    assert requests_of(collector) == [[0], [1], [2]]
    assert numbers(collector.events) == [1, 2]


@pytest.mark.parametrize("status", REJECTIONS)
def test_a_rejection_resets_the_backoff(collector: Collector, emitter: Any, status: int) -> None:
    collector.respond(500, times=2)
    collector.respond(status)
    feed(emitter, *numbered(0))
    emitter.flush()
    until(lambda: emitter.stats().dropped_events["rejected"] == 1)
    assert emitter.retry_delay == 0


# -- failure -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", FAILURES)
def test_every_other_status_keeps_the_events_and_starts_the_backoff(
    collector: Collector, patient: Any, recorder: Recorder, status: int
) -> None:
    collector.respond(status, times=None)
    feed(patient, *numbered(0, 1))
    patient.flush()
    stats = patient.stats()
    assert (stats.queued_events + stats.in_flight_events, sum(stats.dropped_events.values())) == (2, 0)
    assert (stats.last_status, stats.last_error is not None and str(status) in stats.last_error) == (status, True)
    assert stats.retry_delay > 0
    assert patient.retry_timer.is_active() is True
    assert (recorder.failures[0][0], numbers(recorder.failures[0][1])) == (0, [0, 1])


@pytest.mark.parametrize("status", FAILURES)
def test_what_was_kept_is_sent_again_by_itself(
    collector: Collector, emitter: Any, recorder: Recorder, status: int
) -> None:
    collector.respond(status)
    feed(emitter, *numbered(0, 1))
    emitter.flush()
    collector.wait_for(2)
    until(lambda: recorder.successes)
    assert requests_of(collector) == [[0, 1], [0, 1]]
    assert (len(recorder.failures), [numbers(events) for events in recorder.successes]) == (1, [[0, 1]])
    assert emitter.stats().retried_events == 2


def test_a_refused_connection_keeps_the_events(collector: Collector, emitter: Any, recorder: Recorder) -> None:
    collector.close()
    feed(emitter, *numbered(0, 1))
    emitter.flush()
    assert (emitter.stats().last_status, "refused" in emitter.stats().last_error) == (None, True)
    assert numbers(recorder.failures[0][1]) == [0, 1]
    collector.start()
    assert numbers(collector.wait_for(2)) == [0, 1]


@pytest.mark.parametrize("answer", [{"reset": True}, {"hang_up": True}], ids=str)
def test_a_connection_that_breaks_keeps_the_events(
    collector: Collector, emitter: Any, recorder: Recorder, answer: dict[str, Any]
) -> None:
    collector.respond(**answer)
    feed(emitter, *numbered(0, 1))
    emitter.flush()
    assert numbers(collector.wait_for(2)) == [0, 1]
    assert [(count, numbers(events)) for count, events in recorder.failures] == [(0, [0, 1])]


@pytest.mark.parametrize("answer", [{"hang": True}, {"delay": 5.0}, {"drip": 0.02}], ids=str)
@pytest.mark.parametrize("timeout", [0.1, (5, 0.1)], ids=str)
def test_an_answer_that_takes_too_long_keeps_the_events(
    collector: Collector, emitter: Any, recorder: Recorder, answer: dict[str, Any], timeout: Any
) -> None:
    collector.respond(**answer, accept=False)
    emitter.request_timeout = timeout
    feed(emitter, *numbered(0, 1))
    started = time.monotonic()
    emitter.flush()
    took = time.monotonic() - started
    assert 0.09 <= took < 2
    assert "timed out" in emitter.stats().last_error
    assert numbers(collector.wait_for(2)) == [0, 1]
    assert (recorder.failures[0][0], numbers(recorder.failures[0][1])) == (0, [0, 1])


# -- backoff -----------------------------------------------------------------------------------------------------------


def test_the_backoff_doubles_with_a_random_second_on_top(collector: Collector, make_emitter: MakeEmitter) -> None:
    delays: list[float] = [0.0]
    collector.respond(500, times=None)
    flaky: Any = make_emitter(batch_size=MANY)
    flaky.on_failure = lambda *_: delays.append(flaky.retry_delay)
    feed(flaky, *numbered(0))
    for _ in range(5):
        flaky.flush()
    steps = list(itertools.pairwise(delays))
    assert [2 * before < after <= 2 * before + 1 for before, after in steps] == [True] * len(steps)
    assert len(steps) >= 5


def test_the_backoff_stays_below_its_maximum(collector: Collector, make_emitter: MakeEmitter) -> None:
    delays: list[float] = []
    collector.respond(500, times=None)
    flaky: Any = make_emitter(batch_size=MANY, max_retry_delay_seconds=3)
    flaky.on_failure = lambda *_: delays.append(flaky.retry_delay)
    feed(flaky, *numbered(0))
    for _ in range(8):
        flaky.flush()
    assert (delays[-1], max(delays)) == (3, 3)


def test_after_a_reset_the_backoff_starts_from_nothing(collector: Collector, patient: Any) -> None:
    delays: list[float] = []
    patient.on_failure = lambda *_: delays.append(patient.retry_delay)
    for number in range(2):
        collector.respond(500, times=6)
        feed(patient, *numbered(number))
        while patient.stats().sent_events == number:
            patient.flush()
    assert (len(delays), 0 < delays[0] <= 1, 0 < delays[6] <= 1) == (12, True, True)


def test_nothing_is_sent_while_the_backoff_runs(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(503, headers={"Retry-After": "30"})
    emitter = make_emitter(batch_size=1, byte_limit=1)
    feed(emitter, *numbered(0))
    until(lambda: emitter.retry_delay)
    feed(emitter, *numbered(*range(1, 100)))
    with pytest.raises(TimeoutError):
        collector.wait_for_requests(2, 0.05)
    emitter.flush()
    assert requests_of(collector) == [[0], list(range(100))]


def test_one_request_goes_first_after_a_backoff_and_the_others_follow_its_success(
    collector: Collector, make_async_emitter: MakeEmitter
) -> None:
    collector.respond(500)
    collector.respond(hang=True)
    emitter = make_async_emitter(
        batch_size=1, thread_count=4, max_request_bytes=1024, max_retry_delay_seconds=QUICK, overflow="block"
    )
    feed(emitter, *numbered(0))
    collector.wait_for_requests(2)
    feed(emitter, *numbered(*range(1, 200)))
    with pytest.raises(TimeoutError):
        collector.wait_for_requests(3, 0.1)
    collector.release()
    assert sorted(numbers(collector.wait_for(200))) == list(range(200))


# -- Retry-After -------------------------------------------------------------------------------------------------------


def date_in(seconds: str) -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=int(seconds)), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("30", 30, 30),
        (" 30 ", 30, 30),
        ("60", 60, 60),
        ("61", 60, 60),
        ("999999999999", 60, 60),
        ("9" * 10_000, 60, 60),
        ("date in 40", 20, 40),
        ("date in 100000000", 60, 60),
        ("0", 0.0, 1),
        ("-30", 0.0, 1),
        ("1.5e1", 0.0, 1),
        ("soon", 0.0, 1),
        ("", 0.0, 1),
        ("30 seconds", 0.0, 1),
        ("Wed, 99 Foo 2024 99:99:99 GMT", 0.0, 1),
        ("date in -100", 0.0, 1),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0, 1),
    ],
    ids=lambda value: str(value)[:30],
)
def test_retry_after_is_waited_for_where_it_makes_sense(
    collector: Collector, patient: Any, recorder: Recorder, status: int, value: str, least: float, most: float
) -> None:
    delays = []
    patient.on_failure = lambda *_: delays.append(patient.retry_delay)
    if value.startswith("date in "):
        value = date_in(value.removeprefix("date in "))
    collector.respond(status, times=None, headers={"Retry-After": value})
    feed(patient, *numbered(0))
    patient.flush()
    assert delays[0] > 0
    assert least <= delays[0] <= most
    assert patient.stats().queued_events + patient.stats().in_flight_events == 1


@pytest.mark.parametrize("status", [302, 404, 500, 502, 504])
def test_retry_after_with_another_status_is_not_heeded(collector: Collector, patient: Any, status: int) -> None:
    delays = []
    patient.on_failure = lambda *_: delays.append(patient.retry_delay)
    collector.respond(status, times=None, headers={"Retry-After": "30"})
    feed(patient, *numbered(0))
    patient.flush()
    assert 0 < delays[0] <= 1


def test_the_retry_comes_when_the_collector_asked_for_it(collector: Collector, patient: Any) -> None:
    collector.respond(429, headers={"Retry-After": "1"})
    feed(patient, *numbered(0))
    patient.flush()
    collector.wait_for(1)
    first, second = collector.requests
    assert 0.95 <= second.arrived - first.arrived < 3


# -- custom_retry_codes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 404, 408, 429, 500, 503, 599])
def test_custom_retry_codes_drop_what_would_be_kept(
    collector: Collector, emitter: Any, recorder: Recorder, status: int
) -> None:
    collector.respond(status, headers={"Retry-After": "30"})
    emitter.custom_retry_codes = {status: False}
    feed(emitter, *numbered(0, 1))
    emitter.flush()
    assert (emitter.stats().dropped_events["rejected"], emitter.retry_delay) == (2, 0)
    assert [(count, numbers(events)) for count, events in recorder.failures] == [(0, [0, 1])]


@pytest.mark.parametrize("status", [400, 401, 403, 410, 422])
def test_custom_retry_codes_keep_what_would_be_dropped(
    collector: Collector, make_emitter: MakeEmitter, status: int
) -> None:
    collector.respond(status)
    emitter = make_emitter(batch_size=1, max_retry_delay_seconds=QUICK, custom_retry_codes={status: True})
    feed(emitter, *numbered(0))
    collector.wait_for(1)
    assert requests_of(collector) == [[0], [0]]


@pytest.mark.parametrize("retry", [True, False])
def test_custom_retry_codes_do_not_touch_success(collector: Collector, emitter: Any, retry: bool) -> None:
    emitter.custom_retry_codes = dict.fromkeys(SUCCESSES, retry)
    feed(emitter, *numbered(0))
    emitter.flush()
    assert (emitter.stats().sent_events, emitter.retry_delay) == (1, 0)
