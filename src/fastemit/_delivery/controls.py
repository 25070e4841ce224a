"""What every emitter over a `Delivery` offers: to wait for what is queued, to close, and timers."""

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
    """What is left of the timers of `snowplow_tracker`, which are threads: whether one is set.

    A sender thread keeps the time. With `background=False` nobody does; see `is_active`.
    """

    def __init__(self, active: Callable[[], bool]) -> None:
        self._active = active

    def is_active(self) -> bool:
        """Whether it is set, and the emitter not closed.

        With `background=False` that does not mean that something happens when the time is over, because no thread
        waits for it. The flush timer is looked at by each `input`: the first one after the interval sends what is
        queued, in its thread. What is to be retried goes with the next `input` after the backoff that reaches
        `batch_size` (with a flush timer: with any `input`), or with `flush` and `drain` at any time.
        """
        return self._active()


class _Unmade:
    """In the place of a part that `__init__` makes, until it has: says so to who asks for it."""

    def __get__(self, owner: object, cls: type) -> Any:
        if owner is None:
            return self
        raise AttributeError(f"{cls.__name__}.__init__ has not been called, or did not finish")


def unmade() -> Any:
    """For the class attribute of a part that `__init__` makes.

    In tests `__init__` is often a mock, and a subclass's may fail before it has called its parent's. What such an
    object is asked for then says why it is not there.
    """
    return _Unmade()


@checks.fixed(
    retry_delay="it follows from what the collector answers; max_retry_delay_seconds is its longest",
    timer="call set_flush_timer(seconds) or cancel_flush_timer()",
    retry_timer="a retry comes when retry_delay is over; flush() makes an attempt at once",
)
class Draining:
    """A mixin; `_may_begin` is to be called before `__init__` changes anything, `_open` when the delivery is there."""

    _delivery: Delivery = unmade()
    _timer: Timer = unmade()
    _retry_timer: Timer = unmade()

    def _may_begin(self) -> None:
        """Refuse to be initialised again while in use: what is queued and counted would be out of everybody's sight.

        Before the first event there is nothing to lose. A class with two emitters among its bases may call `__init__`
        once for each then, and the last call holds, as with `snowplow_tracker`'s emitters.
        """
        if "_delivery" in self.__dict__ and self._in_use():
            raise RuntimeError(
                f"{type(self).__name__}.__init__ was called again on an emitter in use, whose events and counters it "
                "would replace: call close() first, or make another emitter"
            )

    def _in_use(self) -> bool:
        return self._delivery.in_use

    def _open(self, delivery: Delivery) -> None:
        """Go on with this delivery. An earlier one has nothing to do, and is closed."""
        first = self.__dict__.get("_delivery")
        self._delivery = delivery
        self._timer = Timer(lambda: delivery.flush_interval is not None and not delivery.stopped)
        self._retry_timer = Timer(lambda: delivery.retry_delay > 0 and not delivery.stopped)
        if first is not None:
            # Whatever another thread has put in since `_may_begin` is told of as what any close leaves behind.
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

        One attempt is made whatever the backoff says; the first failure that keeps events ends the wait. In a
        callback it is a request, and returns at once. `drain` does the same with a timeout, and tells the result.
        """
        self._delivery.drain()

    def sync_flush(self, timeout: float | None = None) -> None:
        """`flush`, for at most `timeout` seconds (None: as long as it takes); an overridden `flush` as it is."""
        own = self._delivery.own_flush
        if own is not None:
            own()
        else:
            self._delivery.drain(_timeout(timeout))

    def async_flush(self) -> None:
        """Have what is queued sent soon, and return at once."""
        self._delivery.request_flush()

    def drain(self, timeout: float | None = None, *, retry: bool = False) -> bool:
        """Wait until what is queued or in flight now is sent or rejected.

        The first attempt is made at once, whatever the backoff says. In a callback this is a request, and returns at
        once.

        Args:
            timeout: seconds to wait at the most. Default: None, as long as it takes.
            retry: False, the default: the first failure that keeps events ends the wait. True: failures are retried
                by the backoff until everything is settled, the time is up or the emitter is closed. With a `timeout`
                of None that may be for ever, since a collector may never come back.

        Returns:
            True if nothing is left of what was there at the call.
        """
        return self._delivery.drain(_timeout(timeout), checks.boolean("retry", retry))

    def close(self, timeout: float | None = None) -> int:
        """Send what is left, stop the sender, and from here on drop what comes.

        Args:
            timeout: seconds it may take; None for `shutdown_timeout`.

        Returns:
            The number of events left, which is also logged. A second call has no effect.
        """
        given = _timeout(timeout)
        delivery: Delivery | None = vars(self).get("_delivery")
        if delivery is None:
            # There is nothing to close where `__init__` was a mock or failed.
            return 0
        return delivery.close(delivery.shutdown_timeout if given is None else given)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False

    # -- timers ------------------------------------------------------------------------------------------------------

    # 0.12 and before had set_flush_timer(timeout, flush_now).
    @checks.gone(flush_now="call flush() beside it")
    def set_flush_timer(self, timeout: float) -> None:
        """Flush what is queued every `timeout` seconds; a second call replaces the first.

        With `background=False` there is no thread that keeps the time: the first `input` after the interval sends what
        is queued, in its thread. Without another `input` nothing is sent, so call `flush` or `drain` where your
        program becomes idle.

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
