"""What an emitter tells about itself: counters, and log lines that do not flood."""

from __future__ import annotations

import atexit
import itertools
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fastemit._signals import guarded
from fastemit._time import monotonic

logger: logging.Logger = logging.getLogger("fastemit")
logger.addHandler(logging.NullHandler())


def say(level: int, text: str, *arguments: object, **options: Any) -> None:
    """Log a line. What a filter or handler of the user's raises must not end the sending."""
    guarded(lambda: logger.log(level, text, *arguments, **options), lambda _: None)


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
    `send_events`, failed, and are kept count as given to `input`; one that `on_failure` gives back although it is kept
    does not.)

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
        self.held = False  # some were counted since the last look
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

    def stands_for(self, count: int) -> str:
        """What the next line says of how many it stands for."""
        if self.last > -math.inf:
            return f" ({count} since the last such line)"
        return f" ({count} so far)" if count > 1 else ""


class ThrottledLog:
    """WARNING lines, at most one of a kind in an interval, each with the number that it stands for.

    What is held back is written by a call of `write` at `due_at` or later: there is no thread here. What nobody has
    written by then is written at the end of the process.

    Thread safety: any thread may call anything, with whatever locks it holds: who finds another thread at writing
    leaves its count and goes on, so that nobody waits here. Threads that drop at full speed are here all the time, so
    counting is a step of its own that leaves nothing behind for others to do.

    Args:
        interval: seconds between two lines of the same kind.
        clock: a monotonic clock, in seconds.
        wake: called when something is held back, so that somebody looks at `due_at`.
    """

    def __init__(
        self,
        interval: float = 10.0,
        clock: Callable[[], float] = monotonic,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.interval = interval
        self._clock = clock
        self._wake = wake
        self._busy = threading.Lock()
        self._kinds: dict[str, _Kind] = {}

    def add(self, kind: str, detail: str, count: int = 1) -> None:
        """Report `count` of `kind`; `detail` says what the latest was."""
        if self.note(kind, detail, count) and not self.write():
            # The thread that writes may have looked at this kind before it was counted.
            self._hold_back()

    def note(self, kind: str, detail: str, count: int = 1) -> bool:
        """Count without writing, for those who hold a lock; whether there is something to `write`.

        A handler of the user's may wait for such a lock: one that tracks events, in another thread.
        """
        entry = self._kinds.get(kind)
        if entry is None:
            entry = self._kinds.setdefault(kind, _Kind())
        entry.detail = detail
        entry.count(count)
        # After counting: who looks sets this to False before the look, so nothing is counted and forgotten.
        first = not entry.held
        if first:
            entry.held = True
        if self._clock() >= entry.last + self.interval:
            return True
        if first:
            self._hold_back()
        return False

    def due_at(self) -> float:
        """When something that is held back may be written, by the clock; infinity when nothing is."""
        if not self._kinds:
            # Asked twice for each request, and most emitters never have anything to tell.
            return math.inf
        last = min((entry.last for entry in self._kinds.copy().values() if entry.held), default=math.inf)
        if last < math.inf and self._busy.locked():
            # Another thread is writing. Or a signal handler's exception came between the lock and its release: then
            # nothing is written any more, and whoever waits for that must not do so in a busy loop.
            return self._clock() + min(self.interval, 1.0)
        return last + self.interval

    def write(self) -> bool:
        """Write what may be written by now. False when another thread is writing."""
        return not self._kinds or self._write(self.interval)

    def flush(self) -> None:
        """Write what is held back."""
        if self._kinds:
            self._write(0.0)

    def forget(self) -> None:
        """Leave what is held back to the process that this one was forked from."""
        _held_back.pop(id(self), None)

    def _hold_back(self) -> None:
        _held_back[id(self)] = (os.getpid(), self)
        self._wake()

    def _write(self, interval: float) -> bool:
        if not self._busy.acquire(blocking=False):
            return False
        lines = []
        try:
            now = self._clock()
            for kind, entry in self._kinds.copy().items():
                if now >= entry.last + interval:
                    entry.held = False
                    if count := entry.untold():
                        lines.append((kind, entry.stands_for(count), entry.detail))
                        entry.last = now
        finally:
            self._busy.release()
        mine = _held_back.pop(id(self), None)
        if mine is not None and any(entry.held for entry in self._kinds.copy().values()):
            _held_back[id(self)] = mine
        # A handler that tracks events may come back here.
        for kind, number, detail in lines:
            say(logging.WARNING, "%s%s: %s", kind, number, detail)
        return True


#: Logs that hold something back, and the process that does. Each step on it is one operation of the dict.
_held_back: Final[dict[int, tuple[int, ThrottledLog]]] = {}


def write_what_is_held_back() -> None:
    """At the end of the process: write what no sender has written, of emitters that are closed, for instance."""
    # A handler's stream may be closed by now, as those of pytest are. `logging` would print a traceback for each line.
    told, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        for process, log in list(_held_back.values()):
            if process == os.getpid():
                log.flush()
    finally:
        logging.raiseExceptions = told


# Later than the end of the emitters, which is registered after this, and earlier than that of `logging`.
atexit.register(write_what_is_held_back)
