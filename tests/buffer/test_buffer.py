"""`EventBuffer` and `Batch`: bounds, bytes, and what becomes of a batch."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from fastemit._batch import Batch
from fastemit._buffer import MAX_REQUEST_BYTES, MIN_REQUEST_BYTES, EventBuffer
from tests.support.buffer import (
    OVERHEAD,
    PREFIX,
    drain,
    events_in,
    make_buffer,
    must_take,
    numbered,
    numbers,
    of_size,
    put,
    size_of,
)

SEGMENT_BYTES = MIN_REQUEST_BYTES - OVERHEAD


class PyBuffer(ctypes.Structure):
    """CPython's `Py_buffer`."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def address_of(view: memoryview) -> int:
    raw = PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(raw), 0)
    try:
        assert isinstance(raw.buf, int)
        return raw.buf
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(raw))


# -- construction --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["capacity", "max_bytes", "batch_size"])
def test_bounds_below_one_are_refused(name: str) -> None:
    arguments: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name}.*must be at least 1, not .*0"):
        make_buffer(**arguments)


@pytest.mark.parametrize("value", [MIN_REQUEST_BYTES - 1, MAX_REQUEST_BYTES + 1])
def test_requests_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match=f"max_request_bytes must be from 1024 to 1073741824, not {value}"):
        make_buffer(max_request_bytes=value)


def test_a_new_buffer_is_empty_and_takes_no_segment() -> None:
    buffer = make_buffer(capacity=7, max_bytes=5000, byte_limit=300)
    assert (buffer.capacity, buffer.max_bytes, buffer.batch_size, buffer.byte_limit) == (7, 5000, 10, 300)
    assert buffer.segment_bytes == SEGMENT_BYTES
    assert (buffer.segments, buffer.next_seq, buffer.head_seq, buffer.oldest_seq) == (0, 0, 0, 0)
    assert buffer.counts() == (0, 0, 0, 0, 0, 0, {"overflow": 0, "rejected": 0, "oversize": 0, "closed": 0})
    assert buffer.take() is None
    assert buffer.snapshot() == []


def test_a_segment_is_no_larger_than_all_that_may_be_queued() -> None:
    assert make_buffer(max_bytes=300).segment_bytes == 300


# -- bounds --------------------------------------------------------------------------------------


def test_the_number_of_events_is_bounded_by_those_in_flight_too() -> None:
    buffer = make_buffer(capacity=3)
    put(buffer, *numbered(2))
    batch = must_take(buffer)
    put(buffer, {"n": 2})
    assert buffer.append({"n": 3}) == b'{"n":"3"}'
    batch.sent()
    put(buffer, *numbered(2, first=3))
    assert numbers(drain(buffer)) == [2, 3, 4]


def test_the_bytes_are_bounded_exactly() -> None:
    buffer = make_buffer(max_bytes=300)
    put(buffer, of_size(100), of_size(100))
    assert isinstance(buffer.append(of_size(101)), bytes)
    put(buffer, of_size(100))
    assert buffer.queued_bytes == 300
    assert isinstance(buffer.append({}), bytes)


def test_an_event_as_large_as_the_bound_is_taken_and_one_byte_more_never() -> None:
    buffer = make_buffer(max_bytes=5000)
    largest = EventBuffer.encode(of_size(5000))
    larger = EventBuffer.encode(of_size(5001))
    assert not buffer.too_large(largest)
    assert buffer.too_large(larger)
    assert buffer.append_encoded(larger) == larger
    assert isinstance(buffer.append_encoded(largest), int)
    assert not buffer.has_room_for(b"{}")


def test_has_room_for_says_what_append_will_do() -> None:
    buffer = make_buffer(max_bytes=300)
    put(buffer, of_size(200))
    assert buffer.has_room_for(EventBuffer.encode(of_size(100)))
    assert not buffer.has_room_for(EventBuffer.encode(of_size(101)))


def test_drop_oldest_drops_no_more_than_it_must() -> None:
    buffer = make_buffer(max_bytes=300)
    put(buffer, of_size(60), of_size(60), of_size(60), of_size(60), of_size(60))
    assert buffer.drop_oldest(EventBuffer.encode(of_size(61))) == 2
    put(buffer, of_size(61))
    assert buffer.counts()[:2] == (4, 241)
    assert buffer.counts()[6]["overflow"] == 2
    assert buffer.head_seq == 2


def test_drop_oldest_leaves_what_is_in_flight() -> None:
    buffer = make_buffer(capacity=2)
    put(buffer, *numbered(2))
    batch = must_take(buffer)
    assert buffer.drop_oldest(b"{}") == 0
    batch.give_back()
    assert buffer.drop_oldest(b"{}") == 1


@pytest.mark.parametrize("reason", ["overflow", "rejected", "oversize", "closed"])
def test_drops_are_counted_by_reason(reason: str) -> None:
    buffer = make_buffer()
    buffer.count_dropped(reason)
    put(buffer, *numbered(3))
    must_take(buffer).dropped(reason)
    assert buffer.counts()[6] == {"overflow": 0, "rejected": 0, "oversize": 0, "closed": 0, reason: 4}


def test_an_unknown_reason_changes_nothing() -> None:
    buffer = make_buffer()
    put(buffer, {"n": 0})
    batch = must_take(buffer)
    with pytest.raises(KeyError, match="lost"):
        buffer.count_dropped("lost")
    with pytest.raises(KeyError, match="lost"):
        batch.dropped("lost")
    assert len(batch) == 1


def test_a_closed_buffer_gives_the_event_back_but_sends_what_it_has() -> None:
    buffer = make_buffer()
    put(buffer, {"n": 0})
    assert not buffer.closed
    buffer.close()
    assert buffer.closed
    assert buffer.append({"n": 1}) == b'{"n":"1"}'
    assert buffer.append_encoded(b'{"n":"2"}', True) == b'{"n":"2"}'
    assert numbers(drain(buffer)) == [0]


@pytest.mark.parametrize("event", [b"", b"{"])
def test_what_cannot_be_an_object_is_refused(event: bytes) -> None:
    with pytest.raises(ValueError, match="must be an encoded JSON object"):
        make_buffer().append_encoded(event)


# -- bytes of a request --------------------------------------------------------------------------


def test_a_body_is_the_envelope_around_the_events() -> None:
    buffer = make_buffer()
    put(buffer, {"e": "pv"}, {}, {"n": 1})
    stm = '"stm":"0000000000000"'
    events = f'{{"e":"pv",{stm}}},{{{stm}}},{{"n":"1",{stm}}}'
    assert bytes(must_take(buffer).body()) == PREFIX + events.encode() + b"]}"


@pytest.mark.parametrize("payload", [{}, {"e": "pv"}, {"e": "Größe", "n": 10**20}, {"x": '\n"\\\x01'}])
def test_the_bytes_counted_are_those_in_the_body(payload: dict[str, Any]) -> None:
    buffer = make_buffer()
    put(buffer, payload, payload)
    assert buffer.queued_bytes == 2 * size_of(payload)
    batch = must_take(buffer)
    assert batch.nbytes == buffer.in_flight_bytes == 2 * size_of(payload)
    assert buffer.queued_bytes == 0
    assert len(batch.body()) == batch.nbytes + OVERHEAD


def test_a_request_is_filled_to_the_last_byte() -> None:
    buffer = make_buffer()
    put(buffer, of_size(100), of_size(SEGMENT_BYTES - 100), of_size(50))
    batch = must_take(buffer)
    assert len(batch.body()) == MIN_REQUEST_BYTES
    assert len(must_take(buffer)) == 1


def test_one_byte_too_many_begins_another_request() -> None:
    buffer = make_buffer()
    put(buffer, of_size(100), of_size(SEGMENT_BYTES - 99))
    assert len(must_take(buffer)) == 1


@pytest.mark.parametrize(("size", "oversize"), [(SEGMENT_BYTES, False), (SEGMENT_BYTES + 1, True), (50_000, True)])
def test_an_event_larger_than_a_request_goes_alone(size: int, oversize: bool) -> None:
    buffer = make_buffer()
    put(buffer, {"n": 0}, of_size(size), {"n": 2})
    must_take(buffer).sent()
    batch = must_take(buffer)
    assert (len(batch), batch.nbytes, batch.oversize) == (1, size, oversize)
    batch.give_back()
    batch = must_take(buffer, max_bytes=10)
    assert (len(batch), batch.nbytes, batch.oversize) == (1, size, oversize)
    batch.sent()
    assert numbers(drain(buffer)) == [2]


def test_a_body_is_a_read_only_view_of_the_same_memory() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(3))
    batch = must_take(buffer)
    first, second = batch.body(), batch.body()
    assert address_of(first) == address_of(second)
    assert (first.readonly, first.format, first.ndim, first.c_contiguous) == (True, "B", 1, True)
    with pytest.raises(TypeError, match="read-only"):
        first[0] = 0
    with pytest.raises((BufferError, TypeError)):
        (ctypes.c_char * len(first)).from_buffer(batch)


def test_memory_is_used_again_but_not_under_a_view() -> None:
    buffer = make_buffer()
    addresses = set()
    for _ in range(5):
        put(buffer, {"n": 1})
        batch = must_take(buffer)
        with batch.body() as view:
            addresses.add(address_of(view))
        batch.sent()
    assert len(addresses) == 1
    put(buffer, {"n": 1})
    batch = must_take(buffer)
    view = batch.body()
    batch.sent()
    put(buffer, {"n": 2})
    assert address_of(must_take(buffer).body()) != address_of(view)


@pytest.mark.parametrize("settle", [Batch.sent, lambda batch: batch.dropped("rejected")])
def test_a_view_reads_the_same_after_the_batch_is_settled(settle: Callable[[Batch], None]) -> None:
    buffer = make_buffer()
    put(buffer, *numbered(3))
    batch = must_take(buffer)
    view = batch.body()
    body = bytes(view)
    settle(batch)
    del batch
    for _ in range(10):
        put(buffer, of_size(800))
        drain(buffer)
    assert view == body
    segments = buffer.segments
    view.release()
    assert buffer.spare_segments == segments


def test_a_queue_goes_on_behind_a_view_of_what_was_given_back() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(2))
    batch = must_take(buffer)
    view = batch.body()
    batch.give_back()
    put(buffer, *numbered(2, first=2))
    assert numbers(drain(buffer)) == [0, 1, 2, 3]
    assert len(view) > 0


def test_a_view_leaves_the_count_of_none_alone() -> None:
    buffer = make_buffer()
    put(buffer, {})
    batch = must_take(buffer)
    before = sys.getrefcount(None)
    for _ in range(1000):
        batch.body().release()
    assert abs(sys.getrefcount(None) - before) < 100


# -- stamp ---------------------------------------------------------------------------------------


def stamps(batch: Batch) -> list[str]:
    with batch.body() as body:
        return [event["stm"] for event in events_in(body)]


@pytest.mark.parametrize(
    ("milliseconds", "digits"),
    [
        (0, "0000000000000"),
        (42, "0000000000042"),
        (1_700_000_000_123, "1700000000123"),
        (10**13 - 1, "9999999999999"),
    ],
)
def test_a_stamp_is_thirteen_digits(milliseconds: int, digits: str) -> None:
    buffer = make_buffer()
    put(buffer, *numbered(2))
    batch = must_take(buffer)
    batch.stamp(1)
    batch.stamp(milliseconds)
    assert stamps(batch) == [digits, digits]
    assert [event["stm"] for event in batch.decode()] == [digits, digits]


@pytest.mark.parametrize("milliseconds", [-1, 10**13, 2**62])
def test_a_stamp_out_of_range_changes_nothing(milliseconds: int) -> None:
    buffer = make_buffer()
    put(buffer, {})
    batch = must_take(buffer)
    batch.stamp(5)
    with pytest.raises(ValueError, match=f"from 0 to 9999999999999, not {milliseconds}"):
        batch.stamp(milliseconds)
    assert stamps(batch) == ["0000000000005"]


def test_a_stamp_is_set_on_the_part_it_is_called_on() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(5))
    second = must_take(buffer)
    second.stamp(7)
    first = second.split()
    first.stamp(1)
    assert stamps(first) == [f"{1:013}"] * 2
    assert stamps(second) == [f"{7:013}"] * 3


def test_a_stamp_is_replaced_after_give_back_and_new_events_have_their_own() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(2))
    batch = must_take(buffer)
    batch.stamp(1)
    batch.give_back()
    put(buffer, {"n": 2})
    batch = must_take(buffer)
    assert stamps(batch) == [f"{1:013}", f"{1:013}", f"{0:013}"]
    batch.stamp(2)
    assert stamps(batch) == [f"{2:013}"] * 3
    assert json.loads(bytes(batch.body()))["data"][2] == {"n": "2", "stm": f"{2:013}"}


def test_a_batch_that_is_collected_gives_its_events_back() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(3))
    batch = must_take(buffer)
    put(buffer, {"n": 3})
    del batch
    gc.collect()
    assert buffer.in_flight_events == 0
    assert buffer.counts()[5] == 0
    assert numbers(drain(buffer)) == [0, 1, 2, 3]
