"""The order of batches: taking in bites, splitting, giving back, sealing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastemit._batch import Batch
from fastemit._buffer import MIN_REQUEST_BYTES, EventBuffer
from tests.support.buffer import (
    OVERHEAD,
    drain,
    events_in,
    make_buffer,
    must_take,
    numbered,
    numbers,
    of_size,
    put,
)

SEGMENT_BYTES = MIN_REQUEST_BYTES - OVERHEAD


def in_batch(batch: Batch) -> list[int]:
    with batch.body() as body:
        return numbers(events_in(body))


# -- taking --------------------------------------------------------------------------------------


def test_a_take_carries_all_that_fits_a_request() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(20))
    batch = must_take(buffer)
    assert in_batch(batch) == list(range(20))
    assert buffer.take() is None


def test_a_take_aims_at_max_bytes() -> None:
    buffer = make_buffer()
    put(buffer, *[of_size(50)] * 10)
    batches = [must_take(buffer, max_bytes=aim) for aim in (149, 150, 10_000)]
    assert [len(batch) for batch in batches] == [2, 3, 5]


def test_a_take_has_at_least_min_events() -> None:
    buffer = make_buffer()
    put(buffer, *[of_size(50)] * 13)
    aims = [(1, 1), (1, 4), (200, 2), (1, 100)]
    batches = [must_take(buffer, aim, at_least) for aim, at_least in aims]
    assert [len(batch) for batch in batches] == [1, 4, 4, 4]


def test_bites_of_a_backlog_are_in_order_and_complete() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(100))
    seen = []
    while (batch := buffer.take(100)) is not None:
        assert batch.nbytes <= 100
        seen += in_batch(batch)
        batch.sent()
    assert seen == list(range(100))


def test_new_events_follow_a_bite_of_many() -> None:
    buffer = make_buffer(max_request_bytes=4096)
    put(buffer, *numbered(60))
    bite = must_take(buffer, max_bytes=1, min_events=20)
    put(buffer, *numbered(20, first=60))
    assert in_batch(bite) == list(range(20))
    batch = must_take(buffer)
    batch.stamp(7)
    assert [(event["n"], event["stm"]) for event in batch.decode()] == [
        (str(number), f"{7:013}") for number in range(20, 80)
    ]
    assert in_batch(batch.split()) == list(range(20, 50))


def test_after_a_bite_all_the_rest_fits_one_request() -> None:
    """One POST carries everything that is queued, up to `max_request_bytes`."""
    buffer = make_buffer()
    put(buffer, *[of_size(90)] * 12)
    must_take(buffer, max_bytes=450).sent()
    assert SEGMENT_BYTES > 7 * 90
    assert len(must_take(buffer)) == 7


def test_events_are_numbered_in_the_order_of_append() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(3))
    batch = must_take(buffer)
    put(buffer, *numbered(2, first=3))
    assert (batch.seq, len(batch)) == (0, 3)
    assert (buffer.oldest_seq, buffer.head_seq, buffer.next_seq) == (0, 3, 5)
    batch.sent()
    assert (buffer.oldest_seq, buffer.head_seq, buffer.next_seq) == (3, 3, 5)


# -- giving back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_what_is_given_back_in_any_order_is_sent_in_the_first_one(order: tuple[int, ...]) -> None:
    buffer = make_buffer()
    put(buffer, *numbered(9))
    batches = [must_take(buffer, max_bytes=1, min_events=3) for _ in range(3)]
    put(buffer, *numbered(2, first=9))
    for batch in batches:
        batch.body().release()
    for index in order:
        batches[index].give_back()
    assert in_batch(must_take(buffer)) == list(range(11))


def test_new_events_do_not_join_what_is_given_back_out_of_turn() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(3))
    first = must_take(buffer)
    put(buffer, *numbered(2, first=3))
    second = must_take(buffer)
    first.give_back()
    put(buffer, {"n": 5})
    second.give_back()
    assert numbers(drain(buffer)) == [0, 1, 2, 3, 4, 5]


def test_a_request_leaves_no_gap_for_what_is_still_in_flight() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(9))
    first, second, third = [must_take(buffer, max_bytes=1, min_events=3) for _ in range(3)]
    first.give_back()
    third.give_back()
    batch = must_take(buffer)
    assert in_batch(batch) == [0, 1, 2]
    second.give_back()
    assert in_batch(must_take(buffer)) == [3, 4, 5, 6, 7, 8]


def test_the_queue_goes_on_after_all_of_it_went_into_one_request() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(6))
    first, second = must_take(buffer, max_bytes=1, min_events=3), must_take(buffer)
    second.give_back()
    first.give_back()
    third = must_take(buffer, max_bytes=230, min_events=3)
    put(buffer, {"n": 6})
    third.give_back()
    assert numbers(drain(buffer)) == list(range(7))


def test_what_is_given_back_takes_more_events_behind_it() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(2))
    batch = must_take(buffer)
    batch.body().release()
    batch.give_back()
    put(buffer, *numbered(2, first=2))
    assert in_batch(must_take(buffer)) == [0, 1, 2, 3]


def test_only_a_failed_attempt_counts_as_retried() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(3))
    must_take(buffer).give_back(retried=False)
    assert buffer.counts()[5] == 0
    must_take(buffer).give_back()
    must_take(buffer).yield_place()
    assert buffer.counts()[5] == 6


def test_a_batch_that_yields_its_place_goes_behind_the_rest() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(2))
    batch = must_take(buffer)
    put(buffer, *numbered(2, first=2))
    batch.yield_place()
    put(buffer, {"n": 4})
    assert buffer.next_seq == 7
    assert numbers(drain(buffer)) == [2, 3, 0, 1, 4]


def test_server_errors_stay_with_the_events() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(4))
    batch = must_take(buffer)
    batch.server_errors = 3
    batch.give_back()
    batch = must_take(buffer)
    assert batch.server_errors == 3
    half = batch.split()
    assert (half.server_errors, batch.server_errors) == (3, 3)
    batch.server_errors = 5
    half.give_back()
    batch.give_back()
    assert must_take(buffer).server_errors == 5


def test_server_errors_end_with_the_batch() -> None:
    buffer = make_buffer()
    put(buffer, {"n": 0})
    batch = must_take(buffer)
    batch.server_errors = 3
    batch.sent()
    put(buffer, {"n": 1})
    assert must_take(buffer).server_errors == 0


def test_a_segment_that_is_used_again_has_forgotten_its_seal() -> None:
    buffer = make_buffer()
    put(buffer, {"n": 0})
    batch = must_take(buffer)
    batch.seal()
    batch.sent()
    put(buffer, *numbered(2, first=1))
    assert in_batch(must_take(buffer)) == [1, 2]


# -- splitting and sealing -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 20])
def test_a_split_halves_a_batch(count: int) -> None:
    buffer = make_buffer()
    put(buffer, *numbered(count))
    second = must_take(buffer)
    second.body().release()
    first = second.split()
    assert (in_batch(first), in_batch(second)) == (
        list(range(count // 2)),
        list(range(count // 2, count)),
    )
    assert (first.seq, second.seq) == (0, count // 2)
    assert buffer.in_flight_events == count
    assert buffer.in_flight_bytes == first.nbytes + second.nbytes
    second.give_back()
    first.give_back()
    assert numbers(drain(buffer)) == list(range(count))


def test_one_event_cannot_be_split() -> None:
    buffer = make_buffer()
    put(buffer, {"n": 0})
    with pytest.raises(ValueError, match="a batch of 1 cannot be split"):
        must_take(buffer).split()


def test_a_sealed_batch_comes_back_as_it_was() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(4))
    second = must_take(buffer)
    first = second.split()
    first.seal()
    second.seal()
    second.give_back()
    first.give_back()
    put(buffer, {"n": 4})
    taken = [must_take(buffer) for _ in range(3)]
    assert [in_batch(batch) for batch in taken] == [[0, 1], [2, 3], [4]]


def test_parts_of_a_sealed_batch_are_sealed() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(4))
    batch = must_take(buffer)
    batch.seal()
    batch.split().give_back()
    batch.give_back()
    batches = [must_take(buffer), must_take(buffer, max_bytes=1), must_take(buffer)]
    assert [in_batch(batch) for batch in batches] == [[0, 1], [2], [3]]


def test_the_first_part_of_a_sealed_batch_joins_nothing_before_it() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(6))
    before = must_take(buffer, max_bytes=1, min_events=2)
    batch = must_take(buffer)
    batch.seal()
    batch.split().give_back()
    before.give_back()
    assert in_batch(must_take(buffer)) == [0, 1]


def test_a_bite_of_a_sealed_batch_joins_nothing_behind_it() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(4))
    batch = must_take(buffer)
    batch.seal()
    batch.give_back()
    bite = must_take(buffer, max_bytes=1)
    must_take(buffer).yield_place()
    bite.yield_place()
    put(buffer, {"n": 4})
    batches = [must_take(buffer) for _ in range(3)]
    assert [in_batch(batch) for batch in batches] == [[1, 2, 3], [0], [4]]


# -- settled -------------------------------------------------------------------------------------


def settle_by_split_first(batch: Batch) -> None:
    batch.split().sent()
    batch.sent()


@pytest.mark.parametrize(
    "settle",
    [
        Batch.sent,
        Batch.give_back,
        Batch.yield_place,
        lambda batch: batch.dropped("rejected"),
        settle_by_split_first,
    ],
)
def test_a_settled_batch_refuses_everything(settle: Callable[[Batch], None]) -> None:
    buffer = make_buffer()
    put(buffer, *numbered(2))
    batch = must_take(buffer)
    settle(batch)
    counts = buffer.counts()
    uses: list[Callable[[], Any]] = [
        lambda: len(batch),
        lambda: batch.nbytes,
        lambda: batch.seq,
        lambda: batch.oversize,
        lambda: batch.server_errors,
        lambda: setattr(batch, "server_errors", 1),
        lambda: batch.stamp(1),
        batch.body,
        lambda: memoryview(batch),
        batch.decode,
        batch.split,
        batch.seal,
        batch.sent,
        lambda: batch.dropped("rejected"),
        batch.give_back,
        batch.yield_place,
    ]
    for use in uses:
        with pytest.raises(ValueError, match="the batch is settled already"):
            use()
    assert buffer.counts() == counts


def test_a_batch_of_ones_own_making_is_a_settled_one() -> None:
    with pytest.raises(ValueError, match="the batch is settled already"):
        Batch(make_buffer()).sent()


def test_what_is_sent_is_counted_to_the_byte() -> None:
    buffer = make_buffer()
    put(buffer, of_size(100), of_size(150))
    must_take(buffer).sent()
    assert buffer.counts()[:6] == (0, 0, 0, 2, 250, 0)


def test_a_batch_keeps_its_buffer() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(2))
    batch = must_take(buffer)
    del buffer
    assert numbers(batch.decode()) == [0, 1]
    batch.give_back()


@pytest.mark.parametrize("capacity", [127, 128, 129])
def test_a_full_buffer_that_drops_its_oldest_for_each_new_event_keeps_the_newest(capacity: int) -> None:
    """In one segment, whose index is moved to its front now and then; `make instructions` counts what that costs."""
    buffer = make_buffer(capacity=capacity, max_request_bytes=100_000, batch_size=1)
    put(buffer, *numbered(capacity))
    for payload in numbered(1000, first=capacity):
        assert buffer.drop_oldest(EventBuffer.encode(payload)) == 1
        put(buffer, payload)
        assert buffer.check() == 0
    assert buffer.segments == 1
    assert numbers(drain(buffer)) == list(range(1000, 1000 + capacity))
