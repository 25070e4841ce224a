"""Events that poison their batch."""

from __future__ import annotations

import pytest
from conftest import MakeEmitter
from emitter_support import DEADLINE, feed, numbered, numbers

from fastemit.testing import Collector

#: Nothing is sent before it is asked for.
MANY = 6000


@pytest.mark.parametrize("background", [True, False])
def test_drain_does_not_take_an_event_that_yields_its_place_for_sent(
    collector: Collector, make_emitter: MakeEmitter, background: bool
) -> None:
    collector.respond(500, times=None)
    emitter = make_emitter(batch_size=MANY, background=background)
    feed(emitter, *numbered(0))
    assert [emitter.drain(DEADLINE) for _ in range(8)] == [False] * 8
    collector.respond(200, times=None)
    assert emitter.drain(DEADLINE) is True
    assert numbers(collector.events) == [0]
