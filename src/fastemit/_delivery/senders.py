"""The sender threads of a delivery: how they start, work, hand over what is left, and end."""

from __future__ import annotations

import enum
import threading
import weakref
from typing import TYPE_CHECKING, Final

from fastemit._buffer import NOTIFY_ALWAYS, NOTIFY_NEVER
from fastemit._delivery import leftovers
from fastemit._delivery.schedule import EXIT, LINGER, Exit, Tick, Turn
from fastemit._delivery.waiting import Flush, Inbox
from fastemit._delivery.workers import Parts, State, Workers, work_on
from fastemit._process import lifecycle
from fastemit._signals import guarded, raise_of_signal_handler
from fastemit._time import monotonic
from fastemit.stats import described

if TYPE_CHECKING:
    from fastemit._delivery.delivery import Delivery


class Kind(enum.Enum):
    """What a note tells a sender."""

    #: See what there is to do.
    WAKE = "wake"
    #: The emitter was collected: send what it has left.
    TAKE_OVER = "take over"
    #: There is nothing more to do.
    END = "end"


class Note:
    """What a sender finds in its seat."""

    def __init__(self, kind: Kind, delivery: Delivery | None = None) -> None:
        self.kind: Final = kind
        self.delivery: Final = delivery


WAKE: Final = Note(Kind.WAKE)
END: Final = Note(Kind.END)


class Seat(Inbox):
    """The place of one sender in its delivery. Its thread sleeps here, and here it gets its notes."""

    def hear(self, timeout: float | None) -> Note:
        """Wait for a note. Returns WAKE when `timeout` seconds have passed without one; None waits for ever."""
        _, note = self.wait(timeout)
        # The buffer, which knows nothing of notes, puts None.
        return WAKE if note is None else note


class Senders(Workers):
    """Up to `thread_count` threads that send.

    The state is NEW until the first accepted event. It is RUNNING when a thread exists and has its seat, ENDING when
    nothing more is begun, and ENDED when the last thread has left its seat.

    The thread that calls `input` starts one thread, and holds no lock while it does: before the new thread says that it
    runs, it may run a finalizer of the program, which may call this emitter. The first sender starts the others. Two
    callers may both start a first thread. The second one finds the seat taken, and ends.

    Thread safety: any thread may call anything, a signal handler and (`abandon`, `dismiss`) a finalizer too. The
    guard's lock covers the state and the seats.

    Args:
        parts: what the delivery is made of.
        thread_count: the most threads. There are fewer if the system can start no more.
    """

    linger = LINGER

    def __init__(self, parts: Parts, thread_count: int) -> None:
        super().__init__(parts)
        self._thread_count = thread_count
        self._seats: list[Inbox] = []

    # -- start -------------------------------------------------------------------------------------------------------

    def start(self, delivery: Delivery) -> str | None:
        seat = Seat()
        try:
            # A signal handler that raises in `start` may end the new thread before it has begun, and Python forgets it.
            # So the state is set after this, or by the thread itself.
            self._start_thread(delivery, seat, 0)
        except Exception as error:
            # Python may have turned what a handler has raised into an error of its own.
            raise_of_signal_handler(error)
            if not isinstance(error, RuntimeError):
                raise
            # There are no threads left, or the interpreter ends and starts none any more.
            return described(error)
        self.take_seat(seat)
        return None

    def _start_thread(self, delivery: Delivery, seat: Seat, number: int) -> None:
        # In a list that the thread empties, because its arguments would keep the delivery alive.
        threading.Thread(
            target=_life, args=([delivery], [self], seat, number), name=f"{lifecycle.SENDER_NAME}-{number}", daemon=True
        ).start()

    def take_seat(self, seat: Seat) -> bool:
        """Set RUNNING, with the thread of this seat as the first. False if there are others already, or it has ended.

        Called by the one who started the thread, and by the thread itself, because the first may be interrupted.
        """
        with self._lock:
            if self.state is State.NEW:
                self._seats = [seat]
                self.state = State.RUNNING
                self.say_when_to_call()
            return seat in self._seats

    def hire(self, delivery: Delivery) -> None:
        """Start the other threads. Called by the first one, in which no signal handler runs."""
        for number in range(1, self._thread_count):
            seat = Seat()
            with self._lock:
                if self.state is not State.RUNNING:
                    return
                self._seats.append(seat)
            try:
                self._start_thread(delivery, seat, number)
            except (RuntimeError, MemoryError):
                # Fewer threads are enough.
                with self._lock:
                    self._seats.remove(seat)
                return

    # -- work --------------------------------------------------------------------------------------------------------

    def work(self, seat: Inbox) -> float | Exit | None:
        self._guard.sending.add(threading.get_ident())
        hooks = self._hooks
        while True:
            seen = self._buffer.signals
            put_off = (self._keeps_files or bool(self.looking)) and self._tend(put_off=True)
            if self.look_for_hooks() and hooks is not None:
                # Otherwise the event that woke this sender would have called it.
                guarded(lambda: hooks.flush_if_reached(self.flush_soon), self._flush_raised)
            # It has no seat in a child that a callback has forked, when the callback returns.
            if seat not in self._seats:
                return EXIT
            with self._lock:
                step = self._schedule.plan(monotonic())
            if isinstance(step, Turn):
                if self._buffer.linger and len(self._seats) > 1:
                    # While this one makes its request, another has to see when the time between two requests ends.
                    self._buffer.signal()
                # No wait goes beyond the deadline of a close that has begun.
                self._courier.attempt(step, self._schedule.ends_at)
                continue
            self._report.tell_faults()
            if isinstance(step, Tick):
                self._tick()
            elif put_off:
                # There is no request now.
                self._tend()
            elif isinstance(step, Exit):
                left = self._until_others_are_cut_off()
                if left <= 0:
                    return step
                if self._buffer.arm(seat, seen):
                    return left
            elif self._buffer.arm(seat, seen):
                return step

    def _until_others_are_cut_off(self) -> float:
        """How many seconds a sender that has nothing to do stays during a close, while the requests of others may hang.

        If a callback has asked for the close, nobody else would cut off these requests at the deadline.
        """
        ends_at = self._schedule.ends_at
        if ends_at is None or self._schedule.stopped or len(self._seats) < 2 or not self._buffer.in_flight_events:
            return 0.0
        return ends_at - monotonic()

    def say_when_to_call(self) -> None:
        calls = self._schedule.manual or self.state is State.NEW
        self._parts.waking.notify(NOTIFY_ALWAYS if calls else NOTIFY_NEVER)

    def event_came(self, changed: bool) -> None:
        # An interrupted start may have left it at ALWAYS.
        with self._lock:
            self.say_when_to_call()
        if changed:
            self.reconsider()

    def reconsider(self) -> None:
        self._buffer.signal()

    def drain(self, flush: Flush, deadline: float | None) -> None:
        self.flush_soon()
        flush.wait_until(deadline)

    # -- hand over ---------------------------------------------------------------------------------------------------

    def has_left_something(self) -> bool:
        # A sender finds out whether there are events. Without a sender, a user's store may have some.
        return bool(self._seats) or self._buffer.unsettled_events > 0

    def abandon(self, delivery: Delivery) -> None:
        # All of them sleep, or are about to, because a sender that works keeps the delivery alive.
        seats = self._seats.copy()
        for seat in seats[:1]:
            seat.put(Note(Kind.TAKE_OVER, delivery))
        for seat in seats[1:]:
            seat.put(END)

    def dismiss(self) -> None:
        for seat in self._seats.copy():
            seat.put(END)

    def reseat(self, seat: Inbox) -> None:
        with self._lock:
            self._guard.sending.discard(threading.get_ident())
            self._seats = [seat]

    def disband(self) -> None:
        # No lock is taken, because a thread of the parent may hold it. A thread that returns from a callback finds no
        # seat.
        self._seats = []

    # -- end ---------------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return bool(self._seats)

    def finish(self, deadline: float) -> None:
        closer = Flush(0)
        with self._lock:
            if not self._seats:
                return
            self.closers.append(closer)
        closer.wait_until(deadline)

    def stop(self) -> bool:
        with self._lock:
            self._schedule.stopped = True
            self.state = State.ENDING if self._seats else State.ENDED
        self.dismiss()
        self._courier.cutoff.cut()
        return self.state is State.ENDED

    def leave(self, seat: Inbox) -> bool:
        with self._lock:
            self._guard.sending.discard(threading.get_ident())
            if seat not in self._seats:
                return False
            self._seats.remove(seat)
            if not self._seats:
                self.state = State.ENDED
                return True
        if self._schedule.time_is_up(monotonic()):
            self._courier.cutoff.cut()
        # A sender that has stayed for this may end as well.
        self._buffer.signal(everyone=True)
        return False


def _life(deliveries: list[Delivery], senders: list[Senders], seat: Seat, number: int) -> None:
    """The life of a sender thread. While it waits, nothing here keeps the delivery alive."""
    delivery: Delivery | None = deliveries.pop()
    assert delivery is not None
    reference = weakref.ref(delivery)
    crew = senders.pop()
    if number == 0:
        if not crew.take_seat(seat):
            return
        crew.hire(delivery)
    del crew
    while True:
        if delivery is None:
            # The delivery is being collected. Its reference dies before `__del__` runs. The note of `__del__` is here,
            # or will come, however long other finalizers of the same collection take.
            note = seat.hear(None)
        else:
            step = work_on(delivery, seat)
            if isinstance(step, Exit):
                delivery.sender_left(seat)
                break
            buffer = delivery.buffer
            del delivery
            note = seat.hear(step)
            # This is done after a note, too. A late note may have left it armed, and the next one would go to a busy
            # sender.
            buffer.disarm(seat)
            del buffer
        if note.kind is Kind.TAKE_OVER and note.delivery is not None:
            given = [note.delivery]
            del note
            leftovers.take_over(given)
            break
        delivery = reference()
        if note.kind is Kind.END:
            if delivery is not None:
                delivery.sender_left(seat)
            break
    # Under gevent a forked child goes on with the threads of its parent. `threading` has forgotten them, and complains
    # when one ends. This call makes it known again.
    threading.current_thread()
