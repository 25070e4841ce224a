"""The delivery: the life of an emitter. It opens, flushes and closes, and it survives forks.

`senders.py` has the threads that send, and `inline.py` does the same for `background=False`. A delivery has one of the
two. `ending.py` has its close, and what it does when the process ends.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable

from fastemit._delivery import leftovers
from fastemit._delivery.flushing import Flushing
from fastemit._delivery.inline import Inline
from fastemit._delivery.overflow import Admission
from fastemit._delivery.overrides import Hooks
from fastemit._delivery.passes import Courier
from fastemit._delivery.reporting import Reporter
from fastemit._delivery.schedule import Exit, Schedule
from fastemit._delivery.senders import Senders
from fastemit._delivery.waiting import Guard, Inbox
from fastemit._delivery.waking import Waking
from fastemit._delivery.workers import Parts, State, Workers
from fastemit._interfaces import Encoded, EventQueue, Keeping, Outcome, Transport
from fastemit._process import lifecycle
from fastemit._time import monotonic
from fastemit.stats import EmitterStats, say
from fastemit.typing import Overflow, PayloadDictList


class Delivery(Flushing):
    """Sends what is in an `EventQueue` through a `Transport`.

    Thread safety: every method may be called from any thread, from a callback, a finalizer and a signal handler. The
    guard's lock covers the state that is not the buffer's.

    An idle sender thread holds no reference to the delivery, so an emitter that the program drops is collected. If it
    still has events, it hands itself to its senders, which send them (`__del__`).

    Args:
        buffer: where events come from. Nobody but this delivery takes from it.
        transport: where events go.
        report: tells the user of requests, drops and outcomes.
        overflow: what happens to an event that has no room.
        max_retry_delay: longest backoff, in seconds.
        custom_retry_codes: exceptions to the rules of `retry.judge`.
        thread_count: sender threads.
        background: False to start none, and send in the thread that calls.
        shutdown_timeout: seconds that `close` and the end of the process may take.
        flush_interval: seconds of the flush timer, or None.
        hooks: finds what a subclass or a patch has put in place of the emitter's methods.
        spool: the files that the buffer's events are in; None where they are in memory.
    """

    def __init__(
        self,
        buffer: EventQueue,
        transport: Transport,
        report: Reporter,
        *,
        overflow: Overflow = "backpressure",
        max_retry_delay: float = 60.0,
        custom_retry_codes: dict[int, bool] | None = None,
        thread_count: int = 1,
        background: bool = True,
        shutdown_timeout: float = 5.0,
        flush_interval: float | None = None,
        hooks: Hooks | None = None,
        spool: Keeping | None = None,
    ) -> None:
        self.buffer = buffer
        self.report = report
        self.shutdown_timeout = shutdown_timeout
        self._transport = transport
        self._overflow = overflow
        self._max_retry_delay = max_retry_delay
        self._thread_count = thread_count
        #: Whether sender threads may be started.
        self.background = background
        self._hooks = hooks
        self._spool = spool
        #: The emitter was initialised again and has another delivery, so nobody sees the counters of this one.
        self.replaced = False
        # This is the dict itself and not a copy, because the user may change it in place.
        self._start_over(flush_interval, {} if custom_retry_codes is None else custom_retry_codes)
        lifecycle.register(self)

    def _start_over(self, interval: float | None, custom_retry_codes: dict[int, bool]) -> None:
        """The state of a process that has sent nothing yet."""
        self._guard = Guard(self._spool)
        self._lock = self._guard.lock
        self.report.start_over(self._guard, _signal_of(weakref.ref(self.buffer)))
        self.buffer.share(self._lock)
        waking = Waking(self.buffer)
        self._schedule = Schedule(
            self.buffer, waking, self._max_retry_delay, interval, monotonic(), told_at=self._due_at()
        )
        self._admission = Admission(
            self.buffer, waking, self._schedule.backoff, self.report, self._guard, self._overflow, self._spool
        )
        self._courier = Courier(
            self.buffer,
            self._transport,
            self.report,
            self._schedule,
            self._admission,
            self._guard,
            custom_retry_codes,
            self._hooks,
        )
        self._parts = Parts(
            self.buffer,
            self._guard,
            waking,
            self._schedule,
            self._admission,
            self._courier,
            self.report,
            self._hooks,
            self._spool,
        )
        self._workers: Workers = Senders(self._parts, self._thread_count) if self.background else Inline(self._parts)
        self._close_is_left = False  # a close was begun where nobody may wait for its end
        self._told_left = 0  # events that a close or the end of the process left, and has told of
        self._told_lost: list[range] = []  # numbers of those of which `on_lost` was told
        self.telling = 0  # threads that are in `tell_lost`
        self._dropped = False  # nobody has the emitter any more
        self._workers.look_for_hooks()
        with self._lock:
            self._workers.say_when_to_call()

    def _due_at(self) -> Callable[[], float]:
        """The time when a sender has something to do besides sending."""
        told_at, spool = self.report.log.due_at, self._spool
        if spool is None:
            return told_at
        spool.warn = self.report.spool_fault
        return lambda: min(told_at(), spool.due_at())

    # -- events come in ----------------------------------------------------------------------------------------------

    def answer(self, answer: int | Encoded) -> None:
        """Do what the buffer's `append` asks for with an answer that is not 0."""
        if not isinstance(answer, int):
            if self.replaced:
                raise RuntimeError("the emitter's __init__ was called again during this input: the event is not taken")
            self.notice_fork()
            answer = self._admission.admit(answer, self._workers.make_room)
        if answer:
            self._start()
            was_manual = self._schedule.manual
            self._workers.look_for_hooks()
            if self._schedule.manual and self._hooks is not None:
                self._hooks.flush_if_reached(self.request_flush)
            self._workers.event_came(changed=was_manual and not self._schedule.manual)
        if self.report.untold_faults:
            self.report.tell_faults()

    def _start(self) -> None:
        """Start the senders if they do not run. If a signal handler raises here, the next event tries again."""
        if self._workers.state is not State.NEW or self._schedule.stopped:
            return
        leftovers.tell()
        if lifecycle.ended():
            # Nobody would wait for a thread, and Python 3.12 and later start none now.
            with self._lock:
                self._go_on_inline()
            return
        lifecycle.watch_exit()
        failure = self._workers.start(self)
        if failure is not None and self._send_inline():
            say(logging.WARNING, "no sender thread could be started (%s): sending in the calling thread", failure)

    def _send_inline(self) -> bool:
        """Send in the thread that calls from here on. False where a sender thread runs, or has run."""
        with self._lock:
            if self._workers.state is not State.NEW:
                return False
            self._become_inline()
            return True

    def _become_inline(self) -> None:
        # A thread that has no seat yet sees this and ends. One that hangs in a request finds that its seat is gone.
        self._workers.state = State.ENDED
        self._workers.dismiss()
        self._workers.disband()
        inline = Inline(self._parts)
        inline.start(self)
        self._workers = inline

    def _go_on_inline(self) -> None:
        """From now on an event is sent only by a call that flushes or reaches the limit. The lock is held."""
        self._schedule.open_again()
        self._become_inline()
        self._admission.wake()

    def _start_for_what_is_there(self) -> None:
        """Start although no event came by `input`, because a store or a spool may hold earlier events."""
        if self._workers.state is State.NEW and self.buffer.queued_events:
            self._start()

    def work(self, seat: Inbox) -> float | Exit | None:
        """For a sender thread: send until there is nothing to do; then how long to wait for a note in `seat`."""
        return self._workers.work(seat)

    @property
    def own_flush(self) -> Callable[[], None] | None:
        """The `flush` that a subclass or a patch has put in place of the emitter's, or None."""
        return self._hooks.find("flush") if self._hooks is not None else None

    # -- settings that change --------------------------------------------------------------------------------------

    def reconsider(self) -> None:
        """A setting that decides when to send was changed, so look again."""
        self._workers.reconsider()

    @property
    def stopped(self) -> bool:
        """Whether it is closed, so that nothing is sent any more."""
        return self._schedule.stopped

    @property
    def flush_interval(self) -> float | None:
        """Seconds of the flush timer; None when it is off."""
        return self._schedule.interval

    @flush_interval.setter
    def flush_interval(self, interval: float | None) -> None:
        self.notice_fork()
        with self._lock:
            self._schedule.set_interval(interval, monotonic())
            self._workers.say_when_to_call()
        self.reconsider()

    # -- requests by hand --------------------------------------------------------------------------------------------

    def by_hand(self, size: int, request: Callable[[], Outcome]) -> int:
        """Make `request` once in this thread. Returns its status, or -1."""
        self.notice_fork()
        started = monotonic()
        outcome = request()
        if not self._courier.overheard(outcome):
            self.report.request(outcome, 0, size, monotonic() - started)
        return -1 if outcome.status is None else outcome.status

    def send_now(self, payloads: PayloadDictList) -> None:
        """Send these events once, in this thread. Those that are kept are queued as new ones."""
        self.notice_fork()
        with self._guard.as_sender():
            left = self._courier.send_now(payloads)
        for payload in left:
            answer = self.buffer.append(payload)
            if answer:
                self.answer(answer)

    # -- an emitter that the program has dropped ---------------------------------------------------------------------

    def __del__(self) -> None:
        # This may run at any point of any thread, so it takes no lock.
        try:
            self._abandon()
        except BaseException:
            # A signal handler raised this, and Python prints it. Go on, because nobody else does this work.
            self._abandon()
            raise

    def _abandon(self) -> None:
        workers: Workers | None = getattr(self, "_workers", None)
        # While Python shuts down, this module may have been emptied.
        taken_apart = (lifecycle or None) is None
        if taken_apart or workers is None:
            return
        if self._schedule.stopped or self.buffer.forked:
            workers.dismiss()
        elif lifecycle.ended():
            self._tell_what_was_not_flushed()
        elif workers.has_left_something():
            # It is alive again: a sender goes on with it, or it is kept until the process ends.
            self._dropped = True
            lifecycle.adopt(self)
            workers.abandon(self)

    def hand_over(self, seat: Inbox, deadline: float) -> None:
        """Let the thread of `seat` alone send what is left, until `deadline`."""
        self._workers.reseat(seat)
        self.begin_close(deadline)

    # -- fork --------------------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In a forked child: start empty. Nothing that was inherited is waited for, flushed or closed."""
        interval, closed = self._schedule.interval, self._schedule.closing or self._schedule.stopped
        self._transport.after_fork()
        if self._spool is not None:
            self._spool.after_fork()
        self._workers.disband()
        if self._hooks is not None:
            self._hooks.given_back.start_over()
        self._start_over(interval, self.custom_retry_codes)
        # A close that the parent had begun is the parent's business.
        self._schedule.stopped = closed
        # This is last, because after it other threads take the fork as noticed.
        self.buffer.after_fork()
        with self._lock:
            self._workers.say_when_to_call()

    def notice_fork(self) -> None:
        """For a fork that ran no Python hook, because uWSGI forks in C."""
        if self.buffer.forked:
            with lifecycle.fork_lock:
                if self.buffer.forked:
                    self.after_fork()

    # -- what can be read and changed ---------------------------------------------------------------------------------

    @property
    def custom_retry_codes(self) -> dict[int, bool]:
        """Exceptions to the rules of `retry.judge`."""
        return self._courier.custom_retry_codes

    @custom_retry_codes.setter
    def custom_retry_codes(self, value: dict[int, bool]) -> None:
        self._courier.custom_retry_codes = value

    @property
    def max_retry_delay(self) -> float:
        """Longest backoff, in seconds."""
        return self._max_retry_delay

    @max_retry_delay.setter
    def max_retry_delay(self, value: float) -> None:
        self.notice_fork()
        with self._lock:
            self._max_retry_delay = value
            self._schedule.backoff.limit(value)
        # A sender that waits for the end of a backoff has to look when it ends now.
        self.reconsider()

    @property
    def retry_delay(self) -> float:
        """Seconds of the backoff that runs; 0 when none does."""
        return self._schedule.backoff.wait

    @property
    def in_use(self) -> bool:
        """Whether it has had an event or a request, and is not closed."""
        if self._schedule.closing or self._schedule.stopped:
            return False
        stats = self.stats()
        had = stats.queued_events + stats.in_flight_events + stats.sent_events + sum(stats.dropped_events.values())
        return self._workers.state is not State.NEW or had + stats.requests > 0

    def stats(self) -> EmitterStats:
        self.notice_fork()
        recovered = 0 if self._spool is None else self._spool.recovered_events
        return self.report.stats(self.buffer, self.retry_delay, recovered)


def _signal_of(reference: weakref.ref[EventQueue]) -> Callable[[], None]:
    """A function that wakes a sender of this buffer, and does not keep the buffer alive."""

    def wake() -> None:
        buffer = reference()
        if buffer is not None:
            buffer.signal()

    return wake
