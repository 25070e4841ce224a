"""What the user is told: counters, log lines and callbacks."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from fastemit._delivery.waiting import Guard
from fastemit._encode import KeptEvent
from fastemit._interfaces import Encoded, EventBatch, EventQueue, Outcome
from fastemit._signals import guarded, raise_of_signal_handler
from fastemit._words import counted
from fastemit.stats import EmitterStats, ThrottledLog, described, logger, say
from fastemit.typing import FailureCallback, LostCallback, PayloadDict, PayloadDictList, SuccessCallback

# These are not compiled here, because only failures need them.
#: The query and the user of an address, inside a text such as that of an exception.
_SECRETS = r"(?<=\?)\S+|(?<=//)[^\s/]*@"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
#: How many characters of a text from outside are shown.
_MOST_TOLD = 500


def _address(text: str) -> str:
    """An address without its query and its user, because these may hold secrets."""
    text = re.split(r"[?#]", text, maxsplit=1)[0]
    scheme = re.match(_SCHEME, text)
    return (scheme[0] if scheme else "") + text.rpartition("@")[2] if "@" in text else text


def _one_line(text: str) -> str:
    """A text from outside, changed so that it cannot look like a log line, nor control a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_MOST_TOLD])


def loaded(document: bytes) -> Any:
    """What a JSON document says, also one with a lone surrogate, which orjson does not read."""
    try:
        return orjson.loads(document)
    except ValueError:
        return json.loads(document)


def _without_stm(event: PayloadDict) -> PayloadDict:
    # The next attempt to send the event sets another `stm`.
    event.pop("stm", None)
    return event


def _event_of(event: Any) -> PayloadDict:
    """The dict of an event as `EventBuffer.prepare` gave it, or as a store refused it."""
    kept = getattr(event, "kept", event)
    original = kept.original if isinstance(kept, KeptEvent) else kept
    return dict(loaded(original) if isinstance(original, bytes) else original)


class Reporter:
    """What one delivery tells: to `stats`, to the log, and to the three callbacks.

    Thread safety: any thread may call anything. The lock covers the counters; callbacks run outside it.

    Args:
        on_success, on_failure, on_lost: the callbacks, or None.
    """

    def __init__(
        self,
        on_success: SuccessCallback | None = None,
        on_failure: FailureCallback | None = None,
        on_lost: LostCallback | None = None,
    ) -> None:
        self.on_success = on_success
        self.on_failure = on_failure
        self.on_lost = on_lost
        self.log = ThrottledLog()
        self.start_over(Guard(), lambda: None)

    def start_over(self, guard: Guard, wake: Callable[[], None]) -> None:
        """Count from 0.

        Args:
            guard: the delivery's; see there why its lock is one.
            wake: has a sender look at `due_at` of the log.
        """
        self.log.forget()
        self.log = ThrottledLog(wake=wake)
        self.untold_faults = False
        self._guard = guard
        self._lock = guard.lock
        self._untold_lost: deque[tuple[str, PayloadDictList]] = deque()
        self._telling: set[int] = set()  # threads in which `on_lost` runs
        self._requests = 0
        self._failed_requests = 0
        self._last_status: int | None = None
        self._last_error: str | None = None

    def request(self, outcome: Outcome, events: int, size: int, seconds: float) -> None:
        """A request was made, with `events` events in `size` bytes. It was answered or given up after `seconds`."""
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
            what = counted(events, "event")
            say(logging.DEBUG, "request: %s, %d bytes, %s, %.1f ms", what, size, text, seconds * 1e3)
        if failed:
            self.log.add("request failed", f"{text} ({counted(events, 'event')}, {size} bytes)")

    def dropped(self, reason: str, detail: str, count: int = 1) -> None:
        self.log.add(f"events dropped ({reason})", detail, count)

    def store_fault(self, what: str) -> None:
        """A user's event store did something wrong. `tell_faults` logs it, because the lock is held now."""
        if self.log.note("event store at fault", what):
            self.untold_faults = True

    def spool_fault(self, kind: str, detail: str) -> None:
        """Something is wrong with the files of a spool. No lock is held."""
        if kind == "no room for events on the disk":
            self.log.add("no room for events on the disk", detail)
        elif kind == "damaged events in the spool":
            self.log.add("damaged events in the spool", detail)
        else:
            self.log.add("files of the spool are gone", detail)

    def lost_in_store(self, reason: str, events: PayloadDictList) -> None:
        """An event store of the user's lost these; to be told by `tell_faults`, as the lock is held now."""
        if self.on_lost is not None:
            self._untold_lost.append((reason, [dict(event) for event in events if isinstance(event, Mapping)]))
            self.untold_faults = True

    def tell_faults(self) -> None:
        """Log the faults of a store, and the lines that were held back for long enough. No lock is held."""
        self.untold_faults = False
        while self._untold_lost:
            self.lost(*self._untold_lost.popleft())
        self.log.write()

    def stats(self, buffer: EventQueue, retry_delay: float, recovered: int = 0) -> EmitterStats:
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
                recovered_events=recovered,
            )

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def told_of(self, batch: EventBatch, sent: bool, keep: bool) -> tuple[list[dict[str, Any]] | None, bytes | None]:
        """The events in the form that the callback gets, and, if they are kept, the body of their request.

        None if there is no such callback.
        """
        if (self.on_success if sent else self.on_failure) is None:
            return None, None
        try:
            return batch.decode(), bytes(batch.body()) if keep else None
        except MemoryError:
            self._no_memory()
            return None, None

    def lost_of(self, batch: EventBatch) -> PayloadDictList:
        """The events of a batch as `on_lost` gets them; empty when there is nobody to get them."""
        if self.on_lost is None:
            return []
        try:
            return [_without_stm(event) for event in self._decoded(batch)]
        except MemoryError:
            self._no_memory()
            return []

    def _decoded(self, batch: EventBatch) -> PayloadDictList:
        return batch.decode()

    def lost_event(self, event: Encoded) -> PayloadDictList:
        """As `lost_of`, for an event that was not queued, as the buffer gave it back."""
        if self.on_lost is None:
            return []
        try:
            return [_without_stm(_event_of(event))]
        except MemoryError:
            self._no_memory()
            return []

    def _no_memory(self) -> None:
        self.log.add("callback left out", "no memory for the events")

    def succeeded(self, events: list[dict[str, Any]]) -> None:
        """Call `on_success`."""
        if self.on_success is not None:
            self._call("on_success", self.on_success, events)

    def failed(self, sent_count: int, events: list[dict[str, Any]]) -> None:
        """Call `on_failure`."""
        if self.on_failure is not None:
            self._call("on_failure", self.on_failure, sent_count, events)

    def lost(self, reason: str, events: PayloadDictList) -> None:
        """Call `on_lost`, unless `on_lost` itself gave these events to the emitter. Otherwise it would never end."""
        me = threading.get_ident()
        if self.on_lost is None or not events or me in self._telling:
            return
        try:
            # As in other callbacks, a flush or close only asks for it, and an `input` without room drops the event.
            with self._guard.as_sender():
                self._telling.add(me)
                self._call("on_lost", self.on_lost, reason, events)
        finally:
            self._telling.discard(me)

    def _call(self, name: str, callback: Callable[..., object], *arguments: object) -> None:
        """Run a callback. An exception in it is logged, and changes nothing else."""

        def raised(error: BaseException) -> None:
            say(logging.DEBUG, "%s raised", name, exc_info=error)
            self.log.add("callback raised", f"{name}: {described(error)}")

        try:
            guarded(lambda: callback(*arguments), raised)
        except Exception:
            # A signal handler has raised it.
            raise
        except BaseException as error:
            # This is SystemExit or the like. A callback may not end the thread.
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                # The user pressed Ctrl-C, and the callback did not raise it.
                raise
            raise_of_signal_handler(error)
            raised(error)
