"""The native buffer with batches of another kind, for sources that note what is settled, such as a list in Redis.

`EventBuffer` and `Batch` are C classes that cannot be subclassed, so these classes wrap them. This costs little,
because a batch is settled in few large steps.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from fastemit._batch import Batch
from fastemit._buffer import EventBuffer
from fastemit._interfaces import Encoded, EventBatch, Sleeper
from fastemit.typing import Payload


class BatchAround(ABC):
    """An `EventBatch` that passes everything on to a native one. A subclass adds what it notes."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.stamp = batch.stamp
        self.body = batch.body
        self.decode = batch.decode
        self.originals = batch.originals
        self.texts = batch.texts
        self.seal = batch.seal

    @abstractmethod
    def split(self) -> BatchAround:
        """As `EventBatch.split`; both halves are of this kind."""

    def __len__(self) -> int:
        return len(self._batch)

    @property
    def nbytes(self) -> int:
        return self._batch.nbytes

    @property
    def seq(self) -> int:
        return self._batch.seq

    @property
    def query(self) -> bool:
        return self._batch.query

    @property
    def ours(self) -> bool:
        return self._batch.ours

    @property
    def oversize(self) -> bool:
        return self._batch.oversize

    @property
    def in_files(self) -> bool:
        return self._batch.in_files

    @property
    def server_errors(self) -> int:
        return self._batch.server_errors

    @server_errors.setter
    def server_errors(self, value: int) -> None:
        self._batch.server_errors = value

    def sent(self) -> None:
        self._batch.sent()

    def dropped(self, reason: str) -> None:
        self._batch.dropped(reason)

    def give_back(self, retried: bool = True) -> None:
        self._batch.give_back(retried)

    def yield_place(self) -> None:
        self._batch.yield_place()


class BufferAround(ABC):
    """An `EventQueue` that passes everything on to a native buffer, but whose batches are of a class of their own.

    Thread safety: as `EventBuffer`'s.

    Args:
        native: the buffer.
    """

    def __init__(self, native: EventBuffer) -> None:
        self.native = native

    @abstractmethod
    def _around(self, batch: Batch) -> EventBatch:
        """Wrap this batch in the class that the delivery gets."""

    def take(self, max_bytes: int | None = None, min_events: int = 1) -> EventBatch | None:
        batch = self.native.take(max_bytes, min_events)
        return None if batch is None else self._around(batch)

    @property
    def left_in(self) -> str | None:
        return self.native.left_in

    @property
    def query(self) -> bool:
        return self.native.query

    @property
    def capacity(self) -> int:
        return self.native.capacity

    @property
    def max_request_bytes(self) -> int:
        return self.native.max_request_bytes

    @property
    def segment_bytes(self) -> int:
        return self.native.segment_bytes

    @property
    def due(self) -> bool:
        return self.native.due

    @property
    def wanted(self) -> bool:
        return self.native.wanted

    @property
    def signals(self) -> int:
        return self.native.signals

    @property
    def queued_events(self) -> int:
        return self.native.queued_events

    @property
    def queued_bytes(self) -> int:
        return self.native.queued_bytes

    @property
    def in_flight_events(self) -> int:
        return self.native.in_flight_events

    @property
    def max_bytes(self) -> int:
        return self.native.max_bytes

    @property
    def in_flight_bytes(self) -> int:
        return self.native.in_flight_bytes

    @property
    def unsettled_events(self) -> int:
        return self.native.unsettled_events

    @property
    def next_seq(self) -> int:
        return self.native.next_seq

    @property
    def head_seq(self) -> int:
        return self.native.head_seq

    @property
    def oldest_seq(self) -> int:
        return self.native.oldest_seq

    @property
    def recheck_at(self) -> float:
        return self.native.recheck_at

    @property
    def spare_segments(self) -> int:
        return self.native.spare_segments

    @property
    def closed(self) -> bool:
        return self.native.closed

    @property
    def forked(self) -> bool:
        return self.native.forked

    @property
    def batch_size(self) -> int:
        return self.native.batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self.native.batch_size = value

    @property
    def byte_limit(self) -> int | None:
        return self.native.byte_limit

    @byte_limit.setter
    def byte_limit(self, value: int | None) -> None:
        self.native.byte_limit = value

    @property
    def hold(self) -> bool:
        return self.native.hold

    @hold.setter
    def hold(self, value: bool) -> None:
        self.native.hold = value

    @property
    def linger(self) -> bool:
        return self.native.linger

    @linger.setter
    def linger(self, value: bool) -> None:
        self.native.linger = value

    @property
    def notify(self) -> int:
        return self.native.notify

    @notify.setter
    def notify(self, value: int) -> None:
        self.native.notify = value

    @property
    def starving(self) -> int:
        return self.native.starving

    @starving.setter
    def starving(self, value: int) -> None:
        self.native.starving = value

    def share(self, lock: threading.RLock) -> None:
        self.native.share(lock)

    def append(self, payload: Payload) -> int | Encoded:
        return self.native.append(payload)

    def prepare(self, payload: Payload) -> Encoded:
        return self.native.prepare(payload)

    def append_encoded(self, event: Encoded, urgent: bool = False) -> int | Encoded:
        return self.native.append_encoded(event, urgent)

    def size_of(self, event: Encoded) -> int:
        return self.native.size_of(event)

    def too_large(self, event: Encoded) -> bool:
        return self.native.too_large(event)

    def has_room_for(self, event: Encoded) -> bool:
        return self.native.has_room_for(event)

    def drop_oldest(self, event: Encoded) -> int:
        return self.native.drop_oldest(event)

    def count_dropped(self, reason: str) -> None:
        self.native.count_dropped(reason)

    def arm(self, sleeper: Sleeper, seen: int) -> bool:
        return self.native.arm(sleeper, seen)

    def disarm(self, sleeper: Sleeper) -> bool:
        return self.native.disarm(sleeper)

    def signal(self, everyone: bool = False) -> None:
        self.native.signal(everyone)

    def counts(self) -> tuple[int, int, int, int, int, int, dict[str, int]]:
        return self.native.counts()

    def trim(self, keep: int = 1) -> None:
        self.native.trim(keep)

    def close(self) -> None:
        self.native.close()

    def after_fork(self) -> None:
        self.native.after_fork()
