"""A sender that sleeps is woken once, and no wake is lost, whatever the scheduler does.

The emitters here have a transport that answers at once, so that senders fall asleep as often as they can; each round
waits, without any flush, for what was put in. A lost wake is a round that never ends.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter
from fastemit._delivery.senders import Senders
from fastemit._delivery.waiting import Inbox
from fastemit._interfaces import EventBatch, Outcome
from tests.support.delivery import Running
from tests.support.waiting import until

#: Seconds until a wake is taken for lost.
DEADLINE = 4.0
#: Seconds that a test goes on with its rounds.
EFFORT = 0.1


class Jitter:
    """Gives the GIL away, and often some time with it, at the places where that hurts."""

    def __init__(self) -> None:
        self._random = random.Random(20)

    def __call__(self) -> None:
        chance = self._random.random()
        if chance < 0.3:
            time.sleep(0)
        elif chance < 0.5:
            time.sleep(chance * 4e-4)


class JitteryBuffer:
    """The buffer as a delivery sees it, with jitter around each step of the wake protocol."""

    def __init__(self, buffer: Any, jitter: Jitter) -> None:
        self.__dict__.update(_buffer=buffer, _jitter=jitter)

    def __getattr__(self, name: str) -> Any:
        # A look at `signals` or `due` is the start of a window that something must be able to fall into.
        value = getattr(self._buffer, name)
        if name in ("signals", "due", "wanted", "queued_events", "head_seq"):
            self._jitter()
        if name not in ("arm", "disarm", "signal", "take"):
            return value

        def slow(*arguments: Any, **options: Any) -> Any:
            self._jitter()
            answer = value(*arguments, **options)
            self._jitter()
            return answer

        return slow

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._buffer, name, value)


class Sink:
    """A transport that answers at once: with the next of `statuses`, and then 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.sent = 0
        self._lock = threading.Lock()

    def send(self, batch: EventBatch, _cap: float | None = None) -> Outcome:
        with self._lock:
            status = self.statuses.pop(0) if self.statuses else 200
            if status == 200:
                self.sent += len(batch)
        return Outcome(status)

    def close(self) -> None:
        pass

    def after_fork(self) -> None:
        pass


class Hostile:
    """Makes emitters for a scheduler that switches threads at every chance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jitter = Jitter()
        self._emitters: list[Emitter] = []
        jitter, wait, init = self.jitter, Inbox.wait, Inbox.__init__

        def slow_init(inbox: Any) -> None:
            init(inbox)
            put = inbox.put

            def slow_put(note: Any) -> None:
                jitter()
                put(note)

            inbox.put = slow_put

        def slow_wait(inbox: Inbox, timeout: float | None) -> Any:
            jitter()
            answer = wait(inbox, timeout)
            jitter()
            return answer

        monkeypatch.setattr(Inbox, "__init__", slow_init)
        monkeypatch.setattr(Inbox, "wait", slow_wait)
        # So that there are many rounds; the end of it is one more thing that wakes a sender.
        monkeypatch.setattr(Senders, "linger", 0.0002)

    def emitter(self, **settings: Any) -> tuple[AsyncEmitter, Sink]:
        emitter = AsyncEmitter("localhost", "http", **{"batch_size": 1000, "overflow": "block", **settings})
        sink = Sink()
        inner: Any = emitter._delivery
        inner._courier._transport = sink
        inner.buffer = JitteryBuffer(emitter._buffer, self.jitter)
        inner._schedule._buffer = inner._courier._buffer = inner._workers._buffer = inner.buffer
        self._emitters.append(emitter)
        return emitter, sink

    def end(self) -> None:
        for emitter in self._emitters:
            emitter.close(0)


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    hostile = Hostile(monkeypatch)
    try:
        yield hostile
    finally:
        hostile.end()
        sys.setswitchinterval(interval)


def rounds(effort: float = EFFORT) -> Iterator[int]:
    """Numbers, for as long as the effort lasts, and at least so many that it is worth something."""
    over = time.monotonic() + effort
    return itertools.takewhile(lambda number: number < 30 or time.monotonic() < over, itertools.count(1))


def busily(condition: Callable[[], bool]) -> None:
    """As `until`, but looks as often as it can."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "a wake was lost"
        time.sleep(0)


THREADS = pytest.mark.parametrize("threads", [1, 3])


@THREADS
@pytest.mark.parametrize("batch_size", [1, 10])
def test_the_event_that_makes_it_due_wakes_a_sender(hostile: Hostile, threads: int, batch_size: int) -> None:
    emitter, sink = hostile.emitter(thread_count=threads, batch_size=batch_size)
    for number in rounds():
        for _ in range(batch_size):
            emitter.input({"e": "pv"})
        busily(lambda number=number: number * batch_size - sink.sent < batch_size)  # type: ignore[misc]
    assert sink.sent > 20 * batch_size


@THREADS
@pytest.mark.parametrize("batch_size", [1, 10])
def test_events_of_several_producers_wake_senders(hostile: Hostile, threads: int, batch_size: int) -> None:
    emitter, sink = hostile.emitter(thread_count=threads, batch_size=batch_size)
    start, done = threading.Barrier(6), threading.Barrier(6)
    over = threading.Event()

    def produce() -> None:
        while True:
            start.wait(DEADLINE)
            if over.is_set():
                return
            emitter.input({"e": "pv"})
            hostile.jitter()
            emitter.input({"e": "pv"})
            done.wait(DEADLINE)

    producers = [Running(produce) for _ in range(5)]
    for number in rounds():
        start.wait(DEADLINE)
        done.wait(DEADLINE)
        # A sender that was late for the last round may take a part of this one before it is due; ten wait for nobody.
        busily(lambda number=number: number * 10 - sink.sent < batch_size)  # type: ignore[misc]
    over.set()
    start.wait(DEADLINE)
    for producer in producers:
        producer.result()


@THREADS
def test_a_flush_that_is_asked_for_after_an_event_sends_it(hostile: Hostile, threads: int) -> None:
    emitter, sink = hostile.emitter(thread_count=threads)
    for number in rounds():
        emitter.input({"e": "pv"})
        emitter.flush()
        busily(lambda number=number: sink.sent == number)  # type: ignore[misc]


@THREADS
def test_drain_races_with_events_and_with_other_drains(hostile: Hostile, threads: int) -> None:
    emitter, sink = hostile.emitter(thread_count=threads, batch_size=7)

    def work() -> int:
        made = 0
        for made in rounds():  # noqa: B007 - how many there were is the answer
            emitter.input({"e": "pv"})
            assert emitter.drain(DEADLINE) is True
        return made

    workers = [Running(work) for _ in range(4)]
    assert sum(worker.result() for worker in workers) == sink.sent


@THREADS
@pytest.mark.parametrize("batch_size", [1, 1000])
def test_a_short_timer_races_with_events(hostile: Hostile, threads: int, batch_size: int) -> None:
    # About as long as a round, so that waits time out just when a note comes: the race to disarm.
    emitter, sink = hostile.emitter(thread_count=threads, batch_size=batch_size, flush_interval=0.0007)
    for number in rounds():
        emitter.input({"e": "pv"})
        busily(lambda number=number: sink.sent == number)  # type: ignore[misc]


def test_events_wake_a_sender_whose_waits_keep_timing_out(hostile: Hostile) -> None:
    emitter, sink = hostile.emitter(batch_size=1, flush_interval=0.0007)
    # The timer does nothing here but time out: only the wake of the event sends in time.
    emitter._delivery._schedule._flush_upto = 0
    for number in rounds():
        emitter.input({"e": "pv"})
        if number % 10 == 0:
            emitter.cancel_flush_timer()
            busily(lambda number=number: sink.sent == number)  # type: ignore[misc]
            emitter.set_flush_timer(0.0007)
    emitter.cancel_flush_timer()
    emitter.input({"e": "pv"})
    until(lambda: emitter.stats().queued_events == 0)


@THREADS
def test_a_timer_that_is_set_wakes_a_sender_that_waits_for_ever(hostile: Hostile, threads: int) -> None:
    emitter, sink = hostile.emitter(thread_count=threads)
    for number in rounds():
        emitter.input({"e": "pv"})
        emitter.set_flush_timer(0.0005)
        busily(lambda number=number: sink.sent == number)  # type: ignore[misc]
        emitter.cancel_flush_timer()


def test_timers_that_are_set_and_cancelled_race_with_events(hostile: Hostile) -> None:
    emitter, sink = hostile.emitter(thread_count=2)

    def toggle() -> None:
        for _ in rounds():
            emitter.set_flush_timer(0.0005)
            emitter.cancel_flush_timer()

    toggling = [Running(toggle) for _ in range(2)]
    made = 0
    for made in rounds():  # noqa: B007 - how many there were is what must arrive
        emitter.input({"e": "pv"})
    for each in toggling:
        each.result()
    emitter.set_flush_timer(0.0005)
    busily(lambda: sink.sent == made)


@THREADS
def test_kept_events_are_retried_when_the_backoff_is_over(hostile: Hostile, threads: int) -> None:
    emitter, sink = hostile.emitter(thread_count=threads, batch_size=1, max_retry_delay_seconds=0.0005)
    for number in rounds():
        sink.statuses = [503] * (number % 3)
        emitter.input({"e": "pv"})
        busily(lambda number=number: sink.sent == number)  # type: ignore[misc]


@THREADS
def test_events_that_come_while_a_backoff_ends_are_sent(hostile: Hostile, threads: int) -> None:
    emitter, sink = hostile.emitter(thread_count=threads, batch_size=1, max_retry_delay_seconds=0.0005)
    for number in rounds():
        sink.statuses = [503]
        emitter.input({"e": "pv"})
        hostile.jitter()
        emitter.input({"e": "pv"})
        busily(lambda number=number: sink.sent == 2 * number)  # type: ignore[misc]


@THREADS
@pytest.mark.parametrize("capacity", [1, 3])
def test_producers_that_wait_for_room_get_it(hostile: Hostile, threads: int, capacity: int) -> None:
    emitter, sink = hostile.emitter(thread_count=threads, buffer_capacity=capacity)

    def produce() -> int:
        made = 0
        for made in rounds():  # noqa: B007 - how many there were is the answer
            emitter.input({"e": "pv"})
        return made

    producers = [Running(produce) for _ in range(4)]
    total = sum(producer.result() for producer in producers)
    emitter.flush()
    busily(lambda: sink.sent == total)


@THREADS
def test_close_wakes_every_sender(hostile: Hostile, threads: int) -> None:
    for _ in rounds(0.4):
        emitter, sink = hostile.emitter(thread_count=threads)
        emitter.input({"e": "pv"})
        hostile.jitter()
        started = time.monotonic()
        assert emitter.close(4) == 0
        assert time.monotonic() - started < 2
        assert sink.sent == 1


def test_an_emitter_that_is_dropped_wakes_its_senders(hostile: Hostile) -> None:
    for _ in rounds():
        emitter, sink = hostile.emitter(thread_count=2)
        emitter.input({"e": "pv"})
        hostile.jitter()
        hostile._emitters.clear()
        del emitter
        busily(lambda sink=sink: sink.sent == 1)  # type: ignore[misc]
