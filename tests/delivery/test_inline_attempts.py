"""Without a thread of its own an emitter makes a bounded number of attempts in a call, however short its delays are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from fastemit._delivery.retry import MIN_DELAY
from tests.support.delivery import Rig, Running, put, rigged

#: Shorter than anything a request or a callback takes.
TINY = 1e-6


@pytest.fixture
def rig() -> Iterator[Rig]:
    with rigged() as rig:
        rig.collector.respond(500, times=None)
        yield rig


def test_an_input_ends_with_the_first_failure_that_keeps_events(rig: Rig) -> None:
    emitter = rig.emitter(background=False, batch_size=1, max_retry_delay_seconds=TINY, shutdown_timeout=0.1)
    Running(lambda: put(emitter)).result()
    assert rig.requests() == [[0]]


def test_an_input_ends_so_after_a_callback_that_takes_longer_than_the_delay(rig: Rig) -> None:
    def slow(_sent: int, _events: list[dict[str, Any]]) -> None:
        time.sleep(0.03)

    emitter = rig.emitter(background=False, batch_size=1, max_retry_delay_seconds=TINY, on_failure=slow)
    Running(lambda: put(emitter)).result()
    assert rig.requests() == [[0]]


def test_an_input_ends_so_when_its_callback_asks_for_a_flush(rig: Rig) -> None:
    def again(_sent: int, _events: list[dict[str, Any]]) -> None:
        emitter.flush()

    emitter = rig.emitter(background=False, batch_size=1, max_retry_delay_seconds=TINY, on_failure=again)
    Running(lambda: put(emitter)).result()
    assert len(rig.requests()) == 1


def test_a_full_emitter_that_waits_for_room_leaves_time_between_its_attempts(rig: Rig) -> None:
    emitter = rig.emitter(
        background=False, batch_size=1000, buffer_capacity=1, overflow="block", max_retry_delay_seconds=TINY
    )
    put(emitter)
    full = Running(lambda: put(emitter, 1, 1))
    assert full.goes_on()
    assert len(rig.requests()) < 30
    rig.collector.reset()
    full.result()


def test_a_sender_thread_is_no_busy_loop(rig: Rig) -> None:
    emitter = rig.emitter(batch_size=1, max_retry_delay_seconds=TINY)
    put(emitter)
    rig.collector.wait_for_requests(1)
    started, before = time.monotonic(), len(rig.requests())
    time.sleep(0.2)
    made = len(rig.requests()) - before
    assert made <= (time.monotonic() - started) / MIN_DELAY + 1
    rig.collector.reset()
    # What is out now may yet be answered 500, which ends the first of them.
    assert emitter.drain(5) or emitter.drain(5)
