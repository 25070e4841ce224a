"""What a signal handler raises inside a user's code comes out of the call, and leaves an emitter that sends."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from fastemit._signals import guarded
from tests.support.delivery import DEADLINE, Rig, numbers, put
from tests.support.stores import ListStore, PeekStore

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs a signal of the user's")


class SoftLimit(Exception):
    """As Celery's SoftTimeLimitExceeded: an exception like any other, from a handler."""


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    def handler(_number: int, _frame: object) -> None:
        raise SoftLimit

    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


def struck(store_class: type[Any], method: str, late: bool) -> Any:
    """A store in one of whose methods a signal comes once it is told so: before its work, or after it."""

    class Struck(store_class):  # type: ignore[misc]
        armed = False

        def strike(self) -> None:
            if self.armed:
                self.armed = False
                signal.raise_signal(signal.SIGUSR1)

    def call(self: Any, *arguments: Any) -> Any:
        if not late:
            self.strike()
        answer = getattr(super(Struck, self), method)(*arguments)
        if late:
            self.strike()
        return answer

    setattr(Struck, method, call)
    return Struck()


EACH_STORE = pytest.mark.parametrize("store_class", [ListStore, PeekStore])
LATE = pytest.mark.parametrize("late", [False, True], ids=["before", "after"])


@EACH_STORE
@LATE
@pytest.mark.parametrize("method", ["add_event", "size"])
def test_it_comes_out_of_an_input_and_no_event_is_counted_as_dropped(
    rig: Rig, store_class: type[Any], method: str, late: bool
) -> None:
    store = struck(store_class, method, late)
    emitter = rig.emitter(event_store=store, background=False, batch_size=100)
    put(emitter)
    store.armed = True

    def put_and_flush() -> None:
        put(emitter, 1, 1)
        emitter.flush()

    with pytest.raises(SoftLimit):
        put_and_flush()
    assert emitter.stats().dropped_events["overflow"] == 0
    put(emitter, 1, 2)
    assert emitter.drain(DEADLINE) is True
    assert {0, 2} <= set(numbers(rig.collector.events))


@pytest.mark.parametrize(
    ("store_class", "method", "late"),
    [
        case
        for case in itertools.product([ListStore, PeekStore], ["size", "get_events_batch", "cleanup"], [False, True])
        # A store that forgets what it is about to hand out has lost it itself.
        if case != (ListStore, "get_events_batch", True)
    ],
)
def test_it_comes_out_of_a_flush_and_the_next_one_sends_the_events(
    rig: Rig, store_class: type[Any], method: str, late: bool
) -> None:
    store = struck(store_class, method, late)
    emitter = rig.emitter(event_store=store, background=False, batch_size=100)
    put(emitter, 3)
    store.armed = True
    with pytest.raises(SoftLimit):
        emitter.flush()
    put(emitter, 1, 3)
    assert emitter.drain(DEADLINE) is True
    assert set(numbers(rig.collector.events)) == {0, 1, 2, 3}
    assert store.size() == 0
    assert sum(emitter.stats().dropped_events.values()) == 0


@EACH_STORE
@LATE
def test_it_comes_out_of_a_cleanup_that_keeps_events_and_they_are_sent(
    rig: Rig, store_class: type[Any], late: bool
) -> None:
    store = struck(store_class, "cleanup", late)
    emitter = rig.emitter(event_store=store, background=False, batch_size=100, max_retry_delay_seconds=0.02)
    put(emitter, 3)
    rig.collector.respond(503)
    store.armed = True
    with pytest.raises(SoftLimit):
        emitter.flush()
    rig.collector.reset()
    assert emitter.drain(DEADLINE, retry=True) is True
    assert set(numbers(rig.collector.events)) == {0, 1, 2}


class Strikes:
    """A value whose text takes a signal."""

    def __str__(self) -> str:
        signal.raise_signal(signal.SIGUSR1)
        return "never"


def test_it_comes_out_of_an_event_that_a_store_hands_out_and_the_others_are_sent(rig: Rig) -> None:
    store = ListStore()
    emitter = rig.emitter(event_store=store, background=False, batch_size=100)
    put(emitter, 2)
    struck_event: dict[str, Any] = {"n": Strikes()}
    store.events.insert(1, struck_event)
    with pytest.raises(SoftLimit):
        emitter.flush()
    struck_event["n"] = "000002"
    assert emitter.drain(DEADLINE) is True
    assert sorted(numbers(rig.collector.events)) == [0, 1, 2]


def test_what_the_code_itself_raises_goes_to_who_asked() -> None:
    def fails() -> str:
        raise SoftLimit("by itself")

    assert guarded(fails, lambda error: f"told of {error}") == "told of by itself"
    assert guarded(lambda: "well", lambda error: f"told of {error}") == "well"
