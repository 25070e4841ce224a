"""How tests wait: for a condition, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: Seconds in which a condition comes true on a machine that is busy.
DEADLINE = 10.0


def until(condition: Callable[[], object], timeout: float = DEADLINE) -> None:
    """Wait until `condition` holds; an `AssertionError` when it does not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition does not come true"
        pause.wait(0.002)
