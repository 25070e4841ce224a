"""What an emitter tells about itself: counters, and log lines that do not flood."""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastemit._signals import raise_of_signal_handler
from fastemit._time import monotonic

logger: logging.Logger = logging.getLogger("fastemit")
logger.addHandler(logging.NullHandler())


def say(level: int, text: str, *arguments: object, **options: Any) -> None:
    """Log a line. What a filter or handler of the user's raises must not end the sending."""
    try:
        logger.log(level, text, *arguments, **options)
    except Exception as error:  # noqa: BLE001 - see above; but not what a signal means for the program
        raise_of_signal_handler(error)


def described(error: BaseException) -> str:
    """An exception in a line, also one that cannot describe itself."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its __str__ may raise anything
        return type(error).__name__


def described_without_secrets(error: BaseException) -> str:
    """An exception of a request, in a line. A `ValueError` quotes what it was given: a header, a proxy's address."""
    return type(error).__name__ if isinstance(error, ValueError) else described(error)


@dataclass(frozen=True)
class EmitterStats:
    """One consistent look at an emitter, counted since it was made, or since the fork in a forked child.

    Every event given to `input` is in exactly one of `sent_events`, `dropped_events`, `queued_events` and
    `in_flight_events`; the four add up to the number of calls of `input` that returned. (Events that were handed to
    `send_events`, failed, and are kept count as given to `input`.)

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


class _Kind:
    """Lines of one kind: how many were counted and told of, and when the last was written.

    Counting is one step that no thread, signal handler or finalizer can come between, without a lock.
    """

    def __init__(self) -> None:
        self.detail = ""
        self.last = -math.inf
        self._counter = itertools.count()
        self._told = 0
        self._looks = 0  # each look at the counter counts one, too

    def count(self, number: int) -> None:
        if number == 1:
            next(self._counter)
        else:
            deque(itertools.islice(self._counter, number), maxlen=0)

    def untold(self) -> int:
        """How many were counted since the last look. One thread looks at a time."""
        total = next(self._counter) - self._looks
        self._looks += 1
        told, self._told = self._told, total
        return total - told


class ThrottledLog:
    """WARNING lines, at most one of a kind in an interval, each with the number that it stands for.

    Thread safety: any thread may call anything, with whatever locks it holds: who finds another thread at writing
    leaves its count and goes on, so that nobody waits here. Threads that drop at full speed are here all the time, so
    counting is a step of its own that leaves nothing behind for others to do.

    Args:
        interval: seconds between two lines of the same kind.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, interval: float = 10.0, clock: Callable[[], float] = monotonic) -> None:
        self.interval = interval
        self._clock = clock
        self._busy = threading.Lock()
        self._kinds: dict[str, _Kind] = {}

    def add(self, kind: str, detail: str, count: int = 1) -> None:
        """Report `count` of `kind`; `detail` says what the latest was."""
        if self.note(kind, detail, count):
            self.write()

    def note(self, kind: str, detail: str, count: int = 1) -> bool:
        """Count without writing, for those who hold a lock; whether there is something to `write`.

        A handler of the user's may wait for such a lock: one that tracks events, in another thread.
        """
        entry = self._kinds.get(kind)
        if entry is None:
            entry = self._kinds.setdefault(kind, _Kind())
        entry.detail = detail
        entry.count(count)
        return self._clock() - entry.last >= self.interval

    def write(self) -> None:
        """Write what may be written by now."""
        self._write(self.interval)

    def flush(self) -> None:
        """Write what is held back."""
        self._write(0.0)

    def _write(self, interval: float) -> None:
        if not self._busy.acquire(blocking=False):
            return
        lines = []
        try:
            now = self._clock()
            for kind, entry in self._kinds.copy().items():
                if now - entry.last >= interval and (count := entry.untold()):
                    entry.last = now
                    lines.append((kind, count, entry.detail))
        finally:
            self._busy.release()
        # A handler that tracks events may come back here.
        for kind, count, detail in lines:
            say(logging.WARNING, "%s (%d since the last such line): %s", kind, count, detail)
