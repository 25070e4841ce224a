"""A forked child has its parent's files mapped, and writes not one byte into them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastemit._batch import Batch
from fastemit._buffer import EventBuffer
from tests.support.buffer import drain, in_forked_child, must_take, numbered, numbers, put
from tests.support.segment_files import Shelf


def busy(shelf: Shelf) -> tuple[EventBuffer, list[Batch]]:
    """One with a whole file in flight, a part of one, and the rest queued, some of it parked."""
    buffer = shelf.serve(EventBuffer(1000, 1_000_000, 1024, 10, files=True))
    put(buffer, *numbered(16 * 6))
    batches = [must_take(buffer), must_take(buffer, 200)]
    shelf.tend(1)
    return buffer, batches


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.seg")}


def use(batch: Batch) -> None:
    """All that a request does."""
    batch.stamp(1_234_567_890_123)
    with batch.body() as body:
        bytes(body)
    assert {event["stm"] for event in batch.decode()} == {"1234567890123"}


def split(batch: Batch) -> None:
    half = batch.split()
    use(half)
    half.give_back()
    batch.sent()


SETTLE: dict[str, Callable[[Batch], None]] = {
    "sent": Batch.sent,
    "give_back": Batch.give_back,
    "yield_place": Batch.yield_place,
    "dropped": lambda batch: batch.dropped("rejected"),
    "split": split,
    "collected": lambda batch: None,
}


@pytest.mark.parametrize("started_over", [True, False])
@pytest.mark.parametrize("how", SETTLE)
def test_a_child_that_uses_and_settles_what_it_inherited_writes_into_no_file(
    shelf: Shelf, how: str, started_over: bool
) -> None:
    buffer, batches = busy(shelf)
    before = bytes_of(shelf.folder)

    def child() -> list[Any]:
        if started_over:
            buffer.after_fork()
        while batches:
            use(batches[-1])
            SETTLE[how](batches.pop())
        buffer.after_fork()
        return [buffer.check(), buffer.unsettled_events, buffer.mapped_files, buffer.spare_files, buffer.finished()]

    assert in_forked_child(child) == [0, 0, 0, 0, []]
    assert bytes_of(shelf.folder) == before
    for batch in batches:
        batch.give_back()
    assert numbers(drain(buffer)) == list(range(96))


def test_a_child_appends_to_no_file_of_its_parent(shelf: Shelf) -> None:
    buffer, _batches = busy(shelf)
    before = bytes_of(shelf.folder)
    own = Shelf(shelf.folder / "child")
    own.folder.mkdir()

    def child() -> list[Any]:
        refused = buffer.append({"n": 1}) == b'{"n":"1"}'
        buffer.after_fork()
        own.serve(buffer)
        put(buffer, *numbered(40, first=1000))
        return [refused, own.made, numbers(drain(buffer)), buffer.check()]

    assert in_forked_child(child) == [True, 3, list(range(1000, 1040)), 0]
    assert bytes_of(shelf.folder) == before


def test_a_child_of_a_child_writes_into_no_file_of_either(shelf: Shelf) -> None:
    buffer, _batches = busy(shelf)
    own = Shelf(shelf.folder / "child")
    own.folder.mkdir()
    before = bytes_of(shelf.folder)

    def grandchild() -> list[Any]:
        buffer.after_fork()
        return [buffer.unsettled_events, buffer.mapped_files]

    def child() -> list[Any]:
        buffer.after_fork()
        own.serve(buffer)
        put(buffer, *numbered(40, first=1000))
        mine = bytes_of(own.folder)
        return [in_forked_child(grandchild), bytes_of(own.folder) == mine, numbers(drain(buffer))]

    assert in_forked_child(child) == [[0, 0], True, list(range(1000, 1040))]
    assert bytes_of(shelf.folder) == before


def test_a_view_of_a_parents_file_can_be_read_in_the_child(shelf: Shelf) -> None:
    buffer, batches = busy(shelf)
    view = batches[0].body()
    body = bytes(view)

    def child() -> list[Any]:
        buffer.after_fork()
        shelf.maps.clear()
        batches.clear()
        same = bytes(view) == body
        view.release()
        return [same, buffer.check()]

    assert in_forked_child(child) == [True, 0]


def test_a_fork_in_the_middle_of_appends_leaves_the_parent_whole(shelf: Shelf) -> None:
    # Files of 64 kB: each is mapped, and there is no end of them.
    buffer = shelf.serve(EventBuffer(10_000_000, 1 << 30, 65536, 10, files=True))
    ending = threading.Event()
    appended: list[int] = []

    def produce() -> None:
        for number in range(1 << 30):
            if ending.is_set():
                return
            put(buffer, {"n": number})
            appended.append(number)

    thread = threading.Thread(target=produce)
    thread.start()
    try:

        def child() -> list[Any]:
            buffer.after_fork()
            return [buffer.check(), buffer.unsettled_events, buffer.mapped_files]

        for _ in range(20):
            assert in_forked_child(child) == [0, 0, 0]
    finally:
        ending.set()
        thread.join()
    assert buffer.check() == 0
    assert numbers(drain(buffer)) == appended
