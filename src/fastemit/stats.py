"""What an emitter tells about itself: counters, and log lines that do not flood."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger("fastemit")
logger.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class EmitterStats:
    """One consistent look at an emitter, counted since it was made, or since the fork in a forked child.

    Every event given to `input` is in exactly one of `sent_events`, `dropped_events`, `queued_events` and
    `in_flight_events`; the four add up to the number of calls of `input` that returned.

    Attributes:
        queued_events: accepted and waiting, those kept after a failure included.
        queued_bytes: what they take in request bodies, `stm` and comma included.
        in_flight_events: in a request whose outcome is not known yet.
        sent_events: answered with a 2xx status.
        sent_bytes: what these took in request bodies.
        requests: requests made, each attempt counted.
        failed_requests: those without an answer, or with one that is not 2xx.
        retried_events: events kept after a failed request, counted at each attempt.
        dropped_events: by reason: `overflow` (no room), `rejected` (by the collector), `oversize` (too large to be
            held, or larger than a request and answered with a failure), `closed` (given in after `close`).
        retry_delay: seconds of the backoff that runs, 0 when none does.
        last_status: HTTP status of the last request that was answered, or None.
        last_error: what went wrong with the last failed request, or None.
    """

    queued_events: int
    queued_bytes: int
    in_flight_events: int
    sent_events: int
    sent_bytes: int
    requests: int
    failed_requests: int
    retried_events: int
    dropped_events: dict[str, int]
    retry_delay: float
    last_status: int | None
    last_error: str | None


class ThrottledLog:
    """WARNING lines, at most one of a kind in an interval, each with the number that it stands for.

    Thread safety: any thread may call anything; the lock covers the counters, not the logging.

    Args:
        lock: a reentrant lock.
        interval: seconds between two lines of the same kind.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, lock: threading.RLock, interval: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval = interval
        self._clock = clock
        self._lock = lock
        self._last: dict[str, float] = {}
        self._pending: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, detail: str, count: int = 1) -> None:
        """Report `count` of `kind`; `detail` says what the latest was."""
        with self._lock:
            count += self._pending.pop(kind, (0, ""))[0]
            now = self._clock()
            if now - self._last.get(kind, -self.interval) < self.interval:
                self._pending[kind] = (count, detail)
                return
            # Before the line is written: a handler that tracks events may come back here.
            self._last[kind] = now
        logger.warning("%s (%d since the last such line): %s", kind, count, detail)

    def flush(self) -> None:
        """Write what is held back."""
        with self._lock:
            pending, self._pending = self._pending, {}
        for kind, (count, detail) in pending.items():
            logger.warning("%s (%d since the last such line): %s", kind, count, detail)
