"""How much is said in how much time, with the time passed in; and what saying it costs the one who says it."""

from __future__ import annotations

import logging
import re
import threading
import tracemalloc
from collections.abc import Callable

import pytest

from fastemit.stats import ThrottledLog
from tests.support.emitters import join, threads_of

COUNT = re.compile(r"\((\d+) (?:so far|since the last such line)\)")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.DEBUG)
    return lambda: [record.getMessage() for record in caplog.records if record.name == "fastemit"]


def total(lines: list[str]) -> int:
    """How many these lines stand for; one without a number is about one."""
    return sum(int(found[1]) if (found := COUNT.search(line)) else 1 for line in lines)


@pytest.mark.parametrize("seconds", [5, 10, 60, 3600])
def test_a_kind_that_goes_on_for_long_is_a_line_in_ten_seconds(seconds: int, lines: Callable[[], list[str]]) -> None:
    clock = Clock()
    log = ThrottledLog(clock=clock)
    for moment in range(seconds * 4):
        clock.now = moment / 4
        log.add("request failed", "status 500")
    assert len(lines()) == (seconds + 9) // 10
    log.flush()
    assert total(lines()) == seconds * 4


def test_a_second_kind_does_not_bring_the_first_forward(lines: Callable[[], list[str]]) -> None:
    clock = Clock()
    log = ThrottledLog(clock=clock)
    for moment in range(10):
        clock.now = moment
        log.add("a", "")
        log.add("b", "")
    assert len(lines()) == 2
    clock.now = 10
    log.add("b", "")
    # Ten seconds are over for both, and what was held back of "a" is told too.
    assert [line[:5] for line in lines()[2:]] == ["a (9 ", "b (10"]


def test_many_threads_are_one_line_that_counts_them_all(lines: Callable[[], list[str]]) -> None:
    log = ThrottledLog(clock=Clock())
    join(threads_of(8, lambda _: [log.add("dropped", "full") for _ in range(2000)]))
    assert len(lines()) == 1
    log.flush()
    assert (len(lines()), total(lines())) == (2, 16000)


def test_what_is_counted_while_another_thread_writes_takes_no_memory(lines: Callable[[], list[str]]) -> None:
    log = ThrottledLog(clock=Clock())
    log.add("dropped", "full")
    tracemalloc.start()
    try:
        with log._busy:
            for _ in range(20_000):
                log.add("dropped", "full")
        growth = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert growth < 20_000
    log.flush()
    assert total(lines()) == 20_001


def test_a_count_of_many_is_told_as_it_is(lines: Callable[[], list[str]]) -> None:
    log = ThrottledLog(clock=Clock())
    for count in (1, 10_000, 7):
        log.add("rejected", "status 400", count)
    log.flush()
    log.flush()
    assert [total([line]) for line in lines()] == [1, 10_007]


def test_a_thread_that_finds_another_one_writing_does_not_wait(lines: Callable[[], list[str]]) -> None:
    entered, leave = threading.Event(), threading.Event()
    calls = 0

    def slow_clock() -> float:
        nonlocal calls
        calls += 1
        if calls == 2:
            # The one who writes looks at the clock again.
            entered.set()
            leave.wait(10)
        return 0.0

    log = ThrottledLog(clock=slow_clock)
    holder = threads_of(1, lambda _: log.add("dropped", "a"))
    assert entered.wait(10)
    join(threads_of(4, lambda _: log.add("dropped", "b")))
    assert not leave.is_set()
    leave.set()
    join(holder)
    log.flush()
    assert total(lines()) == 5
