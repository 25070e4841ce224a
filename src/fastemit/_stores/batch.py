"""The events and batches of a user's event store, in the form that the delivery knows; see `adapter.py`."""

from __future__ import annotations

import threading
from typing import Protocol

from fastemit._batch import Batch
from fastemit._encode import KeptEvent
from fastemit._interfaces import Encoded
from fastemit._stores.wrapped import BatchAround
from fastemit.typing import PayloadDict


class Owner(Protocol):
    """The one to whom a batch tells what became of its events."""

    lock: threading.RLock
    server_errors: int

    def settle(self, events: list[PayloadDict], reason: str | None, size: int) -> None: ...
    def keep(self, events: list[PayloadDict], retried: bool) -> None: ...


class Refused:
    """An event that the store refused. `append` returns it."""

    def __init__(self, kept: KeptEvent, cleanups: int) -> None:
        self.kept = kept
        self.encoded = kept.encoded
        self.cleanups = cleanups  # how many calls of `cleanup` there had been when it was refused


def kept_of(event: Encoded) -> KeptEvent:
    """The event itself, whether the store has refused it or was not asked yet."""
    if isinstance(event, Refused):
        return event.kept
    if isinstance(event, KeptEvent):
        return event
    raise TypeError(f"event must be one that this buffer has prepared or refused, not {type(event).__name__}")


class StoreBatch(BatchAround):
    """A `Batch` that tells the store what became of its events."""

    def __init__(self, owner: Owner, batch: Batch, events: list[PayloadDict]) -> None:
        super().__init__(batch)
        self._owner = owner
        self._events = events

    @property
    def server_errors(self) -> int:
        """0, because the owner counts. Once events are back in the store, nobody can tell which ones they are."""
        return 0

    @server_errors.setter
    def server_errors(self, value: int) -> None:
        if self.ours:
            self._owner.server_errors += value

    def split(self) -> StoreBatch:
        first = self._batch.split()
        count = len(first)
        events, self._events = self._events[:count], self._events[count:]
        return StoreBatch(self._owner, first, events)

    # Settling and cleaning up are done under the owner's lock. Otherwise the store could hand out again what is settled
    # but not cleaned up yet. A batch from before a fork is the parent's, so the child's books and store ignore it.

    def sent(self) -> None:
        with self._owner.lock:
            ours, size = self.ours, self.nbytes
            self._batch.sent()
            if ours:
                self._owner.settle(self._events, None, size)

    def dropped(self, reason: str) -> None:
        with self._owner.lock:
            ours = self.ours
            self._batch.dropped(reason)
            if ours:
                self._owner.settle(self._events, reason, 0)

    def give_back(self, retried: bool = True) -> None:
        with self._owner.lock:
            ours = self.ours
            self._batch.dropped("overflow")  # removes it from the staging buffer, whose counters nobody reads
            if ours:
                self._owner.keep(self._events, retried)

    def yield_place(self) -> None:
        """The store decides the order."""
        self.give_back()
