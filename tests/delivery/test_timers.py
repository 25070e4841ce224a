"""The flush timer and the retry timer, beside what `test_flush.py` has of them."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import snowplow_tracker

from fastemit import AsyncEmitter, Emitter
from tests.support.delivery import A_WHILE, Rig, Script, numbers, put, within
from tests.support.emitters import QUICK
from tests.support.waiting import until

CLASSES = pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
METHODS = pytest.mark.parametrize("method", ["post", "get"])


@CLASSES
@METHODS
def test_the_timer_flushes_again_and_again(rig: Rig, cls: type[Emitter], method: str) -> None:
    emitter = rig.emitter(cls, method=method)
    emitter.set_flush_timer(0.03)
    for number in range(3):
        put(emitter, 2, first=2 * number)
        rig.collector.wait_for(2 * number + 2)
    assert numbers(rig.collector.events) == list(range(6))
    assert emitter.timer.is_active()


def test_a_timer_that_fires_for_nothing_makes_no_request(rig: Rig) -> None:
    emitter = rig.emitter(flush_interval=0.01)
    threading.Event().wait(A_WHILE)
    assert rig.collector.connections == 0
    put(emitter)
    rig.collector.wait_for(1)
    threading.Event().wait(A_WHILE)
    assert len(rig.collector.requests) == 1


def test_the_names_and_what_they_return_are_the_reference_s(rig: Rig) -> None:
    ours, theirs = rig.emitter(), snowplow_tracker.Emitter("localhost")
    for emitter in (ours, theirs):
        assert (emitter.timer.is_active(), emitter.retry_timer.is_active()) == (False, False)
        assert emitter.set_flush_timer(60) is None
        assert (emitter.timer.is_active(), emitter.retry_timer.is_active()) == (True, False)
        assert emitter.cancel_flush_timer() is None
        assert emitter.cancel_flush_timer() is None
        assert emitter.timer.is_active() is False
    assert ours.cancel_flush() is None


def test_set_flush_timer_takes_its_argument_by_name(rig: Rig) -> None:
    emitter = rig.emitter()
    emitter.set_flush_timer(timeout=60)
    assert emitter.timer.is_active() is True


@CLASSES
@pytest.mark.parametrize("background", [True, False])
def test_the_timer_calls_an_overridden_flush(rig: Rig, cls: type[Emitter], background: bool) -> None:
    calls: list[str] = []

    class Own(cls):  # type: ignore[misc, valid-type]
        def flush(self) -> None:
            calls.append(threading.current_thread().name)
            super().flush()

    emitter = rig.emitter(Own, background=background)
    emitter.set_flush_timer(0.02)
    put(emitter)
    if background:
        until(lambda: len(calls) >= 3)
        assert threading.current_thread().name not in calls
    else:
        # Nobody but `input` keeps the time there.
        threading.Event().wait(A_WHILE)
        put(emitter, first=1)
        # Twice where the first put came late already.
        assert calls
        assert set(calls) == {threading.current_thread().name}
    rig.collector.wait_for(1)
    emitter.cancel_flush_timer()
    before = len(calls)
    threading.Event().wait(A_WHILE)
    assert len(calls) <= before + 1


def test_what_an_overridden_flush_raises_does_not_stop_the_timer(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[None] = []

    class Own(Emitter):
        def flush(self) -> None:
            calls.append(None)
            if len(calls) < 3:
                raise RuntimeError("not yet")
            super().flush()

    emitter = rig.emitter(Own, flush_interval=0.02)
    put(emitter)
    assert numbers(rig.collector.wait_for(1)) == [0]
    assert "not yet" in caplog.text


def test_without_a_thread_input_retries_through_an_overridden_flush(rig: Rig) -> None:
    calls: list[None] = []

    class Own(Emitter):
        def flush(self) -> None:
            calls.append(None)
            super().flush()

    rig.collector.respond(500)
    emitter = rig.emitter(Own, background=False, max_retry_delay_seconds=QUICK)
    put(emitter)
    emitter.drain()
    assert emitter.retry_delay > 0
    threading.Event().wait(A_WHILE)
    put(emitter, first=1)
    assert len(calls) == 1
    assert numbers(rig.collector.events) == [0, 1]


def test_an_overridden_flush_that_does_nothing_holds_the_timer_s_events_back(rig: Rig) -> None:
    calls: list[None] = []

    class Own(Emitter):
        def flush(self) -> None:
            calls.append(None)

    emitter = rig.emitter(Own, flush_interval=0.02)
    put(emitter)
    until(lambda: len(calls) >= 3)
    assert rig.collector.requests == []
    assert emitter.stats().queued_events == 1


@METHODS
def test_the_retry_timer_runs_from_the_failure_to_the_next_success(rig: Rig, method: str) -> None:
    rig.collector.respond(500, times=3)
    emitter = rig.emitter(method=method, batch_size=1, max_retry_delay_seconds=QUICK)
    seen: list[bool] = []
    emitter.on_failure = lambda *_: seen.append(emitter.retry_timer.is_active())
    put(emitter)
    rig.collector.wait_for(1)
    until(lambda: not emitter.retry_timer.is_active())
    assert seen == [True, True, True]
    assert emitter.retry_delay == 0


def test_the_retry_timer_sends_however_few_events_there_are(rig: Rig) -> None:
    rig.collector.respond(500)
    emitter = rig.emitter(batch_size=3, max_retry_delay_seconds=QUICK)
    put(emitter, 3)
    assert numbers(rig.collector.wait_for(3)) == [0, 1, 2]
    assert len(rig.collector.requests) == 2


def test_a_rejection_starts_no_retry_timer(rig: Rig) -> None:
    rig.collector.respond(400)
    emitter = rig.emitter()
    put(emitter)
    assert emitter.drain() is True
    assert not emitter.retry_timer.is_active()


def test_cancelling_the_flush_timer_leaves_the_retry_timer(rig: Rig) -> None:
    rig.collector.respond(500)
    emitter = rig.emitter(flush_interval=60, max_retry_delay_seconds=QUICK)
    put(emitter)
    emitter.drain()
    emitter.cancel_flush_timer()
    assert numbers(rig.collector.wait_for(1)) == [0]


def test_the_timer_is_set_before_the_first_event_and_starts_no_thread(rig: Rig) -> None:
    emitter = rig.emitter()
    emitter.set_flush_timer(0.02)
    assert rig.new_threads() == set()
    put(emitter)
    rig.collector.wait_for(1)


def test_the_timer_goes_on_after_a_failure(rig: Rig) -> None:
    rig.collector.respond(500)
    emitter = rig.emitter(flush_interval=0.02, max_retry_delay_seconds=QUICK)
    put(emitter)
    rig.collector.wait_for(1)
    put(emitter, first=1)
    assert numbers(rig.collector.wait_for(2)) == [0, 1]


def test_the_timer_and_close(rig: Rig) -> None:
    emitter = rig.emitter(flush_interval=0.01)
    put(emitter)
    assert emitter.close() == 0
    emitter.set_flush_timer(0.01)
    emitter.cancel_flush()
    assert numbers(rig.collector.events) == [0]


def test_a_timer_does_not_keep_an_emitter_alive(rig: Rig) -> None:
    emitter = Emitter(rig.collector.url, batch_size=100, flush_interval=60)
    put(emitter)
    del emitter
    assert numbers(rig.collector.wait_for(1, timeout=3)) == [0]
    until(lambda: not rig.new_threads())


def test_a_long_timer_does_not_delay_the_end_of_the_process(rig: Rig, tmp_path: Any) -> None:
    script = Script(rig, tmp_path)
    with within(10):
        ended = script(
            """
            emitter = Emitter(URL, batch_size=100, flush_interval=3600)
            put(emitter)
            the_end()
            """
        )
    assert ended.well
    assert ended.seconds < 3
    assert script.arrived == [0, 1, 2]


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork")
def test_the_timer_holds_in_a_forked_child(rig: Rig, tmp_path: Any) -> None:
    script = Script(rig, tmp_path)
    assert script(
        """
        emitter = Emitter(URL, batch_size=100)
        emitter.set_flush_timer(0.05)
        child = os.fork()
        if not child:
            assert emitter.timer.is_active()
            put(emitter, 1, 7)
            until(lambda: emitter.stats().sent_events == 1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """
    ).well
    assert script.arrived == [7]


def test_the_interval_is_kept_to(rig: Rig) -> None:
    emitter = rig.emitter(flush_interval=0.2)
    put(emitter)
    started = time.monotonic()
    rig.collector.wait_for(1)
    assert time.monotonic() - started < 1.0
    put(emitter, first=1)
    threading.Event().wait(0.05)
    assert len(rig.collector.requests) == 1
    rig.collector.wait_for(2)
