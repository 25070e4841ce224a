"""The clock of deadlines, timers and backoffs. It is the system's, even if a test replaces the module `time`.

A test suite may freeze or move the clock (freezegun, time_machine, `mock.patch("time.monotonic")`) while an emitter
works. By such a clock a retry would never come, and a deadline would never pass. So nothing here uses a function of
`time`. The `stm` of an event does, because it is data, and a test that freezes the clock wants to see its own time.
"""

from __future__ import annotations

import threading

from fastemit._system import monotonic, wall_clock

__all__ = ["monotonic", "sleep", "wall_clock"]


def sleep(seconds: float) -> None:
    """Wait for so many seconds. Signal handlers run meanwhile, and an exception of one ends the wait."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))
