"""The end of a delivery: its `close`, the last sender thread, and its part in the end of the process."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

from fastemit._delivery.overflow import Admission
from fastemit._delivery.passes import Courier
from fastemit._delivery.reporting import Reporter
from fastemit._delivery.schedule import Schedule
from fastemit._delivery.waiting import Guard, Inbox
from fastemit._delivery.workers import Workers
from fastemit._interfaces import EventBatch, EventQueue, Keeping, Transport
from fastemit._process import lifecycle
from fastemit._time import monotonic, sleep
from fastemit._words import counted
from fastemit.stats import say
from fastemit.typing import PayloadDictList


class Ending(ABC):
    """The part of `Delivery` that ends it.

    Thread safety: as `Delivery`'s.
    """

    buffer: EventQueue
    report: Reporter
    shutdown_timeout: float
    _transport: Transport
    _spool: Keeping | None
    _guard: Guard
    _lock: threading.RLock
    _schedule: Schedule
    _admission: Admission
    _courier: Courier
    _workers: Workers
    _close_is_left: bool  # a close was begun where nobody may wait for its end
    _told_left: int  # events that a close or the end of the process left, and has told of
    _told_lost: list[range]  # numbers of those of which `on_lost` was told
    telling: int  # threads that are in `tell_lost`
    _dropped: bool  # nobody has the emitter any more

    @abstractmethod
    def notice_fork(self) -> None:
        """For a fork that ran no Python hook."""

    @abstractmethod
    def _send_inline(self) -> bool:
        """Send in the thread that calls from here on. False if a sender thread runs, or has run."""

    @abstractmethod
    def _go_on_inline(self) -> None:
        """From now on an event is sent only by a call that flushes or reaches the limit. The lock is held."""

    # -- close -------------------------------------------------------------------------------------------------------

    def close(self, timeout: float) -> int:
        """Send what is there within `timeout` seconds, and stop. Returns the number of events that are left."""
        deadline = monotonic() + timeout
        return self.finish_close(deadline) if self.claim_close(deadline) else self.buffer.unsettled_events

    @property
    def close_is_somebodys(self) -> bool:
        """Whether a close is over, or somebody waits for its end. Then another call has nothing to do."""
        return self._schedule.stopped or (self.buffer.closed and not self._close_is_left)

    def claim_close(self, deadline: float) -> bool:
        """`begin_close`, unless that is somebody's already.

        Returns:
            Whether the caller has to wait for the end, by `finish_close`. Only one has to. A callback may not wait. The
            senders go on then, and the last one ends the close. Without senders the next call elsewhere does, or the
            end of the process.
        """
        self.notice_fork()
        waits = not self._guard.must_not_wait()  # asked before the lock is taken, which is one of the reasons
        with self._lock:
            if self.close_is_somebodys or (self.buffer.closed and not waits):
                return False
            self._close_is_left = not waits
            self.begin_close(deadline)
        return waits

    def begin_close(self, deadline: float) -> None:
        """Take no more events, and have what is there sent until `deadline`, on the monotonic clock. Does not wait."""
        self.notice_fork()
        with self._lock:
            self._schedule.close(deadline, monotonic())
            self.buffer.close()
            self._admission.wake()
        self.buffer.signal(everyone=True)

    def finish_close(self, deadline: float, patience: float = lifecycle.LAST_STEPS) -> int:
        """Wait for the senders until `deadline`, and cut off what is in a request then.

        Args:
            deadline: on the monotonic clock.
            patience: seconds to wait at the most for what was cut off, and for a sender that tells `on_lost`.

        Returns:
            The number of events that are left.
        """
        self.notice_fork()
        if self._guard.must_not_wait():
            return self.buffer.unsettled_events
        # Nobody sends yet if no event came by `input`, and at the end of a process no thread starts any more.
        self._send_inline()
        if not self._schedule.stopped:
            self._workers.finish(deadline)
        self.stop()
        self.report.log.flush()
        left = self.buffer.unsettled_events
        self._tell_left(left)
        self._wait_for_what_is_cut_off(patience)
        self._tell_all_lost(patience)
        return left

    def _wait_for_what_is_cut_off(self, patience: float = lifecycle.LAST_STEPS) -> None:
        """Give requests that were cut off the moment that they need to give their events back."""
        until = monotonic() + patience
        while self._has_to_come_back() and monotonic() < until:
            sleep(lifecycle.A_MOMENT)

    def _has_to_come_back(self) -> bool:
        if self._spool is not None and self._schedule.stopped:
            # Nobody else may take over what is left before that.
            return not self._spool.closed
        return self._tells_lost and self.buffer.in_flight_events > 0

    def _tell_all_lost(self, patience: float = lifecycle.LAST_STEPS) -> None:
        """`tell_lost`, and wait for a sender that tells of the same events, because the process may end next."""
        self.tell_lost()
        until = monotonic() + patience
        while self.telling and monotonic() < until:
            sleep(lifecycle.A_MOMENT)

    @property
    def _tells_lost(self) -> bool:
        return self.report.on_lost is not None and self.left_in is None

    @property
    def left_in(self) -> str | None:
        """The place where events stay after a close; None if they are lost when the process ends."""
        return self.buffer.left_in if self._spool is None else self._spool.path

    def tell_lost(self) -> None:
        """Tell `on_lost` of the queued events that are not sent any more, of each only once. No lock is held.

        Some events may still be in a request. The thread that gives them back tells of them, if the process lasts.
        """
        if not self._tells_lost:
            return
        with self._lock:
            self.telling += 1
        try:
            self._tell_lost()
        finally:
            with self._lock:
                self.telling -= 1

    def _tell_lost(self) -> None:
        taken: list[EventBatch] = []
        fresh: list[PayloadDictList] = []
        try:
            while (batch := self.buffer.take()) is not None:
                taken.append(batch)
                fresh.append(self._not_told(batch.seq, self.report.lost_of(batch)))
        finally:
            # They stay queued, as the counters tell. The last one goes first, because it finds its place at once.
            while taken:
                taken.pop().give_back(retried=False)
        for events in fresh:
            self.report.lost("left", events)

    def _not_told(self, first: int, events: PayloadDictList) -> PayloadDictList:
        """The events, numbered from `first`, that were not told of yet. They count as told of from now on."""
        with self._lock:
            told = self._told_lost.copy()
            self._told_lost.append(range(first, first + len(events)))
        if not any(first < each.stop and each.start < first + len(events) for each in told):
            return events
        return [event for at, event in enumerate(events, first) if not any(at in each for each in told)]

    def stop(self) -> None:
        """Begin nothing new, and end the requests that are under way."""
        if self._workers.stop():
            self._end_waiting()
            self._shut()
        lifecycle.unregister(self)

    def _shut(self) -> None:
        """Nobody sends any more."""
        self._transport.close()
        if self._spool is not None:
            self._spool.close()

    def _end_waiting(self) -> None:
        with self._lock:
            workers = self._workers
            waiting = workers.closers + workers.looking + self._courier.flushes
        for each in waiting:
            each.end()

    def sender_left(self, seat: Inbox) -> None:
        """A sender thread ends. The last one closes the transport, unless the process ends."""
        with self._lock:
            workers = self._workers
            if not workers.leave(seat):
                return
            ending = self._schedule.ending
            if ending:
                self._go_on_inline()
            else:
                self._schedule.stopped = True
            waiting = workers.looking + self._courier.flushes
        for each in waiting:
            each.end()
        try:
            if not ending:
                if not workers.closers:
                    # No `close` waits that would do it.
                    self.report.log.flush()
                self._shut()
                lifecycle.unregister(self)
                self.tell_lost()
        finally:
            # Last, so that a task that waits in `aclose` finds nothing left to do in its loop.
            with self._lock:
                closers = workers.closers.copy()
            for each in closers:
                each.end()

    def _tell_left(self, left: int) -> None:
        if left and self.left_in is None:
            what = counted(left, "event left, which is lost", "events left, which are lost")
            say(logging.WARNING, "closed with %s when the process ends", what)
        elif left:
            what = counted(left, "event left, which stays", "events left, which stay")
            say(logging.WARNING, "closed with %s in %s", what, self.left_in)
        self._told_left = left

    # -- the end of the process --------------------------------------------------------------------------------------

    def begin_end(self, deadline: float) -> None:
        """The process ends: send the events that are there now, until `deadline`. Does not wait."""
        self.notice_fork()
        with self._lock:
            self._schedule.close(deadline, monotonic(), self.buffer.next_seq)
            self._admission.end()
        self.buffer.signal(everyone=True)

    @property
    def sending(self) -> bool:
        """Whether sender threads still send events that were there at `begin_end`."""
        return self._workers.busy and not self._schedule.reached

    def finish_end(self, deadline: float) -> int:
        """Wait for that until `deadline`. Events that come later are sent by calls that flush, in their own thread.

        Returns:
            The number of events that are left, if the program has dropped the emitter; or else 0, and it is logged.
        """
        self.notice_fork()
        if self._guard.must_not_wait():
            return 0
        if self._close_is_left:
            # It was begun in a callback, and nobody has waited since.
            self._close_is_left = False
            self.finish_close(deadline)
            return 0
        self._send_inline()
        workers = self._workers
        workers.finish(deadline)
        with self._lock:
            left = 0 if self._schedule.reached else self.buffer.unsettled_events
            # A `close` is under way, and does the rest.
            closed = self.buffer.closed and not self._dropped
            if not (closed or self._dropped):
                self._go_on_inline()
        if closed:
            return 0
        if left and self._tells_lost and self.buffer.in_flight_events:
            self._courier.cut_off()
            self._wait_for_what_is_cut_off()
        if self._dropped and self.left_in is None:
            self._tell_all_lost()
            return left
        self.buffer.signal(everyone=True)
        self.report.log.flush()
        self._tell_left(left)
        self._tell_all_lost()
        if self._spool is not None:
            self._spool.tidy()
        return 0

    def _tell_what_was_not_flushed(self) -> None:
        """Log the events that exit handlers have tracked after `finish_end`. This runs while Python ends."""
        # A thread that stands still for ever may hold any lock, for example that of a log handler.
        if not lifecycle.may_log() or not self._lock.acquire(blocking=False):
            return
        try:
            left = self.buffer.unsettled_events - self._told_left
        finally:
            self._lock.release()
        if left > 0:
            where = self.left_in
            one, many = ("is lost", "are lost") if where is None else (f"stays in {where}", f"stay in {where}")
            what = counted(
                left,
                f"event that came last and was not flushed, and {one}",
                f"events that came last and were not flushed, and {many}",
            )
            say(logging.WARNING, "the process ends with %s", what)
            self.tell_lost()
