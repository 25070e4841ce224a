"""The owner of the files is called when there is something to do, and a view keeps a file from being used again."""

from __future__ import annotations

from queue import SimpleQueue

import pytest

from fastemit._buffer import EventBuffer
from tests.support.buffer import must_take, numbered, put
from tests.support.segment_files import Shelf


def filed(shelf: Shelf) -> EventBuffer:
    return shelf.serve(EventBuffer(1000, 1_000_000, 1024, 1000, files=True))


def test_a_sender_is_woken_in_a_backoff_when_spare_files_get_few(shelf: Shelf) -> None:
    buffer = filed(shelf)
    shelf.tend()
    buffer.hold = True
    inbox = SimpleQueue[None]()
    assert buffer.arm(inbox, buffer.signals)
    put(buffer, {"n": 1})
    assert inbox.qsize() == 1
    assert buffer.wants_service
    shelf.tend()
    assert buffer.arm(inbox, buffer.signals)
    put(buffer, *numbered(15))
    assert inbox.qsize() == 1


def test_nobody_lies_down_while_there_is_something_to_do_for_the_files(shelf: Shelf) -> None:
    buffer = filed(shelf)
    shelf.tend()
    put(buffer, {"n": 1})
    shelf.tend()
    inbox = SimpleQueue[None]()
    must_take(buffer).sent()
    assert buffer.wants_service
    assert not buffer.arm(inbox, buffer.signals)
    assert buffer.finished() == [1]
    assert buffer.arm(inbox, buffer.signals)


def test_a_disk_that_stays_full_does_not_keep_a_sender_awake(shelf: Shelf) -> None:
    buffer = filed(shelf)
    put(buffer, {"n": 1})
    shelf.full = True
    shelf.tend()
    assert buffer.spare_files < buffer.spares_wanted
    assert buffer.arm(SimpleQueue[None](), buffer.signals)


def test_more_mapped_files_than_there_should_be_ask_for_service(shelf: Shelf) -> None:
    buffer = filed(shelf)
    buffer.most_mapped = 4
    for _ in range(8):
        put(buffer, *numbered(16))
        shelf.tend(0 if buffer.wants_service else None)
        assert buffer.mapped_files <= 4


@pytest.mark.parametrize("settle", ["sent", "give_back"])
def test_a_file_is_neither_finished_nor_parked_while_a_view_of_it_is_out(shelf: Shelf, settle: str) -> None:
    buffer = filed(shelf)
    put(buffer, *numbered(64))
    batch = must_take(buffer)
    view = batch.body()
    body = bytes(view)
    getattr(batch, settle)()
    put(buffer, *numbered(16))
    shelf.tend(0)
    assert shelf.path(1).exists()
    assert 1 in shelf.maps
    if settle == "sent":
        assert view == body
    view.release()
    if settle == "sent":
        assert buffer.finished() == [1]
    else:
        assert 1 in buffer.park(0)


def test_the_last_file_is_never_parked(shelf: Shelf) -> None:
    buffer = filed(shelf)
    put(buffer, *numbered(5))
    assert buffer.park(0) == []
    put(buffer, *numbered(5))
    assert shelf.made == 1


def test_more_that_promises_a_file_and_lends_none_is_asked_a_bounded_number_of_times(shelf: Shelf) -> None:
    buffer = filed(shelf)
    calls: list[int] = []

    def more(size: int) -> bool:
        calls.append(size)
        return True

    buffer.more = more
    assert buffer.append({"n": 1}) == b'{"n":"1"}'
    assert 1 <= len(calls) <= 10
