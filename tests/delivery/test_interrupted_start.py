"""An exception of a signal handler, at any point of the first `input`, leaves an emitter whose senders can start."""

from __future__ import annotations

import contextlib
import sys
import threading

import pytest

from fastemit import Emitter
from tests.support.delivery import Rig, numbers, put
from tests.support.interrupts import Interrupted, Interrupter

#: All that runs between `append` and the new thread.
FILES = tuple(
    [f"_delivery/{name}" for name in ("delivery", "senders", "workers", "waking", "leftovers", "waiting", "overrides")]
    + ["_process/lifecycle", threading.__file__]
)


def points_of(emitters: list[Emitter]) -> int:
    # Python 3.13 tells of the opcodes of a function from its second call on.
    for emitter in emitters:
        with Interrupter(-1, FILES) as interrupter:
            put(emitter)
    return interrupter.points


def test_a_first_input_that_is_interrupted_anywhere_leaves_an_emitter_that_sends(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python strikes a thread off its list whose start is broken off, and the thread ends before it has begun.
    monkeypatch.setattr(sys, "unraisablehook", lambda told: None if told.exc_type is KeyError else hook(told))
    hook = sys.__unraisablehook__

    def make() -> Emitter:
        return rig.async_emitter(batch_size=1, thread_count=2)

    points = points_of([make(), make()])
    assert points > 30
    rig.collector.wait_for(2)
    rig.collector.reset()
    for at in range(1, points + 1):
        emitter = make()
        with Interrupter(at, FILES), contextlib.suppress(Interrupted):
            put(emitter, 1, 2 * at)
        # Without a flush, which would send by itself what nobody is there for.
        put(emitter, 1, 2 * at + 1)
        rig.collector.wait_for(2)
        assert numbers(rig.collector.events) == [2 * at, 2 * at + 1], at
        assert emitter.close(5) == 0, at
        rig.collector.reset()
