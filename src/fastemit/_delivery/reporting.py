"""Telling the user: counters, log lines and callbacks."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import Any

from fastemit._buffer import Batch, EventBuffer
from fastemit._interfaces import Outcome
from fastemit._signals import guarded, raise_of_signal_handler
from fastemit.stats import EmitterStats, ThrottledLog, described, logger, say
from fastemit.typing import FailureCallback, SuccessCallback

#: The query and the user of an address, inside a text such as an exception's.
_SECRETS = re.compile(r"(?<=\?)\S+|(?<=//)[^\s/]*@")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Characters of a text from outside that are told.
_MOST_TOLD = 500


def _address(text: str) -> str:
    """An address without its query and its user, which may carry what is nobody's business."""
    text = re.split(r"[?#]", text, maxsplit=1)[0]
    scheme = _SCHEME.match(text)
    return (scheme[0] if scheme else "") + text.rpartition("@")[2] if "@" in text else text


def _one_line(text: str) -> str:
    """A text from outside, so that it cannot pass for a line of the log, nor command a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_MOST_TOLD])


class Reporter:
    """What one delivery tells: to `stats`, to the log, and to the two callbacks.

    Thread safety: any thread may call anything. The lock covers the counters; callbacks run outside it.

    Args:
        on_success, on_failure: the callbacks, or None.
    """

    def __init__(self, on_success: SuccessCallback | None = None, on_failure: FailureCallback | None = None) -> None:
        self.on_success = on_success
        self.on_failure = on_failure
        self.log = ThrottledLog()
        self.start_over(threading.RLock(), lambda: None)

    def start_over(self, lock: threading.RLock, wake: Callable[[], None]) -> None:
        """Count from 0.

        Args:
            lock: the delivery's; see there why it is one.
            wake: has a sender look at `due_at`.
        """
        self.log.forget()
        self.log = ThrottledLog(wake=wake)
        self.untold_faults = False
        self._lock = lock
        self._requests = 0
        self._failed_requests = 0
        self._last_status: int | None = None
        self._last_error: str | None = None

    def request(self, outcome: Outcome, events: int, size: int, seconds: float) -> None:
        """One request was made: of `events` events in `size` bytes, answered or given up after `seconds`."""
        failed = outcome.status is None or not 200 <= outcome.status < 300
        text = f"status {outcome.status}"
        if outcome.status is None:
            text = _one_line(re.sub(_SECRETS, "...", str(outcome.error)))
        elif outcome.location is not None and failed:
            text += f", not following its Location: {_one_line(_address(outcome.location))}"
        with self._lock:
            self._requests += 1
            if outcome.status is not None:
                self._last_status = outcome.status
            if failed:
                self._failed_requests += 1
                self._last_error = text
        if logger.isEnabledFor(logging.DEBUG):
            say(logging.DEBUG, "request: %d events, %d bytes, %s, %.1f ms", events, size, text, seconds * 1e3)
        if failed:
            self.log.add("request failed", f"{text} ({events} events, {size} bytes)")

    def dropped(self, reason: str, detail: str, count: int = 1) -> None:
        self.log.add(f"events dropped ({reason})", detail, count)

    def store_fault(self, what: str) -> None:
        """An event store of the user's did something wrong; to be told by `tell_faults`, as the lock is held now."""
        if self.log.note("event store at fault", what):
            self.untold_faults = True

    def due_at(self) -> float:
        """When something that the log holds back is to be told by `tell_faults`, on its clock; infinity for never."""
        return self.log.due_at()

    def tell_faults(self) -> None:
        """Log what `store_fault` noted, and what was held back for long enough. The caller holds no lock."""
        self.untold_faults = False
        self.log.write()

    def stats(self, buffer: EventBuffer, retry_delay: float) -> EmitterStats:
        with self._lock:
            queued, queued_bytes, in_flight, sent, sent_bytes, retried, dropped = buffer.counts()
            return EmitterStats(
                queued_events=queued,
                queued_bytes=queued_bytes,
                in_flight_events=in_flight,
                sent_events=sent,
                sent_bytes=sent_bytes,
                requests=self._requests,
                failed_requests=self._failed_requests,
                retried_events=retried,
                dropped_events=dropped,
                retry_delay=retry_delay,
                last_status=self._last_status,
                last_error=self._last_error,
            )

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def told_of(self, batch: Batch, sent: bool, keep: bool) -> tuple[list[dict[str, Any]] | None, bytes | None]:
        """The events as the callback for this outcome gets them, and if they are kept the body that they were in.

        None when there is nobody to get them.
        """
        if (self.on_success if sent else self.on_failure) is None:
            return None, None
        try:
            return batch.decode(), bytes(batch.body()) if keep else None
        except MemoryError:
            self.log.add("callback left out", "no memory for the events")
            return None, None

    def succeeded(self, events: list[dict[str, Any]]) -> None:
        """Call `on_success`."""
        if self.on_success is not None:
            self._call("on_success", self.on_success, events)

    def failed(self, sent_count: int, events: list[dict[str, Any]]) -> None:
        """Call `on_failure`."""
        if self.on_failure is not None:
            self._call("on_failure", self.on_failure, sent_count, events)

    def _call(self, name: str, callback: Callable[..., object], *arguments: object) -> None:
        """Run a callback; what it raises is logged, and changes nothing."""

        def raised(error: BaseException) -> None:
            say(logging.DEBUG, "%s raised", name, exc_info=error)
            self.log.add("callback raised", f"{name}: {described(error)}")

        try:
            guarded(lambda: callback(*arguments), raised)
        except Exception:
            # What a handler of a signal has raised.
            raise
        except BaseException as error:
            # SystemExit and the like, of a callback that has no business with the thread.
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                # Not the callback's, but the user's.
                raise
            raise_of_signal_handler(error)
            raised(error)
