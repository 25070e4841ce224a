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

from fastemit import _native as _native
from fastemit._signals import guarded
from fastemit._time import monotonic

logger: logging.Logger = logging.getLogger("fastemit")
logger.addHandler(logging.NullHandler())


def say(level: int, text: str, *arguments: object, **options: Any) -> None:
    """Log a line. An error in the user's filter or handler must not end the sending."""
    guarded(lambda: logger.log(level, text, *arguments, **options), lambda _: None)


def described(error: BaseException) -> str:
    """An exception as one line, even if its `__str__` raises."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its __str__ may raise anything
        return type(error).__name__


def described_without_secrets(error: BaseException) -> str:
    """An exception of a request as one line. Of a `ValueError` only the name, because its text may hold a secret."""
    return type(error).__name__ if isinstance(error, ValueError) else described(error)


# The methods are written out, because a dataclass would compile them at each start of a program.
@dataclass(frozen=True, init=False, repr=False, eq=False)
class EmitterStats:
    """The counters of an emitter at one point in time, since it was made, or since the fork in a forked child.

    Every event given to `input` is in exactly one of `sent_events`, `dropped_events`, `queued_events` and
    `in_flight_events`. The four add up to the number of calls of `input` that returned. Two more kinds count as given
    to `input`: `recovered_events`, and events that were handed to `send_events`, failed, and are kept. An event that
    `on_failure` gives back although it is kept does not count again.

    Attributes:
        queued_events: accepted and waiting, including those that are kept after a failure.
        queued_bytes: the bytes of these events in request bodies, with `stm` and comma.
        in_flight_events: in a request whose outcome is not known yet.
        sent_events: answered with a 2xx status.
        sent_bytes: the bytes of these events in request bodies.
        requests: requests made; each attempt counts.
        failed_requests: requests without an answer, or with an answer that is not 2xx.
        retried_events: events kept after a failed request; each attempt counts.
        dropped_events: by reason: `overflow` (no room), `rejected` (by the collector), `oversize` (too large for the
            buffer, or larger than a request and answered with a failure), `closed` (given in after `close`).
        retry_delay: seconds of the backoff that runs; 0 if none does.
        last_status: HTTP status of the last request that was answered, or None.
        last_error: what went wrong with the last failed request, or None.
        recovered_events: events of dead processes that were taken over from a spool.
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
    recovered_events: int = 0

    def __init__(
        self,
        queued_events: int,
        queued_bytes: int,
        in_flight_events: int,
        sent_events: int,
        sent_bytes: int,
        requests: int,
        failed_requests: int,
        retried_events: int,
        dropped_events: dict[str, int],
        retry_delay: float,
        last_status: int | None,
        last_error: str | None,
        recovered_events: int = 0,
    ) -> None:
        # Not one by one, because a frozen dataclass lets nothing be assigned.
        vars(self).update(
            queued_events=queued_events,
            queued_bytes=queued_bytes,
            in_flight_events=in_flight_events,
            sent_events=sent_events,
            sent_bytes=sent_bytes,
            requests=requests,
            failed_requests=failed_requests,
            retried_events=retried_events,
            dropped_events=dropped_events,
            retry_delay=retry_delay,
            last_status=last_status,
            last_error=last_error,
            recovered_events=recovered_events,
        )

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))


class _Kind:
    """The lines of one kind: how many were counted, how many were logged, and when the last one was written.

    To count is one step, which no thread, signal handler or finalizer can interrupt. So it needs no lock.
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
        """The text that says for how many the next line stands."""
        if self.last > -math.inf:
            return f" ({count} since the last such line)"
        return f" ({count} so far)" if count > 1 else ""


class ThrottledLog:
    """WARNING lines, at most one of a kind in an interval, each with the number that it stands for.

    There is no thread here. A line that is held back is written by a call of `write` at `due_at` or later, or else at
    the end of the process.

    Thread safety: any thread may call anything, whatever locks it holds, because nobody waits here. A thread that finds
    another one writing only counts, and goes on. Threads that drop events at full speed count all the time, so to count
    is a step of its own, which leaves no work for others.

    Args:
        interval: seconds between two lines of the same kind.
        clock: a monotonic clock, in seconds.
        wake: called when a line is held back, so that somebody looks at `due_at`.
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
        """Log that there were `count` more of `kind`. `detail` describes the last one."""
        if self.note(kind, detail, count) and not self.write():
            # The thread that writes may have looked at this kind before this call counted.
            self._hold_back()

    def note(self, kind: str, detail: str, count: int = 1) -> bool:
        """Count, but do not write, for callers that hold a lock. Returns whether there is something to `write`.

        A user's log handler may wait for such a lock, if it tracks events in another thread.
        """
        entry = self._kinds.get(kind)
        if entry is None:
            entry = self._kinds.setdefault(kind, _Kind())
        entry.detail = detail
        entry.count(count)
        # Set after counting. Whoever looks sets it to False before the look, so nothing that was counted is forgotten.
        first = not entry.held
        if first:
            entry.held = True
        if self._clock() >= entry.last + self.interval:
            return True
        if first:
            self._hold_back()
        return False

    def due_at(self) -> float:
        """When a line that is held back may be written, by the clock; infinity if none is."""
        if not self._kinds:
            # This is asked for each request, and most emitters never have anything to log.
            return math.inf
        last = min((entry.last for entry in self._kinds.copy().values() if entry.held), default=math.inf)
        if last < math.inf and self._busy.locked():
            # Another thread is writing. Or a signal handler raised between the lock and its release. Then nothing is
            # written any more, and whoever waits for that must not do so in a busy loop.
            return self._clock() + min(self.interval, 1.0)
        return last + self.interval

    def write(self) -> bool:
        """Write the lines that are due. False if another thread is writing."""
        return not self._kinds or self._write(self.interval)

    def flush(self) -> None:
        """Write all lines that are held back."""
        if self._kinds:
            self._write(0.0)

    def forget(self) -> None:
        """Leave the lines that are held back to the parent of this forked process."""
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
        # Written without the lock, because a log handler that tracks events may call this again.
        for kind, number, detail in lines:
            say(logging.WARNING, "%s%s: %s", kind, number, detail)
        return True


#: Logs that hold lines back, each with its process. Each step on it is one operation of the dict.
_held_back: Final[dict[int, tuple[int, ThrottledLog]]] = {}


def write_what_is_held_back() -> None:
    """At the end of the process: write the lines that no sender has written, such as those of closed emitters."""
    # The stream of a log handler may be closed by now, as those of pytest are. `logging` would print a traceback then.
    told, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        for process, log in list(_held_back.values()):
            if process == os.getpid():
                log.flush()
    finally:
        logging.raiseExceptions = told


# Runs after the end of the emitters, which is registered later, and before the end of `logging`.
atexit.register(write_what_is_held_back)
