"""The books over a user's store: what it holds, what is on its way, and what the counters say of both."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from fastemit import Emitter, EmitterStats
from fastemit._delivery.retry import POISON_AFTER
from tests.support.delivery import DEADLINE, Rig, Running, numbers, put, run_script
from tests.support.emitters import accounted
from tests.support.slow import slow
from tests.support.stores import Event, FrontStore, ListStore, PeekStore
from tests.support.waiting import until


def sent_and_dropped(stats: EmitterStats) -> tuple[int, int]:
    return stats.sent_events, sum(stats.dropped_events.values())


# -- what is on its way is not lost ------------------------------------------------------------------------------------


def test_the_other_half_of_a_batch_that_was_split_is_not_called_lost(rig: Rig) -> None:
    emitter = rig.emitter(event_store=FrontStore())
    put(emitter, 4)
    rig.collector.respond(413)
    rig.collector.respond(503)
    assert not emitter.drain(10)
    assert (sent_and_dropped(emitter.stats()), accounted(emitter.stats())) == ((0, 0), 4)
    assert emitter.drain(10)
    assert sent_and_dropped(emitter.stats()) == (4, 0)


def test_what_another_sender_has_is_not_called_lost(rig: Rig) -> None:
    emitter = rig.async_emitter(event_store=ListStore(), thread_count=2, max_request_bytes=1024)
    go_on = threading.Event()
    both = threading.Barrier(2)
    rig.collector.respond(lambda _: (both.wait(DEADLINE), 503)[1])
    rig.collector.respond(lambda _: (both.wait(DEADLINE), go_on.wait(DEADLINE), 200)[2])
    for number in range(2):
        emitter.input({"n": f"{number:06}", "x": "y" * 700})
    emitter.async_flush()
    until(lambda: emitter.stats().retried_events == 1)
    assert (emitter.stats().in_flight_events, accounted(emitter.stats())) == (1, 2)
    go_on.set()
    until(lambda: emitter.stats().sent_events == 1)
    assert sent_and_dropped(emitter.stats()) == (1, 0)
    until(lambda: sent_and_dropped(emitter.stats()) == (2, 0))


class Reluctant(ListStore):
    """Does not take back what is to be retried the first time."""

    asked = 0

    def cleanup(self, batch: list[Event], need_retry: bool) -> None:
        self.asked += need_retry
        if need_retry and self.asked == 1:
            raise OSError("not now")
        super().cleanup(batch, need_retry)


def test_what_the_store_has_yet_to_take_back_is_not_called_lost(rig: Rig) -> None:
    emitter = rig.emitter(event_store=Reluctant())
    put(emitter, 4)
    rig.collector.respond(413)
    rig.collector.respond(503)
    assert not emitter.drain(10)
    until(lambda: len(rig.collector.events) == 4)
    until(lambda: sent_and_dropped(emitter.stats()) == (4, 0))


# -- what is no longer there is not waited for -------------------------------------------------------------------------


def test_flush_ends_when_the_store_has_lost_everything(rig: Rig) -> None:
    store = ListStore()
    emitter = rig.emitter(event_store=store)
    put(emitter, 3)
    store.events.clear()
    Running(emitter.flush).result()
    assert sent_and_dropped(emitter.stats()) == (0, 3)


def test_flush_ends_when_all_that_the_store_gives_is_no_event(rig: Rig) -> None:
    store = ListStore()
    emitter = rig.emitter(event_store=store)
    put(emitter, 3)
    store.events[:] = [1, 2, 3]  # type: ignore[list-item]
    Running(emitter.flush).result()
    assert sent_and_dropped(emitter.stats()) == (0, 3)


def test_a_thread_that_waits_gets_the_room_of_events_that_are_gone(rig: Rig) -> None:
    store = ListStore(capacity=3)
    emitter = rig.emitter(event_store=store, overflow="block")
    put(emitter, 1)
    rig.shut_the_gate(emitter)
    put(emitter, 2, 1)
    waiting = Running(lambda: put(emitter, 1, 3))
    assert waiting.goes_on()
    store.events.clear()
    emitter.async_flush()
    waiting.result()
    assert sent_and_dropped(emitter.stats()) == (0, 3)


class Mute(PeekStore):
    """Its size cannot be told while a batch is taken: before it, or after it."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when
        self.silent = False

    def get_events_batch(self) -> Any:
        self.silent = self.when == "after"
        return super().get_events_batch()

    def size(self) -> Any:
        if self.silent:
            self.silent = False
            raise OSError("not now")
        return super().size()


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_out_is_not_counted_twice_where_the_size_could_not_be_told(rig: Rig, when: str) -> None:
    store = Mute(when)
    emitter = rig.emitter(event_store=store)
    put(emitter, 5)
    rig.collector.respond(lambda _: (answer.wait(DEADLINE), 200)[1])
    answer = threading.Event()
    original = emitter._buffer._stage

    def stage() -> None:
        store.silent = when == "before"
        original()

    emitter._buffer._stage = stage
    flushed = Running(lambda: emitter.drain(DEADLINE))
    until(lambda: emitter.stats().in_flight_events == 5)
    # A flush counts what is there.
    emitter.async_flush()
    answer.set()
    assert flushed.result()
    assert sent_and_dropped(emitter.stats()) == (5, 0)


# -- what was at fault is asked again ----------------------------------------------------------------------------------


class Moody(ListStore):
    """Raises in `fails` while it is `ill`, so many times."""

    def __init__(self, fails: str, capacity: int = 10_000) -> None:
        super().__init__(capacity)
        self.fails = fails
        self.ill = 0

    def _try(self, name: str) -> None:
        if name == self.fails and self.ill:
            self.ill -= 1
            raise OSError("not now")

    def get_events_batch(self) -> Any:
        self._try("get_events_batch")
        return super().get_events_batch()

    def size(self) -> Any:
        self._try("size")
        return super().size()


def test_a_full_store_is_asked_again_although_nobody_adds_to_it(rig: Rig) -> None:
    store = Moody("get_events_batch", capacity=3)
    emitter = rig.emitter(event_store=store, overflow="block")
    store.ill = 1
    Running(lambda: put(emitter, 4)).result()
    assert emitter.drain(DEADLINE)
    assert sent_and_dropped(emitter.stats()) == (4, 0)


def test_a_byte_limit_that_was_reached_is_not_forgotten_by_a_fault(rig: Rig) -> None:
    store = Moody("get_events_batch")
    emitter = rig.emitter(event_store=store, byte_limit=100)
    store.ill = 1
    put(emitter, 3)
    until(lambda: emitter.stats().sent_events == 3)


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_a_size_that_cannot_be_told_just_when_there_is_enough_to_send_is_asked_again(rig: Rig, times: int) -> None:
    store = Moody("size")
    emitter = rig.emitter(event_store=store, batch_size=3)
    put(emitter, 3)
    until(lambda: emitter.stats().sent_events == 3)
    put(emitter, 2, 3)
    until(lambda: emitter._buffer._sleepers and not emitter._buffer.linger)
    store.ill = times
    put(emitter, 1, 5)
    until(lambda: emitter.stats().sent_events == 6)


class Shy(ListStore):
    """Tells its size to the senders alone."""

    def size(self) -> Any:
        if not threading.current_thread().name.startswith("fastemit-sender"):
            raise OSError("none of your business")
        return super().size()


def test_a_look_at_a_store_that_failed_does_not_put_off_the_next_attempt(rig: Rig) -> None:
    emitter = rig.emitter(event_store=Shy())
    put(emitter, 3)
    emitter.async_flush()
    until(lambda: emitter.drain(0) and emitter.stats().sent_events == 3)


# -- a store that fills up is emptied in time --------------------------------------------------------------------------


class Frank(ListStore):
    """Says how much it takes."""

    @property
    def buffer_capacity(self) -> int:
        return self.capacity


def linger(emitter: Emitter) -> None:
    """As just after a request, for long."""
    emitter._delivery._schedule.linger = emitter._delivery._schedule._linger_until = 1e9
    emitter._buffer.linger = True


def test_a_sender_does_not_linger_while_a_store_that_says_how_much_it_takes_fills_up(rig: Rig) -> None:
    emitter = rig.async_emitter(event_store=Frank(10), batch_size=3)
    linger(emitter)
    put(emitter, 4)
    assert not emitter._buffer.wanted
    put(emitter, 1)
    until(lambda: emitter.stats().sent_events == 5)


def test_a_sender_does_not_linger_while_a_store_fills_up_that_has_refused_an_event_before(rig: Rig) -> None:
    emitter = rig.async_emitter(event_store=ListStore(10), batch_size=1000)
    put(emitter, 11)
    assert emitter.drain(DEADLINE)
    emitter.batch_size = 3
    linger(emitter)
    put(emitter, 4)
    assert not emitter._buffer.wanted
    put(emitter, 1)
    until(lambda: emitter.stats().sent_events == 15)


# -- a store's method may be interrupted by anything -------------------------------------------------------------------


@pytest.mark.parametrize("call", ["stats", slow("flush"), slow("drain"), "close"])
def test_what_interrupts_a_store_may_call_anything_on_the_emitter(rig: Rig, tmp_path: Path, call: str) -> None:
    """In a process of its own, since a deadlock would be the end of this one too."""
    done = run_script(
        tmp_path,
        f"""
        from tests.support.delivery import Running
        from tests.support.stores import ListStore

        class Interrupted(ListStore):
            def add_event(self, payload):
                if payload["n"] == "9":
                    # A sender looks what there is to do meanwhile, and may hold a lock for that.
                    assert Running(emitter.async_flush).goes_on()
                    emitter.{call}()
                return super().add_event(payload)

        emitter = Emitter(URL, event_store=Interrupted())
        put(emitter)
        adding = Running(lambda: put(emitter, 1, 9))
        adding._thread.join(5)
        os._exit(1 if adding._thread.is_alive() else 0)
        """,
        rig.collector.url,
    )
    assert done.status == 0


# -- who waits for a store, waits --------------------------------------------------------------------------------------


class Busy(ListStore):
    """Counts how often it is asked to take an event."""

    asked = 0

    def add_event(self, payload: Event) -> Any:
        self.asked += 1
        return super().add_event(payload)


def test_a_thread_that_waits_for_room_does_not_spin_after_a_batch_has_come_back(rig: Rig) -> None:
    store = Busy(capacity=3)
    emitter = rig.emitter(event_store=store, overflow="block")
    rig.collector.respond(503, times=None, headers={"Retry-After": "60"})
    put(emitter, 3)
    waiting = Running(lambda: put(emitter, 1, 3))
    until(lambda: emitter.retry_delay == 60)
    until(lambda: emitter.stats().retried_events == 3)
    before = store.asked
    assert waiting.goes_on()
    # Once for the batch, and now and then.
    assert store.asked - before < 10
    emitter.close(0)
    waiting.result()


# -- GET ---------------------------------------------------------------------------------------------------------------


def test_each_event_of_get_is_sent_by_itself_after_many_server_errors_too(rig: Rig) -> None:
    emitter = rig.emitter(event_store=FrontStore(), method="get", max_retry_delay_seconds=0.01)
    rig.collector.respond(500, times=POISON_AFTER)
    put(emitter, 12)
    assert emitter.close(DEADLINE) == 0
    assert sorted(numbers(rig.collector.events)) == list(range(12))
