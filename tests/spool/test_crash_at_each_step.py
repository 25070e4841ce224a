"""A debug build is killed at each step of writing its files, one by one; a process after it finds what is due."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fastemit import _batch, _buffer, _files
from fastemit._buffer import EventBuffer
from tests.support.buffer import must_take, put
from tests.support.crashes import END, IN, Books, Teller, killed_after
from tests.support.segment_files import RECOVERED, Shelf, map_file, recover_all

NEVER = 1 << 40
#: Each counts the steps of its own: appending and taking; settling and halving; making files and looking through them.
EXTENSIONS = {"_buffer": _buffer.die_at_step, "_batch": _batch.die_at_step, "_files": _files.die_at_step}


def filed(folder: Path, capacity: int = 1000) -> tuple[Shelf, EventBuffer]:
    shelf = Shelf(folder)
    return shelf, shelf.serve(EventBuffer(capacity, 1_000_000, 1024, 10, files=True))


def fill_and_settle(folder: Path, teller: Teller) -> None:
    """Files that are filled, sent whole and in part, halved, given back, dropped, and used again."""
    shelf, buffer = filed(folder)
    for number in range(20):
        teller.append(buffer, number)
    teller.settle(must_take(buffer, 200))
    part, rest = must_take(buffer, 200), must_take(buffer)
    for batch in (part, rest):
        batch.stamp(1_700_000_000_000)
        batch.body().release()
    part.give_back()
    half = rest.split()
    half.body().release()
    teller.settle(half, lambda batch: batch.dropped("rejected"))
    rest.yield_place()
    shelf.tend(1)
    for number in range(20, 44):
        teller.append(buffer, number)
    shelf.tend(0)
    while (batch := buffer.take()) is not None:
        batch.body().release()
        teller.settle(batch)
        shelf.tend(0)


def drop_the_oldest(folder: Path, teller: Teller) -> None:
    _, buffer = filed(folder, capacity=20)
    for number in range(20):
        teller.append(buffer, number)
    for number in range(20, 40):
        teller.tell(b"s", number - 20)
        assert buffer.drop_oldest(EventBuffer.encode({"n": number})) == 1
        teller.tell(b"d", number - 20)
        teller.append(buffer, number)


def take_over(folder: Path, teller: Teller) -> None:
    """What another process has left in `before` is sent from there, beside what is new."""
    shelf, buffer = filed(folder)
    recover_all(folder / "before", buffer)
    teller.append(buffer, 100)
    part = must_take(buffer, 200)
    part.body().release()
    for batch in (must_take(buffer), part):
        half = batch.split()
        half.body().release()
        teller.settle(half)
        batch.body().release()
        teller.settle(batch)
    while (batch := buffer.take()) is not None:
        batch.body().release()
        teller.settle(batch)
    # As its owner does: what is done with is looked at, and removed.
    for number in buffer.finished():
        if number >= RECOVERED:
            assert _files.read_header(map_file(folder / "before" / f"{number - RECOVERED:08}.seg")).unsettled == 0
    shelf.tend()


def left_before(folder: Path, events: int) -> set[int]:
    folder.mkdir()
    _, buffer = filed(folder)
    put(buffer, *({"n": number} for number in range(events)))
    must_take(buffer, 150).body().release()
    return set(range(events))


def steps_of(module: str, act: Callable[[Path, Teller], None], folder: Path, before: int = 0) -> int:
    """Kill a process at its first step, another one at its second, and so on, till one comes to its end."""
    for steps in range(1, 5000):
        place = folder / str(steps)
        place.mkdir()
        known = left_before(place / "before", before) if before else set()

        def child(teller: Teller, place: Path = place, steps: int = steps) -> None:
            EXTENSIONS[module](steps)
            act(place, teller)
            EXTENSIONS[module](NEVER)

        books: Books = killed_after(child, NEVER)
        books.told[IN] |= known
        books.balance(*([place / "before", place] if before else [place]))
        shutil.rmtree(place)
        if books.told[END]:
            return steps
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize(("module", "least"), [("_buffer", 130), ("_batch", 40), ("_files", 10)])
def test_a_death_at_any_step_of_filling_and_settling_loses_nothing(tmp_path: Path, module: str, least: int) -> None:
    assert steps_of(module, fill_and_settle, tmp_path) > least


def test_a_death_at_any_step_of_dropping_the_oldest_loses_nothing_else(tmp_path: Path) -> None:
    assert steps_of("_buffer", drop_the_oldest, tmp_path) > 100


# A check writes only what differs, so `_files` has few steps.
@pytest.mark.parametrize(("module", "least"), [("_batch", 40), ("_files", 10)])
def test_a_death_at_any_step_of_taking_over_loses_nothing(tmp_path: Path, module: str, least: int) -> None:
    assert steps_of(module, take_over, tmp_path, before=40) > least


def test_a_step_kills_the_process() -> None:
    assert os.name == "posix"
    books = killed_after(lambda teller: _ended_by_a_step(teller), NEVER)
    assert books.told[END] == set()


def _ended_by_a_step(teller: Teller) -> None:
    _files.die_at_step(1)
    _files.format_file(bytearray(_files.file_size(100)), 1, 0, 100)
