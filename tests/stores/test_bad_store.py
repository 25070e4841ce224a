"""Event stores that do what they must not do: it is logged, and nothing hangs, spins or loses what can be kept."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastemit import InMemoryEventStore, logger
from fastemit.testing import Collector
from tests.support.delivery import Rig, Running, Script, eventually, numbers, put, rigged, run_script
from tests.support.emitters import accounted
from tests.support.logs import Asking
from tests.support.stores import Event, ListStore, PeekStore

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
#: Calls of a method in a second that are no busy loop.
FEW = 100
_ALL: list[Faulty] = []


class Faulty(ListStore):
    """A store whose method `fails` raises for the first `times` calls, or does what `instead` says."""

    def __init__(self, fails: str, times: float = float("inf"), instead: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.fails = fails
        self.times = times
        self.instead = instead
        self.calls = 0
        _ALL.append(self)

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        if name not in ("add_event", "get_events_batch", "cleanup", "size"):
            return attribute

        def method(*arguments: Any) -> Any:
            self.calls += 1
            if name != self.fails or self.times <= 0:
                return attribute(*arguments)
            self.times -= 1
            if self.instead is None:
                raise OSError("no store today")
            return self.instead(attribute(*arguments))

        return method


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    # What may still run in circles comes to an end.
    for store in _ALL:
        store.times = 0
    _ALL.clear()
    rig.collector.close()
    for emitter in rig._emitters:
        emitter.close(0)
    eventually(lambda: not rig.new_threads())


def no_busy_loop(store: Faulty) -> None:
    """In a part of a second the store is called few times."""
    before, started = store.calls, time.monotonic()
    threading.Event().wait(0.2)
    assert (store.calls - before) / (time.monotonic() - started) < FEW


def complaints(log: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in log.records if "event store at fault" in record.getMessage())


# -- methods that raise ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("method", ["get_events_batch", "size", "cleanup", "add_event"])
def test_a_method_that_always_raises_hangs_and_spins_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture, method: str, background: bool
) -> None:
    store = Faulty(method)
    emitter = rig.emitter(event_store=store, batch_size=2, background=background)
    Running(lambda: put(emitter, 4)).result(3)
    no_busy_loop(store)
    assert f"{method}() raised OSError: no store today" in complaints(caplog)
    Running(lambda: emitter.close(0.2)).result(3)
    assert accounted(emitter.stats()) == 4


@pytest.mark.parametrize("method", ["get_events_batch", "size", "cleanup"])
def test_a_method_that_raises_once_loses_nothing(rig: Rig, method: str) -> None:
    store = Faulty(method, times=0)
    emitter = rig.emitter(event_store=store, batch_size=2)
    store.times = 1
    put(emitter, 4)
    eventually(lambda: set(numbers(rig.collector.events)) == {0, 1, 2, 3}, 5)


def test_events_are_not_lost_when_cleanup_does_not_take_them_back(rig: Rig) -> None:
    rig.collector.respond(500)
    store = Faulty("cleanup", times=1)
    emitter = rig.emitter(event_store=store, max_retry_delay_seconds=0.01)
    put(emitter, 3)
    emitter.drain(3)
    eventually(lambda: sorted(numbers(rig.collector.events)) == [0, 1, 2], 3)


def test_an_event_that_add_event_raised_for_is_counted_as_dropped(rig: Rig) -> None:
    emitter = rig.emitter(event_store=Faulty("add_event", times=1))
    put(emitter, 3)
    assert emitter.drain(10)
    assert numbers(rig.collector.events) == [1, 2]
    assert emitter.stats().dropped_events["overflow"] == 1


@pytest.mark.parametrize("method", ["get_events_batch", "size"])
def test_flush_ends_while_the_store_is_at_fault(rig: Rig, method: str) -> None:
    store = Faulty(method, times=0)
    emitter = rig.emitter(event_store=store)
    put(emitter, 3)
    store.times = float("inf")
    Running(emitter.flush).result(4)


def test_close_waits_for_a_store_that_was_at_fault_once(rig: Rig) -> None:
    store = Faulty("get_events_batch", times=1)
    emitter = rig.emitter(event_store=store)
    put(emitter, 3)
    assert emitter.close(4) == 0
    assert numbers(rig.collector.events) == [0, 1, 2]


def test_an_add_event_that_raises_while_a_batch_is_settled_blocks_nobody(tmp_path: Path) -> None:
    """In a process of its own, since a deadlock would be the end of this one too."""
    with Collector() as collector:
        done = run_script(
            tmp_path,
            """
            from tests.support.delivery import Running
            from tests.support.stores import ListStore

            class Raising(ListStore):
                def add_event(self, payload):
                    if payload["n"] == "9":
                        # Until the sender settles its batch: it holds the lock then that `stats` takes.
                        while not Running(emitter.stats).goes_on() and time.monotonic() < deadline:
                            pass
                        raise OSError("no store today")
                    return super().add_event(payload)

            deadline = time.monotonic() + 2
            emitter = Emitter(URL, event_store=Raising(), batch_size=3)
            put(emitter)
            Running(lambda: put(emitter, 1, 9))
            over = Running(lambda: emitter.drain(3))
            over._thread.join(4)
            os._exit(1 if over._thread.is_alive() else 0)
            """,
            collector.url,
        )
    assert done.status == 0


# -- methods that lie --------------------------------------------------------------------------------------------------

LIES: dict[str, Callable[[Any], Any]] = {
    "too many": lambda size: size + 1000,
    "too few": lambda size: size // 2,
    "none at all": lambda _: 0,
    "negative": lambda size: -size,
    "a string": lambda size: f"{size} events",
    "None": lambda _: None,
    "a float": float,
}


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("lie", LIES)
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


def failing_peek(capacity: int = 10_000) -> tuple[PeekStore, list[int]]:
    """A table, whose deletion of rows fails as many times as the list has entries."""
    fails: list[int] = []

    class Table(PeekStore):
        def cleanup(self, batch: list[Event], need_retry: bool) -> None:
            if fails:
                fails.pop()
                raise OSError("table is locked")
            super().cleanup(batch, need_retry)

    return Table(capacity), fails


def test_a_cleanup_that_raised_is_tried_again_before_more_is_taken(rig: Rig) -> None:
    store, fails = failing_peek()
    emitter = rig.emitter(event_store=store, batch_size=1)
    fails += [1, 2]
    put(emitter, 1)
    rig.collector.wait_for(1)
    put(emitter, 2, first=1)
    eventually(lambda: emitter.drain(1))
    # Its rows were there to be handed out twice more.
    assert sorted(numbers(rig.collector.events)) == [0, 1, 2]
    assert (store.size(), emitter.stats().sent_events) == (0, 3)


def test_an_event_that_waits_for_room_gets_it_though_a_cleanup_raised(rig: Rig) -> None:
    store, fails = failing_peek(capacity=2)
    emitter = rig.emitter(event_store=store, batch_size=1, overflow="backpressure")
    fails.append(1)
    put(emitter, 2)
    Running(lambda: put(emitter, 2, first=2)).result(5)
    assert emitter.drain(5)
    assert sorted(numbers(rig.collector.events)) == [0, 1, 2, 3]


def test_a_store_that_counts_only_what_waits_gets_room_though_a_cleanup_raised(rig: Rig) -> None:
    fails = [1]

    class Own(InMemoryEventStore):
        def cleanup(self, batch: list[Event], need_retry: bool) -> None:
            if fails:
                fails.pop()
                raise OSError("table is locked")
            super().cleanup(batch, need_retry)

    store = Own(buffer_capacity=2)
    emitter = rig.emitter(event_store=store, batch_size=2, overflow="backpressure")
    Running(lambda: put(emitter, 6)).result(5)
    assert emitter.drain(5)
    assert sorted(numbers(rig.collector.events)) == list(range(6))


def test_the_log_is_not_flooded(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastemit")
    emitter = rig.emitter(event_store=Faulty("add_event"))
    put(emitter, 500)
    assert len(complaints(caplog).splitlines()) == 1
    assert emitter.stats().dropped_events["overflow"] == 500


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("method", ["get_events_batch", "size", "cleanup", "add_event"])
def test_no_fault_is_told_while_a_lock_is_held(rig: Rig, method: str, background: bool) -> None:
    # A handler of the user's may wait for it: one that tracks what is logged, and runs in another thread.
    asking, store = Asking(), Faulty(method, times=0)
    asking.emitter = rig.emitter(event_store=store, batch_size=2, background=background)
    logger.addHandler(asking)
    try:
        store.times = float("inf")
        Running(lambda: put(asking.emitter, 4)).result(3)
        eventually(lambda: any(f"{method}() raised" in line for line in asking.lines))
    finally:
        logger.removeHandler(asking)
    assert asking.locked == []


# -- fork and exit -----------------------------------------------------------------------------------------------------

_STORES = """
from tests.support.stores import ListStore

class Told(ListStore):
    def after_fork(self):
        self.events = []

class TheSame(ListStore):
    def after_fork(self):
        pass

def in_child(function):
    child = os.fork()
    if not child:
        try:
            function()
            os._exit(0)
        finally:
            # Only after an error.
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], list[int]]]:
    """Runs a script; the numbers of the events that arrived."""
    with rigged() as rig:
        script = Script(rig, tmp_path)

        def run(text: str) -> list[int]:
            assert script(_STORES + text).well
            return script.arrived

        yield run


@needs_fork
def test_a_forked_child_does_not_touch_the_store(run: Callable[[str], list[int]]) -> None:
    assert run("""
store = ListStore()
emitter = Emitter(URL, event_store=store, batch_size=100)
put(emitter)
def child():
    put(emitter, 2, 10)
    assert emitter.close() == 0
    assert len(store.events) == 3
    assert emitter.stats().sent_events == 2
in_child(child)
""") == [0, 1, 2, 10, 11]


@needs_fork
def test_a_forked_child_uses_a_store_that_is_told(run: Callable[[str], list[int]]) -> None:
    assert run("""
store = Told()
emitter = Emitter(URL, event_store=store, batch_size=100)
put(emitter)
def child():
    put(emitter, 2, 10)
    assert len(store.events) == 2
    assert emitter.close() == 0
    assert emitter.stats().sent_events == 2
in_child(child)
""") == [0, 1, 2, 10, 11]


def test_the_end_of_the_process_sends_what_a_store_holds(run: Callable[[str], list[int]]) -> None:
    assert run("put(Emitter(URL, event_store=ListStore(), batch_size=100))") == [0, 1, 2]


@needs_fork
def test_a_forked_child_does_not_count_what_its_store_holds_already(run: Callable[[str], list[int]]) -> None:
    assert run("""
store = TheSame()
emitter = Emitter(URL, event_store=store, batch_size=100)
put(emitter)
def child():
    put(emitter, 2, 10)
    assert emitter.close() == 0
    assert emitter.stats().sent_events == 2
in_child(child)
""") == [0, 0, 1, 1, 2, 2, 10, 11]


@needs_fork
def test_a_forked_child_does_without_a_store_whose_after_fork_raises(run: Callable[[str], list[int]]) -> None:
    assert run("""
class Raising(ListStore):
    def after_fork(self):
        raise OSError("no store today")
emitter = Emitter(URL, event_store=Raising(), batch_size=100)
put(emitter)
def child():
    put(emitter, 2, 10)
    assert emitter.close() == 0
    assert emitter.stats().sent_events == 2
in_child(child)
""") == [0, 1, 2, 10, 11]
