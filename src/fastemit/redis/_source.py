"""What lies between a Redis list and the buffer of a `RedisWorker`: entries, batches, and the reporter of outcomes."""

from __future__ import annotations

import json
import threading
from typing import Any, Final

import orjson

from fastemit._batch import Batch
from fastemit._buffer import EventBuffer
from fastemit._delivery import Inbox, Reporter
from fastemit._interfaces import Encoded
from fastemit._stores import BatchAround, BufferAround
from fastemit.emitters import Emitter
from fastemit.typing import FailureCallback, LostCallback, SuccessCallback


class Entry:
    """An event that the worker has taken."""

    __slots__ = ("dead", "event", "raw", "settled", "yielded")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.event: Encoded | None = None  # as the buffer takes it; only kept if the buffer had no room for it
        self.settled = False
        self.dead = False  # it must be moved to the dead list
        self.yielded = False  # it went to the end of the queue, and must be moved to the end in Redis, too


class SourceBatch(BatchAround):
    """A batch whose settling is noted for Redis."""

    def __init__(self, owner: Source, batch: Batch) -> None:
        super().__init__(batch)
        self._owner = owner

    def split(self) -> SourceBatch:
        return SourceBatch(self._owner, self._batch.split())

    # A batch from before a fork is not ours: the parent tells Redis what became of it.

    def sent(self) -> None:
        ours, seq, count = self.ours, self.seq, len(self)
        super().sent()
        if ours:
            self._owner.settled(seq, count)

    def dropped(self, reason: str) -> None:
        ours, seq, count = self.ours, self.seq, len(self)
        super().dropped(reason)
        if ours:
            self._owner.settled(seq, count)

    def yield_place(self) -> None:
        if self.ours:
            self._owner.yielded(self._batch)
        else:
            super().yield_place()


class Source(BufferAround):
    """The buffer of a worker. It knows the entry of each event by the event's number."""

    left_in: Final = "Redis"

    def __init__(self, native: EventBuffer, inbox: Inbox) -> None:
        super().__init__(native)
        self.entries: dict[int, Entry] = {}
        self.lock = threading.Lock()
        self.worker_inbox = inbox

    def _around(self, batch: Batch) -> SourceBatch:
        return SourceBatch(self, batch)

    def put(self, event: Encoded, entry: Entry) -> int | Encoded:
        """Queue an encoded event. Returns what `EventBuffer.append_encoded` returns."""
        with self.lock:
            number = self.native.next_seq
            # Noted first, because a sender may take the event as soon as it is queued.
            self.entries[number] = entry
            answer = self.native.append_encoded(event)
            if not isinstance(answer, int):
                del self.entries[number]
        return answer

    def settled(self, seq: int, count: int) -> None:
        for number in range(seq, seq + count):
            self.entries.pop(number).settled = True
        self.worker_inbox.put(None)

    def yielded(self, batch: Batch) -> None:
        with self.lock:
            entry = self.entries.pop(batch.seq)
            self.entries[self.native.next_seq] = entry
            batch.yield_place()
            entry.yielded = True
        self.worker_inbox.put(None)


class WorkerReporter(Reporter):
    """Calls the emitter's callbacks, including those that are assigned later."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        super().__init__()

    @property
    def on_success(self) -> SuccessCallback | None:
        return self._emitter.on_success

    @on_success.setter
    def on_success(self, value: object) -> None:
        """Told by the emitter."""

    @property
    def on_failure(self) -> FailureCallback | None:
        return self._emitter.on_failure

    @on_failure.setter
    def on_failure(self, value: object) -> None:
        """Told by the emitter."""

    @property
    def on_lost(self) -> LostCallback | None:
        return self._emitter.on_lost

    @on_lost.setter
    def on_lost(self, value: object) -> None:
        """Told by the emitter."""


def event_of(raw: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(raw)
    except ValueError:
        # `json` writes NaN and lone surrogates, which orjson refuses to read.
        event = json.loads(raw)
    if not isinstance(event, dict):
        raise TypeError(f"an event is a JSON object, not {type(event).__name__}")
    return event
