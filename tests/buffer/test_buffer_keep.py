"""A buffer that keeps what its events were made from: hands it out with them, and forgets it when they are settled."""

from __future__ import annotations

import os
import weakref
from typing import Any

import pytest

from fastemit._batch import Batch
from fastemit._buffer import EventBuffer
from fastemit._encode import KeptEvent
from tests.support.buffer import in_forked_child, must_take, numbered, put


class Original(dict[str, Any]):
    """One that can be referred to weakly."""


def buffer_of(count: int, *, query: bool = False, capacity: int = 1000) -> tuple[EventBuffer, list[Any]]:
    """A buffer with so many events, and weak references to what they were made from."""
    buffer = EventBuffer(capacity, 1_000_000, 1024, 1000, query=query, keep=True)
    made = [Original(event) for event in numbered(count)]
    for original in made:
        buffer.append_encoded(KeptEvent(buffer.prepare(original).encoded, original))  # type: ignore[union-attr]
    return buffer, [weakref.ref(original) for original in made]


def kept(references: list[Any]) -> list[int]:
    return [number for number, reference in enumerate(references) if reference() is not None]


@pytest.mark.parametrize("query", [False, True])
def test_an_event_whose_original_is_not_known_is_refused_before_it_is_queued(query: bool) -> None:
    buffer = EventBuffer(10, 1_000_000, 1024, 1, query=query, keep=True)
    with pytest.raises(TypeError, match=r"event must be the KeptEvent that prepare.* not bytes"):
        buffer.append_encoded(b'{"a":"b"}')
    assert (buffer.unsettled_events, buffer.next_seq, buffer.due) == (0, 0, False)
    assert buffer.take() is None


@pytest.mark.parametrize("settle", [Batch.sent, lambda batch: batch.dropped("rejected")], ids=["sent", "dropped"])
def test_originals_go_when_their_events_are_settled(settle: Any) -> None:
    buffer, made = buffer_of(10)
    batch = must_take(buffer, 1, 6)
    half = batch.split()
    settle(half)
    assert kept(made) == [3, 4, 5, 6, 7, 8, 9]
    settle(batch)
    assert kept(made) == [6, 7, 8, 9]


def test_originals_follow_events_that_are_given_back_or_yield_their_place() -> None:
    buffer, made = buffer_of(4)
    first, second = must_take(buffer, 1, 2), must_take(buffer)
    first.yield_place()
    second.give_back()
    assert [event["n"] for event in buffer.snapshot()] == ["2", "3", "0", "1"]
    events = []
    while (batch := buffer.take()) is not None:
        events += [event["n"] for event in batch.decode()]
        batch.sent()
    assert (events, kept(made)) == (["2", "3", "0", "1"], [])


def test_originals_of_events_that_are_dropped_for_room_go() -> None:
    buffer, made = buffer_of(5, capacity=5)
    assert buffer.drop_oldest(buffer.prepare({})) == 1
    assert kept(made) == [1, 2, 3, 4]
    assert [event["n"] for event in buffer.snapshot()] == ["1", "2", "3", "4"]


def test_an_event_that_is_refused_leaves_no_original() -> None:
    buffer, made = buffer_of(6, capacity=5)
    assert kept(made) == [0, 1, 2, 3, 4]
    assert buffer.queued_events == 5


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@needs_fork
@pytest.mark.parametrize("how", ["sent", "dropped", "give_back", "yield_place", "collected"])
def test_a_batch_from_before_a_fork_leaves_the_originals_of_the_child_alone(how: str) -> None:
    buffer, _ = buffer_of(3)
    batches = [must_take(buffer)]

    def child() -> list[Any]:
        buffer.after_fork()
        put(buffer, *[{"n": number} for number in (10, 11, 12)])
        ours = batches[0].ours
        if how == "collected":
            batches.clear()
        elif how == "dropped":
            batches[0].dropped("rejected")
        else:
            getattr(batches[0], how)()
        counts = buffer.counts()
        mine = must_take(buffer)
        return [ours, mine.ours, counts[0], counts[2:6], [event["n"] for event in mine.decode()]]

    assert in_forked_child(child) == [False, True, 3, [0, 0, 0, 0], ["10", "11", "12"]]
    assert batches[0].ours


@needs_fork
def test_a_batch_from_before_a_fork_is_decoded_by_its_own_originals() -> None:
    buffer, _ = buffer_of(3)
    batch = must_take(buffer)

    def child() -> list[Any]:
        buffer.after_fork()
        put(buffer, {"n": 10})
        half = batch.split()
        return [[event["n"] for event in each.decode()] for each in (half, batch, must_take(buffer))]

    assert in_forked_child(child) == [["0"], ["1", "2"], ["10"]]
