"""The end of a delivery: its `close`, the last sender thread, and its part in the end of the process."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

from fastemit._buffer import EventBuffer
from fastemit._delivery.overflow import Admission
from fastemit._delivery.passes import Courier
from fastemit._delivery.reporting import Reporter
from fastemit._delivery.schedule import Schedule
from fastemit._delivery.waiting import Guard, Inbox
from fastemit._delivery.workers import Workers
from fastemit._interfaces import Transport
from fastemit._process import lifecycle
from fastemit._time import monotonic
from fastemit.stats import say


class Ending(ABC):
    """The part of `Delivery` that ends it.

    Thread safety: as `Delivery`'s.
    """

    buffer: EventBuffer
    report: Reporter
    shutdown_timeout: float
    _transport: Transport
    _guard: Guard
    _lock: threading.RLock
    _schedule: Schedule
    _admission: Admission
    _courier: Courier
    _workers: Workers
    _told_left: int  # events that a close or the end of the process left, and has told of
    _dropped: bool  # nobody has the emitter any more

    @abstractmethod
    def notice_fork(self) -> None:
        """For a fork that ran no Python hook."""

    @abstractmethod
    def _send_inline(self) -> bool:
        """Send in the thread that calls from here on. False where a sender thread runs, or has run."""

    @abstractmethod
    def _go_on_inline(self) -> None:
        """From here on nobody sends but who flushes or puts in what reaches the limit. The lock is held."""

    # -- close -------------------------------------------------------------------------------------------------------

    def close(self, timeout: float) -> int:
        """Send what there is within `timeout` seconds, and stop; the number of events left."""
        self.notice_fork()
        with self._lock:
            if self.buffer.closed or self._schedule.stopped:
                return self.buffer.unsettled_events
        deadline = monotonic() + timeout
        self.begin_close(deadline)
        return self.finish_close(deadline)

    def begin_close(self, deadline: float) -> None:
        self.notice_fork()
        with self._lock:
            self._schedule.close(deadline, monotonic())
            self.buffer.close()
            self._admission.wake()
        self.buffer.signal(everyone=True)

    def finish_close(self, deadline: float) -> int:
        self.notice_fork()
        if self._guard.must_not_wait():
            # The senders go on, and the last of them ends the close; without senders the end of the process does.
            return self.buffer.unsettled_events
        # Nobody sends yet where no event came by `input`, and at the end of a process no thread starts any more.
        self._send_inline()
        if not self._schedule.stopped:
            self._workers.finish(deadline)
        self.stop()
        self.report.log.flush()
        left = self.buffer.unsettled_events
        self._tell_left(left)
        return left

    def stop(self) -> None:
        """Begin nothing new, and end what is under way."""
        if self._workers.stop():
            self._end_waiting()
            self._transport.close()
        lifecycle.unregister(self)

    def _end_waiting(self) -> None:
        with self._lock:
            waiting = self._workers.closers + self._courier.flushes
        for each in waiting:
            each.end()

    def sender_left(self, seat: Inbox) -> None:
        """A sender thread ends; the last one shuts the door, but at the end of the process."""
        with self._lock:
            workers = self._workers
            if not workers.leave(seat):
                return
            ending = self._schedule.ending
            if ending:
                self._go_on_inline()
            else:
                self._schedule.stopped = True
            waiting = workers.closers + self._courier.flushes
        for each in waiting:
            each.end()
        if not ending:
            if not workers.closers:
                # Nobody's `close` does it.
                self.report.log.flush()
            self._transport.close()
            lifecycle.unregister(self)

    def _tell_left(self, left: int) -> None:
        if left and self.buffer.left_in is None:
            say(logging.WARNING, "closed with %d events left, which are lost when the process ends", left)
        elif left:
            say(logging.WARNING, "closed with %d events left, which stay in %s", left, self.buffer.left_in)
        self._told_left = left

    # -- the end of the process --------------------------------------------------------------------------------------

    def begin_end(self, deadline: float) -> None:
        """The process ends: send what there is by now until `deadline`. Does not wait."""
        self.notice_fork()
        with self._lock:
            self._schedule.close(deadline, monotonic(), self.buffer.next_seq)
            self._admission.end()
        self.buffer.signal(everyone=True)

    @property
    def sending(self) -> bool:
        """Whether sender threads are still at what there was at `begin_end`."""
        return self._workers.busy and not self._schedule.reached

    def finish_end(self, deadline: float) -> int:
        """Wait for that until `deadline`. What comes from here on is sent by those who flush, in their own thread.

        Returns:
            The number of events left of an emitter that nobody has any more; of any other it is told here.
        """
        self.notice_fork()
        if self._guard.must_not_wait():
            return 0
        self._send_inline()
        workers = self._workers
        workers.finish(deadline)
        with self._lock:
            left = 0 if self._schedule.reached else self.buffer.unsettled_events
            if self._dropped:
                return left
            if self.buffer.closed:
                # Somebody closes it for good.
                return 0
            self._go_on_inline()
        self.buffer.signal(everyone=True)
        self.report.log.flush()
        self._tell_left(left)
        return 0

    def _tell_what_was_not_flushed(self) -> None:
        """Log what exit handlers have given in since the end of the process was seen to; runs while Python ends."""
        # A thread that stands still for ever may hold any lock, a log handler's for one.
        if not lifecycle.may_log() or not self._lock.acquire(blocking=False):
            return
        try:
            left = self.buffer.unsettled_events - self._told_left
        finally:
            self._lock.release()
        if left > 0:
            where = self.buffer.left_in
            what = "are lost" if where is None else f"stay in {where}"
            say(
                logging.WARNING,
                "the process ends with %d events that came last and were not flushed, and %s",
                left,
                what,
            )
