"""The time that deadlines, timers and backoffs go by: the system's own, whatever has become of the module `time`.

A test suite that freezes or steps the clock (freezegun, time_machine, `mock.patch("time.monotonic")`) may have a live
emitter. By the clock of such a test a retry would never come, and a deadline never pass. So nothing here goes by a
function of `time`. The `stm` of an event does: it is data, and who freezes the clock wants to see that.
"""

from __future__ import annotations

import threading

from fastemit._buffer import monotonic, wall_clock

__all__ = ["monotonic", "sleep", "wall_clock"]


def sleep(seconds: float) -> None:
    """Wait for so many seconds; a signal handler runs meanwhile, and what it raises ends the wait."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))
