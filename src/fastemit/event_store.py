"""Event stores: the protocol, and the default store, which is the native buffer with snowplow_tracker's names."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any, NoReturn, Protocol, runtime_checkable

from fastemit import _native as _native
from fastemit._batch import Batch
from fastemit._buffer import EventBuffer
from fastemit._encode import KeptEvent
from fastemit._settings import DEFAULT_BUFFER_CAPACITY, checks
from fastemit._system import refuse_copy
from fastemit.stats import logger as fastemit_logger
from fastemit.typing import PayloadDict, PayloadDictList

__all__ = ["EventStore", "InMemoryEventStore", "PayloadDict", "PayloadDictList"]

#: The buffer allocates memory in pieces for a request of this size.
_SEGMENT_BYTES = 1_000_000


class StoredEvents(list[PayloadDict]):
    """A copy of the events of a store. It is a list that cannot be changed, because the store would not notice."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(
            "event_buffer is a copy, and to change it would not change the store. Add events by input() of the emitter "
            "or add_event() of the store. Remove them by get_events_batch() and then cleanup(events, False). For your "
            "own list write list(event_buffer)"
        )

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy or a pickle of it is an ordinary list.
        return list, (list(self),)


@runtime_checkable
class EventStore(Protocol):
    """What an object must have to be given to an emitter as its `event_store`.

    The emitter holds its own lock around each call, and has one batch out at a time. What a method raises is logged. If
    `add_event` raises, the event is dropped. The other methods are called again after a second. `cleanup` then gets the
    same events, and before that no batch is taken. An attribute `buffer_capacity` says how many events the store takes.
    """

    def add_event(self, payload: PayloadDict) -> bool:
        """Store an event. False says that the event was refused; any other value says that it is stored."""
        ...

    def get_events_batch(self) -> PayloadDictList:
        """Hand out the events to send next."""
        ...

    def cleanup(self, batch: PayloadDictList, need_retry: bool) -> None:
        """Forget events that were sent or rejected. With `need_retry` they must be handed out again."""
        ...

    def size(self) -> int:
        """How many events are stored and not handed out, including those that cannot be handed out yet.

        If it returns 0 and `get_events_batch` returns none, the events that the store had taken count as dropped.
        """
        ...


@checks.fixed(
    buffer_capacity="give buffer_capacity when you make the store or the emitter",
    event_buffer="it is a copy of what the store holds; remove events by get_events_batch() and then "
    "cleanup(events, False)",
)
class InMemoryEventStore:
    """Events in the native buffer: the default store of an emitter.

    An emitter that is given one uses its buffer directly. Without an emitter the store takes and returns dicts. Events
    that were handed out count against the capacity until `cleanup` gets them. With `need_retry` they go back to their
    place.

    Thread safety: every method may be called from any thread.

    Args:
        logger: logs dropped events; None for fastemit's.
        buffer_capacity: most events stored and handed out together. Default 10,000.
    """

    def __init__(self, logger: logging.Logger | None = None, buffer_capacity: int = DEFAULT_BUFFER_CAPACITY) -> None:
        earlier = self.__dict__.get("_buffer")
        if earlier is not None and (earlier.unsettled_events or (self.__dict__["_emitters"] and not earlier.closed)):
            raise RuntimeError(
                f"{type(self).__name__}.__init__ was called again on a store that an emitter uses, or that holds "
                f"events ({earlier.unsettled_events}): make another store"
            )
        capacity = checks.integer("buffer_capacity", buffer_capacity)
        if logger is not None and not callable(getattr(logger, "error", None)):
            raise TypeError(f"logger must be a logging.Logger or None, not {type(logger).__name__} {logger!r}")
        self.logger: logging.Logger = fastemit_logger if logger is None else logger
        self._lock = threading.RLock()
        # What was handed out, by the id of the dict. The dict is kept, so that no other object gets its id.
        self._out: dict[int, tuple[PayloadDict, Batch]] = {}
        self._emitters = False
        self._buffer = EventBuffer(capacity, sys.maxsize, _SEGMENT_BYTES, 1, keep=True)

    __reduce__ = refuse_copy

    @classmethod
    def over(cls, buffer: EventBuffer) -> InMemoryEventStore:
        """Make the store that an emitter shows if the user gave none."""
        store = cls.__new__(cls)
        store.logger = fastemit_logger
        store._lock = threading.RLock()
        store._out = {}
        store._emitters = True
        store._buffer = buffer
        return store

    def use(self, buffer: EventBuffer, lost: list[PayloadDict], instead_of: object = None) -> bool:
        """Use an emitter's buffer from now on, and put the stored events into it. False if another emitter uses this.

        Args:
            buffer: the emitter's buffer.
            lost: gets the events for which that has no room.
            instead_of: the buffer that the same emitter had before `__init__` was called again.
        """
        with self._lock:
            if self._emitters and self._buffer is not instead_of:
                return False
            stored = self.get_events_batch()
            for _, taken in self._out.values():
                taken.dropped("overflow")  # removes it from the old buffer, whose counters nobody reads any more
            self._emitters = True
            self._buffer = buffer
            self._out.clear()
            for event in stored:
                if not isinstance(buffer.append(event), int):
                    buffer.count_dropped("overflow")
                    self.logger.error("Event buffer is full, dropping event.")
                    lost.append(event)
            return True

    @property
    def buffer_capacity(self) -> int:
        """Most events stored and handed out together."""
        return self._buffer.capacity

    @property
    def event_buffer(self) -> PayloadDictList:
        """A new copy of the stored events, oldest first. It cannot be changed, but `list()` of it can."""
        return StoredEvents(_without_stm(event) for event in self._buffer.snapshot())

    def size(self) -> int:
        return self._buffer.queued_events

    def add_event(self, payload: PayloadDict) -> bool:
        # The values that were put in come out again, not the strings made from them. The event is encoded from the copy
        # that is kept, because another thread may change the payload.
        mapping = hasattr(payload, "keys") and not isinstance(payload, type)
        own = dict(payload) if mapping and not self._emitters else None
        event: Any = self._buffer.prepare(payload if own is None else own)
        if isinstance(event, KeptEvent) and own is not None:
            event = KeptEvent(event.encoded, own)
        if isinstance(self._buffer.append_encoded(event), int):
            return True
        self.logger.error("Event buffer is full, dropping event.")
        return False

    def get_events_batch(self) -> PayloadDictList:
        events: PayloadDictList = []
        with self._lock:
            # Taken one by one, so that each event can be cleaned up separately.
            while (batch := self._buffer.take(1, 1)) is not None:
                event = _without_stm(batch.decode()[0])
                self._out[id(event)] = event, batch
                events.append(event)
        return events

    def cleanup(self, batch: PayloadDictList, need_retry: bool) -> None:
        with self._lock:
            for event in batch:
                _, taken = self._out.pop(id(event), (None, None))
                if taken is None:
                    if need_retry:
                        self.add_event(event)
                elif need_retry:
                    taken.give_back()
                else:
                    taken.sent()


def _without_stm(event: PayloadDict) -> PayloadDict:
    event.pop("stm", None)
    return event
