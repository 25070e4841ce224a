"""The courier: carries what is in the buffer to the collector, and does with it what the answer says.

One pass of it is

    take -> send -> settle -> call back

in whichever thread has been given a turn. `schedule.py` decides when that is, `reporting.py` tells the user.
"""

from __future__ import annotations

import contextlib
import time

from fastemit._buffer import Batch, EventBuffer
from fastemit.admission import Admission
from fastemit.outcome import Outcome, Transport
from fastemit.reporting import Reporter
from fastemit.retry import POISON_AFTER, Verdict, is_poison_sign, judge, retry_after_seconds
from fastemit.schedule import Schedule, Turn
from fastemit.waiting import Flush, Guard


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
    ) -> None:
        self.custom_retry_codes = custom_retry_codes
        #: Those who wait for a flush; the lock is held to change it.
        self.flushes: list[Flush] = []
        self._buffer = buffer
        self._transport = transport
        self._report = report
        self._schedule = schedule
        self._admission = admission
        self._lock = guard.lock
        self._called_back: list[int] = []  # number of the first event of each batch whose callback runs

    def attempt(self, turn: Turn, cap: float | None = None) -> None:
        """Make the request that `turn` gives leave to, and those that follow from it."""
        try:
            batch = self._buffer.take(self._schedule.aim, self._buffer.batch_size)
            with self._lock:
                more = self._schedule.taken()
            if more and not turn.probe:
                # Another sender may look whether it is to go now.
                self._buffer.signal()
            if batch is not None:
                self.carry(batch, turn, cap)
        finally:
            with self._lock:
                self._schedule.over(turn)

    def carry(self, batch: Batch, turn: Turn, cap: float | None = None) -> bool:
        """Send a batch, its halves where it proves too large, and settle each. False if events were kept."""
        stack = [batch]
        while stack:
            batch = stack.pop()
            outcome = self._send(batch, cap)
            verdict = judge(outcome.status, len(batch), self.custom_retry_codes)
            if verdict is Verdict.SPLIT:
                try:
                    first = batch.split()
                except MemoryError:
                    verdict = Verdict.KEEP
                else:
                    stack += [batch, first]
                    continue
            if not self._settle(batch, outcome, verdict, turn):
                for rest in stack:
                    rest.give_back(retried=False)
                return False
        return True

    def _send(self, batch: Batch, cap: float | None) -> Outcome:
        events, size, started = len(batch), batch.nbytes, time.monotonic()
        batch.stamp(time.time_ns() // 1_000_000)
        try:
            outcome = self._transport.send(batch, cap)
        except Exception as error:  # noqa: BLE001 - whatever a pool manager of the user's raises, the events are kept
            outcome = Outcome(error=f"{type(error).__name__}: {error}")
        self._report.request(outcome, events, size, time.monotonic() - started)
        return outcome

    def _settle(self, batch: Batch, outcome: Outcome, verdict: Verdict, turn: Turn) -> bool:
        """Carry out a verdict and call back. False if events were kept."""
        sent = verdict is Verdict.SENT
        events = self._report.events_for(batch, sent)
        seq, count, size = batch.seq, len(batch), batch.nbytes
        # One larger than a request should be is not tried for ever; but no answer at all may be the network's fault.
        give_up = batch.oversize and (outcome.status is not None or outcome.timed_out)
        kept = verdict is Verdict.KEEP and not give_up
        reason = "oversize" if verdict is Verdict.KEEP else "rejected"
        now = time.monotonic()
        with self._lock:
            if sent:
                batch.sent()
                self._schedule.got_through()
            elif kept:
                self._keep(batch, outcome.status)
            else:
                batch.dropped(reason)
            if verdict is Verdict.KEEP:
                asked = retry_after_seconds(outcome.status, outcome.retry_after, time.time())
                self._schedule.failed(turn, now, asked, kept)
                if outcome.timed_out:
                    self._schedule.timed_out(size)
            elif self._schedule.succeeded(turn):
                self._buffer.signal(everyone=True)
            self._schedule.settled(now)
            self._admission.wake()
            ended = self._flushes_ended(failed=kept)
            if events is not None:
                self._called_back.append(seq)
        if not sent and not kept:
            self._report.dropped(reason, f"{outcome.error or f'status {outcome.status}'}, {size} bytes", count)
        if events is not None:
            try:
                self._report.call_back(0, events, sent)
            finally:
                with self._lock:
                    self._called_back.remove(seq)
                    ended += self._flushes_ended(failed=False)
                self._end(ended)
        else:
            self._end(ended)
        return not kept

    def _keep(self, batch: Batch, status: int | None) -> None:
        """Give a batch back; one that may hold a poisonous event is split, or if it is that event, yields."""
        if is_poison_sign(status):
            batch.server_errors += 1
            if batch.server_errors >= POISON_AFTER:
                batch.seal()
                if len(batch) == 1:
                    batch.yield_place()
                    return
                # Without memory for that it is the whole, which is tried again.
                with contextlib.suppress(MemoryError):
                    batch.split().give_back()
        batch.give_back()

    def oldest(self) -> int:
        """Number of the oldest event that is not settled, or whose callback runs."""
        return min([self._buffer.oldest_seq, *self._called_back])

    def _flushes_ended(self, failed: bool) -> list[Flush]:
        """Those who wait for a flush that is done now; all of them once an attempt has failed."""
        if not self.flushes:
            return []
        oldest = self.oldest()
        return [flush for flush in self.flushes if failed or oldest >= flush.target]

    @staticmethod
    def _end(flushes: list[Flush]) -> None:
        for flush in flushes:
            flush.end()
