"""Event stores that say what is not so or hand out what is no event: nothing hangs, spins or loses what is there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.delivery import Rig, Running, numbers, put
from tests.support.emitters import accounted
from tests.support.faulty_stores import FEW, Faulty, complaints, no_busy_loop
from tests.support.slow import slow_but
from tests.support.stores import Event, ListStore, PeekStore

# -- methods that lie --------------------------------------------------------------------------------------------------

LIES: dict[str, Callable[[Any], Any]] = {
    "too many": lambda size: size + 1000,
    "too few": lambda size: size // 2,
    "none at all": lambda _: 0,
    "negative": lambda size: -size,
    "a string": lambda size: f"{size} events",
    "None": lambda _: None,
    "a float": float,
    "past all bounds": lambda _: 10**30,
    "far below zero": lambda _: -(10**30),
    "no number": lambda _: float("nan"),
}


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("lie", slow_but(["too many", "a string", "no number"], LIES))
def test_a_size_that_is_not_true_hangs_and_spins_nothing(rig: Rig, lie: str, background: bool) -> None:
    store = Faulty("size", instead=LIES[lie])
    emitter = rig.emitter(event_store=store, batch_size=2, background=background)
    Running(lambda: put(emitter, 6)).result(3)
    Running(lambda: emitter.drain(0.5)).result(3)
    no_busy_loop(store)
    Running(lambda: emitter.close(1)).result(3)
    # Which of them were sent cannot be told where the size was wrong from the start.
    assert accounted(emitter.stats()) == 6


@pytest.mark.parametrize("lie", ["too many", "a string", "None"])
def test_flush_ends_with_a_size_that_is_not_true(rig: Rig, lie: str) -> None:
    emitter = rig.emitter(event_store=Faulty("size", instead=LIES[lie]))
    put(emitter, 3)
    Running(emitter.flush).result(4)


@pytest.mark.parametrize("lie", ["too few", "none at all", "negative"])
def test_close_sends_the_events_that_a_store_does_not_own_up_to(rig: Rig, lie: str) -> None:
    emitter = rig.emitter(event_store=Faulty("size", instead=LIES[lie]), batch_size=100)
    put(emitter, 6)
    assert emitter.close(3) == 0
    assert numbers(rig.collector.events) == [0, 1, 2, 3, 4, 5]
    assert (emitter.stats().sent_events, accounted(emitter.stats())) == (6, 6)


def test_drain_sends_the_events_that_a_store_does_not_own_up_to(rig: Rig) -> None:
    emitter = rig.emitter(event_store=Faulty("size", instead=LIES["none at all"]), batch_size=100)
    put(emitter, 6)
    assert emitter.drain(3)
    assert numbers(rig.collector.events) == [0, 1, 2, 3, 4, 5]


def test_events_that_a_store_has_lost_are_counted_as_dropped(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    store = ListStore()
    emitter = rig.emitter(event_store=store, batch_size=100)
    put(emitter, 6)
    del store.events[:4]
    assert emitter.drain(3)
    stats = emitter.stats()
    assert (stats.sent_events, stats.dropped_events["overflow"], stats.queued_events) == (2, 4, 0)
    assert "4 of the events that it had taken are gone" in complaints(caplog)


def test_close_does_not_wait_for_events_that_a_store_has_lost(rig: Rig) -> None:
    store = ListStore()
    emitter = rig.emitter(event_store=store, batch_size=100)
    put(emitter, 6)
    store.events.clear()
    assert Running(lambda: emitter.close(10)).result(3) == 0
    assert emitter.stats().dropped_events["overflow"] == 6


def test_events_that_stay_in_the_store_are_not_called_lost(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.collector.respond(500, times=None)
    emitter = rig.emitter(event_store=ListStore(), batch_size=100)
    put(emitter, 3)
    assert emitter.close(0.1) == 3
    assert "closed with 3 events left, which stay in the event store" in caplog.text


def test_an_event_that_is_handed_out_twice_is_counted_once(rig: Rig) -> None:
    store = Faulty("get_events_batch", instead=lambda batch: [*batch, *batch[:1]])
    emitter = rig.emitter(event_store=store, batch_size=100)
    put(emitter, 3)
    assert emitter.drain(3)
    assert numbers(rig.collector.events) == [0, 1, 2, 0]
    assert (emitter.stats().sent_events, accounted(emitter.stats())) == (3, 3)


def test_events_that_came_into_the_store_by_another_way_are_sent_and_not_counted(rig: Rig) -> None:
    store = ListStore()
    emitter = rig.emitter(event_store=store, batch_size=100)
    put(emitter, 2)
    store.add_event({"e": "pv", "n": "7"})
    assert emitter.drain(3)
    assert numbers(rig.collector.events) == [0, 1, 7]
    assert (emitter.stats().sent_events, accounted(emitter.stats())) == (2, 2)
    store.add_event({"e": "pv", "n": "8"})
    assert emitter.drain(3)
    assert numbers(rig.collector.events) == [0, 1, 7, 8]
    assert accounted(emitter.stats()) == 2


JUNK: dict[str, Callable[[list[Event]], Any]] = {
    "no list": lambda _: 5,
    "None": lambda _: None,
    "a tuple": tuple,
    "a generator": iter,
}


@pytest.mark.parametrize("junk", JUNK)
def test_a_batch_that_is_no_list(rig: Rig, junk: str) -> None:
    store = Faulty("get_events_batch", instead=JUNK[junk])
    emitter = rig.emitter(event_store=store, batch_size=3)
    put(emitter, 3)
    no_busy_loop(store)
    Running(lambda: emitter.close(0.3)).result(3)
    assert numbers(rig.collector.events) == ([0, 1, 2] if junk in ("a tuple", "a generator") else [])
    assert accounted(emitter.stats()) == 3


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("bad", [None, 5, "event", [("e", "pv")]], ids=repr)
def test_what_is_no_event_is_cleaned_up_and_the_rest_is_sent(
    rig: Rig, caplog: pytest.LogCaptureFixture, bad: Any, method: str
) -> None:
    class Junk(ListStore):
        cleaned: list[Any] = []  # noqa: RUF012

        def cleanup(self, batch: list[Event], need_retry: bool) -> None:
            self.cleaned = [*self.cleaned, *batch]

    store = Junk()
    emitter = rig.emitter(event_store=store, method=method)
    put(emitter, 1)
    store.events.append(bad)
    put(emitter, 1, 1)
    Running(lambda: emitter.drain(3)).result()
    assert numbers(rig.collector.events) == [0, 1]
    assert any(event is bad for event in store.cleaned)
    assert "is no event" in complaints(caplog)
    assert accounted(emitter.stats()) == 2


def test_what_cannot_be_encoded_is_cleaned_up(rig: Rig) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise ValueError("no")

    store = ListStore()
    emitter = rig.emitter(event_store=store)
    put(emitter, 2)
    store.events[0]["x"] = Unprintable()
    assert emitter.drain(3)
    assert numbers(rig.collector.events) == [1]
    stats = emitter.stats()
    assert (stats.sent_events, stats.dropped_events["rejected"]) == (1, 1)


def test_what_is_never_cleaned_up_is_sent_again_at_leisure(rig: Rig) -> None:
    class Deaf(PeekStore):
        def cleanup(self, batch: list[Event], need_retry: bool) -> None:
            pass

    emitter = rig.emitter(event_store=Deaf(), batch_size=1)
    put(emitter, 1)
    rig.collector.wait_for(1)
    threading.Event().wait(0.3)
    assert len(rig.collector.requests) < FEW * 0.3
    Running(lambda: emitter.close(0.2)).result(3)
