"""Sending in the thread that calls: for `background=False`, and for a process that can start no thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastemit._buffer import NOTIFY_ALWAYS, NOTIFY_WHEN_DUE
from fastemit._delivery import leftovers
from fastemit._delivery.schedule import FOREVER, Tick, Turn
from fastemit._delivery.waiting import Flush, Inbox, OneSends
from fastemit._delivery.workers import Parts, State, Workers
from fastemit._time import monotonic

if TYPE_CHECKING:
    from fastemit._delivery.delivery import Delivery

#: The least seconds between two looks at what another thread does.
MIN_PAUSE: Final = 0.01
#: Seconds between two looks of a thread. Normally the other thread wakes it earlier.
LONG_PAUSE: Final = 0.05


class Inline(Workers):
    """Sends in whichever thread calls, one at a time.

    Thread safety: any thread may call anything, a signal handler too. `OneSends` is held by the thread that sends; the
    guard's lock is not.

    Args:
        parts: of the delivery.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._turn_taken = OneSends()

    def start(self, delivery: Delivery) -> str | None:
        with self._lock:
            self.state = State.RUNNING
            self.say_when_to_call()
        return None

    def say_when_to_call(self) -> None:
        # Only `input` looks at the timer here.
        calls = self._schedule.manual or self._schedule.interval is not None or self.state is State.NEW
        self._parts.waking.notify(NOTIFY_ALWAYS if calls else NOTIFY_WHEN_DUE)

    def event_came(self, changed: bool) -> None:
        self.reconsider()

    # -- sending -----------------------------------------------------------------------------------------------------

    def reconsider(self) -> None:
        """Send while there is reason to, until events are kept. Does nothing if another thread sends already."""
        if self._guard.must_not_wait():
            return
        # This comes before the turn is taken. Otherwise a signal handler in between would wait for its own thread.
        with self._guard.as_sender():
            turn = self._turn_taken
            while True:
                try:
                    if not turn.take(0.0):
                        return
                    # Another call tries again what failed. So this call ends, however short the delay is.
                    kept = self._schedule.times_kept
                    while self._step(None):
                        if self._schedule.times_kept != kept:
                            return
                finally:
                    turn.leave()
                # Another thread may have found the turn taken after the last look.
                if not self._schedule.wants_turn(monotonic()):
                    return

    def _one_turn(self, deadline: float | None) -> bool:
        """Wait for the turn and make one request if there is reason to. False when there is none, or no time left."""
        left = None if deadline is None else deadline - monotonic()
        with self._guard.as_sender():
            turn = self._turn_taken
            try:
                return turn.take(left) and self._step(deadline)
            finally:
                turn.leave()

    def _step(self, deadline: float | None) -> bool:
        """Make one request if there is reason to; the turn is this thread's."""
        self._tend()
        with self._lock:
            # The thread that had the turn before may have been interrupted between the plan and the request.
            self._schedule.nobody_sends()
            step = self._schedule.plan(monotonic())
        if isinstance(step, Turn):
            self._courier.attempt(step, deadline)
        elif isinstance(step, Tick):
            self._tick()
        self._report.tell_faults()
        return isinstance(step, (Turn, Tick))

    @property
    def make_room(self) -> Callable[[], float | None]:
        return self._make_room

    def _make_room(self) -> float | None:
        """Send something. If that is not allowed now, returns the seconds until it is."""
        with self._guard.as_sender():
            turn = self._turn_taken
            # Another thread sends. The caller waits for it in the queue of those who want room, because a close, or
            # that request when it makes room, wakes them at once.
            try:
                if not turn.take(0.0):
                    return LONG_PAUSE
                kept = self._schedule.times_kept
                if self._step(None) and self._schedule.times_kept == kept:
                    return None
            finally:
                turn.leave()
        return max(self._schedule.backoff.until - monotonic(), MIN_PAUSE)

    def drain(self, flush: Flush, deadline: float | None) -> None:
        with self._lock:
            self._schedule.flush()
        while not flush.over:
            if self._one_turn(deadline):
                continue
            now = monotonic()
            left = FOREVER if deadline is None else deadline - now
            if not flush.retry or self._schedule.stopped or left <= 0:
                break
            # Until the backoff is over, or a store may be asked again. Another thread may settle the rest meanwhile.
            until = FOREVER if self._schedule.backoff.open else self._schedule.backoff.until
            until = min(until, self._buffer.recheck_at)
            flush.wait(min(LONG_PAUSE if until == FOREVER else max(until - now, MIN_PAUSE), left))
        if flush.over:
            # Do what a callback has asked for meanwhile.
            self.reconsider()

    # -- end ---------------------------------------------------------------------------------------------------------

    def finish(self, deadline: float) -> None:
        # Also wait for what another thread has in flight, because it may come back.
        while self._buffer.unsettled_events and not self._schedule.reached and (now := monotonic()) < deadline:
            if not self._one_turn(deadline):
                Inbox().wait(min(max(self._schedule.backoff.until - now, MIN_PAUSE), deadline - now))

    def stop(self) -> bool:
        with self._lock:
            self._schedule.stopped = True
            self.state = State.ENDED
        # Another thread may be in the middle of a request.
        self._courier.cutoff.cut()
        return True

    def has_left_something(self) -> bool:
        return self._buffer.unsettled_events > 0

    def abandon(self, delivery: Delivery) -> None:
        leftovers.keep(delivery)
