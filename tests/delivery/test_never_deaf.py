"""An emitter goes on: after whatever went wrong, a flush and a close end, and the next event arrives."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from fastemit import Emitter
from tests.support.deaf import BACKGROUND, DOWN, goes_on
from tests.support.delivery import DEADLINE, Rig, Running, numbers, put, within
from tests.support.waiting import until

# -- a backoff with nothing queued -------------------------------------------------------------------------------------


@BACKGROUND
@pytest.mark.parametrize("call", ["drain", "flush", "close"])
def test_an_oversize_event_that_is_dropped_while_the_gate_is_shut_leaves_no_one_waiting(
    rig: Rig, background: bool, call: str
) -> None:
    emitter = rig.emitter(background=background, max_request_bytes=1024)
    put(emitter)
    rig.shut_the_gate(emitter)
    emitter.flush()
    emitter.input({"n": "1", "x": "y" * 5000})
    rig.collector.respond(**DOWN)
    with within(5):
        Running(emitter.flush).result()
        stats = emitter.stats()
        assert (stats.dropped_events["oversize"], stats.queued_events, stats.retry_delay) == (1, 0, 60)
        Running(getattr(emitter, call)).result()
    if call != "close":
        assert goes_on(rig, emitter)


@BACKGROUND
def test_events_of_send_events_that_fail_shut_the_gate_and_go_with_the_next_flush(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(background=background)
    for first in (0, 10):
        rig.collector.respond(**DOWN)
        emitter.send_events([{"n": str(first)}, {"n": str(first + 1)}])
        assert (emitter.retry_delay, emitter.stats().queued_events) == (60, 2)
        rig.collector.reset()
        assert Running(lambda: emitter.drain(DEADLINE)).result() is True
        assert numbers(rig.collector.events) == [first, first + 1]
    assert goes_on(rig, emitter)


@BACKGROUND
def test_send_events_that_is_rejected_while_the_gate_is_shut_leaves_it_working(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(background=background)
    put(emitter)
    rig.shut_the_gate(emitter)
    rig.collector.respond(400)
    emitter.send_events([{"n": "1"}])
    assert goes_on(rig, emitter)


class Failing(Emitter):
    failures = 0

    def send_events(self, evts: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise LookupError
        super().send_events(evts)


@BACKGROUND
def test_an_overridden_send_events_that_raises_leaves_no_one_waiting(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(Failing, background=background)
    emitter.failures = 2  # type: ignore[attr-defined]
    put(emitter)
    for expected in (False, False, True):
        assert Running(lambda: emitter.drain(DEADLINE)).result() is expected
    assert goes_on(rig, emitter)


@pytest.mark.parametrize("background", [True, False])
def test_flushes_end_while_drop_oldest_drops_what_they_wait_for(rig: Rig, background: bool) -> None:
    statuses = iter(range(10**9))
    rig.collector.respond(lambda _: (200, 503, 400, 500)[next(statuses) % 4], times=None)
    emitter = rig.emitter(
        overflow="drop_oldest", buffer_capacity=2, max_retry_delay_seconds=0.001, background=background
    )
    over = threading.Event()
    flushed = [0, 0]

    def produce() -> None:
        # Who never waits has the GIL until it is taken away, so that a flush comes to a request every 0.2 s only.
        while not over.wait(0.0002):
            put(emitter)

    def flush(me: int) -> None:
        while not over.is_set():
            emitter.flush()
            flushed[me] += 1

    running = [Running(produce), Running(produce), Running(lambda: flush(0)), Running(lambda: flush(1))]
    until(lambda: min(flushed) >= 10 and emitter.stats().dropped_events["overflow"] >= 50)
    over.set()
    for each in running:
        each.result()
    # What is in a request takes the room of another event, which would be dropped then.
    rig.collector.reset()
    assert emitter.drain(DEADLINE, retry=True)
    assert goes_on(rig, emitter)


@BACKGROUND
def test_an_event_larger_than_everything_pushes_nothing_out_and_ends_no_flush(rig: Rig, background: bool) -> None:
    rig.collector.respond(**DOWN)
    emitter = rig.emitter(overflow="drop_oldest", max_buffer_bytes=2048, background=background)
    put(emitter, 2)
    emitter.flush()
    emitter.input({"x": "y" * 10_000})
    stats = emitter.stats()
    assert (stats.dropped_events, stats.queued_events) == (
        {"overflow": 0, "rejected": 0, "oversize": 1, "closed": 0},
        2,
    )
    assert emitter.drain(DEADLINE) is True
    assert numbers(rig.collector.events)[-2:] == [0, 1]


# -- in the calling thread ---------------------------------------------------------------------------------------------


def test_close_without_a_thread_waits_for_the_request_of_another_thread(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(background=False, batch_size=1)
    sending = Running(lambda: put(emitter))
    rig.collector.wait_for_requests(1)
    closing = Running(lambda: emitter.close(DEADLINE))
    assert closing.goes_on()
    rig.collector.release()
    assert closing.result() == 0
    sending.result()


def test_close_without_a_thread_gives_up_on_the_request_of_another_thread_in_time(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(background=False, batch_size=1)
    sending = Running(lambda: put(emitter))
    rig.collector.wait_for_requests(1)
    with within(2.0, at_least=0.2):
        assert emitter.close(0.2) == 1
    rig.collector.release()
    sending.result()


@pytest.mark.parametrize("call", ["flush", "async_flush", "drain", "input", "close"])
def test_a_call_after_a_callback_closed_without_time_does_not_spin(rig: Rig, call: str) -> None:
    emitter = rig.emitter(background=False, on_success=lambda _: emitter.close(0), max_request_bytes=1024)
    put(emitter, 100)
    with within(5):
        Running(emitter.flush).result()
        assert 0 < len(rig.collector.requests) < 5
        before = time.process_time()
        Running(lambda: put(emitter) if call == "input" else getattr(emitter, call)()).result()
    assert time.process_time() - before < 1.0
    # Only a `close` has time of its own.
    assert (emitter.stats().queued_events > 0) == (call != "close")


@pytest.mark.parametrize("by", ["room", "close"])
def test_an_input_that_waits_for_the_request_of_another_thread_is_woken(rig: Rig, by: str) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(background=False, batch_size=1, buffer_capacity=1, overflow="block")
    sending = Running(lambda: put(emitter))
    rig.collector.wait_for_requests(1)
    waiting = Running(lambda: put(emitter, first=1))
    assert waiting.goes_on()
    if by == "close":
        assert emitter.close(0) == 1
        waiting.result(2.0)
        assert emitter.stats().dropped_events["closed"] == 1
        rig.collector.release()
    else:
        rig.collector.release()
        waiting.result()
        assert numbers(rig.collector.wait_for(2)) == [0, 1]
    sending.result()


def test_an_input_that_waits_for_the_backoff_is_woken_by_close(rig: Rig) -> None:
    rig.collector.respond(times=None, **DOWN)
    emitter = rig.emitter(background=False, batch_size=1, buffer_capacity=1, overflow="block")
    put(emitter)
    waiting = Running(lambda: put(emitter, first=1))
    assert waiting.goes_on()
    assert emitter.close(0) == 1
    waiting.result(2.0)
    assert emitter.stats().dropped_events["closed"] == 1


def test_an_input_that_waits_for_the_backoff_is_woken_by_room(rig: Rig) -> None:
    rig.collector.respond(**DOWN)
    emitter = rig.emitter(background=False, batch_size=1, buffer_capacity=1, overflow="block")
    put(emitter)
    waiting = Running(lambda: put(emitter, first=1))
    assert waiting.goes_on()
    emitter.flush()
    waiting.result(2.0)
    assert numbers(rig.collector.wait_for(2))[-2:] == [0, 1]


# -- send_events beside a flush ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 503])
def test_send_events_ends_no_flush_that_waits_for_others(rig: Rig, status: int) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter()
    put(emitter, 3)
    flushing = Running(lambda: emitter.drain(DEADLINE))
    rig.collector.wait_for_requests(1)
    rig.collector.respond(status, headers={"Retry-After": "60"})
    # More of them, with larger numbers in a buffer of their own than those that the flush waits for.
    emitter.send_events([{"n": str(number)} for number in range(10, 20)])
    assert flushing.goes_on()
    rig.collector.release()
    assert flushing.result() is True
    assert emitter.stats().sent_events == 3
