"""`drain` and `close` in an asyncio task. Imported only when they are called, because asyncio is slow to import."""

from __future__ import annotations

import asyncio
import contextlib

from fastemit._delivery.delivery import Delivery
from fastemit._delivery.inline import MIN_PAUSE
from fastemit._delivery.waiting import Flush
from fastemit._process import lifecycle
from fastemit._time import monotonic


class AwaitedFlush(Flush):
    """A `Flush` that a task waits for. A sender thread ends it, and wakes the task's loop."""

    def __init__(self, target: int, retry: bool = False) -> None:
        super().__init__(target, retry)
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()

    def end(self) -> None:
        self.over = True
        # The loop was closed, so nobody waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait_for_end(self, deadline: float | None) -> None:
        # Not asyncio.wait_for, which up to Python 3.11 may lose a cancellation that comes together with the end.
        await asyncio.wait((self._ended,), timeout=None if deadline is None else max(deadline - monotonic(), 0.0))


async def drain(delivery: Delivery, timeout: float | None, retry: bool) -> bool:
    """`Delivery.drain`, while the loop goes on."""
    deadline = None if timeout is None else monotonic() + timeout
    if not delivery.has_looked():
        # In a sender thread, because a file system may be slow.
        look = AwaitedFlush(0)
        delivery.look_soon(look)
        await look.wait_for_end(deadline)
    if not delivery.sends_by_itself():
        return await _drain_here(delivery, deadline, retry)
    flush = AwaitedFlush(delivery.buffer.next_seq, retry)
    courier = delivery.begin_drain(flush)
    if courier is None:
        return not flush.left_one
    try:
        delivery.flush_soon()
        await flush.wait_for_end(deadline)
    finally:
        done = delivery.end_drain(courier, flush)
    delivery.report.tell_faults()
    return done


async def _drain_here(delivery: Delivery, deadline: float | None, retry: bool) -> bool:
    """Nobody else sends: requests are made in this thread. Between a failure and the next attempt the loop goes on."""
    while True:
        if delivery.drain(None if deadline is None else max(deadline - monotonic(), 0.0)):
            return True
        pause = delivery.seconds_to_retry()
        left = float("inf") if deadline is None else deadline - monotonic()
        if not retry or pause is None or left <= 0:
            return False
        await asyncio.sleep(min(max(pause, MIN_PAUSE), left))


async def close(delivery: Delivery, timeout: float) -> int:
    """`Delivery.close`, while the loop goes on. When the task is cancelled, the senders end the close."""
    deadline = monotonic() + timeout
    if delivery.close_is_somebodys or not delivery.sends_by_itself():
        return delivery.close(timeout)
    if not delivery.claim_close(deadline):
        return delivery.buffer.unsettled_events
    closer = AwaitedFlush(0)
    delivery.join_close(closer)
    try:
        await closer.wait_for_end(deadline)
        # The time is up: cut off what is still in a request, and give it the moment that it needs to end.
        delivery.stop()
        await closer.wait_for_end(monotonic() + lifecycle.LAST_STEPS)
    except BaseException:
        delivery.leave_close(closer)
        raise
    left = delivery.finish_close(monotonic(), patience=0.0)
    # As `finish_close` does when it may block: a sender tells `on_lost` of the rest, and the process may end next.
    until = monotonic() + lifecycle.LAST_STEPS
    while delivery.telling and monotonic() < until:
        await asyncio.sleep(lifecycle.A_MOMENT)
    return left
