"""What a store of the user's takes and hands out, as the passes and the overflow policies know it; see `adapter.py`."""

from __future__ import annotations

from typing import Any, Protocol

from fastemit._buffer import Batch, KeptEvent
from fastemit._stores.wrapped import BatchAround
from fastemit.typing import PayloadDict


class Owner(Protocol):
    """What a batch tells of its settling, and to whom."""

    lock: Any
    server_errors: int

    def settle(self, events: list[PayloadDict], reason: str | None, size: int) -> None: ...
    def keep(self, events: list[PayloadDict], retried: bool) -> None: ...


class Refused:
    """An event that the store refused: what `append` gives back then."""

    def __init__(self, kept: KeptEvent, cleanups: int) -> None:
        self.kept = kept
        self.cleanups = cleanups  # how many there had been when it was refused


class StoreBatch(BatchAround):
    """A `Batch` whose settling is told to the store."""

    def __init__(self, owner: Owner, batch: Batch, events: list[PayloadDict]) -> None:
        super().__init__(owner, batch)
        self._events = events

    @property
    def server_errors(self) -> int:
        """0: which events they are is not known once they are back in the store, so the owner does the counting."""
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

    # Under the owner's lock, since a batch that is settled here and not cleaned up yet could be handed out again. One
    # from before a fork is the parent's: neither the child's books nor its store know of it.

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
            self._batch.dropped("overflow")  # out of the staging buffer, whose counters nobody reads
            if ours:
                self._owner.keep(self._events, retried)

    def yield_place(self) -> None:
        """The store decides the order."""
        self.give_back()
