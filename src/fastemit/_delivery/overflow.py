"""What becomes of an event that the buffer has not taken: the four overflow policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastemit._buffer import EventBuffer
from fastemit._delivery.reporting import Reporter
from fastemit._delivery.retry import Backoff
from fastemit._delivery.waiting import STARVING_AFTER, Guard, Inbox, RoomQueue
from fastemit._delivery.waking import Waking
from fastemit._time import monotonic
from fastemit.typing import Overflow


class Admission:
    """Waits for room, makes some, or drops.

    Thread safety: any thread may call `admit`; `wake` is called with the guard's lock held.

    Those who wait are woken in the order in which they came. A newcomer may be quicker than one who was woken, which
    keeps a busy buffer from handing each place over by a thread switch; but one that has waited for `STARVING_AFTER`
    is `urgent`, and while there is such a one the buffer takes nobody else's event.

    Args:
        buffer: where the events go.
        waking: is told of those who have waited long.
        backoff: says whether sending works.
        report: is told of drops.
        guard: the delivery's.
        policy: "backpressure", "drop_newest", "drop_oldest" or "block".
    """

    def __init__(
        self,
        buffer: EventBuffer,
        waking: Waking,
        backoff: Backoff,
        report: Reporter,
        guard: Guard,
        policy: Overflow,
    ) -> None:
        self._buffer = buffer
        self._waking = waking
        self._backoff = backoff
        self._report = report
        self._guard = guard
        self._lock = guard.lock
        self._policy = policy
        self._room = RoomQueue()
        #: The emitter decides for itself when to send, so nobody knows whether there will be room: see `overrides.py`.
        self.manual = False

    def admit(self, event: Any, make_room: Callable[[], float | None] | None) -> int:
        """Queue an encoded event that was refused once, or drop it, by the policy.

        Args:
            event: what `EventBuffer.append` returned.
            make_room: sends something in this thread; the seconds to wait first where it may not. None where sender
                threads do it.

        Returns:
            What `append` returns for an event that it takes; 0 for one that was dropped.
        """
        waiting: list[Inbox] = []
        try:
            try:
                return self._admit(event, make_room, waiting)
            finally:
                self._relax(waiting)
        finally:
            # Again, since a signal handler may have raised in the middle of that: while one is urgent, no other event
            # is taken.
            self._relax(waiting)

    def _admit(self, event: Any, make_room: Callable[[], float | None] | None, waiting: list[Inbox]) -> int:
        """As `admit`. `waiting`: gets this thread's inbox before it is waited on."""
        buffer = self._buffer
        since = 0.0
        urgent = False
        while True:
            answer = buffer.append_encoded(event, urgent)
            if isinstance(answer, int):
                return answer
            # A store's refusal says when it was: what has changed since is a reason to try again.
            event = answer
            if buffer.closed:
                return self._drop("closed", "given in after close")
            if buffer.too_large(event):
                return self._drop("oversize", f"{buffer.size_of(event)} bytes, more than the buffer may hold")
            if self._policy == "drop_oldest":
                dropped = buffer.drop_oldest(event)
                if dropped:
                    self._report.dropped("overflow", "the oldest, to make room", dropped)
                    continue
            if self._pointless() or self._guard.must_not_wait():
                return self._drop("overflow", "the buffer is full")
            pause = None
            if make_room is not None:
                pause = make_room()
                if pause is None:
                    continue
            if not waiting:
                waiting.append(Inbox())
                since = monotonic()
            elif not urgent and monotonic() - since > STARVING_AFTER:
                urgent = True
                with self._lock:
                    self._waking.urge(waiting[0])
            self._wait(event, waiting[0], urgent, pause)

    def _relax(self, waiting: list[Inbox]) -> None:
        """This thread waits no longer."""
        if waiting:
            with self._lock:
                if self._waking.relax(waiting[0]):
                    # Those who were refused for this one's sake have no settling to wait for.
                    self.wake()
            waiting.clear()

    def _drop(self, reason: str, detail: str) -> int:
        self._buffer.count_dropped(reason)
        self._report.dropped(reason, detail)
        return 0

    def _pointless(self) -> bool:
        """Whether the policy says to wait for no room, now or at all."""
        return self._policy != "block" and (self._policy != "backpressure" or not self._backoff.open or self.manual)

    def _wait(self, event: Any, inbox: Inbox, urgent: bool, timeout: float | None) -> None:
        with self._lock:
            room = self._buffer.has_room_for(event) and (urgent or not self._buffer.starving)
            if room or self._buffer.closed or self._pointless():
                return
            self._room.join(inbox, again=urgent)
        try:
            inbox.wait(timeout)
        finally:
            with self._lock:
                self._room.leave(inbox)

    def end(self) -> None:
        """The process ends: from here on nobody waits for a collector that does not answer."""
        if self._policy == "block":
            self._policy = "backpressure"
        self.wake()

    def wake(self) -> None:
        """Wake who waits: as many as there is room for, or all of them where waiting has lost its point."""
        if self._buffer.closed or self._pointless():
            self._room.wake()
        else:
            self._room.wake(self._buffer.capacity - self._buffer.unsettled_events)
