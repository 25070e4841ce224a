"""A store whose methods raise or lie, and what must not come of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.stores import ListStore

#: Calls of a method in a second that are no busy loop.
FEW = 500  # calls a second; a busy loop makes tens of thousands

#: Each one that was made, to be calmed at the end of a test.
ALL: list[Faulty] = []


class Faulty(ListStore):
    """A store whose method `fails` raises for the first `times` calls, or does what `instead` says."""

    def __init__(self, fails: str, times: float = float("inf"), instead: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.fails = fails
        self.times = times
        self.instead = instead
        self.calls = 0
        ALL.append(self)

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        if name not in ("add_event", "get_events_batch", "cleanup", "size"):
            return attribute

        def method(*arguments: Any) -> Any:
            self.calls += 1
            if name != self.fails or self.times <= 0:
                return attribute(*arguments)
            self.times -= 1
            if self.instead is None:
                raise OSError("no store today")
            return self.instead(attribute(*arguments))

        return method


def no_busy_loop(store: Faulty) -> None:
    """In a part of a second the store is called few times."""
    before, started = store.calls, time.monotonic()
    threading.Event().wait(0.2)
    assert (store.calls - before) / (time.monotonic() - started) < FEW


def complaints(log: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in log.records if "event store at fault" in record.getMessage())
