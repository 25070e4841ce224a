"""What sender threads, and a caller that sends in its own thread, have in common."""

from __future__ import annotations

import abc
import enum
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastemit._delivery.overflow import Admission
from fastemit._delivery.overrides import Hooks
from fastemit._delivery.passes import Courier
from fastemit._delivery.reporting import Reporter
from fastemit._delivery.schedule import EXIT, Exit, Schedule
from fastemit._delivery.waiting import Flush, Guard, Inbox
from fastemit._delivery.waking import Waking
from fastemit._interfaces import EventQueue, Keeping
from fastemit._signals import guarded
from fastemit.stats import described, say

if TYPE_CHECKING:
    from fastemit._delivery.delivery import Delivery


#: Seconds that a sender waits after an error that should never happen.
AFTER_A_FAULT: Final = 1.0


class State(enum.Enum):
    """The state of those who send. It only goes on in this order, and may leave out RUNNING and ENDING."""

    #: No event has come, or their start was interrupted. The next event starts them.
    NEW = "new"
    #: They send.
    RUNNING = "running"
    #: They begin nothing new, and some have not ended yet.
    ENDING = "ending"
    #: Nobody sends any more.
    ENDED = "ended"


class Parts:
    """What a delivery is made of, for those who send. It has no reference to the delivery or the emitter."""

    def __init__(
        self,
        buffer: EventQueue,
        guard: Guard,
        waking: Waking,
        schedule: Schedule,
        admission: Admission,
        courier: Courier,
        report: Reporter,
        hooks: Hooks | None,
        spool: Keeping | None,
    ) -> None:
        self.buffer: Final = buffer
        self.guard: Final = guard
        self.waking: Final = waking
        self.schedule: Final = schedule
        self.admission: Final = admission
        self.courier: Final = courier
        self.report: Final = report
        self.hooks: Final = hooks
        self.spool: Final = spool


class Workers(abc.ABC):
    """The common part of `Senders` and `Inline`, of which a delivery has one.

    Thread safety: any thread may call anything. `state` is written with the guard's lock held, in one step.
    """

    #: Seconds between two small requests.
    linger = 0.0

    def __init__(self, parts: Parts) -> None:
        self.state = State.NEW
        #: Those who wait until the last sender thread is gone.
        self.closers: list[Flush] = []
        #: Whether what dead processes have left was looked for; and those who wait until it was.
        self.looked = parts.spool is None
        self.looking: list[Flush] = []
        self._parts = parts
        self._keeps_files = parts.spool is not None
        self._buffer = parts.buffer
        self._guard = parts.guard
        self._lock = parts.guard.lock
        self._schedule = parts.schedule
        self._courier = parts.courier
        self._report = parts.report
        self._hooks = parts.hooks
        with self._lock:
            self._schedule.linger = 0.0 if self._buffer.query else self.linger

    @property
    def busy(self) -> bool:
        """Whether there are sender threads."""
        return False

    @property
    def make_room(self) -> Callable[[], float | None] | None:
        """Sends something in this thread, so that there is room; None where sender threads do that."""
        return None

    # -- what each kind does in its own way --------------------------------------------------------------------------

    @abc.abstractmethod
    def start(self, delivery: Delivery) -> str | None:
        """Become RUNNING, or return why not. If a signal handler raises in here, the state is NEW or RUNNING."""

    @abc.abstractmethod
    def event_came(self, changed: bool) -> None:
        """An event came for which `append` asked for a call.

        Args:
            changed: from now on the number of events decides when to send, and not the emitter.
        """

    @abc.abstractmethod
    def reconsider(self) -> None:
        """Something that decides when to send was changed: look again."""

    @abc.abstractmethod
    def drain(self, flush: Flush, deadline: float | None) -> None:
        """Send what is queued, and wait for `flush` until `deadline`."""

    @abc.abstractmethod
    def finish(self, deadline: float) -> None:
        """Wait until a close that was begun is done, until `deadline`."""

    @abc.abstractmethod
    def stop(self) -> bool:
        """Begin nothing new. True if all have ended, so that the caller has to close the transport."""

    @abc.abstractmethod
    def has_left_something(self) -> bool:
        """Whether there is something to do when the emitter is collected. Called in a finalizer, as the next two."""

    @abc.abstractmethod
    def abandon(self, delivery: Delivery) -> None:
        """The emitter was collected: somebody has to keep `delivery` alive, and send what is left.

        A finalizer runs at any point of any thread. So this takes no lock, and calls nothing that might wait.
        """

    def dismiss(self) -> None:  # noqa: B027 - without threads there is nobody to tell
        """Tell every thread to end. Safe in a finalizer."""

    def reseat(self, seat: Inbox) -> None:  # noqa: B027 - as above
        """From here on only the thread of `seat` works."""

    def disband(self) -> None:  # noqa: B027 - as above
        """In a forked child: those who send for the parent do not send here."""

    @abc.abstractmethod
    def say_when_to_call(self) -> None:
        """Set the buffer's `notify`."""

    def work(self, seat: Inbox) -> float | Exit | None:
        """For a sender thread: send until there is nothing to do; then how long to wait for a note in `seat`."""
        return EXIT

    def leave(self, seat: Inbox) -> bool:
        """A sender thread ends. True if it was the last."""
        return False

    # -- what they do in the same way --------------------------------------------------------------------------------

    def look_for_hooks(self) -> bool:
        """See whether the emitter itself decides when to send. True if that is new."""
        manual = self._hooks is not None and self._hooks.decide_when
        if manual == self._schedule.manual:
            return False
        with self._lock:
            self._schedule.set_manual(manual)
            self._parts.admission.manual = manual
            self.say_when_to_call()
        return manual

    def flush_soon(self) -> None:
        """Ask for all queued events to be sent, even during a backoff. Does not wait."""
        with self._lock:
            self._schedule.flush()
        self.reconsider()

    def _tend(self, put_off: bool = False) -> bool:
        """Look after the files that events are in, if there are any, and if that is due. No lock is held.

        Args:
            put_off: the work may be left to the next request, if there seems to be one.

        Returns:
            Whether it was left to that.
        """
        spool = self._parts.spool
        if spool is not None:
            spool.takes_over = not self._schedule.closing
            if spool.wants_tending:
                if put_off and self.looked and not self.looking and self._buffer.queued_events and spool.put_off():
                    return True
                if spool.tend():
                    with self._lock:
                        self._parts.admission.wake()
        if not self.looked or self.looking:
            self._tell_looked()
        return False

    def _tell_looked(self) -> None:
        with self._lock:
            self.looked = True
            looking, self.looking = self.looking, []
        for each in looking:
            each.end()

    def _tick(self) -> None:
        """A timer fired: call the emitter's own `flush`."""
        own = self._hooks.find("flush") if self._hooks is not None else None
        guarded(own or self.flush_soon, self._flush_raised)

    def _flush_raised(self, error: Exception) -> None:
        self._report.log.add("flush raised", described(error))


def work_on(delivery: Delivery, seat: Inbox) -> float | Exit | None:
    """`Delivery.work`. An unexpected error is logged, because it must not end the thread."""
    try:
        return delivery.work(seat)
    except Exception:  # noqa: BLE001 - whatever it was, the events are in the buffer, and go on waiting for a sender
        say(logging.ERROR, "a sender failed; it goes on in %g s", AFTER_A_FAULT, exc_info=True)
        return AFTER_A_FAULT
