"""What is queued when there is enough to send, and more than one request carries, goes in further ones at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.delivery import Rig
from tests.support.stores import ListStore
from tests.support.waiting import until

#: Twelve of these are more than batch_size, and three requests.
BIG = [{"n": f"{number:06}", "x": "y" * 150} for number in range(12)]


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.collector.close()
    for emitter in rig._emitters:
        emitter.close(0)
    until(lambda: not rig.new_threads())


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("store", [None, ListStore])
def test_what_does_not_fit_one_request_goes_in_further_ones(rig: Rig, background: bool, store: Any) -> None:
    emitter = rig.emitter(
        batch_size=len(BIG),
        max_request_bytes=1024,
        background=background,
        event_store=None if store is None else store(),
    )
    for event in BIG:
        emitter.input(event)
    until(lambda: emitter.stats().sent_events == len(BIG))
    assert rig.requests() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    # What comes after them waits for its own batch.
    emitter.input(BIG[0])
    assert emitter.stats().queued_events == 1
