"""Many threads on one buffer: nothing lost, nothing doubled, nobody left asleep."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from queue import Empty, SimpleQueue

import pytest

from fastemit._batch import Batch
from fastemit._buffer import EventBuffer
from tests.support.buffer import DEADLINE, events_in, make_buffer, run_threads

Inbox = SimpleQueue[None]
Sent = list[tuple[int, int]]


@pytest.fixture(autouse=True)
def threads_take_turns_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def produce(buffer: EventBuffer, thread: int, count: int) -> None:
    deadline = time.monotonic() + DEADLINE
    for number in range(count):
        event: int | bytes = buffer.append({"thread": thread, "n": number})
        while isinstance(event, bytes):
            assert time.monotonic() < deadline, "no room in time"
            event = buffer.append_encoded(event)


def send(batch: Batch, sent: Sent) -> None:
    with batch.body() as body:
        sent += [(int(event["thread"]), int(event["n"])) for event in events_in(body)]
    batch.sent()


def send_until(buffer: EventBuffer, produced: threading.Event, sent: Sent, seed: int) -> None:
    """What a sender does, at random, until all is produced and settled."""
    chance = random.Random(seed)
    deadline = time.monotonic() + DEADLINE
    while not produced.is_set() or buffer.unsettled_events > 0:
        assert time.monotonic() < deadline, f"{buffer.unsettled_events} events are left"
        batch = buffer.take(chance.choice([None, 100, 400]), chance.choice([1, 5]))
        if batch is None:
            continue
        fate = chance.randrange(8)
        if fate < 4:
            batch.stamp(chance.randrange(10**13))
            send(batch, sent)
        elif fate == 4:
            batch.give_back()
        elif fate == 5:
            view = batch.body()
            batch.give_back()
            view.release()
        elif fate == 6 and len(batch) > 1:
            half = batch.split()
            batch.give_back()
            send(half, sent)
        else:
            del batch


def run_producers(buffer: EventBuffer, producers: int, count: int, produced: threading.Event) -> None:
    try:
        run_threads([partial(produce, buffer, thread, count) for thread in range(producers)])
    finally:
        produced.set()


@pytest.mark.parametrize("capacity", [50, 100_000])
def test_every_event_is_sent_exactly_once(capacity: int) -> None:
    buffer = make_buffer(capacity)
    produced = threading.Event()
    sent: list[Sent] = [[], [], []]
    run_threads(
        [partial(run_producers, buffer, 8, 400, produced)]
        + [partial(send_until, buffer, produced, sent[taker], taker) for taker in range(3)]
    )
    everything = Counter(event for by_taker in sent for event in by_taker)
    assert everything == Counter((thread, number) for thread in range(8) for number in range(400))
    assert buffer.check() == 0
    assert buffer.counts()[:4] == (0, 0, 0, 8 * 400)
    assert buffer.segments == buffer.spare_segments


def test_one_sender_sends_the_events_of_each_thread_in_order() -> None:
    buffer = make_buffer(200)
    produced = threading.Event()
    sent: Sent = []
    run_threads([partial(run_producers, buffer, 8, 400, produced), partial(send_until, buffer, produced, sent, 1)])
    for thread in range(8):
        assert [number for by, number in sent if by == thread] == list(range(400))


def test_readers_look_on_while_others_write() -> None:
    buffer = make_buffer(200)
    produced = threading.Event()
    sent: Sent = []

    def look() -> None:
        while not produced.is_set():
            numbers = [(event["thread"], int(event["n"])) for event in buffer.snapshot()]
            for thread in "01":
                own = [number for by, number in numbers if by == thread]
                assert own == sorted(set(own))
            queued, queued_bytes, flying, *_ = buffer.counts()
            assert queued + flying <= 200
            assert (queued == 0) == (queued_bytes == 0)
            buffer.trim()

    run_threads(
        [
            partial(run_producers, buffer, 2, 1000, produced),
            partial(send_until, buffer, produced, sent, 1),
            look,
            look,
        ]
    )
    assert len(sent) == 2000


# -- waking ----------------------------------------------------------------------------------------


class Sleeper:
    """A sender that sleeps whenever there is nothing to send, as `delivery.py` does."""

    def __init__(self, buffer: EventBuffer, timeout: float, arrived: list[threading.Semaphore]) -> None:
        self.buffer = buffer
        self.timeout = timeout
        self.arrived = arrived
        self.stop = threading.Event()
        self.inbox: Inbox = SimpleQueue()
        self.timeouts = 0

    def run(self) -> None:
        buffer = self.buffer
        while True:
            seen = buffer.signals
            batch = buffer.take()
            if batch is not None:
                sent: Sent = []
                send(batch, sent)
                for thread, _ in sent:
                    self.arrived[thread].release()
            elif self.stop.is_set():
                break
            elif buffer.arm(self.inbox, seen):
                self.wait()
        assert self.inbox.empty()

    def wait(self) -> None:
        try:
            self.inbox.get(timeout=self.timeout)
        except Empty:
            self.timeouts += 1
            if not self.buffer.disarm(self.inbox):
                # Somebody has taken the mark: the note must come.
                self.inbox.get(timeout=DEADLINE)
        assert self.inbox.empty()


def handed_over(buffer: EventBuffer, thread: int, arrived: threading.Semaphore, count: int) -> None:
    """Append the next event only when the last one has arrived, so that a wake that is lost stays lost."""
    for number in range(count):
        assert buffer.append({"thread": thread, "n": number}) == 1
        assert arrived.acquire(timeout=DEADLINE / 2), f"nobody woke for event {number} of thread {thread}"


def hand_over(producers: int, sleepers: int, timeout: float, count: int) -> list[Sleeper]:
    buffer = make_buffer(batch_size=1)
    arrived = [threading.Semaphore(0) for _ in range(producers)]
    asleep = [Sleeper(buffer, timeout, arrived) for _ in range(sleepers)]

    def run_all_producers() -> None:
        try:
            run_threads([partial(handed_over, buffer, thread, arrived[thread], count) for thread in range(producers)])
        finally:
            for sleeper in asleep:
                sleeper.stop.set()
            buffer.signal(everyone=True)

    run_threads([run_all_producers] + [sleeper.run for sleeper in asleep])
    assert buffer.counts()[3] == producers * count
    return asleep


@pytest.mark.parametrize(("producers", "sleepers"), [(1, 1), (1, 3), (3, 2)])
def test_no_wake_is_lost(producers: int, sleepers: int) -> None:
    asleep = hand_over(producers, sleepers, timeout=DEADLINE, count=500)
    assert [sleeper.timeouts for sleeper in asleep] == [0] * sleepers


@pytest.mark.parametrize("timeout", [0, 1e-6, 2e-5])
def test_a_sleeper_that_times_out_misses_no_note(timeout: float) -> None:
    asleep = hand_over(2, 2, timeout=timeout, count=500)
    assert sum(sleeper.timeouts for sleeper in asleep) > 0
