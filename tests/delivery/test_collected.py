"""An emitter that the garbage collector takes, with events queued, while its sender is on its way to them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter
from tests.support.delivery import Rig, numbers, put
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def one_thread_at_a_time() -> Iterator[None]:
    """Nobody takes the GIL from the test between two of its lines."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5.0)
    yield
    sys.setswitchinterval(before)


class Owner:
    """In a cycle with its emitter."""

    def __init__(self, rig: Rig) -> None:
        self.emitter: Emitter = AsyncEmitter(rig.collector.url, batch_size=3, on_success=self.called)

    def called(self, _: Any) -> None:
        pass


def test_an_emitter_in_a_cycle_that_is_dropped_just_after_its_sender_was_woken_delivers(rig: Rig) -> None:
    owner = Owner(rig)
    put(owner.emitter, 3)
    rig.collector.wait_for(3)
    buffer = owner.emitter._buffer
    # Asleep, and wanted again by the third event from here on.
    until(lambda: not buffer.linger and buffer.unsettled_events == 0)
    put(owner.emitter, 3, 3)
    del owner
    gc.collect()
    assert numbers(rig.collector.wait_for(6)) == [0, 1, 2, 3, 4, 5]
    until(lambda: not rig.new_threads())
