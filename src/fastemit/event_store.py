"""The event store as the documentation names it: here, a view of the native buffer."""

from __future__ import annotations

from fastemit._buffer import EventBuffer
from fastemit.typing import PayloadDictList


class InMemoryEventStore:
    """The default store of an emitter: its native buffer, under the names that the reference's store has.

    Thread safety: as the buffer's; each call is one consistent look.
    """

    def __init__(self, buffer: EventBuffer) -> None:
        self._buffer = buffer

    @property
    def buffer_capacity(self) -> int:
        """Most events queued and in flight together."""
        return self._buffer.capacity

    @property
    def event_buffer(self) -> PayloadDictList:
        """The queued events as dicts, oldest first: a copy, made at each look."""
        return self._buffer.snapshot()

    def size(self) -> int:
        """How many events are queued; those in flight are not counted, as in the reference."""
        return self._buffer.queued_events
