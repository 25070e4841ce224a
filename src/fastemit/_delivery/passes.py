"""A pass: it carries what is in the buffer to the collector, and does with it what the answer says.

Its steps are

    take -> send -> settle -> call back

in whichever thread has been given a turn. `schedule.py` decides when that is, `settling.py` has the last two steps,
`reporting.py` tells the user.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from fastemit._buffer import Batch, EventBuffer
from fastemit._delivery.overflow import Admission
from fastemit._delivery.overrides import Hooks, answered_by_hook
from fastemit._delivery.reporting import Reporter
from fastemit._delivery.retry import POISON_AFTER, Verdict, judge
from fastemit._delivery.schedule import FOREVER, Result, Schedule, Turn
from fastemit._delivery.settling import Settled, Settling
from fastemit._delivery.waiting import Guard
from fastemit._interfaces import Cutoff, Outcome, Transport
from fastemit._signals import guarded
from fastemit._time import monotonic
from fastemit.stats import described
from fastemit.typing import PayloadDictList

#: Called with the number of the first of some events, how many they are, and their verdict.
Note: TypeAlias = Callable[[int, int, Verdict], None]

#: Events that one pass of GET takes at the most.
PASS_OF_GETS: Final = 100
#: Seconds that a request gets at the least, however near the deadline.
MIN_CAP: Final = 0.01


class _Inner(threading.local):
    """The request that an overridden `http_post` or `http_get` makes by calling `super()`, in this thread."""

    listening: bool = False
    outcome: Outcome | None = None


class _Verdicts(threading.local):
    """What became of the events that an overridden `send_events` is sending in this thread."""

    _events: PayloadDictList = ()  # type: ignore[assignment]
    _verdicts: list[Verdict] = ()  # type: ignore[assignment]

    def start(self, events: PayloadDictList) -> list[Verdict]:
        self._events, self._verdicts = events, [Verdict.SENT] * len(events)
        return self._verdicts

    def end(self) -> None:
        self._events, self._verdicts = [], []

    def unknown(self, payloads: PayloadDictList, verdicts: list[Verdict]) -> PayloadDictList:
        """Note what became of these; gives back those that are to be kept and are not among the events."""
        place = {id(event): number for number, event in enumerate(self._events)}
        known = {place[id(payload)] for payload in payloads if id(payload) in place}
        # Changed copies stand for the events that were not passed on, in their order.
        others = iter([number for number in range(len(self._events)) if number not in known])
        left: PayloadDictList = []
        for payload, verdict in zip(payloads, verdicts, strict=True):
            at = place.get(id(payload))
            if at is None:
                at = next(others, None)
            if at is not None:
                self._verdicts[at] = verdict
            elif verdict is Verdict.KEEP:
                left.append(payload)
        return left


class Courier(Settling):
    """Makes requests and settles what they carried.

    Thread safety: any number of threads may be in `attempt` at once, each with a turn of its own. The guard's lock is
    held for settling, and neither while a request is made nor while a callback runs.

    Args:
        buffer: where batches come from.
        transport: where they go.
        report: what tells the user.
        schedule: is told how requests went.
        admission: is told when there is room.
        guard: the delivery's.
        custom_retry_codes: exceptions to the rules of `retry.judge`.
        hooks: finds what a subclass or a patch has put in place of the emitter's methods; None where there is none.
    """

    def __init__(
        self,
        buffer: EventBuffer,
        transport: Transport,
        report: Reporter,
        schedule: Schedule,
        admission: Admission,
        guard: Guard,
        custom_retry_codes: dict[int, bool],
        hooks: Hooks | None,
    ) -> None:
        super().__init__(buffer, report, schedule, admission, guard, hooks)
        self.custom_retry_codes = custom_retry_codes
        #: Ends the requests that are under way.
        self.cutoff = Cutoff()
        self._transport = transport
        self._verdicts = _Verdicts()
        self._inner = _Inner()

    def attempt(self, turn: Turn, deadline: float | None = None) -> None:
        """Make the request that `turn` gives leave to, and those that follow from it.

        Args:
            turn: from the schedule.
            deadline: on the monotonic clock; no wait of a request goes past it, and no event is taken after it.
        """
        try:
            queued = self._buffer.queued_events
            hook = self._hooks.find("send_events") if self._hooks else None
            # An override gets all there is, as in the reference, also where each event is then sent by itself.
            batch = self._take(turn.probe) if hook is None else self._buffer.take()
            with self._lock:
                more = self._schedule.taken()
            if more and not turn.probe:
                # Another sender may look whether it is to go now.
                self._buffer.signal()
            self._report.tell_faults()  # of a store, before a request that may take long
            if batch is None:
                # A store of the user's failed, and those who wait for it have had their attempt; or it has found out
                # that what they wait for is gone.
                with self._lock:
                    flushes = self._flushes_ended(failed=self._buffer.recheck_at != FOREVER)
                    self._admission.wake()
                for flush in flushes:
                    flush.end()
                return
            if hook is not None:
                self._carry_by_hook(hook, batch, turn)
            elif self._buffer.query:
                self._carry_singly(batch, self._take, turn, deadline, min(queued, PASS_OF_GETS))
            else:
                self.carry(batch, turn, deadline)
        finally:
            with self._lock:
                self._schedule.over(turn)

    def _take(self, probe: bool = False) -> Batch | None:
        aim, at_least = (1, 1) if self._buffer.query else (self._schedule.aim, self._buffer.batch_size)
        batch = self._buffer.take(aim, at_least)
        if batch is None or not probe or batch.server_errors <= POISON_AFTER:
            return batch
        # It failed by itself after it had been split off, and may fail for ever. As the probe it would keep everything
        # shut in behind a delay that each of its failures doubles: isolating one event of 5,000 took 12 minutes.
        passed = [batch]
        try:
            while (other := self._buffer.take(aim, at_least)) is not None:
                if other.server_errors < batch.server_errors:
                    return other
                passed.append(other)
            return passed.pop(0)
        finally:
            # To their places, the last one first, which finds its place at once.
            while passed:
                passed.pop().give_back(retried=False)

    def carry(self, batch: Batch, turn: Turn, deadline: float | None = None, note: Note | None = None) -> bool:
        """Send a batch, its halves where it proves too large, and settle each. False if events were kept.

        Args:
            note: called with (number of the first event, how many, verdict) for each part that was settled.
        """
        stack = [batch]
        try:
            while stack:
                # It stays on the stack until it is settled: whatever is raised here, a signal handler's exception for
                # instance, may be kept by its traceback for long, and the batch with it.
                batch = stack[-1]
                outcome = self._send(batch, deadline, apart=note is not None)
                verdict = judge(outcome.status, len(batch), self.custom_retry_codes)
                if verdict is Verdict.SPLIT:
                    try:
                        stack.append(batch.split())
                        continue
                    except MemoryError:
                        verdict = Verdict.KEEP
                settled = self._settle_request(batch, outcome, verdict, turn, apart=note is not None)
                stack.pop()
                if settled.verdict is Verdict.KEEP:
                    self._give_back(stack)
                if note is not None:
                    note(settled.seq, settled.count, settled.verdict)
                self._call_back([settled])
                if settled.verdict is Verdict.KEEP:
                    return False
        except BaseException:
            self._give_back(stack)
            raise
        return True

    @staticmethod
    def _give_back(stack: list[Batch]) -> None:
        while stack:
            # One that was settled when the exception came says so.
            with contextlib.suppress(ValueError):
                stack.pop().give_back(retried=False)

    def _carry_singly(
        self,
        batch: Batch | None,
        take: Callable[[], Batch | None],
        turn: Turn,
        deadline: float | None,
        most: int,
        note: Note | None = None,
    ) -> bool:
        """One pass of GET: each event by itself, until one is kept; then call back for all of them.

        Args:
            batch: the first event.
            take: gives the next one.
            most: events that the pass takes at the most.
            note: as for `carry`.

        Returns:
            False if an event was kept.
        """
        settled: list[Settled] = []
        taken: list[Batch] = []
        try:
            while batch is not None:
                taken = [batch]
                outcome = self._send(batch, deadline, apart=note is not None)
                verdict = judge(outcome.status, 1, self.custom_retry_codes)
                settled.append(self._settle_request(batch, outcome, verdict, turn, apart=note is not None))
                if note is not None:
                    note(settled[-1].seq, 1, settled[-1].verdict)
                elif self._schedule.stopped:
                    break
                if settled[-1].verdict is Verdict.KEEP or len(settled) >= most:
                    break
                if deadline is not None and monotonic() >= deadline:
                    break
                batch = take()
        except BaseException:
            self._give_back(taken)
            raise
        finally:
            self._call_back(settled)
        return settled[-1].verdict is not Verdict.KEEP

    def _send(self, batch: Batch, deadline: float | None, apart: bool = False) -> Outcome:
        events, size, started = len(batch), batch.nbytes, monotonic()
        cap = None if deadline is None else max(deadline - started, MIN_CAP)
        batch.stamp(time.time_ns() // 1_000_000)

        # Whatever a hook or a pool of the user's raises, the events are kept. One by hand goes on after a close.
        def attempt() -> Outcome:
            return guarded(lambda: self._request(batch, cap), lambda error: Outcome(error=described(error)))

        outcome = attempt() if apart else self.cutoff.within(attempt)
        if self.cutoff.done and outcome.status is None and not apart:
            outcome = Outcome(error="cut off, since the emitter was closed and its time was up")
        self._report.request(outcome, events, size, monotonic() - started)
        return outcome

    def _request(self, batch: Batch, cap: float | None) -> Outcome:
        query = self._buffer.query
        hook = self._hooks.find("http_get" if query else "http_post") if self._hooks else None
        if hook is None:
            if query:
                return self._transport.get(bytes(batch.body()).decode("ascii"), cap)
            return self._transport.post(batch.body(), cap)
        payload = batch.decode()[0] if query else bytes(batch.body()).decode("utf-8")
        self._inner.listening, self._inner.outcome = True, None
        try:
            outcome = answered_by_hook(hook(payload))
        finally:
            self._inner.listening = False
        heard = self._inner.outcome
        # The override's own request, with all that its answer said, if that is what it returned.
        return heard if heard is not None and heard.status == outcome.status else outcome

    def overheard(self, outcome: Outcome) -> bool:
        """Whether a request by hand was made by an overridden `http_post` or `http_get`, and is counted as that."""
        if self._inner.listening:
            self._inner.outcome = outcome
        return self._inner.listening

    # -- send_events, overridden -------------------------------------------------------------------------------------

    def _carry_by_hook(self, hook: Callable[[PayloadDictList], object], batch: Batch, turn: Turn) -> None:
        """Have an overridden `send_events` send a batch: what it returns from is sent, but for what it was told of.

        It may call `super().send_events`, which comes back here as `send_now` and notes what became of which event.
        """
        events = batch.decode()
        for event in events:
            event.pop("stm", None)
        verdicts = self._verdicts.start(events)
        errors: list[Exception] = []
        try:
            guarded(lambda: hook(list(events)), errors.append)
        except BaseException:
            batch.give_back()
            raise
        finally:
            self._verdicts.end()
        if errors:
            # Whatever it is, the events are kept.
            verdicts = [Verdict.KEEP] * len(events)
        result = Result(turn, failed=bool(errors), kept=Verdict.KEEP in verdicts)
        # The callbacks have been called by `send_now`, if at all.
        settled = Settled(batch.seq, len(batch), Verdict.KEEP if result.kept else Verdict.SENT, None)
        self._settle(lambda: self._settle_parts(batch, verdicts), result, settled, apart=False)
        for error in errors:
            self._report.log.add("send_events raised", f"{described(error)}; its events are kept")
        self._call_back([settled])

    def send_now(self, payloads: PayloadDictList) -> PayloadDictList:
        """Send these events once, in this thread; those that are to be queued, since they are kept and are not yet."""
        count = max(len(payloads), 1)
        apart = EventBuffer(
            count, sys.maxsize, self._buffer.max_request_bytes, count, query=self._buffer.query, keep=True
        )
        for payload in payloads:
            apart.append(payload)
        verdicts = [Verdict.KEEP] * len(payloads)

        def note(seq: int, events: int, verdict: Verdict) -> None:
            verdicts[seq : seq + events] = [verdict] * events

        turn = Turn(self._schedule.backoff.generation, probe=False)
        take = functools.partial(apart.take, 1 if apart.query else None, 1)
        went_on = True
        while went_on and (batch := take()) is not None:
            if apart.query:
                went_on = self._carry_singly(batch, take, turn, None, PASS_OF_GETS, note)
            else:
                went_on = self.carry(batch, turn, note=note)
        return self._verdicts.unknown(payloads, verdicts)
