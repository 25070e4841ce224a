"""When to send, and how much at once: the gate, the timers, the flushes that are asked for. Time is passed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from fastemit._delivery.retry import Backoff
from fastemit._delivery.waking import Waking
from fastemit._interfaces import EventQueue

#: Seconds from the last request until memory that a burst needed is given back.
TRIM_AFTER: Final = 1.0
#: The least seconds between two attempts during a close.
MIN_CLOSING_DELAY: Final = 0.05
FOREVER: Final = float("inf")
#: After so many requests that went through, a size that has timed out again and again is tried once more.
MAX_PATIENCE: Final = 64
#: The least seconds between two looks at the flush timer, so that a tiny interval makes no busy loop.
MIN_INTERVAL: Final = 0.001
#: Seconds that a sender thread leaves between two requests, unless there is much to send or somebody waits. Otherwise
#: there would be a request for each 10 events, and each takes the GIL from the program for some 50 us or more.
LINGER: Final = 0.04


class Turn(NamedTuple):
    """The permission to make one request.

    Attributes:
        generation: the backoff's when the turn was given; an outcome counts only if it is still the same.
        probe: it is the one request that is allowed while a backoff runs.
    """

    generation: int
    probe: bool


class Result:
    """The result for events that were settled together.

    Args:
        turn: the one in which they were sent.
        failed: sending did not work, which counts for the backoff.
        kept: some of them are still here.
        sent_bytes: of a request that went through; 0 otherwise.
        late_bytes: of a request that was under way and not answered in time; 0 otherwise.
        asked: seconds of its `Retry-After`.
    """

    __slots__ = ("asked", "failed", "kept", "late_bytes", "sent_bytes", "turn")

    def __init__(
        self,
        turn: Turn,
        failed: bool,
        kept: bool,
        sent_bytes: int = 0,
        late_bytes: int = 0,
        asked: float | None = None,
    ) -> None:
        self.turn: Final = turn
        self.failed: Final = failed
        self.kept: Final = kept
        self.sent_bytes: Final = sent_bytes
        self.late_bytes: Final = late_bytes
        self.asked: Final = asked


class Exit:
    """A sender has nothing more to do, ever."""


class Tick:
    """A timer fired, and the emitter has its own `flush`, which has to be called."""


EXIT: Final = Exit()
TICK: Final = Tick()


class Schedule:
    """Decides what a sender does next.

    Thread safety: none of its own; the delivery's lock is held around each call.

    Args:
        buffer: what there is to send.
        waking: told when no event may wake a sender, because the gate is shut or a request was made a moment ago.
        max_retry_delay: longest backoff, in seconds.
        interval: seconds of the flush timer, or None.
        now: a monotonic time in seconds, as in every method that takes one.
        linger: seconds from one request to the next while there is little to send.
        told_at: returns the time when a sender has something to do besides sending.
    """

    def __init__(
        self,
        buffer: EventQueue,
        waking: Waking,
        max_retry_delay: float,
        interval: float | None,
        now: float,
        linger: float = 0.0,
        told_at: Callable[[], float] = lambda: FOREVER,
    ) -> None:
        self._buffer = buffer
        self._waking = waking
        self._told_at = told_at
        self.linger = linger
        self._linger_until = 0.0
        self.backoff = Backoff(max_retry_delay)
        #: How many bytes of events the next request should have. A timeout halves it, a success doubles it.
        self.aim = buffer.segment_bytes
        self._patience = 1  # requests that have to go through before the aim is doubled
        self._passed = 0  # of these, how many have
        self._grown = False  # the aim was doubled since the last timeout
        #: Nothing more is sent.
        self.stopped = False
        #: Events with lower numbers are sent as soon as the backoff allows, even after many failures.
        self.insist_upto = 0
        #: How many times events were kept.
        self.times_kept = 0
        #: The emitter decides when to send, by a `flush` or `reached_limit` of its own; see `overrides.py`.
        self.manual: bool = False
        self._interval = interval
        self._next_flush = FOREVER if interval is None else now + interval
        self._closing = False
        self._deadline = FOREVER
        self._close_upto: int | None = None  # a close is over when the events numbered below are settled; None: all
        self._probing = False  # a probe is in flight
        self._force = False  # one attempt is due even during a backoff
        self._retry_due = False  # events were kept: they are sent when the backoff is over, even if they are few
        self._flush_upto = 0  # events with lower numbers are sent, even if they are few
        self._trim_at = 0.0
        self._ticked_for = -FOREVER  # end of the backoff that `Tick` was last given for

    def plan(self, now: float) -> Turn | float | Exit | Tick | None:
        """A turn to send, or the seconds to wait before asking again (None: until something changes), or the end."""
        buffer = self._buffer
        # One look, because another sender may take what is queued at any time.
        queued = buffer.queued_events > 0
        # A store that was at fault may have events when it is asked again.
        nothing = not queued and buffer.recheck_at == FOREVER
        if self.stopped or (self._closing and (nothing or now >= self._deadline or self.reached)):
            return EXIT
        if self._interval is not None and now >= self._next_flush:
            self._next_flush = now + max(self._interval, MIN_INTERVAL)
            if self.manual:
                return TICK
            self._flush_upto = buffer.next_seq
        wake_at = min(self._deadline, self._next_flush)
        if buffer.linger:
            # This is done even if nothing is queued, so that the next event does not find it set.
            if now < self._linger_until:
                wake_at = min(wake_at, self._linger_until)
            else:
                self._waking.linger(False)
        if not queued:
            if buffer.spare_segments > 1:
                if now < self._trim_at:
                    wake_at = min(wake_at, self._trim_at)
                else:
                    buffer.trim()
            if not (self.backoff.open or self._probing):
                # When the delay has passed, the next event is the probe. Until then no event wakes anybody.
                if now < self.backoff.until:
                    wake_at = min(wake_at, self.backoff.until)
                else:
                    self._waking.hold(self.manual)
        elif self.backoff.open:
            wanted = buffer.wanted and not self.manual
            if wanted:
                # All that is queued now is sent, in as many requests as that needs.
                self._flush_upto = max(self._flush_upto, buffer.next_seq)
            if wanted or self._retry_due or self._closing or buffer.head_seq < self._flush_upto:
                if self.linger:
                    self._linger_until = now + self.linger
                    self._waking.linger(True)
                return Turn(self.backoff.generation, probe=False)
        elif not self._probing:
            theirs = self.manual and not (self._force or self._closing or buffer.head_seq < self.insist_upto)
            if theirs and now >= self.backoff.until > self._ticked_for:
                self._ticked_for = self.backoff.until
                return TICK
            if self._force or now >= self.backoff.until:
                self._force = False
                self._probing = True
                self._set_hold()
                return Turn(self.backoff.generation, probe=True)
            wake_at = min(wake_at, self.backoff.until)
        # These are last, because a store may have failed in the middle of this.
        wake_at = min(wake_at, buffer.recheck_at, self._told_at())
        return None if wake_at == FOREVER else wake_at - now

    def taken(self) -> bool:
        """After a batch was taken. True if more is queued."""
        # The numbers decide, because a user's store may hold more than can be taken while a batch is in flight.
        if self._buffer.head_seq >= self._buffer.next_seq:
            self._retry_due = False
            return False
        return True

    def over(self, turn: Turn) -> None:
        """A turn is over, however it ended."""
        if turn.probe:
            self._probing = False

    def nobody_sends(self) -> None:
        """The only thread that may send calls this before it sends. So no probe is in flight, even if one is noted."""
        self._probing = False

    def settled(self, result: Result, now: float) -> bool:
        """Some events were settled. True if that opened the gate."""
        self._trim_at = now + TRIM_AFTER
        opened = False
        if result.sent_bytes:
            self._got_through(result.sent_bytes)
        if result.failed:
            self._failed(result, now)
        elif not (result.kept or self.backoff.open):
            opened = self._succeeded(result.turn)
        if result.kept:
            self._kept()
        return opened

    def _failed(self, result: Result, now: float) -> None:
        self.backoff.failed(result.turn.generation, now, result.asked)
        if self._closing and self._deadline != FOREVER:
            # Attempts come faster towards the deadline, and none is put off beyond it.
            self.backoff.hurry(now + max((self._deadline - now) / 2, MIN_CLOSING_DELAY))
        self._set_hold()
        if result.late_bytes:
            self._timed_out(result.late_bytes)

    def _kept(self) -> None:
        """Events were kept. They are sent again when the backoff is over, and a flush has had its attempt."""
        self.times_kept += 1
        self._retry_due = True
        self._force = False
        self._flush_upto = self.insist_upto

    def _succeeded(self, turn: Turn) -> bool:
        """A request got an answer that settled its events. True if that opened the gate."""
        if not self.backoff.succeeded(turn.generation):
            return False
        self._force = False
        self._set_hold()
        return True

    def set_manual(self, value: bool) -> None:
        """Set `manual`."""
        self.manual = value
        self._set_hold()

    def _set_hold(self) -> None:
        """No event wakes a sender while the gate is shut, or while the number of events does not decide."""
        self._waking.hold(self.manual or not self.backoff.open)

    def _timed_out(self, size: int) -> None:
        """A request of `size` bytes was under way and not answered in time: the next ones are half as large.

        If it timed out right after the size had been doubled, it takes twice as long until that is tried again.
        Otherwise every third request on a slow, busy line would time out, and its events would be sent twice, for ever.
        """
        if self._grown:
            self._patience = min(self._patience * 2, MAX_PATIENCE)
        self._grown = False
        self._passed = 0
        self.aim = max(min(self.aim, size) // 2, 1)

    def _got_through(self, size: int) -> None:
        """A request of `size` bytes went through: the next may be twice as large, up to the full size."""
        full = self._buffer.segment_bytes
        if size * 2 < self.aim:
            # That says nothing about larger requests.
            return
        if self.aim < full:
            self._passed += 1
            if self._passed >= self._patience:
                self.aim = min(self.aim * 2, full)
                self._passed = 0
                self._grown = True
        elif size > full - full // 8:
            # The line is fast enough for all requests.
            self._patience, self._grown = 1, False

    def flush(self) -> None:
        """Try once to send what is queued now, even during a backoff."""
        self._flush_upto = self._buffer.next_seq
        self._force = self._buffer.queued_events > 0 and not self.backoff.open

    def close(self, deadline: float, now: float, upto: int | None = None) -> None:
        """Send what is there until `deadline`, from now on. The sooner of two deadlines counts, unless it has passed.

        Args:
            deadline: a monotonic time.
            now: a monotonic time.
            upto: wait only for events with lower numbers, because more may go on coming. None: for all.
        """
        if not self._closing or upto is None:
            self._close_upto = upto
        self._closing = True
        self._deadline = deadline if self._deadline <= now else min(self._deadline, deadline)
        self._force = True

    @property
    def ending(self) -> bool:
        """Whether a close is under way after which events may come."""
        return self._closing and self._close_upto is not None

    @property
    def reached(self) -> bool:
        """Whether a close has sent all that it waits for, although there may be more."""
        return self._close_upto is not None and self._buffer.oldest_seq >= self._close_upto

    def renumbered(self) -> None:
        """An event got a new number, the highest."""
        if self._close_upto is not None:
            self._close_upto = self._buffer.next_seq

    def open_again(self) -> None:
        """A close is over, and events may come again. Nobody keeps the time between two requests any more."""
        self.stopped = self._closing = False
        self._deadline = FOREVER
        self.linger = 0.0
        self._waking.linger(False)

    def wants_turn(self, now: float) -> bool:
        """Whether there is reason to ask for a turn at once."""
        if self.stopped or self.time_is_up(now):
            return False
        return self.backoff.open and self._buffer.due and not self.manual and self._buffer.recheck_at == FOREVER

    @property
    def ends_at(self) -> float | None:
        """The deadline of a close that has begun; None where there is none."""
        return self._deadline if self._closing and self._deadline != FOREVER else None

    def time_is_up(self, now: float) -> bool:
        """Whether a close has begun and its deadline has passed."""
        return self._closing and now >= self._deadline

    @property
    def closing(self) -> bool:
        return self._closing

    @property
    def interval(self) -> float | None:
        return self._interval

    def set_interval(self, interval: float | None, now: float) -> None:
        self._interval = interval
        self._next_flush = FOREVER if interval is None else now + interval
