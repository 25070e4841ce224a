"""What `input` does when there is no room: the four policies, with a collector that accepts, fails or hangs."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.buffer import of_size
from tests.support.emitters import (
    DEADLINE,
    QUICK,
    accounted,
    feed,
    join,
    numbered,
    numbers,
    requests_of,
    sender_threads,
    threads_of,
)
from tests.support.waiting import until

POLICIES = ["backpressure", "drop_newest", "drop_oldest", "block"]
DROPPING = ["drop_newest", "drop_oldest"]
WAITING = ["backpressure", "block"]
#: A failure that is not tried again before the test is over.
DOWN: dict[str, Any] = {"status": 503, "headers": {"Retry-After": "60"}}


def drops(emitter: Any) -> dict[str, int]:
    return {reason: count for reason, count in emitter.stats().dropped_events.items() if count}


class Waiter:
    """A thread in an `input` that is not to return yet."""

    def __init__(self, emitter: Any, payload: dict[str, Any]) -> None:
        self._returned = threading.Event()

        def run() -> None:
            emitter.input(payload)
            self._returned.set()

        threads_of(1, lambda _: run())

    def waits(self) -> bool:
        """Whether `input` has still not returned after a moment that is long for it."""
        return not self._returned.wait(0.05)

    def returns(self) -> bool:
        return self._returned.wait(DEADLINE)


# -- a collector that accepts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", WAITING)
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("capacity", [1, 7])
def test_a_policy_that_waits_loses_nothing_while_the_collector_accepts(
    collector: Collector, make_emitter: MakeEmitter, policy: str, background: bool, capacity: int
) -> None:
    emitter = make_emitter(buffer_capacity=capacity, overflow=policy, background=background)
    feed(emitter, *numbered(*range(300)))
    emitter.flush()
    assert numbers(collector.events) == list(range(300))
    assert drops(emitter) == {}


# -- a collector that hangs --------------------------------------------------------------------------------------------


def hanging(collector: Collector, make_emitter: MakeEmitter, policy: str, capacity: int, **settings: Any) -> Any:
    """An emitter with event 0 in flight, in a request that hangs."""
    collector.respond(hang=True)
    emitter = make_emitter(batch_size=1, buffer_capacity=capacity, overflow=policy, **settings)
    feed(emitter, *numbered(0))
    collector.wait_for_requests(1)
    return emitter


def test_drop_newest_drops_the_new_event(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = hanging(collector, make_emitter, "drop_newest", 3)
    feed(emitter, *numbered(*range(1, 10)))
    assert drops(emitter) == {"overflow": 7}
    collector.release()
    assert numbers(collector.wait_for(3)) == [0, 1, 2]


def test_drop_oldest_drops_exactly_the_oldest_queued(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = hanging(collector, make_emitter, "drop_oldest", 4)
    feed(emitter, *numbered(*range(1, 10)))
    assert drops(emitter) == {"overflow": 6}
    collector.release()
    assert numbers(collector.wait_for(4)) == [0, 7, 8, 9]


def test_drop_oldest_drops_the_new_event_when_all_are_in_flight(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    emitter = hanging(collector, make_emitter, "drop_oldest", 1)
    feed(emitter, *numbered(1, 2))
    assert drops(emitter) == {"overflow": 2}
    collector.release()
    assert numbers(collector.wait_for(1)) == [0]


def test_drop_oldest_makes_room_in_bytes(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = hanging(collector, make_emitter, "drop_oldest", 100, max_buffer_bytes=2048)
    feed(emitter, *({"n": str(number), **of_size(490)} for number in range(1, 5)), {"n": "5", **of_size(1000)})
    assert drops(emitter) == {"overflow": 2}
    collector.release()
    assert numbers(collector.wait_for(4)) == [0, 3, 4, 5]


@pytest.mark.parametrize("policy", WAITING)
def test_a_policy_that_waits_is_woken_when_there_is_room(
    collector: Collector, make_emitter: MakeEmitter, policy: str
) -> None:
    emitter = hanging(collector, make_emitter, policy, 1)
    waiter = Waiter(emitter, *numbered(1))
    assert waiter.waits() is True
    collector.release()
    assert waiter.returns() is True
    assert numbers(collector.wait_for(2)) == [0, 1]
    assert drops(emitter) == {}


@pytest.mark.parametrize("policy", WAITING)
def test_a_policy_that_waits_is_woken_by_close(collector: Collector, make_emitter: MakeEmitter, policy: str) -> None:
    emitter = hanging(collector, make_emitter, policy, 1)
    waiters = [Waiter(emitter, payload) for payload in numbered(1, 2, 3)]
    assert waiters[-1].waits() is True
    assert emitter.close(0) == 1
    assert [waiter.returns() for waiter in waiters] == [True] * 3
    assert drops(emitter) == {"closed": 3}


def test_backpressure_is_woken_when_sending_fails_and_drops(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(hang=True, **DOWN)
    emitter = make_emitter(batch_size=1, buffer_capacity=1)
    feed(emitter, *numbered(0))
    waiters = [Waiter(emitter, payload) for payload in numbered(1, 2, 3)]
    assert waiters[-1].waits() is True
    collector.wait_for_requests(1)
    collector.release()
    assert [waiter.returns() for waiter in waiters] == [True] * 3
    assert (drops(emitter), emitter.stats().queued_events) == ({"overflow": 3}, 1)


@pytest.mark.parametrize("policy", DROPPING)
def test_a_policy_that_drops_never_waits(collector: Collector, make_emitter: MakeEmitter, policy: str) -> None:
    emitter = hanging(collector, make_emitter, policy, 1)
    started = time.monotonic()
    feed(emitter, *numbered(*range(1, 1000)))
    assert time.monotonic() - started < 2
    assert collector.requests[0].status is None


# -- a collector that fails --------------------------------------------------------------------------------------------


def failing(collector: Collector, make_emitter: MakeEmitter, policy: str, capacity: int, **settings: Any) -> Any:
    """An emitter with event 0 kept after a failure, and a minute to go until it is tried again."""
    collector.respond(**DOWN)
    emitter = make_emitter(batch_size=1, buffer_capacity=capacity, overflow=policy, **settings)
    feed(emitter, *numbered(0))
    until(lambda: emitter.retry_delay)
    return emitter


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(
    ("policy", "kept"), [("backpressure", [0, 1, 2]), ("drop_newest", [0, 1, 2]), ("drop_oldest", [7, 8, 9])]
)
def test_once_sending_fails_only_block_waits(
    collector: Collector, make_emitter: MakeEmitter, background: bool, policy: str, kept: list[int]
) -> None:
    emitter = failing(collector, make_emitter, policy, 3, background=background)
    feed(emitter, *numbered(*range(1, 10)))
    assert drops(emitter) == {"overflow": 7}
    emitter.flush()
    assert numbers(collector.events) == kept


def test_backpressure_takes_what_there_is_room_for_while_sending_fails(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    emitter = failing(collector, make_emitter, "backpressure", 100)
    feed(emitter, *numbered(*range(1, 50)))
    assert (emitter.stats().queued_events, drops(emitter)) == (50, {})


def test_block_waits_until_sending_works_again(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = failing(collector, make_emitter, "block", 1)
    waiter = Waiter(emitter, *numbered(1))
    assert waiter.waits() is True
    emitter.flush()
    assert waiter.returns() is True
    assert numbers(collector.wait_for(2)) == [0, 1]


def test_block_is_woken_by_close_while_sending_fails(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = failing(collector, make_emitter, "block", 1)
    collector.respond(times=None, **DOWN)
    waiter = Waiter(emitter, *numbered(1))
    assert waiter.waits() is True
    assert emitter.close(0) == 1
    assert waiter.returns() is True
    assert drops(emitter) == {"closed": 1}


# -- callbacks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", WAITING)
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("status", [200, 400])
def test_a_callback_never_waits_for_room(
    collector: Collector, make_emitter: MakeEmitter, policy: str, background: bool, status: int
) -> None:
    called: list[Any] = []

    def track_more(*args: Any) -> None:
        if not called:
            called.append(args)
            feed(emitter, *numbered(1, 2, 3, 4))

    collector.respond(status)
    emitter = make_emitter(
        batch_size=1,
        buffer_capacity=2,
        overflow=policy,
        background=background,
        on_success=track_more,
        on_failure=track_more,
    )
    feed(emitter, *numbered(0))
    assert emitter.drain(DEADLINE) is True
    assert (drops(emitter).get("overflow"), numbers(collector.wait_for(2))[-2:]) == (2, [1, 2])


@pytest.mark.parametrize("background", [True, False])
def test_a_callback_does_not_wait_for_events_that_are_kept(
    collector: Collector, make_emitter: MakeEmitter, background: bool
) -> None:
    collector.respond(**DOWN)
    emitter: Any = make_emitter(
        batch_size=1,
        buffer_capacity=1,
        overflow="block",
        background=background,
        on_failure=lambda *_: feed(emitter, *numbered(1)),
    )
    feed(emitter, *numbered(0))
    until(lambda: drops(emitter) == {"overflow": 1})


# -- after close -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("background", [True, False])
def test_after_close_everything_is_dropped_as_closed(
    collector: Collector, make_emitter: MakeEmitter, policy: str, background: bool
) -> None:
    emitter = make_emitter(batch_size=1, buffer_capacity=1, overflow=policy, background=background)
    feed(emitter, *numbered(0))
    assert emitter.close() == 0
    feed(emitter, *numbered(1, 2, 3))
    assert (drops(emitter), requests_of(collector)) == ({"closed": 3}, [[0]])


# -- too large ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(("size", "expected"), [(2048, {}), (2049, {"oversize": 1}), (100_000, {"oversize": 1})])
def test_what_is_larger_than_the_whole_buffer_is_dropped_as_oversize(
    collector: Collector, make_emitter: MakeEmitter, policy: str, background: bool, size: int, expected: dict[str, int]
) -> None:
    emitter = make_emitter(max_buffer_bytes=2048, overflow=policy, background=background)
    feed(emitter, of_size(size))
    emitter.flush()
    assert (drops(emitter), len(collector.events)) == (expected, 1 - len(expected))


def test_what_is_larger_than_the_whole_buffer_pushes_nothing_out(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    emitter = make_emitter(max_buffer_bytes=2048, overflow="drop_oldest")
    feed(emitter, *numbered(0, 1), of_size(2049))
    assert (drops(emitter), emitter.stats().queued_events) == ({"oversize": 1}, 2)


# -- background=False --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_thread_a_full_buffer_is_sent_by_the_input_that_fills_it(
    collector: Collector, make_emitter: MakeEmitter, policy: str
) -> None:
    before = set(sender_threads())
    emitter = make_emitter(buffer_capacity=3, batch_size=1000, overflow=policy, background=False)
    feed(emitter, *numbered(*range(9)))
    assert requests_of(collector) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert set(sender_threads()) <= before


def test_without_a_thread_block_waits_for_the_backoff_and_sends(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    collector.respond(503, times=2, headers={"Retry-After": "60"})
    emitter = make_emitter(
        buffer_capacity=1, overflow="block", background=False, max_retry_delay_seconds=0.2, shutdown_timeout=0
    )
    feed(emitter, *numbered(0, 1))
    first, second, third = collector.requests[:3]
    assert second.arrived - first.arrived >= 0.19
    assert third.arrived - second.arrived >= 0.19
    assert requests_of(collector) == [[0], [0], [0], [1]]
    assert drops(emitter) == {}


# -- many producers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", WAITING)
@pytest.mark.parametrize("background", [True, False])
def test_many_producers_all_get_through(
    collector: Collector, make_emitter: MakeEmitter, policy: str, background: bool
) -> None:
    emitter = make_emitter(buffer_capacity=3, overflow=policy, background=background)
    join(threads_of(8, lambda me: feed(emitter, *numbered(*range(me * 100, me * 100 + 100)))))
    emitter.flush()
    assert sorted(numbers(collector.events)) == list(range(800))
    assert drops(emitter) == {}


@pytest.mark.parametrize("policy", WAITING)
def test_one_that_has_waited_long_for_much_room_goes_before_those_that_need_little(
    collector: Collector, make_emitter: MakeEmitter, policy: str
) -> None:
    collector.respond(hang=True, times=2)
    emitter = make_emitter(batch_size=1, max_buffer_bytes=2048, overflow=policy)
    feed(emitter, *numbered(0))
    collector.wait_for_requests(1)
    big = Waiter(emitter, {"n": "1", **of_size(2030)})
    assert [big.waits() for _ in range(3)] == [True] * 3
    # It is passed by this one, and looks again when the first is settled: in vain, and too often by now.
    feed(emitter, *numbered(2))
    collector.release()
    collector.wait_for_requests(2)
    # It may take its thread a while to look on a busy machine.
    until(lambda: emitter._buffer.starving == 1, 5)
    small = Waiter(emitter, *numbered(3))
    assert small.waits() is True
    collector.release()
    assert (big.returns(), small.returns()) == (True, True)
    assert numbers(collector.wait_for(4)) == [0, 2, 1, 3]
    assert drops(emitter) == {}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_counters_add_up_at_every_moment(collector: Collector, make_emitter: MakeEmitter, policy: str) -> None:
    collector.respond(lambda request: (200, 200, 500, 413, 400)[len(request.events) % 5], times=None)
    emitter = make_emitter(batch_size=3, buffer_capacity=20, overflow=policy, max_retry_delay_seconds=QUICK / 10)
    begun, returned = [0] * 4, [0] * 4

    def produce(me: int) -> None:
        for payload in numbered(*range(300)):
            begun[me] += 1
            emitter.input(payload)
            returned[me] += 1

    producers = threads_of(4, produce)
    samples = []
    while any(producer.is_alive() for producer in producers):
        least = sum(returned)
        seen = accounted(emitter.stats())
        samples.append((least, seen, sum(begun)))
    assert [sample for sample in samples if not sample[0] <= sample[1] <= sample[2]] == []
    assert accounted(emitter.stats()) == 1200
