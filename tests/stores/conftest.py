"""Fixtures of the tests of event stores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.delivery import Rig, eventually
from tests.support.faulty_stores import ALL


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A collector, and emitters that end with it, whatever their stores do and say."""
    rig = Rig()
    yield rig
    # What may still run in circles comes to an end.
    for store in ALL:
        store.times = 0
    ALL.clear()
    rig.collector.close()
    for emitter in rig._emitters:
        emitter.close(0)
    eventually(lambda: not rig.new_threads())
