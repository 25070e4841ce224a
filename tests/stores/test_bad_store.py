"""Event stores whose methods raise: it is logged, and nothing hangs, spins or loses what can be kept."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fastemit import InMemoryEventStore, logger
from fastemit._stores import books
from fastemit.testing import Collector
from tests.stores.conftest import AFTER_A_FAULT
from tests.support.delivery import Rig, Running, numbers, put, run_script, within
from tests.support.emitters import accounted
from tests.support.faulty_stores import Faulty, complaints, no_busy_loop
from tests.support.logs import Asking
from tests.support.slow import slow
from tests.support.stores import Event, PeekStore
from tests.support.waiting import until

# -- methods that raise ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, slow(False)])
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
    until(lambda: set(numbers(rig.collector.events)) == {0, 1, 2, 3}, 5)


@pytest.mark.slow
def test_a_store_at_fault_is_left_alone_for_a_second(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "AFTER_A_FAULT", AFTER_A_FAULT)
    emitter = rig.emitter(event_store=Faulty("get_events_batch", times=1), batch_size=1)
    with within(1.5, at_least=0.95):
        put(emitter)
        rig.collector.wait_for(1)


def test_events_are_not_lost_when_cleanup_does_not_take_them_back(rig: Rig) -> None:
    rig.collector.respond(500)
    store = Faulty("cleanup", times=1)
    emitter = rig.emitter(event_store=store, max_retry_delay_seconds=0.01)
    put(emitter, 3)
    emitter.drain(3)
    until(lambda: sorted(numbers(rig.collector.events)) == [0, 1, 2], 3)


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
    until(lambda: emitter.drain(1))
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
        until(lambda: any(f"{method}() raised" in line for line in asking.lines))
    finally:
        logger.removeHandler(asking)
    assert asking.locked == []
