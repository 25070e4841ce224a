"""A store of the user's and the native buffer find at the same events that there is enough to send."""

from __future__ import annotations

import sys

import pytest

from fastemit._buffer import EventBuffer
from fastemit._stores import StoreBuffer
from tests.support.delivery import Rig, numbers, put
from tests.support.faulty_stores import Faulty
from tests.support.stores import ListStore

REQUEST = 10_000
EVENT = {"n": "0" * 100}


class SaysItsCapacity(ListStore):
    """A store that says how much it takes, as snowplow_tracker's does."""

    @property
    def buffer_capacity(self) -> int:
        return self.capacity


def both(capacity: int, batch_size: int, byte_limit: int | None) -> tuple[EventBuffer, StoreBuffer]:
    native = EventBuffer(capacity, sys.maxsize, REQUEST, batch_size, byte_limit)
    staged = EventBuffer(10_000, sys.maxsize, REQUEST, 1, keep=True)
    return native, StoreBuffer(SaysItsCapacity(capacity), staged, batch_size, byte_limit, pytest.fail)


@pytest.mark.parametrize("linger", [False, True])
@pytest.mark.parametrize(
    ("capacity", "batch_size", "byte_limit"),
    [(20, 5, None), (20, 100, None), (20, 100, 700), (21, 1, None), (1_000, 200, 1 << 40), (1, 1, None)],
)
def test_both_are_due_and_wanted_at_the_same_events(
    capacity: int, batch_size: int, byte_limit: int | None, linger: bool
) -> None:
    queues = both(capacity, batch_size, byte_limit)
    told = []
    for queue in queues:
        queue.linger = linger
        said = [(queue.due, queue.wanted)]
        # One more than there is room for: its refusal makes it due.
        for _ in range(capacity + 1):
            queue.append(EVENT)
            said.append((queue.due, queue.wanted))
        told.append(said)
    native, store = told
    assert store == native
    assert native[0] == (False, False)
    assert native[-1] == (True, True)


@pytest.mark.parametrize("background", [True, False])
def test_a_store_that_is_full_is_sent_before_it_refuses_an_event(rig: Rig, background: bool) -> None:
    store = SaysItsCapacity(4)
    emitter = rig.emitter(event_store=store, batch_size=50, background=background)
    put(emitter, 4)
    rig.collector.wait_for(4)
    assert numbers(rig.collector.events) == [0, 1, 2, 3]
    assert emitter.stats().dropped_events["overflow"] == 0


@pytest.mark.parametrize("size", [10**30, sys.maxsize])
def test_a_size_past_all_bounds_does_no_harm(rig: Rig, size: int) -> None:
    emitter = rig.emitter(event_store=Faulty("size", instead=lambda _: size), batch_size=2)
    put(emitter, 6)
    rig.collector.wait_for(6)
    assert sorted(numbers(rig.collector.events)) == [0, 1, 2, 3, 4, 5]
    stats = emitter.stats()
    assert 0 <= stats.queued_events <= 6
    assert stats.dropped_events["overflow"] == 0


@pytest.mark.parametrize("capacity", [-1, 0, 10**30])
def test_a_capacity_past_all_bounds_does_no_harm(rig: Rig, capacity: int) -> None:
    class Says(ListStore):
        buffer_capacity = capacity

    emitter = rig.emitter(event_store=Says(), batch_size=3)
    put(emitter, 3)
    rig.collector.wait_for(3)
    assert numbers(rig.collector.events) == [0, 1, 2]
