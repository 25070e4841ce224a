"""When to send, and how much at once, without network, clock and chance."""

from __future__ import annotations

from typing import Any

import pytest

from fastemit._buffer import EventBuffer
from fastemit._delivery.retry import Backoff
from fastemit._delivery.schedule import (
    EXIT,
    FOREVER,
    MAX_PATIENCE,
    MIN_CLOSING_DELAY,
    TRIM_AFTER,
    Result,
    Schedule,
    Turn,
)
from fastemit._delivery.waking import Waking
from tests.support.buffer import make_buffer, of_size

NOW = 1_700_000_000.0


class Desk:
    """A schedule over a real buffer, with what a sender does to both."""

    def __init__(self, interval: float | None = None, batch_size: int = 3) -> None:
        self.buffer: EventBuffer = make_buffer(batch_size=batch_size)
        self.schedule = Schedule(self.buffer, Waking(self.buffer), 60.0, interval, NOW)
        self.schedule.backoff = Backoff(60.0, chance=lambda: 0.5)

    def put(self, count: int) -> None:
        for _ in range(count):
            self.buffer.append({"e": "pv"})

    def plan(self, after: float = 0.0) -> Any:
        return self.schedule.plan(NOW + after)

    def fail(self, after: float = 0.0, asked: float | None = None) -> None:
        """A turn that ends with its events kept."""
        turn = self.plan(after)
        assert isinstance(turn, Turn)
        batch = self.buffer.take()
        assert batch is not None
        self.schedule.taken()
        batch.give_back()
        self.schedule.settled(Result(turn, failed=True, kept=True, asked=asked), NOW + after)
        self.schedule.over(turn)

    def succeed(self, after: float = 0.0) -> bool:
        turn = self.plan(after)
        assert isinstance(turn, Turn)
        batch = self.buffer.take()
        assert batch is not None
        self.schedule.taken()
        batch.sent()
        opened: bool = self.schedule.settled(Result(turn, failed=False, kept=False), NOW + after)
        self.schedule.over(turn)
        return opened

    def goes_through(self, size: int) -> None:
        self.schedule.settled(Result(FREE, failed=False, kept=False, sent_bytes=size), NOW)

    def times_out(self, size: int) -> None:
        self.schedule.settled(Result(FREE, failed=True, kept=True, late_bytes=size), NOW)


FREE = Turn(0, probe=False)


@pytest.mark.parametrize(("queued", "expected"), [(0, None), (2, None), (3, FREE), (4, FREE)])
def test_a_turn_is_given_when_the_buffer_is_due(queued: int, expected: Turn | None) -> None:
    desk = Desk()
    desk.put(queued)
    assert desk.plan() == expected


def test_several_turns_are_given_while_the_gate_is_open() -> None:
    desk = Desk()
    desk.put(3)
    assert [desk.plan(), desk.plan()] == [FREE, FREE]


def test_after_a_failure_the_backoff_is_waited_and_then_one_probe_goes() -> None:
    desk = Desk()
    desk.put(3)
    desk.fail()
    assert desk.buffer.hold is True
    assert [desk.plan(), desk.plan(0.25), desk.plan(0.5), desk.plan(0.5)] == [0.5, 0.25, Turn(1, probe=True), None]


def test_a_probe_that_is_over_makes_way_for_the_next() -> None:
    desk = Desk()
    desk.put(3)
    desk.fail()
    desk.fail(0.5)
    assert [desk.plan(0.5), desk.plan(2.0)] == [1.5, Turn(2, probe=True)]


def test_the_success_of_the_probe_opens_the_gate_for_all() -> None:
    desk = Desk()
    desk.put(3)
    desk.fail()
    assert desk.succeed(0.5) is True
    desk.put(3)
    assert [desk.plan(0.5), desk.plan(0.5), desk.buffer.hold] == [Turn(1, False), Turn(1, False), False]


def test_a_late_failure_of_an_older_generation_does_not_put_off_the_retry() -> None:
    desk = Desk()
    desk.put(3)
    late = desk.plan()
    desk.fail()
    desk.schedule.settled(Result(late, failed=True, kept=True), NOW + 0.4)
    assert desk.plan(0.5) == Turn(1, probe=True)


def test_a_late_success_of_an_older_generation_does_not_open_the_gate() -> None:
    desk = Desk()
    desk.put(3)
    late = desk.plan()
    desk.fail()
    assert desk.schedule.settled(Result(late, failed=False, kept=False), NOW) is False
    assert (desk.plan(), desk.buffer.hold) == (0.5, True)


def test_kept_events_are_sent_after_the_backoff_however_few() -> None:
    desk = Desk()
    desk.put(1)
    desk.schedule.flush()
    desk.fail()
    desk.succeed(0.5)
    desk.put(1)
    assert desk.plan(0.5) is None


def test_flush_sends_what_is_queued_however_few_and_not_what_comes_later() -> None:
    desk = Desk()
    desk.put(1)
    desk.schedule.flush()
    desk.succeed()
    desk.put(1)
    assert desk.plan() is None


def test_flush_ignores_the_backoff_for_one_attempt() -> None:
    desk = Desk()
    desk.put(3)
    desk.fail()
    desk.schedule.flush()
    desk.fail(0.1)
    assert desk.plan(0.1) == pytest.approx(1.5)


def test_flush_with_nothing_queued_spares_no_later_event_the_backoff() -> None:
    desk = Desk()
    desk.put(3)
    turn = desk.plan()
    batch = desk.buffer.take()
    assert batch is not None
    desk.schedule.flush()
    batch.give_back()
    desk.schedule.settled(Result(turn, failed=True, kept=True), NOW)
    assert desk.plan() == 0.5


@pytest.mark.parametrize(("after", "expected"), [(0.0, 7.0), (6.5, 0.5), (7.0, FREE)])
def test_the_flush_timer(after: float, expected: Any) -> None:
    desk = Desk(interval=7.0)
    desk.put(1)
    assert desk.plan(after) == expected


def test_the_flush_timer_goes_on() -> None:
    desk = Desk(interval=7.0)
    desk.put(1)
    desk.succeed(8.0)
    assert [desk.plan(8.0 + TRIM_AFTER), desk.plan(15.0)] == [7.0 - TRIM_AFTER, 7.0]


def test_a_flush_timer_that_is_taken_away_is_gone() -> None:
    desk = Desk(interval=7.0)
    desk.put(1)
    desk.schedule.set_interval(None, NOW)
    assert desk.plan(7.0) is None


def test_closing_sends_the_few_and_then_ends() -> None:
    desk = Desk()
    desk.put(1)
    desk.schedule.close(NOW + 5, NOW)
    desk.succeed()
    assert desk.plan() is EXIT


def test_closing_ends_at_the_deadline_with_events_left() -> None:
    desk = Desk()
    desk.put(3)
    desk.schedule.close(NOW + 5, NOW)
    assert [isinstance(desk.plan(4.9), Turn), desk.plan(5.0)] == [True, EXIT]


def test_closing_tries_at_once_whatever_the_backoff_says() -> None:
    desk = Desk()
    desk.put(3)
    desk.fail(asked=30.0)
    desk.schedule.close(NOW + 5, NOW)
    assert desk.plan() == Turn(1, probe=True)


def test_no_delay_reaches_past_the_deadline_of_closing() -> None:
    desk = Desk()
    desk.put(3)
    desk.schedule.close(NOW + 4, NOW)
    desk.fail(asked=30.0)
    first = desk.plan()
    desk.fail(2.0, asked=30.0)
    second = desk.plan(2.0)
    desk.fail(3.99, asked=30.0)
    assert (first, second, desk.plan(3.99) <= MIN_CLOSING_DELAY) == (2.0, 1.0, True)


def test_closing_without_a_deadline_waits_for_the_backoff() -> None:
    desk = Desk()
    desk.put(3)
    desk.schedule.close(FOREVER, NOW)
    desk.fail(asked=30.0)
    assert desk.plan() == 30.0


def test_what_is_stopped_gives_no_turn() -> None:
    desk = Desk()
    desk.put(3)
    desk.schedule.stopped = True
    assert desk.plan() is EXIT


def test_the_aim_is_halved_by_a_timeout_and_doubled_by_a_success_up_to_a_request() -> None:
    desk = Desk()
    full = desk.buffer.segment_bytes
    aims = [desk.schedule.aim]
    for through in (False, False, True, True, True):
        if through:
            desk.goes_through(desk.schedule.aim)
        else:
            desk.times_out(full)
        aims.append(desk.schedule.aim)
    assert aims == [full, full // 2, full // 4, full // 4 * 2, full // 4 * 4, full]


def passes(desk: Desk, wide: int, requests: int) -> int:
    """Requests of the size aimed at, of which those larger than `wide` time out; how many did."""
    timed_out = 0
    for _ in range(requests):
        size = desk.schedule.aim
        if size > wide:
            timed_out += 1
            desk.times_out(size)
        else:
            desk.goes_through(size)
    return timed_out


@pytest.mark.parametrize("share", [2, 3, 7, 100])
def test_what_times_out_again_and_again_is_tried_more_and_more_seldom(share: int) -> None:
    desk = Desk()
    full = desk.buffer.segment_bytes
    passes(desk, full // share, 500)
    assert passes(desk, full // share, 1000) <= 1000 / MAX_PATIENCE + 1


def test_a_line_that_has_become_fast_gets_full_requests_again_and_a_new_start() -> None:
    desk = Desk()
    full = desk.buffer.segment_bytes
    passes(desk, full // 10, 1000)
    passes(desk, full, 5 * MAX_PATIENCE)
    assert desk.schedule.aim == full
    desk.times_out(full)
    desk.goes_through(full // 2)
    assert desk.schedule.aim == full // 2 * 2


def test_a_small_request_that_goes_through_says_nothing_of_larger_ones() -> None:
    desk = Desk()
    full = desk.buffer.segment_bytes
    desk.times_out(full)
    desk.goes_through(100)
    assert desk.schedule.aim == full // 2


def test_a_small_request_that_times_out_halves_its_own_size() -> None:
    desk = Desk()
    desk.times_out(100)
    assert desk.schedule.aim == 50


def test_the_aim_never_falls_to_nothing() -> None:
    desk = Desk()
    for _ in range(40):
        desk.times_out(1)
    assert desk.schedule.aim == 1


def test_memory_of_a_burst_is_given_back_after_a_while() -> None:
    desk = Desk()
    for _ in range(20):
        desk.buffer.append(of_size(500))
    while (batch := desk.buffer.take()) is not None:
        batch.sent()
    desk.schedule.settled(Result(FREE, failed=False, kept=False), NOW)
    spare = desk.buffer.spare_segments
    waits = desk.plan()
    desk.plan(TRIM_AFTER)
    assert (spare > 1, waits, desk.buffer.spare_segments) == (True, TRIM_AFTER, 1)
