"""A forked child starts empty; what was queued and in flight is the parent's to send."""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest

from fastemit._batch import Batch
from fastemit._buffer import EventBuffer
from tests.support.buffer import drain, in_forked_child, make_buffer, must_take, numbered, numbers, put

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

EMPTY = [0, 0, 0, 0, 0, 0, {"overflow": 0, "rejected": 0, "oversize": 0, "closed": 0}]


def busy_buffer() -> tuple[EventBuffer, Batch]:
    """One with events in flight (0 to 19), queued (20 to 39), sent and dropped."""
    buffer = make_buffer()
    buffer.count_dropped("overflow")
    put(buffer, {"gone": 1})
    must_take(buffer).sent()
    put(buffer, *numbered(20))
    batch = must_take(buffer)
    put(buffer, *numbered(20, first=20))
    return buffer, batch


def state(buffer: EventBuffer) -> list[Any]:
    return list(buffer.counts())


def test_a_child_queues_nothing_before_after_fork() -> None:
    buffer, _batch = busy_buffer()

    def child() -> list[Any]:
        answers = [buffer.append({}), buffer.append_encoded(b"{}", True)]
        return [buffer.forked, [answer == b"{}" for answer in answers]]

    assert in_forked_child(child) == [True, [True, True]]
    assert not buffer.forked


def test_a_child_starts_empty() -> None:
    buffer, _batch = busy_buffer()
    buffer.hold = True
    buffer.starving = 1
    buffer.notify = 0
    buffer.signal()
    assert buffer.arm(SimpleQueue[None](), buffer.signals)

    def child() -> list[Any]:
        buffer.after_fork()
        state_before = state(buffer)
        rest = [buffer.forked, buffer.hold, buffer.starving, buffer.notify, buffer.signals, buffer.next_seq]
        put(buffer, *numbered(3))
        return [state_before, rest, buffer.next_seq, numbers(drain(buffer)), buffer.check()]

    assert in_forked_child(child) == [EMPTY, [False, False, 0, 2, 0, 0], 3, [0, 1, 2], 0]


def test_a_child_forgets_the_sleepers_of_the_parent() -> None:
    buffer = make_buffer(batch_size=1)
    inbox = SimpleQueue[None]()
    assert buffer.arm(inbox, buffer.signals)

    def child() -> int:
        buffer.after_fork()
        put(buffer, {})
        return inbox.qsize()

    assert in_forked_child(child) == 0
    put(buffer, {})
    assert inbox.qsize() == 1


def test_a_parent_keeps_everything() -> None:
    buffer, batch = busy_buffer()
    before = state(buffer)

    def child() -> int:
        buffer.after_fork()
        put(buffer, *numbered(5, first=100))
        return len(drain(buffer))

    assert in_forked_child(child) == 5
    assert state(buffer) == before
    batch.give_back()
    assert numbers(drain(buffer)) == list(range(40))


def test_a_child_of_a_child_is_forked_again() -> None:
    buffer = make_buffer()

    def grandchild() -> bool:
        return buffer.forked

    def child() -> list[bool]:
        buffer.after_fork()
        return [buffer.forked, in_forked_child(grandchild)]

    assert in_forked_child(child) == [False, True]


def split(batch: Batch) -> None:
    half = batch.split()
    half.give_back()
    batch.sent()


SETTLE: list[Callable[[Batch], None]] = [
    Batch.sent,
    Batch.give_back,
    Batch.yield_place,
    lambda batch: batch.dropped("rejected"),
    lambda batch: None,
    split,
]
IDS = ["sent", "give_back", "yield_place", "dropped", "collected", "split"]


@pytest.mark.parametrize("settle", SETTLE, ids=IDS)
@pytest.mark.parametrize("viewed", [False, True])
def test_a_child_settles_an_inherited_batch_without_effect(settle: Callable[[Batch], None], viewed: bool) -> None:
    buffer, batch = busy_buffer()
    batches = [batch]

    def child() -> list[Any]:
        buffer.after_fork()
        view = batches[0].body() if viewed else None
        settle(batches.pop())
        if view is not None:
            view.release()
        first = [state(buffer), buffer.check()]
        put(buffer, *numbered(3))
        sent = numbers(drain(buffer))
        return [*first, sent, buffer.check(), buffer.unsettled_events]

    del batch
    assert in_forked_child(child) == [EMPTY, 0, [0, 1, 2], 0, 0]
    assert len(batches[0]) == 20


@pytest.mark.parametrize("settle", SETTLE, ids=IDS)
def test_a_batch_settled_in_the_child_before_after_fork_is_forgotten(settle: Callable[[Batch], None]) -> None:
    buffer, batch = busy_buffer()
    batches = [batch]

    def child() -> list[Any]:
        settle(batches.pop())
        buffer.after_fork()
        return [state(buffer), buffer.check(), buffer.segments]

    del batch
    assert in_forked_child(child) == [EMPTY, 0, 0]


def test_an_inherited_batch_can_still_be_read() -> None:
    buffer, batch = busy_buffer()

    def child() -> list[Any]:
        buffer.after_fork()
        batch.stamp(5)
        return [len(batch), numbers(batch.decode())]

    assert in_forked_child(child) == [20, list(range(20))]


@pytest.mark.parametrize("settle", [Batch.sent, Batch.give_back])
def test_memory_under_an_inherited_view_is_freed_with_the_view(settle: Callable[[Batch], None]) -> None:
    buffer, batch = busy_buffer()
    view = batch.body()
    body = bytes(view)
    settle(batch)

    def child() -> list[Any]:
        buffer.after_fork()
        same = bytes(view)[:80] == body[:80]
        view.release()
        return [same, buffer.segments == buffer.spare_segments, buffer.check()]

    assert in_forked_child(child) == [True, True, 0]
