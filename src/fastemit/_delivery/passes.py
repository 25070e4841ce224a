"""A pass takes what is in the buffer, sends it to the collector, and does what the answer says.

Its steps are

    take -> send -> settle -> call back

in the thread that has got a turn. `schedule.py` decides when that is, `settling.py` has the last two steps, and
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

from fastemit._buffer import EventBuffer
from fastemit._delivery.overflow import Admission
from fastemit._delivery.overrides import Hooks, answered_by_hook
from fastemit._delivery.reporting import Reporter
from fastemit._delivery.retry import POISON_AFTER, Verdict, judge
from fastemit._delivery.schedule import FOREVER, Result, Schedule, Turn
from fastemit._delivery.settling import Settled, Settling
from fastemit._delivery.waiting import Guard
from fastemit._interfaces import Cutoff, EventBatch, EventQueue, Outcome, Transport
from fastemit._signals import guarded, raise_of_signal_handler
from fastemit._time import monotonic
from fastemit.stats import described
from fastemit.typing import PayloadDictList

#: Called with the number of the first event, how many events there are, and their verdict.
Note: TypeAlias = Callable[[int, int, Verdict], None]

#: The most events that one pass of GET takes.
PASS_OF_GETS: Final = 100
#: The least seconds that a request gets, however near the deadline is.
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
        """Note what became of these. Returns those that have to be kept and are not among the events."""
        place = {id(event): number for number, event in enumerate(self._events)}
        known = {place[id(payload)] for payload in payloads if id(payload) in place}
        # A changed copy counts as an event that was not passed on. The order tells which one.
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

    Thread safety: any number of threads may be in `attempt` at once, each with its own turn. The guard's lock is held
    while events are settled, and never during a request or a callback.

    Args:
        buffer: where batches come from.
        transport: where they go.
        report: tells the user.
        schedule: told how requests went.
        admission: told when there is room.
        guard: the delivery's.
        custom_retry_codes: exceptions to the rules of `retry.judge`.
        hooks: finds what a subclass or a patch has put in place of the emitter's methods; None if there is no emitter.
    """

    def __init__(
        self,
        buffer: EventQueue,
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

    def cut_off(self) -> None:
        """End the requests that are under way. Later requests are made as usual."""
        cutoff, self.cutoff = self.cutoff, Cutoff()
        cutoff.cut()

    def attempt(self, turn: Turn, deadline: float | None = None) -> None:
        """Make the request that `turn` allows, and those that follow from it.

        Args:
            turn: from the schedule.
            deadline: on the monotonic clock. No request waits longer, and no event is taken later.
        """
        try:
            queued = self._buffer.queued_events
            hook = self._hooks.find("send_events") if self._hooks else None
            # An override gets all events, as in snowplow_tracker, even if each event is then sent alone.
            batch = self._take(turn.probe) if hook is None else self._buffer.take()
            with self._lock:
                more = self._schedule.taken()
            if more and not turn.probe:
                # Another sender may see whether the rest has to go now.
                self._buffer.signal()
            self._report.tell_faults()  # of a store, before a request that may take long
            if batch is None:
                # A user's store failed, so those who wait have had their attempt. Or the store has lost what they wait
                # for.
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

    def _take(self, probe: bool = False) -> EventBatch | None:
        aim, at_least = (1, 1) if self._buffer.query else (self._schedule.aim, self._buffer.batch_size)
        batch = self._buffer.take(aim, at_least)
        if batch is None or not probe or batch.server_errors <= POISON_AFTER:
            return batch
        # This event was split off, failed alone, and may fail for ever. As the probe it would make everything else wait
        # for a delay that each failure doubles. It took 12 minutes to isolate one event of 5,000.
        passed = [batch]
        try:
            while (other := self._buffer.take(aim, at_least)) is not None:
                if other.server_errors < batch.server_errors:
                    return other
                passed.append(other)
            return passed.pop(0)
        finally:
            # They go back to their places. The last one goes first, because it finds its place at once.
            while passed:
                passed.pop().give_back(retried=False)

    def carry(self, batch: EventBatch, turn: Turn, deadline: float | None = None, note: Note | None = None) -> bool:
        """Send a batch, or its halves if it proves too large, and settle each. False if events were kept.

        Args:
            note: called with (number of the first event, how many, verdict) for each part that was settled.
        """
        stack = [batch]
        try:
            while stack:
                # The batch stays on the stack until it is settled, because the traceback of what a signal handler
                # raises here may be kept for long, and with it the batch.
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
    def _give_back(stack: list[EventBatch]) -> None:
        while stack:
            # If it was settled before the exception came, it knows that.
            with contextlib.suppress(ValueError):
                stack.pop().give_back(retried=False)

    def _carry_singly(
        self,
        batch: EventBatch | None,
        take: Callable[[], EventBatch | None],
        turn: Turn,
        deadline: float | None,
        most: int,
        note: Note | None = None,
    ) -> bool:
        """One pass of GET: each event by itself, until one is kept; then call back for all of them.

        Args:
            batch: the first event.
            take: gives the next one.
            most: the most events that the pass takes.
            note: as for `carry`.

        Returns:
            False if an event was kept.
        """
        settled: list[Settled] = []
        taken: list[EventBatch] = []
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

    def _send(self, batch: EventBatch, deadline: float | None, apart: bool = False) -> Outcome:
        events, size, started = len(batch), batch.nbytes, monotonic()
        cap = None if deadline is None else max(deadline - started, MIN_CAP)
        batch.stamp(time.time_ns() // 1_000_000)

        cutoff = self.cutoff
        # A request by hand goes on after a close.
        outcome = self._request(batch, cap) if apart else cutoff.within(self._request, batch, cap)
        if cutoff.done and outcome.status is None and not apart:
            outcome = Outcome(error="cut off, because the emitter was closed and its time was up")
        self._report.request(outcome, events, size, monotonic() - started)
        return outcome

    def _request(self, batch: EventBatch, cap: float | None) -> Outcome:
        try:
            query = self._buffer.query
            hook = self._hooks.find("http_get" if query else "http_post") if self._hooks else None
            if hook is None:
                return self._transport.send(batch, cap)
            return self._request_by_hook(hook, batch, query)
        except Exception as error:  # noqa: BLE001 - the events are kept whatever a user's hook or pool raises
            raise_of_signal_handler(error)
            return Outcome(error=described(error))

    def _request_by_hook(self, hook: Callable[..., object], batch: EventBatch, query: bool) -> Outcome:
        payload = batch.decode()[0] if query else bytes(batch.body()).decode("utf-8")
        self._inner.listening, self._inner.outcome = True, None
        try:
            outcome = answered_by_hook(hook(payload))
        finally:
            self._inner.listening = False
        heard = self._inner.outcome
        # If the override returned the outcome of its own request, use that, with all that the answer said.
        return heard if heard is not None and heard.status == outcome.status else outcome

    def overheard(self, outcome: Outcome) -> bool:
        """Whether a request by hand was made by an overridden `http_post` or `http_get`, and is counted as that."""
        if self._inner.listening:
            self._inner.outcome = outcome
        return self._inner.listening

    # -- send_events, overridden -------------------------------------------------------------------------------------

    def _carry_by_hook(self, hook: Callable[[PayloadDictList], object], batch: EventBatch, turn: Turn) -> None:
        """Let an overridden `send_events` send a batch. If it returns, its events are sent, unless it noted otherwise.

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
            # The events are kept whatever this is.
            verdicts = [Verdict.KEEP] * len(events)
        result = Result(turn, failed=bool(errors), kept=Verdict.KEEP in verdicts)
        # The callbacks have been called by `send_now`, if at all.
        settled = Settled(batch.seq, len(batch), Verdict.KEEP if result.kept else Verdict.SENT, None)
        self._settle(lambda: self._settle_parts(batch, verdicts), result, settled, apart=False)
        for error in errors:
            self._report.log.add("send_events raised", f"{described(error)}; its events are kept")
        self._call_back([settled])

    def send_now(self, payloads: PayloadDictList) -> PayloadDictList:
        """Send these events once, in this thread. Returns those that are kept, and have to be queued."""
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
