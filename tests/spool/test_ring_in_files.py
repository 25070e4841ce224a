"""A buffer whose events lie in mapped files: they are there when `append` returns, and marked once they are settled."""

from __future__ import annotations

from pathlib import Path

from fastemit._buffer import EventBuffer
from fastemit._files import read_header
from tests.support.buffer import drain, must_take, numbered, numbers, of_size, put
from tests.support.segment_files import RECOVERED, Shelf, map_file, recover_all


def filed(shelf: Shelf, capacity: int = 1000, max_bytes: int = 1_000_000) -> EventBuffer:
    return shelf.serve(EventBuffer(capacity, max_bytes, 1024, 10, files=True))


def left_in(folder: Path) -> list[int]:
    """The numbers of the events that a process that died now would leave."""
    buffer = EventBuffer(100_000, 1 << 30, 1024, 10, files=True)
    recover_all(folder, buffer)
    return numbers(drain_without_settling(buffer))


def drain_without_settling(buffer: EventBuffer) -> list[dict[str, str]]:
    return [{"n": event["n"]} for event in buffer.snapshot()]


def test_an_event_is_in_its_file_when_append_returns(shelf: Shelf) -> None:
    buffer = filed(shelf)
    put(buffer, *numbered(100))
    assert left_in(shelf.folder) == list(range(100))


def test_what_is_sent_is_marked_and_its_file_finished(shelf: Shelf) -> None:
    buffer = filed(shelf)
    put(buffer, *numbered(40))
    must_take(buffer).sent()
    assert left_in(shelf.folder) == list(range(16, 40))
    assert buffer.finished() == [1]
    assert numbers(drain(buffer)) == list(range(16, 40))
    assert sorted(buffer.finished()) == [2, 3]


def test_what_is_in_flight_is_left_too(shelf: Shelf) -> None:
    buffer = filed(shelf)
    put(buffer, *numbered(40))
    part, whole = must_take(buffer, 200), must_take(buffer)
    for batch in (part, whole):
        batch.stamp(1_700_000_000_000)
        bytes(batch.body())
    unsent = [*range(len(part)), *range(16, 40)]
    assert left_in(shelf.folder) == list(range(40))
    whole.sent()
    assert left_in(shelf.folder) == unsent
    part.give_back()
    assert numbers(drain(buffer)) == unsent


def test_halves_are_settled_one_by_one(shelf: Shelf) -> None:
    buffer = filed(shelf)
    put(buffer, *numbered(16))
    batch = must_take(buffer)
    half = batch.split()
    for each in (half, batch):
        bytes(each.body())
    assert left_in(shelf.folder) == list(range(16))
    half.sent()
    assert left_in(shelf.folder) == list(range(8, 16))
    batch.dropped("rejected")
    assert left_in(shelf.folder) == []
    assert buffer.finished() == [1]


def test_the_oldest_that_is_dropped_is_not_left(shelf: Shelf) -> None:
    buffer = filed(shelf, capacity=20)
    put(buffer, *numbered(20))
    assert buffer.drop_oldest(EventBuffer.encode({})) == 1
    assert left_in(shelf.folder) == list(range(1, 20))


def test_a_segment_that_was_given_back_is_filled_further(shelf: Shelf) -> None:
    buffer = filed(shelf)
    put(buffer, *numbered(2))
    must_take(buffer).give_back()
    put(buffer, *numbered(3, first=2))
    assert shelf.made == 1
    assert left_in(shelf.folder) == list(range(5))
    assert numbers(drain(buffer)) == list(range(5))


def test_a_large_event_gets_a_file_of_its_size(shelf: Shelf) -> None:
    buffer = filed(shelf)
    put(buffer, of_size(50_000))
    assert read_header(map_file(shelf.path(shelf.made))).capacity > 50_000
    assert must_take(buffer).oversize


def test_an_event_for_which_no_file_is_to_be_had_is_refused(shelf: Shelf) -> None:
    buffer = filed(shelf)
    put(buffer, *numbered(16))
    shelf.full = True
    before = buffer.counts()
    assert buffer.append({"n": 16}) == b'{"n":"16"}'
    assert buffer.counts() == before
    assert buffer.due
    shelf.full = False
    put(buffer, {"n": 16})
    assert numbers(drain(buffer)) == list(range(17))


def test_parked_files_are_not_mapped_and_come_back_when_they_are_taken(shelf: Shelf) -> None:
    buffer = filed(shelf)
    put(buffer, *numbered(16 * 20))
    shelf.tend(keep=1)
    assert buffer.mapped_files == 2 + shelf.spares
    assert buffer.check() == 0
    assert numbers(drain(buffer)) == list(range(16 * 20))


def test_a_parked_file_that_cannot_be_had_stops_take_and_can_be_given_up(shelf: Shelf) -> None:
    buffer = filed(shelf)
    put(buffer, *numbered(16 * 4))
    assert buffer.park(1) == [2, 3]
    must_take(buffer).sent()
    buffer.bring = lambda number: False
    assert buffer.take() is None
    assert buffer.missing() == [2]
    assert buffer.forget(2)[0] == 16
    assert buffer.missing() == [3]
    buffer.bring = shelf.bring
    assert numbers(drain(buffer)) == list(range(32, 64))


def test_recovered_events_go_first_and_are_marked_in_their_own_file(shelf: Shelf) -> None:
    put(filed(shelf), *numbered(40))
    own = Shelf(shelf.folder / "own")
    own.folder.mkdir()
    buffer = filed(own)
    put(buffer, *numbered(5, first=40))
    recover_all(shelf.folder, buffer)
    assert buffer.check() == 0
    assert numbers(drain(buffer)) == list(range(45))
    assert left_in(shelf.folder) == []
    assert sorted(buffer.finished()) == [own.made, *(RECOVERED + number for number in shelf.numbers())]
