"""Each test shows a fault of `snowplow_tracker` 1.1.0, and fastemit in its place without it."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import snowplow_tracker

import fastemit
from fastemit import Emitter
from tests.support.delivery import DEADLINE, Rig, Running, numbers, put
from tests.support.reference import Reference, references
from tests.support.waiting import until


@pytest.fixture
def reference(rig: Rig) -> Iterator[Reference]:
    with references(rig.collector.url) as make:
        yield make


def respond(rig: Rig, *statuses: int) -> None:
    rig.collector.reset()
    for status in statuses:
        rig.collector.respond(status)


def fails(*_: object) -> None:
    raise RuntimeError("a callback of the user's is at fault")


# -- what is sent, and how it is judged ------------------------------------------------------------------------------


def test_get_batches_judged_by_the_last_status_alone(rig: Rig, reference: Reference) -> None:
    respond(rig, 500, 200)
    theirs = reference(method="get")
    put(theirs, 2)
    theirs.flush()
    assert numbers(rig.collector.events) == [1]
    assert theirs.event_store.size() == 0  # event 0 is lost
    respond(rig, 500, 200)
    ours = rig.emitter(method="get")
    put(ours, 2)
    assert ours.drain() is False
    assert ours.drain() is True
    assert numbers(rig.collector.events) == [0, 1]


@pytest.mark.parametrize("status", [301, 302, 303])
def test_redirects_followed(rig: Rig, reference: Reference, status: int) -> None:
    rig.collector.respond(status, headers={"Location": "/i"})
    sent: list[Any] = []
    theirs = reference(on_success=sent.extend)
    put(theirs)
    theirs.flush()
    assert [request.method for request in rig.collector.requests] == ["POST", "GET"]
    assert (numbers(sent), rig.collector.good) == ([0], [])  # reported as sent, and lost
    rig.collector.reset()
    rig.collector.respond(status, headers={"Location": "/i"})
    ours = rig.emitter(on_success=sent.extend)
    put(ours)
    assert ours.drain() is False
    assert [request.method for request in rig.collector.requests] == ["POST"]
    assert ours.stats().queued_events == 1


def test_the_whole_backlog_in_one_request(rig: Rig, reference: Reference) -> None:
    payloads = [{"n": f"{number:06}", "page": "x" * 1000} for number in range(1500)]
    theirs, ours = reference(batch_size=2000), rig.emitter(batch_size=2000)
    for emitter in (theirs, ours):
        rig.collector.reset()
        for payload in payloads:
            emitter.input(payload)
        emitter.flush()
        assert numbers(rig.collector.events) == list(range(1500))
        if emitter is theirs:
            (request,) = rig.collector.requests
            assert request.size > 1_000_000
    assert [request.size <= 1_000_000 for request in rig.collector.requests] == [True, True]


def test_413_retried_for_ever(rig: Rig, reference: Reference) -> None:
    rig.collector.respond(lambda request: 413 if len(request.events) > 1 else 200, times=None)
    theirs = reference()
    put(theirs, 2)
    for _ in range(5):
        theirs.flush()
        theirs._cancel_retry_timer()
    assert rig.requests() == [[0, 1]] * 5
    assert theirs.event_store.size() == 2
    ours = rig.emitter()
    put(ours, 2, first=2)
    assert ours.drain() is True
    assert numbers(rig.collector.events) == [2, 3]


def test_stm_cut_to_seconds(rig: Rig, reference: Reference) -> None:
    theirs, ours = reference(batch_size=1), rig.emitter()
    for number in range(3):
        put(theirs, first=number)
    assert [int(event["stm"]) % 1000 for event in rig.collector.events] == [0, 0, 0]
    rig.collector.reset()
    for number in range(3):
        before = time.time_ns() // 1_000_000
        put(ours, first=number)
        ours.flush()
        assert before <= int(rig.collector.events[-1]["stm"]) <= time.time_ns() // 1_000_000


def test_a_new_connection_per_request(rig: Rig, reference: Reference) -> None:
    put(reference(batch_size=1), 3)
    assert rig.collector.connections == 3
    ours = rig.emitter()
    for number in range(3):
        put(ours, first=number)
        ours.flush()
    assert rig.collector.connections == 4


def test_byte_limit_counting_repr_characters(rig: Rig, reference: Reference) -> None:
    payload = {"n": "0", "text": "\u2603" * 100}
    theirs, ours = reference(byte_limit=10_000), rig.emitter(byte_limit=10_000)
    for emitter in (theirs, ours):
        emitter.input(payload)
    assert theirs.bytes_queued == len(repr(payload))
    queued = ours.bytes_queued or 0
    ours.flush()
    (request,) = rig.collector.requests
    (event,) = re.findall(rb'"data":\[(.*)\]', request.body)
    assert queued == len(event + b",") > 300


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "name"), [(200, "on_success"), (500, "on_failure")])
def test_an_exception_in_a_callback_that_loses_a_batch(rig: Rig, reference: Reference, status: int, name: str) -> None:
    respond(rig, status)
    theirs = reference(**{name: fails})
    put(theirs)
    with pytest.raises(RuntimeError):
        theirs.flush()
    assert theirs.event_store.size() == 0
    assert len(rig.collector.events) == (status == 200)
    respond(rig, status)
    ours = rig.emitter(**{name: fails})
    put(ours)
    ours.flush()
    assert ours.drain() is True
    assert numbers(rig.collector.events) == [0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exception_in_a_callback_that_kills_a_worker_and_hangs_sync_flush(rig: Rig, reference: Reference) -> None:
    before = set(threading.enumerate())
    theirs = reference(snowplow_tracker.AsyncEmitter, on_success=fails)
    (worker,) = (thread for thread in set(threading.enumerate()) - before if "consume" in thread.name)
    put(theirs)
    theirs.flush()
    worker.join(DEADLINE)
    assert not worker.is_alive()
    assert Running(theirs.sync_flush).goes_on()
    ours = rig.async_emitter(on_success=fails)
    for number in (1, 2):
        put(ours, first=number)
        Running(ours.sync_flush).result()
    assert numbers(rig.collector.events) == [0, 1, 2]


def test_requeue_behind_newer_events(rig: Rig, reference: Reference) -> None:
    emitters: list[Any] = []

    def newer(*_: object) -> None:
        put(emitters[-1], first=1)

    respond(rig, 500)
    emitters.append(reference(on_failure=newer))
    put(emitters[-1])
    emitters[-1].flush()
    assert numbers(emitters[-1].event_store.event_buffer) == [1, 0]
    respond(rig, 500)
    emitters.append(rig.emitter(on_failure=newer))
    put(emitters[-1])
    emitters[-1].drain()
    assert numbers(emitters[-1].event_store.event_buffer) == [0, 1]


def test_drops_on_requeue(rig: Rig, reference: Reference) -> None:
    emitters: list[Any] = []

    def newer(*_: object) -> None:
        put(emitters[-1], 2, first=2)

    respond(rig, 500)
    emitters.append(reference(batch_size=3, buffer_capacity=3, on_failure=newer))
    put(emitters[-1], 2)
    emitters[-1].flush()
    assert numbers(emitters[-1].event_store.event_buffer) == [2, 3, 0]  # 1 was accepted, and is lost
    respond(rig, 500)
    emitters.append(rig.emitter(batch_size=3, buffer_capacity=3, on_failure=newer))
    put(emitters[-1], 2)
    emitters[-1].drain()
    assert numbers(emitters[-1].event_store.event_buffer) == [0, 1, 2]
    assert emitters[-1].stats().dropped_events["overflow"] == 1


def test_identical_events_de_duplicated(rig: Rig, reference: Reference) -> None:
    respond(rig, 500)
    theirs = reference()
    for _ in range(3):
        put(theirs)
    theirs.flush()
    assert theirs.event_store.size() == 1
    respond(rig, 500)
    ours = rig.emitter()
    for _ in range(3):
        put(ours)
    assert ours.drain() is False
    assert ours.drain() is True
    assert numbers(rig.collector.events) == [0, 0, 0]


def test_a_requeue_of_n_squared(rig: Rig) -> None:
    compared: list[None] = []

    class Event(dict[str, str]):
        def __eq__(self, other: object) -> bool:
            compared.append(None)
            return super().__eq__(other)

        __hash__ = None  # type: ignore[assignment]

    def comparisons(store: Any, count: int) -> int:
        compared.clear()
        for number in range(count):
            store.add_event(Event(n=str(number)))
        batch = store.get_events_batch()
        store.cleanup(batch, True)
        assert store.size() == count
        return len(compared)

    theirs = snowplow_tracker.event_store.InMemoryEventStore(logging.getLogger("test"))
    assert comparisons(theirs, 100) == 100 * 99 / 2
    assert comparisons(fastemit.InMemoryEventStore(), 100) == 0


def test_sync_flush_that_returns_unsent_while_a_retry_waits(rig: Rig, reference: Reference) -> None:
    respond(rig, 500)
    theirs = reference()
    put(theirs)
    theirs.sync_flush()
    theirs.sync_flush()
    assert (len(rig.collector.requests), theirs.event_store.size()) == (1, 1)
    respond(rig, 500)
    ours = rig.emitter()
    put(ours)
    ours.sync_flush()
    ours.sync_flush()
    assert numbers(rig.collector.events) == [0]


def test_an_async_emitter_ignoring_the_backoff(rig: Rig, reference: Reference) -> None:
    respond(rig, *[500] * 10)
    theirs = reference(snowplow_tracker.AsyncEmitter, batch_size=1)
    for number in range(3):
        put(theirs, first=number)
        until(lambda number=number: len(rig.collector.requests) == number + 1)  # type: ignore[misc]
        until(theirs.retry_timer.is_active)
    respond(rig)
    rig.collector.respond(503, headers={"Retry-After": "60"}, times=None)
    ours = rig.async_emitter(batch_size=1)
    put(ours)
    until(lambda: ours.retry_delay)
    put(ours, 3, first=1)
    assert Running(lambda: until(lambda: len(rig.collector.requests) > 1)).goes_on()
    assert len(rig.collector.requests) == 1
    rig.collector.reset()
    ours.close()


def test_an_async_emitter_queueing_without_bound(rig: Rig, reference: Reference) -> None:
    rig.collector.respond(hang=True, times=None)
    theirs = reference(snowplow_tracker.AsyncEmitter, batch_size=1, buffer_capacity=1)
    put(theirs, 50)
    until(lambda: theirs.queue.qsize() == 49)
    ours = rig.async_emitter(batch_size=1, buffer_capacity=1)
    put(ours, 50)
    assert ours.stats().dropped_events["overflow"] == 49
    rig.collector.reset()


def test_a_lock_held_through_http(rig: Rig, reference: Reference) -> None:
    rig.collector.respond(hang=True, times=None)
    theirs = reference(batch_size=1)
    first = Running(lambda: put(theirs))
    rig.collector.wait_for_requests(1)
    second = Running(lambda: put(theirs, first=1))
    assert second.goes_on()
    ours = rig.emitter(batch_size=1)
    put(ours)
    rig.collector.wait_for_requests(2)
    Running(lambda: put(ours, first=1)).result(1.0)
    rig.collector.reset()
    first.result()
    second.result()


class Told:
    """An event store that remembers what `cleanup` was told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.cleaned: list[tuple[list[int], bool]] = []

    def add_event(self, payload: Any) -> bool:
        self.events.append(payload)
        return True

    def get_events_batch(self) -> list[Any]:
        events, self.events = self.events, []
        return events

    def cleanup(self, batch: Any, need_retry: bool) -> None:
        self.cleaned.append((numbers(batch), need_retry))

    def size(self) -> int:
        return len(self.events)


def test_cleanup_never_told_of_rejected_events(rig: Rig, reference: Reference) -> None:
    respond(rig, 400, 400)
    theirs, ours = Told(), Told()
    with Emitter(rig.collector.url, event_store=ours) as emitter:
        for each in (emitter, reference(event_store=theirs)):
            put(each, 2)
            each.flush()
    assert theirs.cleaned == [([], False)]
    assert ours.cleaned == [([0, 1], False)]
