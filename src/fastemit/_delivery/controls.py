"""What every emitter that has a `Delivery` offers: calls that wait for queued events, `close`, and timers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from fastemit._delivery.delivery import Delivery
from fastemit._settings import checks
from fastemit.stats import say

if TYPE_CHECKING:
    from typing_extensions import Self


class Timer:
    """Stands for a timer of `snowplow_tracker`, which is a thread there. It tells only whether the timer is set.

    A sender thread keeps the time. With `background=False` nobody does; see `is_active`.
    """

    def __init__(self, active: Callable[[], bool]) -> None:
        self._active = active

    def is_active(self) -> bool:
        """Whether the timer is set and the emitter is open.

        With `background=False` nothing happens when the time is over, because no thread waits for it. Each `input`
        looks at the flush timer: the first one after the interval sends what is queued, in its thread. Kept events are
        sent again by the first `input` after the backoff that reaches `batch_size`. With a flush timer any `input`
        after the backoff does so. `flush` and `drain` send them at any time.
        """
        return self._active()


class _Unmade:
    """Stands for a part until `__init__` has made it. To use it raises an error that says so."""

    def __get__(self, owner: object, cls: type) -> Any:
        if owner is None:
            return self
        raise AttributeError(f"{cls.__name__}.__init__ has not been called, or did not finish")


def unmade() -> Any:
    """For the class attribute of a part that `__init__` makes.

    In tests `__init__` is often a mock, and the `__init__` of a subclass may fail before it calls its parent's. An
    error then says why the part is not there.
    """
    return _Unmade()


@checks.fixed(
    retry_delay="it follows from what the collector answers; max_retry_delay_seconds is its longest",
    timer="call set_flush_timer(seconds) or cancel_flush_timer()",
    retry_timer="a retry comes when retry_delay is over; flush() makes an attempt at once",
)
class Draining:
    """A mixin. Call `_may_begin` before `__init__` changes anything, and `_open` when the delivery is made."""

    _delivery: Delivery = unmade()
    _timer: Timer = unmade()
    _retry_timer: Timer = unmade()

    def _may_begin(self) -> None:
        """Refuse a second `__init__` while in use, because nobody could see or send the earlier events any more.

        Before the first event there is nothing to lose. So a class with two emitters among its bases may call
        `__init__` once for each, and the last call holds, as with `snowplow_tracker`'s emitters.
        """
        if "_delivery" in self.__dict__ and self._in_use():
            raise RuntimeError(
                f"{type(self).__name__}.__init__ was called again on an emitter in use, whose events and counters it "
                "would replace: call close() first, or make another emitter"
            )

    def _in_use(self) -> bool:
        return self._delivery.in_use

    def _open(self, delivery: Delivery) -> None:
        """Use this delivery from now on. An earlier one has nothing to do, and is closed."""
        first = self.__dict__.get("_delivery")
        self._delivery = delivery
        self._timer = Timer(lambda: delivery.flush_interval is not None and not delivery.stopped)
        self._retry_timer = Timer(lambda: delivery.retry_delay > 0 and not delivery.stopped)
        if first is not None:
            # If another thread has put in events since `_may_begin`, the close logs them as left.
            first.replaced = True
            first.close(0.0)
        if delivery.flush_interval is not None:
            self._tell_who_keeps_the_time()

    def _tell_who_keeps_the_time(self) -> None:
        if not self._delivery.background:
            say(
                logging.INFO,
                "a flush timer with background=False: no thread keeps the time, so the first input after each "
                "interval of %g s sends",
                self._delivery.flush_interval,
            )

    def flush(self) -> None:
        """Wait until what is queued or in flight now is sent or rejected.

        One attempt is made at once, even during a backoff. The first failure that keeps events ends the wait. In a
        callback this only asks for the attempt, and returns at once. `drain` does the same, and has a timeout and a
        result.
        """
        self._delivery.drain()

    def sync_flush(self, timeout: float | None = None) -> None:
        """Call `flush` for at most `timeout` seconds; None: no limit. An overridden `flush` is called without one."""
        own = self._delivery.own_flush
        if own is not None:
            own()
        else:
            self._delivery.drain(_timeout(timeout))

    def async_flush(self) -> None:
        """Ask for what is queued to be sent soon, and return at once."""
        self._delivery.request_flush()

    def drain(self, timeout: float | None = None, *, retry: bool = False) -> bool:
        """Wait until what is queued or in flight now is sent or rejected.

        The first attempt is made at once, even during a backoff. In a callback this only asks for the attempt, and
        returns at once.

        Args:
            timeout: seconds to wait at the most. Default: None, as long as it takes.
            retry: False, the default: the first failure that keeps events ends the wait. True: failures are retried
                by the backoff until everything is settled, the time is up or the emitter is closed. With
                `timeout=None` that may last for ever, because the collector may never come back.

        Returns:
            True if nothing is left of what was there at the call.
        """
        return self._delivery.drain(_timeout(timeout), checks.boolean("retry", retry))

    def close(self, timeout: float | None = None) -> int:
        """Send what is queued, and stop the senders. Later events are dropped.

        Args:
            timeout: seconds it may take; None for `shutdown_timeout`.

        Returns:
            The number of events left, which is also logged. A second call has no effect, unless the first came from a
            callback, which may not wait: a second one from elsewhere waits for the end.
        """
        delivery, seconds = self._to_close(timeout)
        return 0 if delivery is None else delivery.close(seconds)

    def _to_close(self, timeout: float | None) -> tuple[Delivery | None, float]:
        """What there is to close, and within how many seconds. None where `__init__` was a mock or failed."""
        given = _timeout(timeout) or 0.0
        delivery: Delivery | None = vars(self).get("_delivery")
        return delivery, given if delivery is None or timeout is not None else delivery.shutdown_timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False

    # -- in an asyncio program ---------------------------------------------------------------------------------------

    async def aflush(self, timeout: float | None = None) -> None:
        """Wait until what is queued or in flight now is sent or rejected, while the loop goes on.

        One attempt is made at once, even during a backoff. The first failure that keeps events ends the wait. A sender
        thread sends, as always, and the wait needs no thread, so any number of tasks may wait at once. With
        `background=False` there is no sender. Then this call makes the request, and the loop stands still meanwhile.

        Args:
            timeout: seconds to wait at the most. Default: None, as long as it takes.

        Raises:
            TypeError, ValueError: naming the argument, the value and what is allowed.
            RuntimeError: no asyncio loop runs in this thread.
            asyncio.CancelledError: the task was cancelled. The events stay queued, and are sent later.
        """
        await self.adrain(timeout)

    async def adrain(self, timeout: float | None = None, *, retry: bool = False) -> bool:
        """`drain` for an asyncio program; see `aflush`.

        Args:
            timeout: seconds to wait at the most. Default: None, as long as it takes.
            retry: False, the default: the first failure that keeps events ends the wait. True: it goes on through
                failures, by the backoff.

        Returns:
            True if nothing is left of what was there at the call.
        """
        from fastemit._delivery import awaiting

        return await awaiting.drain(self._delivery, _timeout(timeout), checks.boolean("retry", retry))

    async def aclose(self, timeout: float | None = None) -> int:
        """`close` for an asyncio program; see `aflush`. Later events are dropped.

        If the task is cancelled, only its wait ends. The senders go on until the time is up, and then end.

        Args:
            timeout: seconds it may take; None for `shutdown_timeout`.

        Returns:
            The number of events left, which is also logged. A second call has no effect, unless the first came from a
            callback, which may not wait: a second one from elsewhere waits for the end.
        """
        delivery, seconds = self._to_close(timeout)
        if delivery is None:
            return 0
        from fastemit._delivery import awaiting

        return await awaiting.close(delivery, seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        await self.aclose()
        return False

    # -- timers ------------------------------------------------------------------------------------------------------

    # 0.12 and before had set_flush_timer(timeout, flush_now).
    @checks.gone(flush_now="call flush() beside it")
    def set_flush_timer(self, timeout: float) -> None:
        """Flush what is queued every `timeout` seconds; a second call replaces the first.

        With `background=False` no thread keeps the time. The first `input` after the interval sends what is queued, in
        its thread. Without another `input` nothing is sent, so call `flush` or `drain` when your program becomes idle.

        Args:
            timeout: seconds, more than 0.

        Raises:
            TypeError, ValueError: naming the argument, the value and what is allowed.
        """
        self._delivery.flush_interval = checks.seconds("timeout", timeout)
        self._tell_who_keeps_the_time()

    def cancel_flush_timer(self) -> None:
        """Stop the flush timer."""
        self._delivery.flush_interval = None

    def cancel_flush(self) -> None:
        """`cancel_flush_timer`, under the name that the documentation of 0.15 has for it."""
        self.cancel_flush_timer()

    @property
    def timer(self) -> Timer:
        """`timer.is_active()`: whether the flush timer runs."""
        return self._timer

    @property
    def retry_timer(self) -> Timer:
        """`retry_timer.is_active()`: whether a backoff runs."""
        return self._retry_timer

    @property
    def retry_delay(self) -> float:
        """Seconds of the backoff that runs; 0 when sending works."""
        return self._delivery.retry_delay


def _timeout(timeout: float | None) -> float | None:
    return None if timeout is None else checks.seconds("timeout", timeout, zero=True)
