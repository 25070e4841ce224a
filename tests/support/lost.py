"""An `on_lost` that keeps what it was called with."""

from __future__ import annotations

import threading
from typing import Any

from tests.support.delivery import numbers


class Lost:
    """An `on_lost`: what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[dict[str, Any]]]] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, reason: str, events: list[dict[str, Any]]) -> None:
        self.calls.append((reason, events))
        self.threads.append(threading.current_thread())

    def by_reason(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for reason, events in self.calls:
            found.setdefault(reason, []).extend(numbers(events))
        return found
