"""The native buffer with batches of another kind: what a transport that is not HTTP, or a source of events, adds.

`EventBuffer` and `Batch` are closed C classes, so these stand around them; a batch is settled in few large steps, which
makes the way through Python cheap.
"""

from __future__ import annotations

from typing import Any

from fastemit._buffer import Batch, EventBuffer


class BatchAround:
    """A `Batch` as a pass knows it, all of it passed on."""

    def __init__(self, owner: Any, batch: Batch) -> None:
        self._owner = owner
        self._batch = batch
        self.stamp = batch.stamp
        self.decode = batch.decode
        self.seal = batch.seal

    def __len__(self) -> int:
        return len(self._batch)

    @property
    def nbytes(self) -> int:
        return self._batch.nbytes

    @property
    def seq(self) -> int:
        return self._batch.seq

    @property
    def ours(self) -> bool:
        return self._batch.ours

    @property
    def oversize(self) -> bool:
        return self._batch.oversize

    @property
    def server_errors(self) -> int:
        return self._batch.server_errors

    @server_errors.setter
    def server_errors(self, value: int) -> None:
        self._batch.server_errors = value

    def body(self) -> Any:
        return self._batch.body()

    def split(self) -> BatchAround:
        return type(self)(self._owner, self._batch.split())

    def sent(self) -> None:
        self._batch.sent()

    def dropped(self, reason: str) -> None:
        self._batch.dropped(reason)

    def give_back(self, retried: bool = True) -> None:
        self._batch.give_back(retried)

    def yield_place(self) -> None:
        self._batch.yield_place()


class BufferAround:
    """An `EventBuffer` as the delivery knows it, whose batches are of a class of their own.

    Thread safety: as `EventBuffer`'s.
    """

    batch_class: type[BatchAround] = BatchAround

    def __init__(self, native: EventBuffer) -> None:
        # Past __setattr__ below.
        self.__dict__["native"] = native

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["native"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        # What the delivery sets is the native buffer's: `hold`, `notify`, `starving`.
        setattr(self.__dict__["native"], name, value)

    def take(self, max_bytes: int | None = None, min_events: int = 1) -> BatchAround | None:
        batch = self.native.take(max_bytes, min_events)
        return None if batch is None else self.batch_class(self, batch)
