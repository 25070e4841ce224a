"""A sender thread leaves some time between two requests while there is little to send, and nobody waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from fastemit import AsyncEmitter
from fastemit._delivery.schedule import LINGER, Result, Schedule, Turn
from fastemit._delivery.waking import Waking
from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.buffer import make_buffer
from tests.support.delivery import put
from tests.support.emitters import CountingAsyncEmitter
from tests.support.waiting import until

NOW = 1_000.0


class Desk:
    def __init__(self) -> None:
        self.buffer = make_buffer(batch_size=3, capacity=100)
        self.schedule = Schedule(self.buffer, Waking(self.buffer), 60.0, None, NOW, LINGER)

    def put(self, count: int) -> None:
        for _ in range(count):
            self.buffer.append({"e": "pv"})

    def keep(self) -> None:
        """A request in flight ends with its events kept, and no fault of the sending."""
        self.schedule.settled(Result(Turn(0, probe=False), failed=False, kept=True), NOW)

    def plan(self, after: float) -> Any:
        return self.schedule.plan(NOW + after)

    def send(self, after: float) -> None:
        turn = self.plan(after)
        assert isinstance(turn, Turn)
        batch = self.buffer.take()
        assert batch is not None
        batch.sent()
        self.schedule.settled(Result(turn, failed=False, kept=False), NOW + after)
        self.schedule.over(turn)


def test_the_first_request_goes_at_once_and_the_next_after_a_while() -> None:
    desk = Desk()
    desk.put(3)
    desk.send(0)
    desk.put(3)
    assert desk.plan(LINGER / 4) == pytest.approx(LINGER * 3 / 4, abs=1e-5)
    assert isinstance(desk.plan(LINGER), Turn)


def test_after_that_time_the_next_event_that_makes_it_due_is_sent_at_once() -> None:
    desk = Desk()
    desk.put(3)
    desk.send(0)
    assert desk.plan(LINGER / 4) == pytest.approx(LINGER * 3 / 4, abs=1e-5)
    assert desk.plan(LINGER) is None
    desk.put(3)
    assert desk.buffer.wanted
    assert isinstance(desk.plan(LINGER * 1.5), Turn)


HURRY: dict[str, Callable[[Desk], None]] = {
    "a flush": lambda desk: desk.schedule.flush(),
    "a close": lambda desk: desk.schedule.close(NOW + 5, NOW),
    "half the capacity": lambda desk: desk.put(50),
    "events that were kept": lambda desk: desk.keep(),
}


@pytest.mark.parametrize("reason", HURRY)
def test_nothing_lingers_when_there_is_reason_to_send(reason: str) -> None:
    desk = Desk()
    desk.put(3)
    desk.send(0)
    desk.put(3)
    HURRY[reason](desk)
    assert isinstance(desk.plan(LINGER / 4), Turn)


def stream(emitter: AsyncEmitter, seconds: float) -> int:
    """Events as a service makes them: some every millisecond; how many."""
    count, over = 0, time.monotonic() + seconds
    while time.monotonic() < over:
        put(emitter, 10, count)
        count += 10
        time.sleep(0.001)
    return count


def test_a_steady_stream_takes_few_requests(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter: Any = make_emitter(cls=CountingAsyncEmitter)
    started = time.monotonic()
    count = stream(emitter, 0.5)
    took = time.monotonic() - started
    # The last ones follow by themselves.
    until(lambda: len(collector.events) == count, 5)
    assert len(collector.requests) <= took / LINGER + 3


def test_without_threads_each_batch_goes_at_once(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(background=False)
    put(emitter, 50)
    assert [len(request.events) for request in collector.requests] == [10] * 5


def test_an_event_does_not_wait_for_a_request_that_hangs_while_another_sender_is_idle(
    make_emitter: MakeEmitter, collector: Collector
) -> None:
    emitter = make_emitter(cls=CountingAsyncEmitter, thread_count=2, batch_size=1)
    put(emitter)
    assert emitter.drain(5)
    # Both senders sleep, and for no time.
    until(lambda: not emitter._buffer.linger)
    time.sleep(2 * LINGER)
    collector.respond(hang=True, times=None)
    put(emitter, 1, 1)
    collector.wait_for_requests(2)
    put(emitter, 1, 2)
    # Had the first one set the pause and nobody else seen it end, this would come with its answer.
    collector.wait_for_requests(3, timeout=3)
