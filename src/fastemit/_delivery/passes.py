"""The courier: carries what is in the buffer to the collector, and does with it what the answer says.

One pass of it is

    take -> send -> settle -> call back

in whichever thread has been given a turn. `schedule.py` decides when that is, `reporting.py` tells the user.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from fastemit._buffer import Batch, EventBuffer
from fastemit._delivery.overflow import Admission
from fastemit._delivery.overrides import Hooks, answered_by_hook
from fastemit._delivery.reporting import Reporter
from fastemit._delivery.retry import POISON_AFTER, Verdict, is_poison_sign, judge, retry_after_seconds
from fastemit._delivery.schedule import FOREVER, Result, Schedule, Turn
from fastemit._delivery.waiting import Flush, Guard
from fastemit._interfaces import Cutoff, Outcome, Transport
from fastemit._signals import guarded
from fastemit._time import monotonic, wall_clock
from fastemit.stats import described
from fastemit.typing import PayloadDictList

#: Called with the number of the first of some events, how many they are, and their verdict.
Note: TypeAlias = Callable[[int, int, Verdict], None]

#: Events that one pass of GET takes at the most.
PASS_OF_GETS: Final = 100
#: Seconds that a request gets at the least, however near the deadline.
MIN_CAP: Final = 0.01


@dataclass
class Settled:
    """Some events that were settled together.

    Attributes:
        seq: number of the first.
        count: how many.
        verdict: SENT, REJECTED or KEEP.
        events: for the callback; None when there is none.
        kept: the body of the request, where its events are kept and a callback is told of them.
        flushes: those who waited for it, to be told after the callback.
        waited_for: whether a flush that begins during the callback waits for it.
    """

    seq: int
    count: int
    verdict: Verdict
    events: PayloadDictList | None
    kept: bytes | None = None
    flushes: list[Flush] = field(default_factory=list)
    waited_for: bool = False


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


class Courier:
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
        self.custom_retry_codes = custom_retry_codes
        #: Those who wait for a flush; the lock is held to change it.
        self.flushes: list[Flush] = []
        #: Ends the requests that are under way.
        self.cutoff = Cutoff()
        self._buffer = buffer
        self._transport = transport
        self._report = report
        self._schedule = schedule
        self._admission = admission
        self._hooks = hooks
        self._verdicts = _Verdicts()
        self._inner = _Inner()
        self._lock = guard.lock
        self._called_back: list[int] = []  # number of the first event of each batch whose callback runs

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

    def _settle_request(self, batch: Batch, outcome: Outcome, verdict: Verdict, turn: Turn, apart: bool) -> Settled:
        """Carry out the verdict on a request; what there is to call back follows by `_call_back`.

        Args:
            apart: the batch is of another buffer than the emitter's, whose numbers say nothing to those who wait.
        """
        count, size = len(batch), batch.nbytes
        # One larger than a request should be is not tried for ever; but no answer at all may be the network's fault.
        give_up = batch.oversize and (outcome.status is not None or outcome.timed_out)
        failed = verdict is Verdict.KEEP
        if failed and give_up:
            verdict = Verdict.REJECTED
        reason = "oversize" if failed else "rejected"
        result = Result(
            turn,
            failed=failed,
            kept=verdict is Verdict.KEEP,
            sent_bytes=size if verdict is Verdict.SENT else 0,
            late_bytes=size if outcome.timed_out and failed else 0,
            asked=retry_after_seconds(outcome.status, outcome.retry_after, wall_clock()) if failed else None,
        )
        # Now: once it is settled, another thread may send its events, and write them over.
        told = self._report.told_of(batch, verdict is Verdict.SENT, result.kept)
        settled = Settled(batch.seq, count, verdict, *told)

        def settle() -> None:
            if verdict is Verdict.SENT:
                batch.sent()
            elif verdict is Verdict.KEEP:
                self._keep(batch, outcome.status)
            else:
                batch.dropped(reason)

        self._settle(settle, result, settled, apart)
        if verdict is Verdict.REJECTED:
            self._report.dropped(reason, f"{outcome.error or f'status {outcome.status}'}, {size} bytes", count)
        return settled

    def _settle(self, settle: Callable[[], None], result: Result, settled: Settled, apart: bool) -> None:
        """Settle some events in one step, whichever way they were sent, and tell all who have to know of it.

        Args:
            settle: settles them with the buffer.
            result: for the schedule.
            settled: gets those who wait for them, to be told when the callbacks have run.
            apart: as for `_settle_request`.
        """
        with self._lock:
            settle()
            if self._schedule.settled(result, monotonic()):
                self._buffer.signal(everyone=True)
            elif result.failed or result.kept:
                # A sender that sleeps may not know yet when the delay ends.
                self._buffer.signal()
            self._admission.wake()
            if not apart:
                settled.flushes = self._flushes_ended(failed=result.kept)
                settled.waited_for = settled.events is not None
                if settled.waited_for:
                    self._called_back.append(settled.seq)

    def _call_back(self, settled: list[Settled]) -> None:
        """Tell the callbacks of some events that were settled, and then those who wait for a flush of them."""
        flushes = [flush for each in settled for flush in each.flushes]
        told = [each for each in settled if each.events is not None]
        if not told:
            for flush in flushes:
                flush.end()
            return
        good = [event for each in told if each.verdict is Verdict.SENT for event in each.events or ()]
        bad = [event for each in told if each.verdict is not Verdict.SENT for event in each.events or ()]
        sent = sum(each.count for each in settled if each.verdict is Verdict.SENT)
        try:
            if good:
                self._report.succeeded(good)
            if bad:
                with self._left_out([each.kept for each in told if each.kept is not None]):
                    self._report.failed(sent, bad)
        finally:
            waited_for = [each.seq for each in settled if each.waited_for]
            if waited_for:
                with self._lock:
                    for seq in waited_for:
                        self._called_back.remove(seq)
                    flushes += self._flushes_ended(failed=False)
            for flush in flushes:
                flush.end()

    def _left_out(self, kept: list[bytes]) -> contextlib.AbstractContextManager[None]:
        if not kept or self._hooks is None:
            return contextlib.nullcontext()
        return self._hooks.given_back.left_out(kept, self._buffer.query)

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

    def _settle_parts(self, batch: Batch, verdicts: list[Verdict]) -> None:
        """Settle a batch whose events had different outcomes, split where they differ."""
        if len(set(verdicts)) > 1:
            first = batch.split()
            self._settle_parts(first, verdicts[: len(first)])
            self._settle_parts(batch, verdicts[-len(batch) :])
        elif verdicts[0] is Verdict.SENT:
            batch.sent()
        elif verdicts[0] is Verdict.KEEP:
            batch.give_back()
        else:
            batch.dropped("rejected")

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

    def _keep(self, batch: Batch, status: int | None) -> None:
        """Give a batch back; one that may hold a poisonous event is split, or if it is that event, yields."""
        if is_poison_sign(status):
            batch.server_errors += 1
            if batch.server_errors >= POISON_AFTER:
                batch.seal()
                if len(batch) == 1:
                    self._yield_place(batch)
                    return
                # Without memory for that it is the whole, which is tried again.
                with contextlib.suppress(MemoryError):
                    batch.split().give_back()
        batch.give_back()

    def _yield_place(self, batch: Batch) -> None:
        waited_for = [flush for flush in self.flushes if batch.seq < flush.target]
        batch.yield_place()
        self._schedule.renumbered()
        for flush in waited_for:
            if flush.retry:
                # It has a new number, and is waited for by that.
                flush.target = self._buffer.next_seq
            else:
                flush.left_one = True
        self._insist()

    def begin(self, flush: Flush) -> None:
        """Tell this one when its events are settled. The lock is held."""
        self.flushes.append(flush)
        self._insist()

    def end(self, flush: Flush) -> None:
        """It waits no longer. The lock is held."""
        self.flushes.remove(flush)
        self._insist()

    def _insist(self) -> None:
        self._schedule.insist_upto = max((flush.target for flush in self.flushes if flush.retry), default=0)

    def oldest(self) -> int:
        """Number of the oldest event that is not settled, or whose callback runs."""
        return min([self._buffer.oldest_seq, *self._called_back])

    def _flushes_ended(self, failed: bool) -> list[Flush]:
        """Those who wait for a flush that is done now; once an attempt has failed, all but those who go on."""
        if not self.flushes:
            return []
        oldest = self.oldest()
        return [flush for flush in self.flushes if (failed and not flush.retry) or oldest >= flush.target]
