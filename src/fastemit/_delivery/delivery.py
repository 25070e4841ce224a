"""The delivery: the life of sending. It starts, wakes and stops what sends, and lets others wait for it.

Sender threads, or the thread that calls an emitter made with `background=False`, ask `schedule.py` what to do, and
give the turns that it grants to `courier.py`: the same code for both.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from fastemit._buffer import NOTIFY_ALWAYS, NOTIFY_NEVER, NOTIFY_WHEN_DUE, EventBuffer
from fastemit._delivery.overflow import Admission
from fastemit._delivery.overrides import Hooks
from fastemit._delivery.passes import Courier
from fastemit._delivery.reporting import Reporter
from fastemit._delivery.schedule import FOREVER, LINGER, Exit, Schedule, Tick, Turn
from fastemit._delivery.waiting import Flush, Guard, Inbox, OneSends
from fastemit._interfaces import Outcome, Transport
from fastemit._process import lifecycle
from fastemit._signals import raise_of_signal_handler
from fastemit._time import monotonic
from fastemit.stats import EmitterStats, described, say
from fastemit.typing import Overflow, Payload, PayloadDictList

#: Seconds that a sender waits after an error that should not happen.
AFTER_A_FAULT: Final = 1.0
#: Seconds between two looks at what another thread does, at the least.
MIN_PAUSE: Final = 0.01
#: Seconds between two looks of who is woken by what the other thread does, unless that fails.
LONG_PAUSE: Final = 0.05


class Delivery:
    """Sends what is in an `EventBuffer` through a `Transport`.

    Thread safety: every method may be called from any thread, from a callback, a finalizer and a signal handler. The
    guard's lock covers the state that is not the buffer's.

    An idle sender thread holds no reference to the delivery, so an emitter that the program has dropped is collected;
    one that still has events then hands itself to its senders, which send them (`__del__`).

    Args:
        buffer: where events come from; this delivery alone takes from it.
        transport: where they go.
        report: what tells the user of requests, drops and outcomes.
        overflow: what happens to an event that has no room.
        max_retry_delay: longest backoff, in seconds.
        custom_retry_codes: exceptions to the rules of `retry.judge`.
        thread_count: sender threads.
        background: False to start none, and send in the thread that calls.
        shutdown_timeout: seconds that `close` and the end of the process may take.
        flush_interval: seconds of the flush timer, or None.
        hooks: finds what a subclass or a patch has put in place of the emitter's methods.
    """

    def __init__(
        self,
        buffer: EventBuffer,
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
    ) -> None:
        self.buffer = buffer
        self.report = report
        self.shutdown_timeout = shutdown_timeout
        self._transport = transport
        self._overflow = overflow
        self._max_retry_delay = max_retry_delay
        self._thread_count = thread_count
        #: Whether sender threads are to be started.
        self.background = background
        self._hooks = hooks
        # The very dict: it may be changed in place.
        self._start_over(flush_interval, {} if custom_retry_codes is None else custom_retry_codes)
        lifecycle.register(self)

    def _start_over(self, interval: float | None, custom_retry_codes: dict[int, bool]) -> None:
        """The state of a process that has sent nothing yet."""
        self._guard = Guard()
        self._lock = self._guard.lock
        self.report.start_over(self._lock, _signal_of(weakref.ref(self.buffer)))
        share = getattr(self.buffer, "share", None)
        if share is not None:
            # A store of the user's has books, under the same lock.
            share(self._lock)
        # A GET carries one event whenever it goes.
        linger = LINGER if self.background and not self.buffer.query else 0.0
        self._schedule = Schedule(self.buffer, self._max_retry_delay, interval, monotonic(), linger, self.report.due_at)
        self._admission = Admission(self.buffer, self._schedule.backoff, self.report, self._guard, self._overflow)
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
        self._inline = not self.background
        self._started = False
        self._senders: list[Inbox] = []  # one for each sender thread
        self._turn_taken = OneSends()  # by the one thread that sends when `_inline`
        self._closers: list[Flush] = []  # those who wait until the last sender is gone
        self._told_left = 0  # events that a close or the end of the process left, and has told of
        self._look_for_hooks()
        self._set_notify()

    def _look_for_hooks(self) -> bool:
        """See whether the emitter decides for itself when to send. True if it has come to do so just now."""
        manual = self._hooks is not None and self._hooks.decide_when
        if manual == self._schedule.manual:
            return False
        with self._lock:
            self._schedule.manual = self._admission.manual = manual
            self._set_notify()
        return manual

    def _set_notify(self) -> None:
        """Say when `append` should call `answer`."""
        if self._schedule.manual:
            self.buffer.notify = NOTIFY_ALWAYS
        elif self._inline:
            # Nobody but `input` keeps the time there.
            always = self._schedule.interval is not None or not self._started
            self.buffer.notify = NOTIFY_ALWAYS if always else NOTIFY_WHEN_DUE
        else:
            self.buffer.notify = NOTIFY_NEVER if self._started else NOTIFY_ALWAYS

    # -- events come in ----------------------------------------------------------------------------------------------

    def answer(self, answer: Any) -> None:
        """Do what `EventBuffer.append` asks for with an answer that is not 0."""
        if not isinstance(answer, int):
            self.notice_fork()
            answer = self._admission.admit(answer, self._make_room if self._inline else None)
        if answer:
            if not self._started:
                self._start()
            was_manual = self._schedule.manual
            if was_manual or self._inline:
                self._look_for_hooks()
            if self._schedule.manual and self._hooks is not None:
                self._hooks.flush_if_reached(self.request_flush)
            if self._inline or (was_manual and not self._schedule.manual):
                self.reconsider()
        if self.report.untold_faults:
            self.report.tell_faults()

    def _start(self) -> None:
        with self._lock:
            if self._started or self._schedule.stopped:
                return
            self._started = True
            if lifecycle.ended():
                # Nobody would wait for a thread, and from Python 3.12 on none starts.
                self._go_on_inline()
            lifecycle.watch_exit()
            failure = None if self._inline else self._start_threads()
            self._set_notify()
        if failure is not None:
            say(logging.WARNING, "no sender thread could be started (%s): sending in the calling thread", failure)

    def _start_for_what_is_there(self) -> None:
        """Start for events that did not come by `input`: a store may hold some from before."""
        if not self._started and self.buffer.queued_events:
            self._start()

    def _start_threads(self) -> str | None:
        """Start the senders; why there is none, if there is none."""
        reference = weakref.ref(self)
        for number in range(self._thread_count):
            inbox = Inbox()
            self._senders.append(inbox)
            try:
                threading.Thread(
                    target=_sender, args=(reference, inbox), name=f"{lifecycle.SENDER_NAME}-{number}", daemon=True
                ).start()
            except RuntimeError as error:
                # No threads left, or the interpreter is on its way out and starts none any more, or has no daemons.
                self._senders.remove(inbox)
                if not self._senders:
                    self._inline = True
                    self._schedule.linger = 0.0
                    return described(error)
                break
        return None

    # -- sending -----------------------------------------------------------------------------------------------------

    def work(self, inbox: Inbox) -> float | Exit | None:
        """Send until there is nothing to do; then, with `inbox` armed, how long to wait for a note in it."""
        self._guard.sending.add(threading.get_ident())
        hooks = self._hooks
        while True:
            seen = self.buffer.signals
            if self._look_for_hooks() and hooks is not None:
                # The event that woke this sender would have called it.
                self._guarded(lambda: hooks.flush_if_reached(self.request_flush))
            with self._lock:
                # Not so in a child that was forked by a callback, once it is back here.
                mine = inbox in self._senders
                step = self._schedule.plan(monotonic()) if mine else Exit()
            self.report.tell_faults()
            if isinstance(step, Turn):
                self._courier.attempt(step)
            elif isinstance(step, Tick):
                self._tick()
            elif isinstance(step, Exit) or self.buffer.arm(inbox, seen):
                return step

    def _tick(self) -> None:
        """A timer fired: call the `flush` that the emitter has of its own."""
        self._guarded(self.own_flush or self.request_flush)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever a flush of the user's raises, the sender goes on
            raise_of_signal_handler(error)
            self.report.log.add("flush raised", described(error))

    @property
    def own_flush(self) -> Callable[[], None] | None:
        """The `flush` that a subclass or a patch has put in place of the emitter's, or None."""
        return self._hooks.find("flush") if self._hooks is not None else None

    # -- flush -------------------------------------------------------------------------------------------------------

    def request_flush(self) -> None:
        """Have everything that is queued sent soon, whatever the backoff says; does not wait."""
        self.notice_fork()
        self._start_for_what_is_there()
        with self._lock:
            self._schedule.flush()
        self.reconsider()

    def drain(self, timeout: float | None = None, retry: bool = False) -> bool:
        """Wait until what is queued or in flight now is settled, or an attempt fails; True if nothing of it is left.

        Args:
            timeout: seconds to wait at the most; None for as long as it takes.
            retry: go on after a failure, by the backoff.
        """
        self.notice_fork()
        deadline = None if timeout is None else monotonic() + timeout
        flush = Flush(self.buffer.next_seq, retry)
        with self._lock:
            if self._courier.oldest() >= flush.target:
                return True
            if self._schedule.stopped:
                return False
            courier = self._courier  # by name: a child that a callback forks has another one
            courier.begin(flush)
        try:
            self._start_for_what_is_there()
            if self._guard.must_not_wait():
                self.request_flush()
            elif self._inline:
                with self._lock:
                    self._schedule.flush()
                self._drain_inline(flush, deadline)
            else:
                self.request_flush()
                flush.wait_until(deadline)
                if self._inline and courier is self._courier and courier.oldest() < flush.target:
                    # The process ends, and with it the senders, before they had seen the flush.
                    flush.over = False
                    with self._lock:
                        self._schedule.flush()
                    self._drain_inline(flush, deadline)
        finally:
            with self._lock:
                courier.end(flush)
                done = self.buffer.oldest_seq >= flush.target and not flush.left_one
        self.report.tell_faults()
        return done

    def reconsider(self) -> None:
        """Something that decides when to send was changed: look again."""
        if self._inline:
            self._send_due()
        else:
            self.buffer.signal()

    @property
    def stopped(self) -> bool:
        """Whether nothing is sent any more, since it is closed."""
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
            self._set_notify()
        self.reconsider()

    # -- requests by hand --------------------------------------------------------------------------------------------

    def post(self, body: bytes) -> int:
        """Send a ready-made body once, in this thread; the status, or -1."""
        return self._by_hand(len(body), lambda: self._transport.post(body))

    def get(self, payload: Payload) -> int:
        """Send one event as it is by GET, in this thread; the status, or -1."""
        query = EventBuffer.encode_query(payload)
        return self._by_hand(len(query), lambda: self._transport.get(query))

    def _by_hand(self, size: int, request: Callable[[], Outcome]) -> int:
        self.notice_fork()
        started = monotonic()
        outcome = request()
        if not self._courier.overheard(outcome):
            self.report.request(outcome, 0, size, monotonic() - started)
        return -1 if outcome.status is None else outcome.status

    def send_now(self, payloads: PayloadDictList) -> None:
        """Send these events once, in this thread; those that are to be kept are queued as new ones."""
        self.notice_fork()
        with self._guard.as_sender():
            left = self._courier.send_now(payloads)
        for payload in left:
            answer = self.buffer.append(payload)
            if answer:
                self.answer(answer)

    # -- sending in the calling thread -------------------------------------------------------------------------------

    def _send_due(self) -> None:
        """Send while there is reason to, until events are kept, unless somebody does already."""
        if self._guard.must_not_wait():
            return
        # Before the turn is taken, not after: a signal handler in between would wait for its own thread.
        with self._guard.as_sender():
            turn = self._turn_taken  # by name: a child that a callback forks has another one
            while True:
                try:
                    if not turn.take(0.0):
                        return
                    # What failed is tried again by another call: however short the delay, this one comes to an end.
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
        with self._lock:
            # Whoever had the turn before may have been interrupted between the plan and the request.
            self._schedule.nobody_sends()
            step = self._schedule.plan(monotonic())
        if isinstance(step, Turn):
            self._courier.attempt(step, deadline)
        elif isinstance(step, Tick):
            self._tick()
        self.report.tell_faults()
        return isinstance(step, (Turn, Tick))

    def _make_room(self) -> float | None:
        """Send something; where that may not be now, the seconds until it may."""
        with self._guard.as_sender():
            turn = self._turn_taken
            # Another thread's request is not waited for here, but in the queue of those who want room: a close wakes
            # them at once, and so does that request when it makes room.
            try:
                if not turn.take(0.0):
                    return LONG_PAUSE
                kept = self._schedule.times_kept
                if self._step(None) and self._schedule.times_kept == kept:
                    return None
            finally:
                turn.leave()
        return max(self._schedule.backoff.until - monotonic(), MIN_PAUSE)

    def _drain_inline(self, flush: Flush, deadline: float | None) -> None:
        while not flush.over:
            if self._one_turn(deadline):
                continue
            now = monotonic()
            left = FOREVER if deadline is None else deadline - now
            if not flush.retry or self._schedule.stopped or left <= 0:
                break
            # Until the backoff is over, or a store may be asked again. Another thread may settle the rest meanwhile.
            until = FOREVER if self._schedule.backoff.open else self._schedule.backoff.until
            until = min(until, self.buffer.recheck_at)
            flush.wait(min(LONG_PAUSE if until == FOREVER else max(until - now, MIN_PAUSE), left))
        if flush.over:
            # What a callback asked for meanwhile.
            self._send_due()

    def _close_inline(self, deadline: float) -> None:
        # Also what another thread has in flight: it may come back.
        while self.buffer.unsettled_events and not self._schedule.reached and (now := monotonic()) < deadline:
            if not self._one_turn(deadline):
                Inbox().wait(min(max(self._schedule.backoff.until - now, MIN_PAUSE), deadline - now))

    # -- the end -----------------------------------------------------------------------------------------------------

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
        closer = Flush(self.buffer.next_seq)
        with self._lock:
            threads = bool(self._senders)
            stopped = self._schedule.stopped
            if threads:
                self._closers.append(closer)
        if threads and not stopped:
            closer.wait_until(deadline)
        elif not stopped:
            self._close_inline(deadline)
        with self._lock:
            self._schedule.stopped = True
            # Without senders nobody else tells those who go on after failures.
            waiting = [] if threads else list(self._courier.flushes)
        self.buffer.signal(everyone=True)
        for flush in waiting:
            flush.end()
        lifecycle.unregister(self)
        self.report.log.flush()
        if not threads:
            self._transport.close()
        left = self.buffer.unsettled_events
        self._tell_left(left)
        return left

    def begin_end(self, deadline: float) -> None:
        """The process ends: send what there is by now until `deadline`. Does not wait."""
        self.notice_fork()
        with self._lock:
            self._schedule.close(deadline, monotonic(), self.buffer.next_seq)
            self._admission.end()
        self.buffer.signal(everyone=True)

    def finish_end(self, deadline: float) -> None:
        """Wait for that until `deadline`. What comes from here on is sent by those who flush, in their own thread."""
        self.notice_fork()
        if self._guard.must_not_wait():
            return
        closer = Flush(self.buffer.next_seq)
        with self._lock:
            threads = bool(self._senders)
            if threads:
                self._closers.append(closer)
        if threads:
            closer.wait_until(deadline)
        else:
            self._close_inline(deadline)
        with self._lock:
            if self.buffer.closed:
                # Somebody closes it for good.
                return
            left = 0 if self._schedule.reached else self.buffer.unsettled_events
            self._go_on_inline()
        self.buffer.signal(everyone=True)
        self.report.log.flush()
        self._tell_left(left)

    def _go_on_inline(self) -> None:
        """From here on nobody sends but who flushes or puts in what reaches the limit. The lock is held."""
        # A sender that hangs in a request will find itself gone.
        self._senders.clear()
        self._inline = True
        self._schedule.open_again()
        self._set_notify()
        self._admission.wake()

    def _tell_left(self, left: int) -> None:
        if left and self.buffer.left_in is None:
            say(logging.WARNING, "closed with %d events left, which are lost when the process ends", left)
        elif left:
            say(logging.WARNING, "closed with %d events left, which stay in %s", left, self.buffer.left_in)
        self._told_left = left

    def gone(self, inbox: Inbox) -> None:
        """A sender thread ends; the last one shuts the door, but at the end of the process."""
        with self._lock:
            self._guard.sending.discard(threading.get_ident())
            if inbox not in self._senders:
                return
            self._senders.remove(inbox)
            if self._senders:
                return
            ending = self._schedule.ending
            if ending:
                self._go_on_inline()
            else:
                self._schedule.stopped = True
            for waiting in self._closers + self._courier.flushes:
                waiting.end()
        if not ending:
            if not self._closers:
                # Nobody's `close` does it.
                self.report.log.flush()
            self._transport.close()
            lifecycle.unregister(self)

    def __del__(self) -> None:
        # This runs at any point of any thread, so it takes no lock. The senders wait for a note: this one brings the
        # delivery back to life in their hands, to be closed by them. Without senders the end of the process does it.
        schedule = getattr(self, "_schedule", None)
        # While Python is taken apart, this module may have been emptied.
        taken_apart = (lifecycle or None) is None
        if taken_apart or schedule is None or schedule.stopped or self.buffer.forked:
            return
        if lifecycle.ended():
            self._tell_what_was_not_flushed()
            return
        senders = list(self._senders)
        if senders or self.buffer.unsettled_events:
            lifecycle.adopt(self)
        for inbox in senders:
            inbox.put(self)

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

    def after_fork(self) -> None:
        """In a forked child: start empty; nothing that was inherited is waited for, flushed or closed."""
        interval, closed = self._schedule.interval, self._schedule.closing or self._schedule.stopped
        self._transport.after_fork()
        if self._hooks is not None:
            self._hooks.given_back.start_over()
        self._start_over(interval, self.custom_retry_codes)
        # A close that the parent had begun is the parent's.
        self._schedule.stopped = closed
        # Last: from here on another thread takes this for settled.
        self.buffer.after_fork()
        self._set_notify()

    def notice_fork(self) -> None:
        """For a fork that ran no Python hook: uWSGI forks in C."""
        if self.buffer.forked:
            with lifecycle.fork_lock:
                if self.buffer.forked:
                    self.after_fork()

    # -- what there is to see and to change --------------------------------------------------------------------------

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
        # A sender that waits for the end of a backoff looks when that is now.
        self.reconsider()

    @property
    def retry_delay(self) -> float:
        """Seconds of the backoff that runs; 0 when none does."""
        return self._schedule.backoff.wait

    def stats(self) -> EmitterStats:
        self.notice_fork()
        return self.report.stats(self.buffer, self.retry_delay)


def _signal_of(reference: weakref.ref[EventBuffer]) -> Callable[[], None]:
    """What wakes a sender of this buffer, and keeps no buffer alive."""

    def wake() -> None:
        buffer = reference()
        if buffer is not None:
            buffer.signal()

    return wake


def _sender(reference: weakref.ref[Delivery], inbox: Inbox) -> None:
    """The life of a sender thread. While it waits, nothing here keeps the delivery alive."""
    note: Delivery | None = None
    while True:
        if note is not None:
            # The emitter was collected; see Delivery.__del__.
            reference = weakref.ref(note)
            note.begin_close(FOREVER)
        delivery = note if note is not None else reference()
        if delivery is None:
            # Collected, too. The garbage collector lets a reference die before `__del__` runs, whose note may lie
            # behind one of an event, or be still to come.
            heard, note = inbox.wait(AFTER_A_FAULT)
            if not heard:
                break
            continue
        note = None
        step: float | Exit | None
        try:
            step = delivery.work(inbox)
        except Exception:  # noqa: BLE001 - whatever it was, the events are in the buffer, and go on waiting for a sender
            say(logging.ERROR, "a sender failed; it goes on in %g s", AFTER_A_FAULT, exc_info=True)
            step = AFTER_A_FAULT
        if isinstance(step, Exit):
            delivery.gone(inbox)
            break
        buffer = delivery.buffer
        del delivery
        _, note = inbox.wait(step)
        # Also after a note: one that came late may have left it armed, and the next would be lost on a busy sender.
        buffer.disarm(inbox)
        del buffer
    # Under gevent a forked child goes on with the threads of its parent. `threading` has forgotten them there, and
    # complains when one ends; to ask for it makes it known again.
    threading.current_thread()
