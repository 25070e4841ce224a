"""Timers with `background=False`: no thread keeps the time, `input` looks at it, and every door says so."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter
from fastemit._delivery.controls import Timer
from tests.support.delivery import A_WHILE, DEADLINE, Rig, numbers, put
from tests.support.emitters import QUICK
from tests.support.waiting import until

LINE = "a flush timer with background=False: no thread keeps the time, so the first input after each interval of"


def at_construction(rig: Rig, seconds: float, cls: type[Emitter] = Emitter, **settings: Any) -> Emitter:
    return rig.emitter(cls, flush_interval=seconds, **settings)


def by_a_call(rig: Rig, seconds: float, cls: type[Emitter] = Emitter, **settings: Any) -> Emitter:
    emitter = rig.emitter(cls, **settings)
    emitter.set_flush_timer(seconds)
    return emitter


DOORS = pytest.mark.parametrize("door", [at_construction, by_a_call])
Door = Callable[..., Emitter]


@DOORS
def test_the_first_input_after_the_interval_sends(rig: Rig, door: Door) -> None:
    emitter = door(rig, 0.05, background=False)
    put(emitter)
    threading.Event().wait(0.1)
    # Nobody looked.
    assert (len(rig.collector.requests), emitter.timer.is_active()) == (0, True)
    put(emitter, first=1)
    assert numbers(rig.collector.events) == [0, 1]


@DOORS
def test_a_line_says_so_when_the_timer_is_set(rig: Rig, door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastemit")
    door(rig, 2.5, background=False)
    assert caplog.record_tuples == [("fastemit", logging.INFO, f"{LINE} 2.5 s sends")]


@DOORS
@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
def test_with_a_thread_there_is_nothing_to_say(
    rig: Rig, door: Door, cls: type[Emitter], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastemit")
    door(rig, 2.5, cls=cls)
    assert caplog.record_tuples == []


def test_without_a_timer_there_is_nothing_to_say(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastemit")
    put(rig.emitter(background=False))
    assert caplog.record_tuples == []


def test_a_redis_emitter_says_so_too(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("redis")
    from fastemit import RedisEmitter

    class Client:
        def rpush(self, *_: Any) -> int:
            return 1

    caplog.set_level(logging.INFO, "fastemit")
    with RedisEmitter(Client(), background=False, flush_interval=3):
        assert caplog.messages == [f"{LINE} 3 s sends"]


def test_flush_sends_what_the_timer_left(rig: Rig) -> None:
    emitter = rig.emitter(background=False, flush_interval=0.01)
    put(emitter)
    emitter.flush()
    assert numbers(rig.collector.events) == [0]


def test_what_is_to_be_retried_goes_with_the_next_call_that_sends(rig: Rig) -> None:
    emitter = rig.emitter(background=False, batch_size=3, max_retry_delay_seconds=QUICK)
    rig.collector.respond(503)
    put(emitter)
    assert emitter.drain(DEADLINE) is False
    assert emitter.retry_timer.is_active()
    threading.Event().wait(A_WHILE)
    put(emitter, first=1)
    assert (len(rig.collector.requests), emitter.retry_timer.is_active()) == (1, True)
    put(emitter, first=2)
    assert numbers(rig.collector.events) == [0, 1, 2]
    assert not emitter.retry_timer.is_active()


def test_with_a_flush_timer_too_it_is_an_input_after_the_backoff(rig: Rig) -> None:
    emitter = rig.emitter(background=False, flush_interval=60, max_retry_delay_seconds=QUICK)
    rig.collector.respond(503)
    put(emitter)
    assert emitter.drain(DEADLINE) is False
    threading.Event().wait(A_WHILE)
    put(emitter, first=1)
    assert numbers(rig.collector.events) == [0, 1]


@pytest.mark.parametrize("background", [True, False])
def test_no_timer_is_active_after_close(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(background=background, flush_interval=0.5)
    rig.collector.respond(503, times=None)
    put(emitter)
    assert emitter.drain(DEADLINE) is False
    assert (emitter.timer.is_active(), emitter.retry_timer.is_active()) == (True, True)
    assert emitter.close(0) == 1
    until(lambda: not emitter.timer.is_active())
    assert emitter.retry_timer.is_active() is False


def test_is_active_says_what_it_means(rig: Rig) -> None:
    for timer in (rig.emitter().timer, rig.emitter().retry_timer):
        assert isinstance(timer, Timer)
        assert "background=False" in str(inspect.getdoc(timer.is_active))
    for documented in (Emitter, Emitter.set_flush_timer):
        assert "no thread" in " ".join(str(inspect.getdoc(documented)).split())
