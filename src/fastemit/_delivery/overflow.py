"""What happens to an event that the buffer has not taken: the four overflow policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastemit._delivery.reporting import Reporter
from fastemit._delivery.retry import Backoff
from fastemit._delivery.waiting import STARVING_AFTER, Guard, Inbox, RoomQueue
from fastemit._delivery.waking import Waking
from fastemit._interfaces import Encoded, EventQueue, Keeping
from fastemit._time import monotonic
from fastemit.typing import Overflow, PayloadDictList

#: Seconds between two looks whether the disk has room.
DISK_PAUSE: Final = 0.1


class Admission:
    """Waits for room, makes some, or drops.

    Thread safety: any thread may call `admit`; `wake` is called with the guard's lock held.

    Those who wait are woken in the order in which they came. A newcomer may be quicker than one who was woken, because
    a busy buffer would otherwise need a thread switch for each event. But one that has waited for `STARVING_AFTER` is
    `urgent`, and while there is such a one the buffer takes nobody else's event.

    Args:
        buffer: where the events go.
        waking: told of those who have waited long.
        backoff: says whether sending works.
        report: told of drops.
        guard: the delivery's.
        policy: "backpressure", "drop_newest", "drop_oldest" or "block".
        spool: the files that the events are in, if they are.
    """

    def __init__(
        self,
        buffer: EventQueue,
        waking: Waking,
        backoff: Backoff,
        report: Reporter,
        guard: Guard,
        policy: Overflow,
        spool: Keeping | None = None,
    ) -> None:
        self._buffer = buffer
        self._waking = waking
        self._backoff = backoff
        self._report = report
        self._guard = guard
        self._lock = guard.lock
        self._policy = policy
        self._spool = spool
        self._room = RoomQueue()
        #: The emitter itself decides when to send, so nobody knows if there will be room; see `overrides.py`.
        self.manual = False

    def admit(self, event: Encoded, make_room: Callable[[], float | None] | None) -> int:
        """Queue an encoded event that was refused once, or drop it, by the policy.

        Args:
            event: what the buffer's `append` returned.
            make_room: sends something in this thread, or returns the seconds to wait until it may. None: sender
                threads make room.

        Returns:
            What `append` returns for an event that it takes; 0 for one that was dropped.
        """
        waiting: list[Inbox] = []
        lost: list[tuple[str, PayloadDictList]] = []
        try:
            try:
                return self._admit(event, make_room, waiting, lost)
            finally:
                self._relax(waiting)
        finally:
            # This is done again, because a signal handler may have raised in the middle of it. While one event is
            # urgent, no other is taken.
            self._relax(waiting)
            for reason, events in lost:
                self._report.lost(reason, events)

    def _admit(
        self,
        event: Encoded,
        make_room: Callable[[], float | None] | None,
        waiting: list[Inbox],
        lost: list[tuple[str, PayloadDictList]],
    ) -> int:
        """As `admit`.

        Args:
            waiting: gets this thread's inbox before it is waited on.
            lost: gets what `on_lost` is to be told of.
        """
        buffer = self._buffer
        since = 0.0
        urgent = False
        while True:
            answer = buffer.append_encoded(event, urgent)
            if isinstance(answer, int):
                return answer
            # A refused event knows when it was refused. If the store has changed since then, it is tried again.
            event = answer
            if buffer.closed:
                return self._drop(event, "closed", "given in after close", lost)
            if buffer.too_large(event):
                size = buffer.size_of(event)
                return self._drop(event, "oversize", f"{size} bytes, more than the buffer may hold", lost)
            if self._policy == "drop_oldest":
                queued, dropped = self._drop_oldest(event, urgent, lost)
                if dropped:
                    self._report.dropped("overflow", "the oldest, to make room", dropped)
                if queued is not None:
                    return queued
                if dropped or self._free_a_file(lost):
                    continue
            if self._pointless() or self._guard.must_not_wait():
                detail = "the buffer is full" if self._disk_has_room() else "there is no room on the disk"
                return self._drop(event, "overflow", detail, lost)
            pause = None
            if make_room is not None:
                pause = make_room()
                if pause is None:
                    continue
            if not self._disk_has_room():
                # Nothing tells when there is room.
                pause = DISK_PAUSE if pause is None else min(pause, DISK_PAUSE)
            if not waiting:
                waiting.append(Inbox())
                since = monotonic()
            elif not urgent and monotonic() - since > STARVING_AFTER:
                urgent = True
                with self._lock:
                    self._waking.urge(waiting[0])
            self._wait(event, waiting[0], urgent, pause)

    def _disk_has_room(self) -> bool:
        return self._spool is None or self._spool.has_room

    def _free_a_file(self, lost: list[tuple[str, PayloadDictList]]) -> bool:
        """For a full disk: drop as many of the oldest events as a request has, so that their file can be used again."""
        if self._spool is None or self._spool.has_room:
            return False
        batch = self._buffer.take()
        if batch is None:
            return False
        count = len(batch)
        lost.append(("overflow", self._report.lost_of(batch)))
        batch.dropped("overflow")
        self._report.dropped("overflow", "the oldest, since there is no room on the disk", count)
        self._spool.tend(take_over=False)
        return True

    def _relax(self, waiting: list[Inbox]) -> None:
        """This thread waits no longer."""
        if waiting:
            with self._lock:
                if self._waking.relax(waiting[0]):
                    # This one made the buffer refuse others, and nothing else would wake those.
                    self.wake()
            waiting.clear()

    def _drop(self, event: Encoded, reason: str, detail: str, lost: list[tuple[str, PayloadDictList]]) -> int:
        lost.append((reason, self._report.lost_event(event)))
        self._buffer.count_dropped(reason)
        self._report.dropped(reason, detail)
        return 0

    def _drop_oldest(
        self, event: Encoded, urgent: bool, lost: list[tuple[str, PayloadDictList]]
    ) -> tuple[int | None, int]:
        """Drop queued events, oldest first, until `event` has room.

        Returns:
            What `append` answered if it took the event after all, else None; and how many were dropped.
        """
        buffer = self._buffer
        if self._report.on_lost is None:
            return None, buffer.drop_oldest(event)
        # They are taken one by one, each as a batch that can be decoded.
        size = buffer.size_of(event)
        dropped = 0
        while (
            not buffer.has_room_for(event)
            and buffer.in_flight_events < buffer.capacity
            and buffer.in_flight_bytes + size <= buffer.max_bytes
        ):
            batch = buffer.take(1, 1)
            if batch is None:
                break
            # `take` clears the note that an event was refused, which wakes a sender. To try again sets the note again.
            answer = buffer.append_encoded(event, urgent)
            if isinstance(answer, int):
                batch.give_back(retried=False)
                return answer, dropped
            lost.append(("overflow", self._report.lost_of(batch)))
            batch.dropped("overflow")
            dropped += 1
        return None, dropped

    def _pointless(self) -> bool:
        """Whether the policy forbids to wait for room now."""
        return self._policy != "block" and (self._policy != "backpressure" or not self._backoff.open or self.manual)

    def _wait(self, event: Encoded, inbox: Inbox, urgent: bool, timeout: float | None) -> None:
        with self._lock:
            room = self._buffer.has_room_for(event) and (urgent or not self._buffer.starving) and self._disk_has_room()
            if room or self._buffer.closed or self._pointless():
                return
            self._room.join(inbox, again=urgent)
        try:
            inbox.wait(timeout)
        finally:
            with self._lock:
                self._room.leave(inbox)

    def end(self) -> None:
        """The process ends. From now on no thread waits for a collector that does not answer."""
        if self._policy == "block":
            self._policy = "backpressure"
        self.wake()

    def wake(self) -> None:
        """Wake those who wait: as many as there is room for, or all of them if there is no point in waiting."""
        if not self._room.waiting:
            return
        if self._buffer.closed or self._pointless():
            self._room.wake()
        else:
            self._room.wake(self._buffer.capacity - self._buffer.unsettled_events)
