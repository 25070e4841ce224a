"""Settling: what happens with events whose outcome is known, and who is told.

Events may be sent by a request, by a hook of the emitter, or by `send_events`. In each case they are settled with the
buffer in one step under the lock, and the schedule and those who wait for room are told. The callbacks follow outside
the lock, and after them those who wait for a flush. `passes.py` makes the requests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from fastemit._delivery.overflow import Admission
from fastemit._delivery.overrides import Hooks
from fastemit._delivery.reporting import Reporter
from fastemit._delivery.retry import POISON_AFTER, Verdict, is_poison_sign, retry_after_seconds
from fastemit._delivery.schedule import Result, Schedule, Turn
from fastemit._delivery.waiting import Flush, Guard
from fastemit._interfaces import EventBatch, EventQueue, Outcome
from fastemit._time import monotonic, wall_clock
from fastemit.typing import PayloadDictList


class Settled:
    """Some events that were settled together.

    Attributes:
        seq: number of the first.
        count: how many.
        verdict: SENT, REJECTED or KEEP.
        events: for the callback; None when there is none.
        kept: the body of the request, if its events are kept and a callback gets them.
        reason: why they are lost, if they are.
        lost: the events for `on_lost`.
        flushes: those who waited for these events; they are told after the callback.
        waited_for: whether a flush that begins during the callback waits for the callback.
    """

    __slots__ = ("count", "events", "flushes", "kept", "lost", "reason", "seq", "verdict", "waited_for")

    def __init__(
        self, seq: int, count: int, verdict: Verdict, events: PayloadDictList | None, kept: bytes | None = None
    ) -> None:
        self.seq = seq
        self.count = count
        self.verdict = verdict
        self.events = events
        self.kept = kept
        self.reason = ""
        self.lost: PayloadDictList = []
        self.flushes: list[Flush] = []
        self.waited_for = False


class Settling:
    """The part of `Courier` that settles events, and knows who waits for that.

    Thread safety: as `Courier`'s.

    Args:
        buffer, report, schedule, admission, guard, hooks: as `Courier`'s.
    """

    def __init__(
        self,
        buffer: EventQueue,
        report: Reporter,
        schedule: Schedule,
        admission: Admission,
        guard: Guard,
        hooks: Hooks | None,
    ) -> None:
        #: Those who wait for a flush. It is changed with the lock held.
        self.flushes: list[Flush] = []
        self._buffer = buffer
        self._report = report
        self._schedule = schedule
        self._admission = admission
        self._hooks = hooks
        self._lock = guard.lock
        self._called_back: list[int] = []  # number of the first event of each batch whose callback runs

    def _settle_request(
        self, batch: EventBatch, outcome: Outcome, verdict: Verdict, turn: Turn, apart: bool
    ) -> Settled:
        """Carry out the verdict on a request. `_call_back` makes the callbacks afterwards.

        Args:
            apart: the batch is not from the emitter's buffer, so its numbers mean nothing to those who wait.
        """
        count, size = len(batch), batch.nbytes
        # An event that is too large for a request is not tried for ever. But if no answer came, the network may be the
        # cause.
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
        # This comes before the batch is settled, because then another thread may overwrite the memory.
        told = self._report.told_of(batch, verdict is Verdict.SENT, result.kept)
        settled = Settled(batch.seq, count, verdict, *told)
        if verdict is Verdict.REJECTED:
            settled.reason, settled.lost = reason, self._report.lost_of(batch)

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
        """Settle some events in one step, however they were sent, and tell everybody who has to know.

        Args:
            settle: settles them with the buffer.
            result: for the schedule.
            settled: gets those who wait for these events. They are told when the callbacks have run.
            apart: as for `_settle_request`.
        """
        with self._lock:
            settle()
            if self._schedule.settled(result, monotonic()):
                self._buffer.signal(everyone=True)
            elif result.failed or result.kept:
                # A sleeping sender may not know yet when the delay ends.
                self._buffer.signal()
            self._admission.wake()
            if not apart:
                settled.flushes = self._flushes_ended(failed=result.kept)
                settled.waited_for = settled.events is not None or bool(settled.lost)
                if settled.waited_for:
                    self._called_back.append(settled.seq)

    def _call_back(self, settled: list[Settled]) -> None:
        """Call the callbacks for events that were settled, and then tell those who wait for a flush of them."""
        for each in settled:
            if each.events is not None or each.lost:
                self._call_callbacks(settled)
                return
        for each in settled:
            for flush in each.flushes:
                flush.end()

    def _call_callbacks(self, settled: list[Settled]) -> None:
        flushes = [flush for each in settled for flush in each.flushes]
        told = [each for each in settled if each.events is not None]
        good = [event for each in told if each.verdict is Verdict.SENT for event in each.events or ()]
        bad = [event for each in told if each.verdict is not Verdict.SENT for event in each.events or ()]
        sent = sum(each.count for each in settled if each.verdict is Verdict.SENT)
        try:
            if good:
                self._report.succeeded(good)
            if bad:
                with self._left_out([each.kept for each in told if each.kept is not None]):
                    self._report.failed(sent, bad)
            for reason in sorted({each.reason for each in settled if each.lost}):
                self._report.lost(reason, [event for each in settled if each.reason == reason for event in each.lost])
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

    def _settle_parts(self, batch: EventBatch, verdicts: list[Verdict]) -> None:
        """Settle a batch whose events had different outcomes: it is split where they differ."""
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

    def _keep(self, batch: EventBatch, status: int | None) -> None:
        """Give a batch back. If one event may cause the failure, it is split. A single such event goes to the end."""
        if is_poison_sign(status):
            batch.server_errors += 1
            if batch.server_errors >= POISON_AFTER:
                batch.seal()
                if len(batch) == 1:
                    self._yield_place(batch)
                    return
                # Without memory for a split the whole batch is tried again.
                with contextlib.suppress(MemoryError):
                    batch.split().give_back()
        batch.give_back()

    def _yield_place(self, batch: EventBatch) -> None:
        waited_for = [flush for flush in self.flushes if batch.seq < flush.target]
        batch.yield_place()
        self._schedule.renumbered()
        for flush in waited_for:
            if flush.retry:
                # The event has a new number. Those who wait for it have to know that.
                flush.target = self._buffer.next_seq
            else:
                flush.left_one = True
        self._insist()

    # -- those who wait for a flush ----------------------------------------------------------------------------------

    def begin(self, flush: Flush) -> None:
        """Add one who waits until its events are settled. The lock is held."""
        self.flushes.append(flush)
        if flush.retry:
            self._insist()

    def end(self, flush: Flush) -> None:
        """Remove one who waits no longer. The lock is held."""
        self.flushes.remove(flush)
        if flush.retry:
            self._insist()

    def _insist(self) -> None:
        self._schedule.insist_upto = max((flush.target for flush in self.flushes if flush.retry), default=0)

    def oldest(self) -> int:
        """The number of the oldest event that is not settled, or whose callback runs."""
        return min([self._buffer.oldest_seq, *self._called_back])

    def _flushes_ended(self, failed: bool) -> list[Flush]:
        """The flushes that are done now. After a failed attempt these are all but those that retry."""
        if not self.flushes:
            return []
        oldest = self.oldest()
        return [flush for flush in self.flushes if (failed and not flush.retry) or oldest >= flush.target]
