"""Attributes that snowplow_tracker lets its users assign or change: it has an effect here too, or says what to do."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter, InMemoryEventStore
from fastemit.testing import Collector
from tests.support.emitters import Recorder
from tests.support.waiting import until

MakeEmitter = Callable[..., Any]

#: By attribute, what the error says to do.
FIXED = {
    "endpoint": "close() this emitter, and make one for the other",
    "method": "make one with method=",
    "event_store": "give event_store when you make the emitter",
    "bytes_queued": "it is counted",
    "retry_delay": "max_retry_delay_seconds is its longest",
    "timer": "set_flush_timer",
    "retry_timer": "flush()",
}


@pytest.fixture
def emitter() -> Iterator[Emitter]:
    with Emitter("http://127.0.0.1:1", byte_limit=10_000, shutdown_timeout=0) as emitter:
        yield emitter


# -- what cannot be assigned -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
@pytest.mark.parametrize("name", FIXED)
def test_what_cannot_be_assigned_says_what_to_do(cls: Any, name: str) -> None:
    emitter = cls("example.com", byte_limit=1000)
    before = getattr(emitter, name)
    with pytest.raises(AttributeError) as error:
        setattr(emitter, name, before)
    assert str(error.value).startswith(f"{name} of {cls.__name__} cannot be assigned: ")
    assert FIXED[name] in str(error.value)
    assert getattr(emitter, name) == before


def test_the_capacity_and_the_events_of_a_store_say_what_to_do() -> None:
    store: Any = InMemoryEventStore(buffer_capacity=7)
    with pytest.raises(AttributeError, match=r"^buffer_capacity of InMemoryEventStore .*when you make the store"):
        store.buffer_capacity = 8
    with pytest.raises(AttributeError, match=r"^event_buffer of InMemoryEventStore .*get_events_batch\(\)"):
        store.event_buffer = []
    assert store.buffer_capacity == 7


def test_a_subclass_may_have_an_attribute_of_its_own_by_such_a_name() -> None:
    class Mine(Emitter):
        method = "post"  # type: ignore[assignment]

    emitter = Mine("example.com")
    emitter.method = "get"
    assert emitter.method == "get"


# -- what can --------------------------------------------------------------------------------------------------------


def test_a_shorter_longest_delay_ends_a_backoff_that_runs(make_emitter: MakeEmitter, collector: Collector) -> None:
    collector.respond(503, headers={"Retry-After": "50"})
    emitter = make_emitter()
    emitter.input({"e": "pv"})
    emitter.flush()
    assert emitter.retry_delay == 50
    emitter.max_retry_delay_seconds = 0.05
    assert emitter.retry_delay <= 0.05
    until(lambda: len(collector.events) == 1)
    assert emitter.max_retry_delay_seconds == 0.05


def test_a_longest_delay_that_was_assigned_holds_for_later_failures(
    make_emitter: MakeEmitter, collector: Collector
) -> None:
    emitter = make_emitter()
    emitter.max_retry_delay_seconds = 20
    collector.respond(503, headers={"Retry-After": "50"})
    emitter.input({"e": "pv"})
    emitter.flush()
    assert emitter.retry_delay == 20


@pytest.mark.parametrize(("value", "error"), [("5", TypeError), (0, ValueError), (-1, ValueError), (None, TypeError)])
def test_a_longest_delay_is_checked_when_it_is_assigned(emitter: Any, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^max_retry_delay_seconds must be "):
        emitter.max_retry_delay_seconds = value
    assert emitter.max_retry_delay_seconds == 60


def test_retry_codes_that_are_changed_in_place_hold_for_the_next_answer(
    make_emitter: MakeEmitter, collector: Collector
) -> None:
    told = Recorder()
    emitter = make_emitter(on_failure=told.failure)
    emitter.custom_retry_codes[500] = False
    collector.respond(500)
    emitter.input({"e": "pv"})
    emitter.flush()
    assert emitter.stats().dropped_events["rejected"] == 1
    del emitter.custom_retry_codes[500]
    collector.respond(500)
    emitter.input({"e": "pv"})
    emitter.flush()
    assert emitter.stats().dropped_events["rejected"] == 1  # the second is kept


@pytest.mark.parametrize(
    "change",
    [
        lambda codes: codes.__setitem__("500", True),
        lambda codes: codes.update({501: True, 99: True}),
        lambda codes: codes.update([(501, True), (502, "yes")]),
        lambda codes: codes.setdefault(501),
        lambda codes: codes.__ior__({501: 1}),
    ],
    ids=["item", "update", "pairs", "setdefault", "ior"],
)
def test_retry_codes_are_checked_when_they_are_changed_in_place(emitter: Any, change: Callable[[Any], Any]) -> None:
    emitter.custom_retry_codes = {500: False}
    with pytest.raises((TypeError, ValueError), match=r"^custom_retry_codes must be "):
        change(emitter.custom_retry_codes)
    assert emitter.custom_retry_codes == {500: False}


def test_retry_codes_that_are_changed_in_place_are_one_emitter_s(emitter: Any) -> None:
    given = {500: False}
    emitter.custom_retry_codes = given
    emitter.custom_retry_codes |= {502: False}
    assert emitter.custom_retry_codes.setdefault(503, True) is True
    assert (given, emitter.custom_retry_codes) == ({500: False}, {500: False, 502: False, 503: True})
    assert Emitter("example.com").custom_retry_codes == {}


# -- the events of a store -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda events: events.append({"n": "3"}),
        lambda events: events.extend([{"n": "3"}]),
        lambda events: events.insert(0, {"n": "3"}),
        lambda events: events.remove({"n": "1"}),
        lambda events: events.pop(),
        lambda events: events.clear(),
        lambda events: events.sort(key=str),
        lambda events: events.reverse(),
        lambda events: events.__iadd__([{"n": "3"}]),
        lambda events: events.__imul__(2),
        lambda events: events.__setitem__(0, {"n": "3"}),
        lambda events: events.__delitem__(slice(None)),
    ],
    ids=["append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "iadd", "imul", "set", "del"],
)
def test_a_change_of_event_buffer_says_what_to_do(emitter: Any, change: Callable[[Any], Any]) -> None:
    for number in ("1", "2"):
        emitter.input({"n": number})
    with pytest.raises(TypeError, match=r"^event_buffer is a copy, .*get_events_batch\(\) and then cleanup"):
        change(emitter.event_store.event_buffer)
    assert emitter.event_store.event_buffer == [{"n": "1"}, {"n": "2"}]


def test_every_method_that_changes_a_list_is_refused() -> None:
    copied: Any = InMemoryEventStore().event_buffer
    changing = {name for name in dir(list) if name not in dir(tuple)} - {"__reversed__", "copy"}
    assert len(changing) == 12
    assert {name for name in changing if getattr(type(copied), name) is getattr(list, name)} == set()


def test_event_buffer_is_a_list_in_every_other_way(emitter: Any) -> None:
    emitter.input({"n": "1"})
    events = emitter.event_store.event_buffer
    assert isinstance(events, list)
    assert json.loads(json.dumps(events)) == events == [{"n": "1"}]
    assert [*events, {"n": "2"}] == [{"n": "1"}, {"n": "2"}]
    # What is made of it is a list that can be changed.
    made = [list(events), events.copy(), copy.copy(events), copy.deepcopy(events), pickle.loads(pickle.dumps(events))]
    made += [events[:], events + events, events * 2]
    assert [len(each) for each in made] == [1, 1, 1, 1, 1, 1, 2, 2]
    assert {type(each) for each in made} == {list}


def test_what_the_error_says_removes_the_events(emitter: Any) -> None:
    emitter.input({"n": "1"})
    store = emitter.event_store
    store.cleanup(store.get_events_batch(), False)
    assert store.event_buffer == []
    emitter.input({"n": "2"})
    assert store.event_buffer == [{"n": "2"}]


# -- Redis -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 10])
def test_events_go_to_the_key_and_the_client_that_were_assigned_last(server: Any, batch_size: int) -> None:
    import redis

    from fastemit import RedisEmitter

    rdb, other = server.client(), server.client()
    first, second = (f"{name}-{batch_size}" for name in ("first", "second"))
    with RedisEmitter(rdb, first, batch_size=batch_size) as emitter:
        emitter.input({"n": "1"})
        emitter.flush()
        emitter.key, emitter.rdb = second, other
        emitter.input({"n": "2"})
        emitter.flush()
        assert (emitter.key, emitter.rdb) == (second, other)
    assert [rdb.lrange(key, 0, -1) for key in (first, second)] == [[b'{"n":"1"}'], [b'{"n":"2"}']]
    for name, value in (("key", ""), ("key", None), ("rdb", None), ("rdb", redis.Redis)):
        with pytest.raises((TypeError, ValueError), match=rf"^{name} must be "):
            setattr(emitter, name, value)


@pytest.mark.parametrize("name", ["emitter", "rdb", "key"])
def test_what_a_worker_works_with_says_to_make_another_worker(server: Any, name: str) -> None:
    from fastemit import RedisWorker

    worker = RedisWorker(Emitter("http://127.0.0.1:1"), server.client())
    before = getattr(worker, name)
    with pytest.raises(AttributeError, match=rf"^{name} of RedisWorker cannot be assigned: make another RedisWorker"):
        setattr(worker, name, before)
    assert getattr(worker, name) is before
