"""Callbacks: when they run, in which thread, with what, and what they may do."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fastemit import Emitter
from fastemit._delivery.reporting import Reporter
from tests.support.delivery import DEADLINE, Rig, Running, numbers, put, within
from tests.support.slow import slow
from tests.support.waiting import until

BACKGROUND = pytest.mark.parametrize("background", [True, False])
OUTCOMES = pytest.mark.parametrize(("status", "name"), [(200, "on_success"), (400, "on_failure"), (500, "on_failure")])


# -- what they get ---------------------------------------------------------------------------------------------------


@BACKGROUND
def test_on_success_gets_a_list_of_dicts_with_string_values_and_stm(rig: Rig, background: bool) -> None:
    calls: list[Any] = []
    emitter = rig.emitter(on_success=calls.append, background=background)
    before = time.time_ns() // 1_000_000
    emitter.input({"e": "pv", "n": 1, "none": None, "true": True, "stm": "mine", "text": "Zoë \u2603"})
    emitter.input({})
    emitter.flush()
    ((first, second),) = calls
    stm = first.pop("stm")
    assert first == {"e": "pv", "n": "1", "none": "None", "true": "True", "text": "Zoë \u2603"}
    assert second == {"stm": stm}
    assert before <= int(stm) <= time.time_ns() // 1_000_000
    assert rig.collector.events[1] == second


@BACKGROUND
@pytest.mark.parametrize("status", [400, 403, 410])
def test_on_failure_gets_0_and_the_events_that_are_rejected(rig: Rig, status: int, background: bool) -> None:
    calls: list[Any] = []
    rig.collector.respond(status)
    emitter = rig.emitter(on_failure=lambda *got: calls.append(got), background=background)
    put(emitter, 2)
    emitter.flush()
    ((count, events),) = calls
    assert (count, numbers(events)) == (0, [0, 1])
    assert all(isinstance(event["stm"], str) for event in events)


@BACKGROUND
def test_on_failure_is_called_at_each_attempt_and_on_success_in_the_end(rig: Rig, background: bool) -> None:
    calls: list[Any] = []
    rig.collector.respond(500, times=2)
    emitter = rig.emitter(
        on_success=lambda events: calls.append(numbers(events)),
        on_failure=lambda count, events: calls.append((count, numbers(events))),
        background=background,
    )
    put(emitter, 2)
    for _ in range(3):
        emitter.flush()
    assert calls == [(0, [0, 1]), (0, [0, 1]), [0, 1]]


def test_a_connection_error_calls_on_failure(rig: Rig) -> None:
    calls: list[Any] = []
    rig.collector.respond(hang_up=True)
    emitter = rig.emitter(on_failure=lambda count, events: calls.append((count, numbers(events))))
    put(emitter, 2)
    emitter.flush()
    assert calls == [(0, [0, 1])]


def test_halves_of_a_request_that_was_too_large_call_back_apart(rig: Rig) -> None:
    calls: list[Any] = []
    rig.collector.respond(413)
    rig.collector.respond(200)
    rig.collector.respond(400)
    emitter = rig.emitter(
        on_success=lambda events: calls.append(numbers(events)),
        on_failure=lambda count, events: calls.append((count, numbers(events))),
    )
    put(emitter, 4)
    emitter.flush()
    assert calls == [[0, 1], (0, [2, 3])]


@BACKGROUND
def test_the_outcome_is_settled_when_the_callback_runs(rig: Rig, background: bool) -> None:
    calls: list[Any] = []
    emitter = rig.emitter(background=background)
    emitter.on_success = lambda _: calls.append(emitter.stats())
    put(emitter, 3)
    emitter.flush()
    assert (calls[0].sent_events, calls[0].in_flight_events, calls[0].queued_events) == (3, 0, 0)


def test_what_a_callback_does_to_its_events_changes_nothing(rig: Rig) -> None:
    def spoil(_: int, events: list[dict[str, Any]]) -> None:
        events[0].clear()
        events.clear()

    rig.collector.respond(500)
    emitter = rig.emitter(on_failure=spoil)
    put(emitter, 2)
    emitter.flush()
    emitter.flush()
    assert numbers(rig.collector.events) == [0, 1]


# -- where they run --------------------------------------------------------------------------------------------------


def test_callbacks_run_in_the_sender_thread(rig: Rig) -> None:
    threads: list[threading.Thread] = []
    emitter = rig.emitter(on_success=lambda _: threads.append(threading.current_thread()))
    put(emitter)
    emitter.flush()
    assert threads[0] in rig.new_threads()


def test_without_a_sender_thread_callbacks_run_in_the_one_that_calls(rig: Rig) -> None:
    threads: list[int] = []
    emitter = rig.emitter(on_success=lambda _: threads.append(threading.get_ident()), background=False, batch_size=1)
    put(emitter)
    assert threads == [threading.get_ident()]


@BACKGROUND
def test_other_threads_go_on_while_a_callback_runs(rig: Rig, background: bool) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def callback(_: Any) -> None:
        entered.set()
        assert go_on.wait(DEADLINE)

    emitter = rig.emitter(on_success=callback, background=background)
    put(emitter)
    flushing = Running(emitter.flush)
    assert entered.wait(DEADLINE)
    with within(1):
        put(emitter, 5)
        assert emitter.stats().queued_events == 5
        emitter.set_flush_timer(60)
        emitter.cancel_flush_timer()
        emitter.async_flush()
        assert emitter.http_post("{}") == 200
        emitter.drain(0.1)
    go_on.set()
    flushing.result()


# -- what they may do ------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Emitter], Any]] = {
    "input": lambda emitter: emitter.input({"n": 1000}),
    "flush": lambda emitter: emitter.flush(),
    "sync_flush": lambda emitter: emitter.sync_flush(),
    "async_flush": lambda emitter: emitter.async_flush(),
    "drain": lambda emitter: emitter.drain(),
    "stats": lambda emitter: emitter.stats(),
    "reached_limit": lambda emitter: emitter.reached_limit(),
    "event_buffer": lambda emitter: emitter.event_store.event_buffer,
    "http_post": lambda emitter: emitter.http_post("{}"),
    "send_events": lambda emitter: emitter.send_events([{"n": 1000}]),
    "set_flush_timer": lambda emitter: emitter.set_flush_timer(60),
    "cancel_flush_timer": lambda emitter: emitter.cancel_flush_timer(),
    "batch_size": lambda emitter: setattr(emitter, "batch_size", 500),
    "on_success": lambda emitter: setattr(emitter, "on_success", None),
    "close": lambda emitter: emitter.close(),
}


@pytest.mark.parametrize("background", [True, slow(False)])
@OUTCOMES
@pytest.mark.parametrize("call", CALLS)
def test_a_callback_may_call_anything_on_its_emitter(
    rig: Rig, call: str, status: int, name: str, background: bool
) -> None:
    took: list[float] = []

    def callback(*_: Any) -> None:
        if not took:
            took.append(DEADLINE)
            started = time.monotonic()
            CALLS[call](emitter)
            took[0] = time.monotonic() - started

    rig.collector.respond(status)
    emitter = rig.emitter(background=background, max_retry_delay_seconds=0.02, **{name: callback})
    put(emitter, 3)
    with within(2):
        emitter.flush()
    until(lambda: took and took[0] < 0.5)
    if call != "close":
        put(emitter, first=7)
        with within(2):
            assert emitter.drain() is True
        assert 7 in numbers(rig.collector.events)


@BACKGROUND
def test_a_callback_that_tracks_for_ever_does_not_recurse(rig: Rig, background: bool) -> None:
    depths: list[int] = []

    def callback(_: Any) -> None:
        if len(depths) < 40:
            depths.append(len(inspect.stack(0)))
            put(emitter, first=len(depths))

    emitter = rig.emitter(on_success=callback, background=background, batch_size=1)
    put(emitter)
    rig.collector.wait_for(41)
    assert len(set(depths)) == 1


@BACKGROUND
@pytest.mark.parametrize("overflow", ["block", "backpressure"])
def test_input_in_a_callback_never_waits_for_room(rig: Rig, overflow: str, background: bool) -> None:
    took: list[float] = []

    def callback(_: Any) -> None:
        if not took:
            started = time.monotonic()
            put(emitter, 3)
            took.append(time.monotonic() - started)

    emitter = rig.emitter(on_success=callback, background=background, overflow=overflow, buffer_capacity=1)
    put(emitter)
    emitter.flush()
    until(lambda: took)
    assert took[0] < 0.5
    assert emitter.stats().dropped_events["overflow"] == 2


# -- what they may fail at -------------------------------------------------------------------------------------------


@BACKGROUND
@OUTCOMES
@pytest.mark.parametrize("error", [RuntimeError, SystemExit, asyncio.CancelledError])
def test_what_a_callback_raises_is_logged_and_changes_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture, error: type[BaseException], status: int, name: str, background: bool
) -> None:
    calls: list[Any] = []

    def callback(*_: Any) -> None:
        calls.append(threading.get_ident())
        if len(calls) == 1:
            raise error("mine")

    rig.collector.respond(status)
    emitter = rig.emitter(background=background, **{name: callback})
    put(emitter, 3)
    with caplog.at_level(logging.WARNING, "fastemit"):
        emitter.sync_flush(2)
    assert len(calls) == 1
    assert any(error.__name__ in record.getMessage() for record in caplog.records)
    stats = emitter.stats()
    assert stats.sent_events + stats.dropped_events["rejected"] + stats.queued_events == 3
    put(emitter, first=7)
    assert emitter.drain(2) is True
    assert 7 in numbers(rig.collector.events)


def test_deadlines_hold_while_a_callback_blocks(rig: Rig) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def callback(_: Any) -> None:
        entered.set()
        assert go_on.wait(DEADLINE)

    emitter = rig.emitter(on_success=callback)
    put(emitter)
    emitter.async_flush()
    assert entered.wait(DEADLINE)
    put(emitter, 2, first=1)
    with within(0.7):
        assert emitter.drain(0.2) is False
    with within(0.7):
        emitter.sync_flush(0.2)
    with within(0.7):
        assert emitter.close(0.2) == 2
    go_on.set()


def test_close_counts_nothing_that_was_sent_as_left_while_its_callback_blocks(rig: Rig) -> None:
    go_on = threading.Event()
    emitter = rig.emitter(on_success=lambda _: go_on.wait(DEADLINE))
    put(emitter, 3)
    assert emitter.close(0.2) == 0
    go_on.set()


# -- whether there are any -------------------------------------------------------------------------------------------


def test_callbacks_can_be_assigned_and_taken_away_later(rig: Rig) -> None:
    calls: list[Any] = []
    emitter = rig.emitter()
    put(emitter)
    emitter.flush()
    emitter.on_success = lambda events: calls.append(numbers(events))
    put(emitter, first=1)
    emitter.flush()
    emitter.on_success = None
    put(emitter, first=2)
    emitter.flush()
    rig.collector.respond(400)
    emitter.on_failure = lambda count, events: calls.append((count, numbers(events)))
    put(emitter, first=3)
    emitter.flush()
    assert calls == [[1], (0, [3])]


@pytest.mark.parametrize("name", ["on_success", "on_failure"])
def test_what_is_assigned_must_be_callable(rig: Rig, name: str) -> None:
    emitter = rig.emitter()
    with pytest.raises(TypeError, match=f"{name} must be callable or None, not str 'x'"):
        setattr(emitter, name, "x")


@pytest.mark.parametrize(
    ("callbacks", "decoded"),
    [([], [False, False]), (["on_success"], [True, False]), (["on_failure"], [False, True])],
)
def test_events_are_decoded_only_for_a_callback(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, callbacks: list[str], decoded: list[bool]
) -> None:
    got: list[bool] = []
    original = Reporter.told_of

    def spy(*arguments: Any) -> Any:
        events = original(*arguments)
        got.append(events[0] is not None)
        return events

    monkeypatch.setattr(Reporter, "told_of", spy)
    emitter = rig.emitter(**{name: lambda *_: None for name in callbacks})
    for status in (200, 400):
        rig.collector.respond(status)
        put(emitter)
        emitter.flush()
    assert got == decoded
