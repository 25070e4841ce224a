"""`close`: what it sends, how long it may take, what is left, and what comes after it."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter
from fastemit.testing import Collector
from tests.support.delivery import DEADLINE, Rig, Running, numbers, put, within
from tests.support.waiting import until

BACKGROUND = pytest.mark.parametrize("background", [True, False])


# -- sending what is left --------------------------------------------------------------------------------------------


@BACKGROUND
@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
def test_close_sends_what_is_queued_at_once(rig: Rig, cls: type[Emitter], background: bool) -> None:
    emitter = rig.emitter(cls, background=background)
    put(emitter, 3)
    with within(1):
        assert emitter.close() == 0
    assert numbers(rig.collector.events) == [0, 1, 2]


def test_close_sends_with_every_thread(rig: Rig) -> None:
    emitter = rig.async_emitter(thread_count=3, max_request_bytes=1024)
    put(emitter, 300)
    assert emitter.close() == 0
    assert sorted(numbers(rig.collector.events)) == list(range(300))


@BACKGROUND
def test_with_closes(rig: Rig, background: bool) -> None:
    with rig.emitter(background=background) as emitter:
        put(emitter, 3)
    assert numbers(rig.collector.events) == [0, 1, 2]
    put(emitter)
    assert emitter.stats().dropped_events["closed"] == 1


def test_with_lets_an_error_pass_and_closes(rig: Rig) -> None:
    emitter = rig.emitter()
    put(emitter, 3)
    with pytest.raises(ZeroDivisionError), emitter:
        _ = 1 / 0
    assert numbers(rig.collector.events) == [0, 1, 2]


@BACKGROUND
def test_close_retries(rig: Rig, background: bool) -> None:
    rig.collector.respond(500, times=2)
    emitter = rig.emitter(background=background, max_retry_delay_seconds=0.02)
    put(emitter, 3)
    assert emitter.close(5) == 0
    assert rig.requests() == [[0, 1, 2]] * 3


@BACKGROUND
def test_close_waits_for_no_backoff_at_first(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(background=background)
    put(emitter, 3)
    rig.shut_the_gate(emitter)
    with within(1):
        assert emitter.close(5) == 0
    assert numbers(rig.collector.events) == [0, 1, 2]


@BACKGROUND
def test_no_delay_reaches_past_the_deadline(rig: Rig, background: bool) -> None:
    well_again = time.monotonic() + 0.4
    rig.collector.respond(
        lambda _: 200 if time.monotonic() >= well_again else 503, headers={"Retry-After": "60"}, times=None
    )
    emitter = rig.emitter(background=background)
    put(emitter, 3)
    with within(1.3):
        assert emitter.close(0.8) == 0
    assert numbers(rig.collector.events) == [0, 1, 2]


@BACKGROUND
def test_close_gives_up_at_the_deadline_and_says_how_many_are_left(
    rig: Rig, caplog: pytest.LogCaptureFixture, background: bool
) -> None:
    rig.collector.respond(503, headers={"Retry-After": "60"}, times=None)
    emitter = rig.emitter(background=background)
    put(emitter, 3)
    with caplog.at_level(logging.WARNING, "fastemit"), within(0.8):
        assert emitter.close(0.3) == 3
    assert any("3 events left" in record.getMessage() for record in caplog.records)
    assert len(rig.collector.requests) >= 2
    assert emitter.stats().queued_events == 3


@BACKGROUND
def test_the_deadline_holds_when_the_collector_hangs(rig: Rig, background: bool) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = rig.emitter(background=background)
    put(emitter, 3)
    with within(0.8, at_least=0.25):
        assert emitter.close(0.3) == 3


@BACKGROUND
def test_the_deadline_holds_when_answers_drip(rig: Rig, background: bool) -> None:
    rig.collector.respond(drip=0.05, times=None)
    emitter = rig.emitter(background=background)
    put(emitter, 3)
    with within(0.8):
        assert emitter.close(0.3) == 3


@BACKGROUND
def test_the_deadline_holds_when_the_collector_is_down(rig: Rig, background: bool) -> None:
    rig.collector.close()
    emitter = rig.emitter(background=background)
    put(emitter, 3)
    with within(0.8, at_least=0.25):
        assert emitter.close(0.3) == 3


def test_close_finds_a_collector_that_comes_back(rig: Rig) -> None:
    rig.collector.close()
    emitter = rig.emitter()
    put(emitter, 3)
    closing = Running(lambda: emitter.close(5))
    until(lambda: emitter.stats().failed_requests > 0)
    rig.collector.start()
    assert closing.result() == 0
    assert numbers(rig.collector.events) == [0, 1, 2]


def test_the_default_is_shutdown_timeout(rig: Rig) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = rig.emitter(shutdown_timeout=0.3)
    put(emitter)
    with within(0.8, at_least=0.25):
        assert emitter.close() == 1


@BACKGROUND
def test_close_without_time_sends_nothing_and_counts(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(background=background)
    put(emitter, 3)
    with within(0.5):
        assert emitter.close(0) == 3
    assert rig.collector.requests == []


def test_close_without_time_does_not_wait_for_what_is_in_flight(rig: Rig) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = rig.emitter(batch_size=1)
    put(emitter)
    rig.collector.wait_for_requests(1)
    with within(0.5):
        assert emitter.close(0) == 1


def test_what_was_in_flight_at_the_deadline_is_left(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(batch_size=1)
    put(emitter)
    rig.collector.wait_for_requests(1)
    assert emitter.close(0.05) == 1
    until(lambda: emitter.stats().in_flight_events == 0, timeout=1)
    stats = emitter.stats()
    assert (stats.queued_events, stats.sent_events) == (1, 0)
    assert stats.last_error == "cut off, because the emitter was closed and its time was up"


@pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), ("1", TypeError), (float("inf"), ValueError)])
def test_the_timeout_is_checked_and_nothing_is_closed(rig: Rig, timeout: Any, error: type[Exception]) -> None:
    emitter = rig.emitter()
    with pytest.raises(error, match=r"timeout must be .*, not "):
        emitter.close(timeout)
    put(emitter)
    assert emitter.drain() is True


# -- after it --------------------------------------------------------------------------------------------------------


@BACKGROUND
def test_what_comes_after_close_is_dropped_counted_and_logged(
    rig: Rig, caplog: pytest.LogCaptureFixture, background: bool
) -> None:
    emitter = rig.emitter(background=background, batch_size=1)
    put(emitter)
    emitter.close()
    with caplog.at_level(logging.WARNING, "fastemit"), within(0.5):
        put(emitter, 2, first=1)
    stats = emitter.stats()
    assert (stats.sent_events, stats.dropped_events["closed"], stats.queued_events) == (1, 2, 0)
    assert any("closed" in record.getMessage() for record in caplog.records)
    assert numbers(rig.collector.events) == [0]


@BACKGROUND
def test_a_second_close_has_no_effect(rig: Rig, caplog: pytest.LogCaptureFixture, background: bool) -> None:
    rig.collector.respond(503, times=None)
    emitter = rig.emitter(background=background)
    put(emitter, 3)
    assert emitter.close(0.1) == 3
    requests = len(rig.collector.requests)
    caplog.clear()
    with within(0.5):
        assert emitter.close(5) == 3
        assert emitter.close() == 3
    assert (len(rig.collector.requests), caplog.records) == (requests, [])


def test_two_threads_may_close_at_once(rig: Rig) -> None:
    emitter = rig.emitter()
    put(emitter, 3)
    closing = [Running(emitter.close) for _ in range(4)]
    for each in closing:
        assert each.result(2) in (0, 3)
    assert numbers(rig.collector.wait_for(3)) == [0, 1, 2]


def test_close_of_an_emitter_that_had_no_event_does_nothing(rig: Rig) -> None:
    emitter = rig.emitter()
    with within(0.5):
        assert emitter.close() == 0
    assert (rig.collector.connections, rig.new_threads()) == (0, set())


def test_an_event_after_the_close_of_one_that_had_none_starts_no_thread(rig: Rig) -> None:
    emitter = rig.emitter(batch_size=1)
    emitter.close()
    put(emitter)
    assert emitter.stats().dropped_events["closed"] == 1
    assert rig.new_threads() == set()


@pytest.mark.parametrize("threads", [1, 4])
def test_the_threads_are_gone_after_close(rig: Rig, threads: int) -> None:
    emitter = rig.async_emitter(thread_count=threads)
    put(emitter, 3)
    emitter.drain()
    until(lambda: len(rig.new_threads()) == threads)
    emitter.close()
    until(lambda: not rig.new_threads())


def test_the_threads_are_gone_after_a_close_that_gave_up(rig: Rig) -> None:
    emitter = rig.async_emitter(thread_count=3)
    put(emitter, 3)
    rig.shut_the_gate(emitter)
    assert emitter.close(0) == 3
    until(lambda: not rig.new_threads())
    assert len(rig.collector.requests) == 1


def test_a_thread_that_was_in_a_request_is_gone_soon(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(batch_size=1)
    put(emitter)
    rig.collector.wait_for_requests(1)
    emitter.close(0)
    until(lambda: not rig.new_threads(), timeout=1)


def test_the_connections_are_closed(rig: Rig) -> None:
    emitter = rig.emitter()
    put(emitter)
    emitter.drain()
    assert rig.collector.open_connections == 1
    emitter.close()
    until(lambda: rig.collector.open_connections == 0)


# -- others that wait ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["block", "backpressure"])
def test_close_wakes_producers_that_wait_for_room(rig: Rig, overflow: str) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = rig.emitter(overflow=overflow, buffer_capacity=2, batch_size=2)
    put(emitter, 2)
    rig.collector.wait_for_requests(1)
    producers = [Running(lambda: put(emitter)) for _ in range(3)]
    assert all(producer.goes_on() for producer in producers)
    assert emitter.close(0.1) == 2
    for producer in producers:
        producer.result(1)
    assert emitter.stats().dropped_events["closed"] == 3


def test_a_flush_ends_with_the_emitter(rig: Rig) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = rig.emitter()
    put(emitter, 3)
    flushing = Running(emitter.drain)
    rig.collector.wait_for_requests(1)
    emitter.close(0)
    rig.collector.drop_connections()
    assert flushing.result() is False


@BACKGROUND
def test_close_in_a_callback_returns_at_once_and_the_rest_is_sent(rig: Rig, background: bool) -> None:
    took: list[float] = []

    def callback(_: Any) -> None:
        started = time.monotonic()
        emitter.close()
        took.append(time.monotonic() - started)

    emitter = rig.emitter(on_success=callback, max_request_bytes=1024, background=background)
    put(emitter, 100)
    emitter.async_flush()
    assert numbers(rig.collector.wait_for(100, timeout=3)) == list(range(100))
    assert max(took) < 0.5
    until(lambda: not rig.new_threads())
    put(emitter)
    assert emitter.stats().dropped_events["closed"] == 1


def test_close_outside_after_close_in_a_callback_does_not_hang(rig: Rig) -> None:
    called = threading.Event()

    def callback(_: Any) -> None:
        emitter.close()
        called.set()

    emitter = rig.emitter(on_success=callback)
    put(emitter, 3)
    emitter.async_flush()
    assert called.wait(DEADLINE)
    with within(1):
        assert emitter.close() == 0


def test_every_event_is_in_one_place_after_close(rig: Rig) -> None:
    rig.collector.respond(200)
    rig.collector.respond(400)
    rig.collector.respond(503, times=None)
    emitter = rig.emitter(max_request_bytes=1024)
    put(emitter, 100)
    left = emitter.close(0.1)
    put(emitter, 5)
    stats = emitter.stats()
    assert stats.queued_events == left
    assert stats.sent_events + sum(stats.dropped_events.values()) + left == 105


def test_emitters_are_closed_apart(rig: Rig) -> None:
    with Collector() as other:
        first, second = rig.emitter(), rig.emitter(endpoint=other.url)
        put(first, 2)
        put(second, 3)
        first.close()
        assert (len(rig.collector.events), len(other.events)) == (2, 0)
        assert second.drain() is True
        assert len(other.events) == 3
