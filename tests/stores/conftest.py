"""Fixtures of the tests of event stores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastemit._stores import books
from tests.support.delivery import Rig
from tests.support.faulty_stores import ALL
from tests.support.waiting import until

#: Seconds for which a store at fault is left alone.
AFTER_A_FAULT = books.AFTER_A_FAULT


@pytest.fixture(autouse=True)
def quick_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store at fault is asked again soon, so that no test waits out the second for which it is left alone."""
    monkeypatch.setattr(books, "AFTER_A_FAULT", 0.1)


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
    until(lambda: not rig.new_threads())
