"""A signal handler that tracks, flushes or closes finds the program in the middle of work on files.

It does not wait for that work, which goes on only when the handler returns.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fastemit import Emitter
from fastemit._spool.registry import registry
from tests.support.delivery import DEADLINE, Rig, put, within
from tests.support.interrupts import Interrupter
from tests.support.spool import arrivals, leave

#: All that a thread of the program runs while it holds a lock of the files.
FILES = tuple(f"_spool/{name}" for name in ("spool", "making", "home", "estate", "ground", "life"))
#: Every so many points one is tried. There are some 400 of them, and a neighbour of each is as good.
STEP = 7
LEFT = {21, 22, 23}


def first_input(emitter: Emitter) -> None:
    put(emitter)


def first_flush(emitter: Emitter) -> None:
    emitter.drain(DEADLINE)


def track_and_flush(emitter: Emitter) -> None:
    put(emitter, 1, 10)
    emitter.drain(DEADLINE)


def close(emitter: Emitter) -> None:
    emitter.close(DEADLINE)


@pytest.fixture
def left(rig: Rig, tmp_path: Path) -> Path:
    path = tmp_path / "left"
    leave(rig.collector.url, path, "put(3, 21)")
    return path


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("handler", [track_and_flush, close])
@pytest.mark.parametrize("work", [first_input, first_flush, close])
def test_a_handler_never_waits_for_the_work_that_it_has_interrupted(
    rig: Rig,
    tmp_path: Path,
    left: Path,
    work: Callable[[Emitter], None],
    handler: Callable[[Emitter], None],
    background: bool,
) -> None:
    def interrupted(at: int) -> int:
        spool = tmp_path / str(at)
        shutil.copytree(left, spool)
        emitter = rig.emitter(spool=spool, background=background)
        if work is close:
            put(emitter)
        with Interrupter(at, FILES, lambda: handler(emitter)) as interrupter, within(DEADLINE / 2):
            work(emitter)
        emitter.close(DEADLINE)
        with rig.emitter(spool=spool) as other:
            assert other.drain(DEADLINE)
        arrived = arrivals(rig.collector)
        assert set(arrived) >= LEFT, (at, arrived)
        assert set(arrived.values()) == {1}, (at, arrived)
        rig.collector.reset()
        return interrupter.points

    # Python 3.13 tells of the opcodes of a function from its second call on.
    interrupted(-1)
    points = interrupted(0)
    assert points > STEP
    for at in range(1, points + 1, STEP):
        interrupted(at)


def test_nor_does_it_flush_another_emitter_that_waits_for_that_work(rig: Rig, tmp_path: Path) -> None:
    """While one emitter looks for what the dead have left, no other may look for the same."""
    emitter = rig.emitter(spool=tmp_path)
    put(emitter)
    with registry().lock, within(DEADLINE / 2):
        emitter.drain(DEADLINE)
    assert emitter.drain(DEADLINE)
