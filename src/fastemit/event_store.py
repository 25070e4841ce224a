"""Event stores: the protocol, and the default one, which is the native buffer under the reference's names."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any, NoReturn, Protocol, runtime_checkable

from fastemit._buffer import Batch, EventBuffer, KeptEvent, refuse_copy
from fastemit._settings import checks
from fastemit.stats import logger as fastemit_logger
from fastemit.typing import PayloadDict, PayloadDictList

__all__ = ["EventStore", "InMemoryEventStore", "PayloadDict", "PayloadDictList"]

DEFAULT_BUFFER_CAPACITY = 10_000
#: A request of this size is the unit in which the buffer allocates.
_SEGMENT_BYTES = 1_000_000


class StoredEvents(list[PayloadDict]):
    """A look at the events of a store. A list, but what would change it raises, since the store would not notice."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(
            "event_buffer is a copy, so to change it would change nothing: add events by input() of the emitter or "
            "add_event() of the store; remove them by get_events_batch() and then cleanup(events, False); for a list "
            "of your own write list(event_buffer)"
        )

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of it, and what comes out of a pickle, is a list as any other.
        return list, (list(self),)


@runtime_checkable
class EventStore(Protocol):
    """What an object must have to be given to an emitter as its `event_store`.

    The emitter holds one lock, which is its own, around each call, and has one batch out at a time. What a method
    raises is logged: of `add_event`, the event is dropped; the others are called again after a second, `cleanup` with
    the same events and before more are taken. An attribute `buffer_capacity` says how many events it takes.
    """

    def add_event(self, payload: PayloadDict) -> bool:
        """Store an event. False, and nothing else, says that it was refused."""
        ...

    def get_events_batch(self) -> PayloadDictList:
        """Hand out the events to send next."""
        ...

    def cleanup(self, batch: PayloadDictList, need_retry: bool) -> None:
        """Forget events that were sent or rejected; with `need_retry`, have them handed out again."""
        ...

    def size(self) -> int:
        """How many events are stored and not handed out, those that wait for something included.

        When it says none, and `get_events_batch` gives none, what the store had taken is counted as dropped.
        """
        ...


@checks.fixed(
    buffer_capacity="give buffer_capacity when you make the store or the emitter",
    event_buffer="it is a copy of what the store holds; remove events by get_events_batch() and then "
    "cleanup(events, False)",
)
class InMemoryEventStore:
    """Events in the native buffer: the default store of an emitter.

    An emitter that is given one works on its buffer directly. Used by itself it takes and gives dicts: events that
    were handed out count against the capacity until `cleanup` has been told of them, and go back to their place.

    Thread safety: every method may be called from any thread.

    Args:
        logger: is told when an event is dropped; None for fastemit's.
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
        # What was handed out, by the identity of the dict; the dict is kept so that the identity stays its own.
        self._out: dict[int, tuple[PayloadDict, Batch]] = {}
        self._emitters = False
        self._buffer = EventBuffer(capacity, sys.maxsize, _SEGMENT_BYTES, 1, keep=True)

    __reduce__ = refuse_copy

    @classmethod
    def over(cls, buffer: EventBuffer) -> InMemoryEventStore:
        """The store that an emitter without one of the user's shows."""
        store = cls.__new__(cls)
        store.logger = fastemit_logger
        store._lock = threading.RLock()
        store._out = {}
        store._emitters = True
        store._buffer = buffer
        return store

    def use(self, buffer: EventBuffer, instead_of: object = None) -> bool:
        """Become the face of an emitter's buffer, with the events stored so far. False if it is another's already.

        Args:
            buffer: the emitter's.
            instead_of: the one that the same emitter had before it was initialised again.
        """
        with self._lock:
            if self._emitters and self._buffer is not instead_of:
                return False
            stored = self.get_events_batch()
            for _, taken in self._out.values():
                taken.dropped("overflow")  # out of a buffer whose counters nobody reads any more
            self._emitters = True
            self._buffer = buffer
            self._out.clear()
            for event in stored:
                if not isinstance(buffer.append(event), int):
                    buffer.count_dropped("overflow")
                    self.logger.error("Event buffer is full, dropping event.")
            return True

    @property
    def buffer_capacity(self) -> int:
        """Most events stored and handed out together."""
        return self._buffer.capacity

    @property
    def event_buffer(self) -> PayloadDictList:
        """The stored events, oldest first: a copy, made at each look. It cannot be changed; `list()` of it can."""
        return StoredEvents(_without_stm(event) for event in self._buffer.snapshot())

    def size(self) -> int:
        return self._buffer.queued_events

    def add_event(self, payload: PayloadDict) -> bool:
        # What was put in comes out, not its strings. One copy for both, since another thread may change the payload.
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
            # One by one, so that each can be cleaned up by itself.
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
