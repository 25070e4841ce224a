"""Flush, drain, and the timers."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter
from tests.support.delivery import A_WHILE, DEADLINE, Rig, Running, numbers, put, within
from tests.support.waiting import until

# -- waiting ---------------------------------------------------------------------------------------------------------

WAITING = [
    (Emitter, "flush", None),
    (Emitter, "sync_flush", None),
    (Emitter, "drain", True),
    (AsyncEmitter, "sync_flush", None),
    (AsyncEmitter, "drain", True),
]


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(("cls", "call", "answer"), WAITING)
def test_a_waiting_flush_returns_when_all_is_sent(
    rig: Rig, cls: type[Emitter], call: str, answer: bool | None, background: bool
) -> None:
    emitter = rig.emitter(cls, background=background)
    put(emitter, 3)
    assert rig.requests() == []
    assert getattr(emitter, call)() is answer
    assert numbers(rig.collector.events) == [0, 1, 2]
    assert len(rig.collector.requests) == 1


@pytest.mark.parametrize(
    ("cls", "call"), [(AsyncEmitter, "flush"), (AsyncEmitter, "async_flush"), (Emitter, "async_flush")]
)
def test_an_asynchronous_flush_sends_and_returns_at_once(rig: Rig, cls: type[Emitter], call: str) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(cls)
    put(emitter, 3)
    with within(0.5):
        assert getattr(emitter, call)() is None
    rig.collector.wait_for_requests(1)
    rig.collector.release()
    assert numbers(rig.collector.wait_for(3)) == [0, 1, 2]


@pytest.mark.parametrize("background", [True, False])
def test_a_flush_of_nothing_returns_at_once(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(background=background)
    with within(0.5):
        emitter.flush()
        assert emitter.drain() is True
        emitter.async_flush()
    assert rig.collector.connections == 0
    assert rig.new_threads() == set()


def test_flush_waits_for_what_is_in_flight(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(batch_size=1)
    put(emitter)
    rig.collector.wait_for_requests(1)
    flushing = Running(emitter.flush)
    assert flushing.goes_on()
    rig.collector.release()
    flushing.result()
    assert numbers(rig.collector.events) == [0]


def test_flush_does_not_wait_for_what_comes_after_it(rig: Rig) -> None:
    rig.collector.respond(hang=True, times=2)
    emitter = rig.emitter(batch_size=1)
    put(emitter)
    rig.collector.wait_for_requests(1)
    flushing = Running(emitter.drain)
    assert flushing.goes_on()
    put(emitter, first=1)
    rig.collector.release()
    assert flushing.result() is True
    rig.collector.wait_for_requests(2)
    assert numbers(rig.collector.events) == [0]


def test_rejected_events_are_none_that_are_left(rig: Rig) -> None:
    rig.collector.respond(400)
    emitter = rig.emitter()
    put(emitter, 3)
    assert emitter.drain() is True
    assert emitter.stats().dropped_events["rejected"] == 3


def test_flush_waits_for_both_halves_of_a_request_that_was_too_large(rig: Rig) -> None:
    rig.collector.respond(413)
    emitter = rig.emitter()
    put(emitter, 4)
    assert emitter.drain() is True
    assert rig.requests() == [[0, 1, 2, 3], [0, 1], [2, 3]]


def test_flush_sends_more_than_one_request_where_it_takes_more(rig: Rig) -> None:
    emitter = rig.emitter(max_request_bytes=1024)
    put(emitter, 100)
    assert emitter.drain() is True
    assert len(rig.collector.requests) > 1
    assert numbers(rig.collector.events) == list(range(100))


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("call", ["flush", "sync_flush", "drain"])
def test_flush_makes_one_attempt_whatever_the_backoff_says(rig: Rig, call: str, background: bool) -> None:
    emitter = rig.emitter(background=background)
    put(emitter, 2)
    rig.shut_the_gate(emitter)
    with within(2):
        getattr(emitter, call)()
    assert numbers(rig.collector.events) == [0, 1]
    assert emitter.retry_delay == 0


def test_an_asynchronous_flush_makes_one_attempt_whatever_the_backoff_says(rig: Rig) -> None:
    emitter = rig.async_emitter()
    put(emitter, 2)
    rig.shut_the_gate(emitter)
    emitter.flush()
    assert numbers(rig.collector.wait_for(2, timeout=2)) == [0, 1]


@pytest.mark.parametrize("background", [True, False])
def test_flush_ends_at_the_first_failure_that_keeps_events(rig: Rig, background: bool) -> None:
    rig.collector.respond(503, headers={"Retry-After": "60"}, times=None)
    emitter = rig.emitter(background=background, max_request_bytes=1024)
    put(emitter, 100)
    for attempts in (1, 2, 3):
        with within(2):
            assert emitter.drain() is False
        assert len(rig.collector.requests) == attempts
    assert emitter.stats().queued_events == 100


def test_kept_events_go_in_their_order_with_the_next_flush(rig: Rig) -> None:
    emitter = rig.emitter(max_request_bytes=1024)
    put(emitter, 50)
    rig.shut_the_gate(emitter)
    put(emitter, 50, first=50)
    assert emitter.drain() is True
    assert numbers(rig.collector.events) == list(range(100))


def test_a_failure_after_a_success_ends_the_flush(rig: Rig) -> None:
    rig.collector.respond(200)
    rig.collector.respond(503, headers={"Retry-After": "60"}, times=None)
    emitter = rig.emitter(max_request_bytes=1024)
    put(emitter, 100)
    with within(2):
        assert emitter.drain() is False
    first, second = rig.requests()
    assert (numbers(rig.collector.events), second[0]) == (first, len(first))


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(("call", "answer"), [("sync_flush", None), ("drain", False)])
def test_the_timeout_holds_when_the_collector_hangs(rig: Rig, call: str, answer: bool | None, background: bool) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = rig.emitter(background=background)
    put(emitter, 3)
    with within(0.7, at_least=0.15):
        assert getattr(emitter, call)(0.2) is answer
    assert emitter.stats().sent_events == 0


def test_drain_without_time_asks_for_a_flush(rig: Rig) -> None:
    emitter = rig.emitter()
    put(emitter, 3)
    assert emitter.drain(0) in (True, False)
    assert numbers(rig.collector.wait_for(3)) == [0, 1, 2]


@pytest.mark.parametrize("call", ["sync_flush", "drain"])
@pytest.mark.parametrize(
    ("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)]
)
def test_a_timeout_is_checked(rig: Rig, call: str, timeout: Any, error: type[Exception]) -> None:
    emitter = rig.emitter()
    put(emitter)
    with pytest.raises(error, match=r"timeout must be .*, not "):
        getattr(emitter, call)(timeout)


# -- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_request_bytes", [1_000_000, 1024])
@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
def test_kept_events_go_by_themselves_when_the_backoff_is_over_however_few(
    rig: Rig, cls: type[Emitter], max_request_bytes: int
) -> None:
    rig.collector.respond(500, times=3)
    emitter = rig.emitter(cls, max_retry_delay_seconds=0.02, max_request_bytes=max_request_bytes)
    put(emitter, 100)
    emitter.flush()
    assert numbers(rig.collector.wait_for(100, timeout=3)) == list(range(100))
    assert rig.requests()[0] == rig.requests()[1] == rig.requests()[2] == rig.requests()[3]


def test_nothing_goes_by_itself_before_the_backoff_is_over(rig: Rig) -> None:
    rig.collector.respond(500)
    emitter = rig.emitter(batch_size=1, max_retry_delay_seconds=0.3)
    put(emitter)
    until(lambda: emitter.retry_delay > 0)
    delay = emitter.retry_delay
    put(emitter, 5, first=1)
    rig.collector.wait_for(6)
    first, second = rig.collector.requests[:2]
    assert second.arrived - first.arrived >= delay
    assert rig.requests() == [[0], [0, 1, 2, 3, 4, 5]]


# -- several at once, callbacks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, False])
def test_each_of_several_threads_finds_its_events_sent_when_its_flush_returns(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(background=background)
    start = threading.Barrier(8)

    def work(number: int) -> bool:
        start.wait()
        mine = range(number * 1000, number * 1000 + 10)
        for turn in mine:
            put(emitter, first=turn)
            emitter.flush()
            if turn not in numbers(rig.collector.events):
                return False
        return True

    threads = [Running(lambda number=number: work(number)) for number in range(8)]  # type: ignore[misc]
    assert [thread.result() for thread in threads] == [True] * 8
    assert len(rig.collector.events) == 80


@pytest.mark.parametrize(("status", "name"), [(200, "on_success"), (400, "on_failure"), (500, "on_failure")])
def test_flush_returns_after_the_callback_for_what_it_sent(rig: Rig, status: int, name: str) -> None:
    entered, go_on, calls = threading.Event(), threading.Event(), []

    def callback(*arguments: Any) -> None:
        entered.set()
        assert go_on.wait(DEADLINE)
        calls.append(arguments)

    rig.collector.respond(status)
    emitter = rig.emitter(**{name: callback})
    put(emitter, 3)
    flushing = [Running(emitter.flush)]
    assert entered.wait(DEADLINE)
    # That of events which are settled already is waited for as well.
    flushing.append(Running(emitter.flush))
    assert [each.goes_on() for each in flushing] == [True, True]
    go_on.set()
    for each in flushing:
        each.result()
    assert len(calls) == 1


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("call", ["flush", "sync_flush", "async_flush", "drain"])
def test_a_flush_in_a_callback_is_a_request(rig: Rig, call: str, background: bool) -> None:
    took: list[float] = []

    def callback(_: Any) -> None:
        if not took:
            put(emitter, first=1)
            started = time.monotonic()
            getattr(emitter, call)()
            took.append(time.monotonic() - started)

    emitter = rig.emitter(on_success=callback, background=background)
    put(emitter)
    emitter.flush()
    assert numbers(rig.collector.wait_for(2, timeout=2)) == [0, 1]
    assert took[0] < 0.5


def test_flush_after_close_returns_at_once(rig: Rig) -> None:
    rig.collector.respond(503, times=None)
    emitter = rig.emitter()
    put(emitter, 2)
    assert emitter.close(0) == 2
    with within(0.5):
        emitter.flush()
        emitter.async_flush()
        assert emitter.drain() is False


# -- timers ----------------------------------------------------------------------------------------------------------


def test_the_timer_flushes_what_is_queued_every_so_often(rig: Rig) -> None:
    emitter = rig.emitter()
    emitter.set_flush_timer(0.03)
    for number in range(3):
        put(emitter, first=number)
        rig.collector.wait_for(number + 1)
    assert rig.requests() == [[0], [1], [2]]


def test_the_timer_can_be_set_at_construction(rig: Rig) -> None:
    emitter = rig.emitter(flush_interval=0.03)
    put(emitter, 2)
    rig.collector.wait_for(2)
    put(emitter, first=2)
    rig.collector.wait_for(3)


def test_a_second_timer_replaces_the_first(rig: Rig) -> None:
    emitter = rig.emitter(flush_interval=60)
    put(emitter)
    emitter.set_flush_timer(0.03)
    rig.collector.wait_for(1)
    emitter.set_flush_timer(60)
    put(emitter, first=1)
    threading.Event().wait(A_WHILE)
    assert len(rig.collector.requests) == 1


@pytest.mark.parametrize("name", ["cancel_flush_timer", "cancel_flush"])
def test_the_timer_can_be_cancelled_and_set_again(rig: Rig, name: str) -> None:
    emitter = rig.emitter(flush_interval=0.05)
    getattr(emitter, name)()
    put(emitter)
    threading.Event().wait(A_WHILE)
    assert rig.collector.requests == []
    emitter.set_flush_timer(0.03)
    rig.collector.wait_for(1)


def test_the_timer_says_whether_it_is_active(rig: Rig) -> None:
    emitter = rig.emitter()
    assert not emitter.timer.is_active()
    emitter.set_flush_timer(60)
    assert emitter.timer.is_active()
    emitter.cancel_flush()
    assert not emitter.timer.is_active()
    assert rig.emitter(flush_interval=60).timer.is_active()


def test_the_retry_timer_is_active_during_a_backoff(rig: Rig) -> None:
    emitter = rig.emitter()
    assert not emitter.retry_timer.is_active()
    put(emitter)
    rig.shut_the_gate(emitter)
    assert emitter.retry_timer.is_active()
    emitter.flush()
    assert not emitter.retry_timer.is_active()


def test_the_timer_does_not_break_into_a_backoff(rig: Rig) -> None:
    emitter = rig.emitter(flush_interval=0.02)
    put(emitter)
    rig.shut_the_gate(emitter)
    threading.Event().wait(A_WHILE)
    assert len(rig.collector.requests) == 1


def test_without_a_thread_input_looks_at_the_timer(rig: Rig) -> None:
    emitter = rig.emitter(background=False, flush_interval=0.08)
    put(emitter)
    threading.Event().wait(A_WHILE)
    assert rig.collector.requests == []
    put(emitter, first=1)
    assert rig.requests() == [[0, 1]]
    put(emitter, first=2)
    assert len(rig.collector.requests) == 1


@pytest.mark.parametrize(("seconds", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (None, TypeError)])
def test_the_seconds_of_the_timer_are_checked(rig: Rig, seconds: Any, error: type[Exception]) -> None:
    emitter = rig.emitter()
    with pytest.raises(error, match=r"timeout must be .*, not "):
        emitter.set_flush_timer(seconds)
    assert not emitter.timer.is_active()
