"""`EventStore` and `InMemoryEventStore`, by itself, beside the reference's, and in emitters."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import snowplow_tracker.event_store as reference

import fastemit
from fastemit import EventStore, InMemoryEventStore
from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.delivery import Running
from tests.support.emitters import CountingAsyncEmitter, feed, join, numbered, numbers, threads_of
from tests.support.stores import ListStore, PeekStore
from tests.support.waiting import until

MANY = 1000


class Log:
    """A logger that keeps what it is told by `error`."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def error(self, message: str) -> None:
        self.errors.append(message)


class Pair:
    """fastemit's store and the reference's, with the same calls made of both."""

    def __init__(self, capacity: int = 5) -> None:
        self.logs = Log(), Log()
        self.ours = InMemoryEventStore(self.logs[0], capacity)  # type: ignore[arg-type]
        self.theirs = reference.InMemoryEventStore(self.logs[1], capacity)  # type: ignore[arg-type]

    def both(self, name: str, *arguments: Any, **named: Any) -> Any:
        """The result of a call, which is the same for both, and leaves both the same."""
        ours = getattr(self.ours, name)(*arguments, **named)
        assert ours == getattr(self.theirs, name)(*arguments, **named)
        self.look()
        return ours

    def look(self) -> None:
        assert self.ours.event_buffer == self.theirs.event_buffer
        assert self.ours.size() == self.theirs.size()
        assert self.logs[0].errors == self.logs[1].errors

    def take_and_clean(self, need_retry: bool) -> None:
        """Take a batch of both, and clean each up with its own."""
        ours, theirs = self.ours.get_events_batch(), self.theirs.get_events_batch()
        assert ours == theirs
        self.look()
        assert self.ours.cleanup(ours, need_retry) is self.theirs.cleanup(theirs, need_retry) is None
        self.look()


def stored(*payloads: dict[str, Any], capacity: int = 10_000) -> InMemoryEventStore:
    store = InMemoryEventStore(buffer_capacity=capacity)
    for payload in payloads:
        assert store.add_event(payload)
    return store


# -- the protocol ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [InMemoryEventStore(), ListStore(), reference.InMemoryEventStore(logging.root)])
def test_what_has_the_four_methods_is_an_event_store(store: object) -> None:
    assert isinstance(store, EventStore)


@pytest.mark.parametrize("name", ["add_event", "get_events_batch", "cleanup", "size"])
def test_what_lacks_one_of_them_is_none(name: str) -> None:
    names = {"add_event", "get_events_batch", "cleanup", "size"} - {name}
    assert not isinstance(type("Store", (), {each: lambda *_: None for each in names})(), EventStore)


# -- by itself, beside the reference's -----------------------------------------------------------------------------


def test_events_come_out_as_they_went_in() -> None:
    pair = Pair()
    for event in ({"n": 1, "x": None}, {"n": "2", "deep": [{"a": 1.5}]}, {}):
        assert pair.both("add_event", event) is True
    pair.take_and_clean(need_retry=False)


def test_a_full_store_refuses_and_logs() -> None:
    pair = Pair(capacity=2)
    assert [pair.both("add_event", event) for event in numbered(0, 1, 2)] == [True, True, False]
    assert pair.logs[0].errors == ["Event buffer is full, dropping event."]


def test_a_batch_is_all_there_is() -> None:
    pair = Pair()
    for event in numbered(0, 1, 2):
        pair.both("add_event", event)
    pair.take_and_clean(need_retry=False)
    assert pair.both("get_events_batch") == []


def test_events_to_be_retried_are_handed_out_again() -> None:
    pair = Pair()
    for event in numbered(0, 1, 2):
        pair.both("add_event", event)
    pair.take_and_clean(need_retry=True)
    assert pair.both("size") == 3
    pair.take_and_clean(need_retry=False)


@pytest.mark.parametrize("need_retry", [True, False])
def test_cleanup_of_what_was_never_there(need_retry: bool) -> None:
    pair = Pair()
    pair.both("cleanup", numbered(7, 8), need_retry)
    assert pair.both("size") == 2 * need_retry


def test_keywords_are_the_reference_s() -> None:
    log = Log()
    assert InMemoryEventStore(logger=log, buffer_capacity=3).buffer_capacity == 3  # type: ignore[arg-type]
    assert InMemoryEventStore(log).buffer_capacity == 10_000  # type: ignore[arg-type]
    pair = Pair()
    pair.both("add_event", payload={"n": "1"})
    pair.both("cleanup", batch=[], need_retry=True)


def test_part_of_a_batch_is_retried() -> None:
    pair = Pair()
    for event in numbered(0, 1, 2):
        pair.both("add_event", event)
    ours, theirs = pair.ours.get_events_batch(), pair.theirs.get_events_batch()
    pair.ours.cleanup(ours[1:], True)
    pair.theirs.cleanup(theirs[1:], True)
    pair.ours.cleanup(ours[:1], False)
    pair.theirs.cleanup(theirs[:1], False)
    pair.look()
    assert pair.ours.event_buffer == numbered(1, 2)


# -- where it differs on purpose ----------------------------------------------------------------------------------


def both_with_a_batch_out(capacity: int, *events: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Two events handed out, others put in, and then the two given back: what fastemit's and the reference's have."""
    result = []
    for store in (InMemoryEventStore(Log(), capacity), reference.InMemoryEventStore(Log(), capacity)):  # type: ignore[arg-type]
        for event in numbered(0, 1):
            store.add_event(event)
        batch = store.get_events_batch()
        for event in events:
            store.add_event(event)
        store.cleanup(batch, True)
        result.append(store.event_buffer)
    return result[0], result[1]


def test_retried_events_keep_their_place() -> None:
    ours, theirs = both_with_a_batch_out(10, *numbered(2, 3))
    assert (numbers(ours), numbers(theirs)) == ([0, 1, 2, 3], [2, 3, 0, 1])


def test_identical_events_are_not_one() -> None:
    ours, theirs = both_with_a_batch_out(10, *numbered(0, 1))
    assert (numbers(ours), numbers(theirs)) == ([0, 1, 0, 1], [0, 1])


def test_a_retry_loses_nothing_in_a_full_store() -> None:
    ours, theirs = both_with_a_batch_out(2, *numbered(2, 3))
    assert (numbers(ours), numbers(theirs)) == ([0, 1], [2, 3])


def test_what_is_changed_afterwards_changes_nothing() -> None:
    payload = {"n": "1"}
    store = stored(payload)
    payload["n"] = "2"
    store.event_buffer[0]["n"] = "3"
    assert store.get_events_batch() == [{"n": "1"}]


def test_many_threads_use_one_store() -> None:
    store = InMemoryEventStore(buffer_capacity=400)
    join(threads_of(4, lambda number: [store.add_event({"n": number * 100 + n}) for n in range(100)]))
    taken: list[Any] = []
    join(threads_of(4, lambda _: taken.extend(store.get_events_batch())))
    assert sorted(numbers(taken)) == list(range(400))


@pytest.mark.parametrize("capacity", [0, -1, 1.5, "7", True, None])
def test_a_wrong_capacity_is_refused(capacity: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="buffer_capacity"):
        InMemoryEventStore(buffer_capacity=capacity)


def test_a_logger_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="logger"):
        InMemoryEventStore(logger="root")  # type: ignore[arg-type]


def test_without_a_logger_it_is_fastemit_s(caplog: pytest.LogCaptureFixture) -> None:
    store = stored({"n": 1}, capacity=1)
    store.add_event({"n": 2})
    assert caplog.record_tuples == [("fastemit", logging.ERROR, "Event buffer is full, dropping event.")]


# -- in an emitter -----------------------------------------------------------------------------------------------------


def test_the_default_store_is_one_and_shows_the_buffer(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(batch_size=MANY, buffer_capacity=2000)
    feed(emitter, *numbered(0, 1))
    store = emitter.event_store
    assert isinstance(store, InMemoryEventStore)
    assert (store.buffer_capacity, store.size(), store.event_buffer) == (2000, 2, numbered(0, 1))


@pytest.mark.parametrize("kind", [fastemit.Emitter, fastemit.AsyncEmitter])
@pytest.mark.parametrize("method", ["post", "get"])
def test_events_put_in_before_are_sent_first(collector: Collector, kind: Any, method: str) -> None:
    store = stored(*numbered(0, 1))
    with kind(collector.url, event_store=store, method=method, batch_size=3) as emitter:
        assert emitter.event_store is store
        assert store.event_buffer == numbered(0, 1)
        feed(emitter, *numbered(2))
        assert numbers(collector.wait_for(3)) == [0, 1, 2]


def test_events_put_in_before_that_its_emitter_has_no_room_for_are_counted_and_logged(collector: Collector) -> None:
    log = Log()
    store = InMemoryEventStore(log)  # type: ignore[arg-type]
    for _ in range(4):
        store.add_event({"text": "x" * 500})
    with fastemit.Emitter(collector.url, event_store=store, max_buffer_bytes=1200) as emitter:
        assert emitter.drain(10)
    stats = emitter.stats()
    assert (stats.sent_events, stats.dropped_events["overflow"], len(log.errors)) == (2, 2, 2)


def test_events_put_in_before_are_sent_by_close(collector: Collector) -> None:
    fastemit.Emitter(collector.url, event_store=stored(*numbered(0, 1))).close()
    assert numbers(collector.events) == [0, 1]


def test_events_added_to_the_store_of_an_emitter_are_sent(collector: Collector) -> None:
    store = InMemoryEventStore()
    with fastemit.Emitter(collector.url, event_store=store, batch_size=MANY) as emitter:
        assert store.add_event({"n": 1})
        assert emitter.drain(3)
        assert numbers(collector.events) == [1]


def test_its_capacity_is_the_emitter_s(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(hang=True)
    store = InMemoryEventStore(buffer_capacity=3)
    emitter = make_emitter(event_store=store, overflow="drop_newest", buffer_capacity=50)
    assert (store.buffer_capacity, emitter.batch_size) == (3, 3)
    feed(emitter, *numbered(0, 1, 2))
    collector.wait_for_requests(1)
    # In flight they count, where the reference's store has forgotten them.
    feed(emitter, *numbered(3))
    assert emitter.stats().dropped_events["overflow"] == 1
    assert store.add_event({"n": 4}) is False
    collector.release()


def test_drop_oldest_goes_with_it(collector: Collector, make_emitter: MakeEmitter) -> None:
    store = InMemoryEventStore(buffer_capacity=2)
    emitter = make_emitter(event_store=store, overflow="drop_oldest", max_retry_delay_seconds=60)
    collector.respond(503, headers={"Retry-After": "60"}, times=None)
    feed(emitter, *numbered(0, 1))
    until(lambda: emitter.retry_delay > 0)
    feed(emitter, *numbered(2))
    assert store.event_buffer == numbered(1, 2)


@pytest.mark.parametrize("method", ["post", "get"])
def test_one_store_in_two_emitters(collector: Collector, method: str) -> None:
    store = stored(*numbered(0, 1))
    with (
        fastemit.Emitter(collector.url, event_store=store, batch_size=2, method=method) as one,
        fastemit.Emitter(collector.url, event_store=store, batch_size=2, method=method) as other,
    ):
        feed(one, *numbered(2, 3))
        feed(other, *numbered(4, 5))
    # Whoever of the two sends an event, it is sent once.
    assert sorted(numbers(collector.events)) == [0, 1, 2, 3, 4, 5]


def test_get_keeps_the_values_in_it(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(event_store=InMemoryEventStore(), method="get", batch_size=MANY)
    emitter.input({"n": 1, "list": [1, 2], "none": None})
    assert emitter.event_store.event_buffer == [{"n": 1, "list": [1, 2], "none": None}]
    assert emitter.drain(10)
    assert collector.requests[0].target.partition("?")[2].startswith("n=1&list=1&list=2&stm=")


def test_a_failure_leaves_the_events_in_it(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(503, headers={"Retry-After": "60"})
    store = InMemoryEventStore()
    emitter = make_emitter(event_store=store, batch_size=MANY)
    feed(emitter, *numbered(0, 1))
    emitter.flush()
    assert store.event_buffer == numbered(0, 1)


def test_a_subclass_is_the_user_s_store(collector: Collector, make_emitter: MakeEmitter) -> None:
    class Mine(InMemoryEventStore):
        added = 0
        cleaned: list[bool] = []  # noqa: RUF012

        def add_event(self, payload: dict[str, Any]) -> bool:
            self.added += 1
            return super().add_event({**payload, "mine": "1"})

        def cleanup(self, batch: list[dict[str, Any]], need_retry: bool) -> None:
            self.cleaned = [*self.cleaned, need_retry]
            super().cleanup(batch, need_retry)

    store = Mine()
    emitter = make_emitter(event_store=store, batch_size=MANY)
    collector.respond(503, headers={"Retry-After": "60"})
    feed(emitter, *numbered(0, 1))
    emitter.flush()
    feed(emitter, *numbered(2))
    assert emitter.drain(10)
    assert [event["mine"] for event in collector.events] == ["1"] * 3
    assert numbers(collector.events) == [0, 1, 2]
    assert (store.added, store.cleaned, store.size()) == (3, [True, False], 0)
    with pytest.raises(ValueError, match="drop_oldest"):
        fastemit.Emitter(collector.url, event_store=Mine(), overflow="drop_oldest")


def test_the_reference_s_store_is_a_user_s_store(collector: Collector, make_emitter: MakeEmitter) -> None:
    store = reference.InMemoryEventStore(Log(), 5)  # type: ignore[arg-type]
    emitter = make_emitter(cls=CountingAsyncEmitter, event_store=store, batch_size=3)
    feed(emitter, *numbered(0, 1, 2))
    assert emitter.drain(10)
    assert numbers(collector.events) == [0, 1, 2]
    assert store.size() == 0


def test_an_event_that_waits_in_it_wakes_who_waits_for_room(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(hang=True)
    emitter = make_emitter(event_store=InMemoryEventStore(buffer_capacity=2), overflow="block")
    feed(emitter, *numbered(0, 1))
    collector.wait_for_requests(1)
    waiting = Running(lambda: feed(emitter, *numbered(2)))
    assert waiting.goes_on()
    collector.release()
    waiting.result()


def test_a_store_may_be_any_object_with_the_methods(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(event_store=PeekStore())
    feed(emitter, *numbered(*range(10)))
    assert numbers(collector.wait_for(10)) == list(range(10))
