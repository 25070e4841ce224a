"""Waiting until what is queued is settled."""

from __future__ import annotations

import contextlib
from abc import abstractmethod

from fastemit._delivery.ending import Ending
from fastemit._delivery.passes import Courier
from fastemit._delivery.waiting import Flush
from fastemit._delivery.workers import State
from fastemit._time import monotonic


class Flushing(Ending):
    """The part of `Delivery` that waits for what is there at a call, and what `awaiting` needs to do so in a task.

    Thread safety: as `Delivery`'s.
    """

    background: bool

    @abstractmethod
    def _start(self) -> None:
        """Start those who send, unless they run."""

    @abstractmethod
    def _start_for_what_is_there(self) -> None:
        """Start although no event came by `input`, because a store may hold earlier events."""

    def _look_into_spool(self) -> None:
        """Before the first event: take over what dead processes have left."""
        if self._spool is not None and self._workers.state is State.NEW and not self._guard.must_not_wait():
            self._spool.tend()
            self._workers.looked = True

    def request_flush(self) -> None:
        """Ask for all queued events to be sent soon, even during a backoff. Does not wait."""
        self.notice_fork()
        self._look_into_spool()
        self._start_for_what_is_there()
        self._workers.flush_soon()

    # -- in a thread -------------------------------------------------------------------------------------------------

    def drain(self, timeout: float | None = None, retry: bool = False) -> bool:
        """Wait until what is queued or in flight now is settled, or an attempt fails; True if nothing of it is left.

        Args:
            timeout: seconds to wait at the most; None for as long as it takes.
            retry: go on after a failure, by the backoff.
        """
        self.notice_fork()
        self._look_into_spool()
        deadline = None if timeout is None else monotonic() + timeout
        flush = Flush(self.buffer.next_seq, retry)
        courier = self.begin_drain(flush)
        if courier is None:
            return not flush.left_one
        try:
            self._start_for_what_is_there()
            workers = self._workers
            if self._guard.must_not_wait():
                workers.flush_soon()
            else:
                workers.drain(flush, deadline)
                if workers is not self._workers and courier is self._courier and courier.oldest() < flush.target:
                    # The process ends, and the senders ended before they saw the flush.
                    flush.over = False
                    self._workers.drain(flush, deadline)
        finally:
            done = self.end_drain(courier, flush)
        self.report.tell_faults()
        return done

    def begin_drain(self, flush: Flush) -> Courier | None:
        """Tell `flush` when its events are settled. None if nobody will. Then `left_one` says whether any are left."""
        with self._lock:
            courier = self._courier  # by name: a child that a callback forks has another one
            if courier.oldest() >= flush.target:
                return None
            if self._schedule.stopped:
                flush.left_one = True
                return None
            courier.begin(flush)
            return courier

    def end_drain(self, courier: Courier, flush: Flush) -> bool:
        """It waits no longer. Returns whether nothing is left of what it has waited for."""
        with self._lock:
            courier.end(flush)
            return self.buffer.oldest_seq >= flush.target and not flush.left_one

    # -- for `awaiting` ----------------------------------------------------------------------------------------------

    def sends_by_itself(self) -> bool:
        """Whether sender threads send what is there while this thread does something else."""
        self.notice_fork()
        self._start_for_what_is_there()
        return self._workers.busy and not self._guard.must_not_wait()

    def has_looked(self) -> bool:
        """Whether what dead processes have left was looked for, or there is no spool."""
        self.notice_fork()
        return self._workers.looked or self.buffer.closed

    def look_soon(self, look: Flush) -> None:
        """Have a sender thread look for what dead processes have left, and end `look` then.

        Where no sender thread runs, `look` ends at once, because whoever sends looks first.
        """
        if self.background and not self._guard.must_not_wait():
            with self._lock:
                workers = self._workers
                workers.looking.append(look)
            self._start()
            workers.reconsider()
            if self._workers.busy:
                return
        look.end()

    def flush_soon(self) -> None:
        self._workers.flush_soon()

    def seconds_to_retry(self) -> float | None:
        """Seconds until a failure is retried; None if it never is, because the emitter is closed."""
        return None if self._schedule.stopped else self._schedule.backoff.until - monotonic()

    def join_close(self, closer: Flush) -> None:
        """Tell this one when the sender threads have ended."""
        with self._lock:
            if self._workers.busy:
                self._workers.closers.append(closer)
                return
        closer.end()

    def leave_close(self, closer: Flush) -> None:
        """It waits no longer."""
        with self._lock, contextlib.suppress(ValueError):
            self._workers.closers.remove(closer)
