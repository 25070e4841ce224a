"""The queue that `input` puts events into and a delivery takes them from. Nothing here knows how it keeps them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from fastemit.typing import Payload, PayloadDictList


class EncodedEvent(Protocol):
    """An encoded event, together with whatever else its queue keeps for it."""

    @property
    def encoded(self) -> bytes: ...


#: An event in the form that a queue keeps. Only the queue that has made it can take it.
Encoded: TypeAlias = bytes | EncodedEvent


class Sink(Protocol):
    """What `input` puts events into."""

    def append(self, payload: Payload) -> int | Encoded:
        """Encode one event and queue it.

        Returns:
            0 if it is queued and there is nothing to do. 1 if it is queued and `Delivery.answer` must be called. The
            encoded event if it is not queued.
        """
        ...


class Sleeper(Protocol):
    """What a sender sleeps on; see `_delivery/waiting.py`."""

    def put(self, note: None, /) -> object:
        """Wake it. Never blocks."""
        ...


class EventBatch(Protocol):
    """The events of one request. The thread that sends them owns them until it has settled them.

    A batch is settled once, by `sent`, `dropped`, `give_back` or `yield_place`. After `split` there are two to settle.
    """

    #: How many server errors it got as an answer.
    server_errors: int

    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes that the events take in the body."""
        ...

    @property
    def seq(self) -> int:
        """Number of the first event."""
        ...

    @property
    def query(self) -> bool:
        """Whether the body is the query string of one event, for GET."""
        ...

    @property
    def ours(self) -> bool:
        """False if it was taken before a fork. Then the parent settles it."""
        ...

    @property
    def oversize(self) -> bool:
        """Whether it is one event that is larger than a request should be."""
        ...

    def stamp(self, milliseconds: int, /) -> None:
        """Set the `stm` of every event."""
        ...

    def body(self) -> memoryview:
        """The whole body of the request. It may be read until the batch is settled."""
        ...

    def decode(self) -> PayloadDictList:
        """The events as dicts."""
        ...

    def originals(self) -> list[Any]:
        """The objects that the events were made from, if the queue keeps these."""
        ...

    @property
    def in_files(self) -> bool:
        """Whether its queue keeps events in files, and not the objects that they were made from."""
        ...

    def texts(self) -> list[bytes]:
        """The encoded events."""
        ...

    def split(self) -> EventBatch:
        """Halve it: return the first half, and keep the second. `MemoryError` changes nothing."""
        ...

    def seal(self) -> None:
        """Do not merge these events with others when they are given back."""
        ...

    def sent(self) -> None:
        """Settle: the collector has them."""
        ...

    def dropped(self, reason: str, /) -> None:
        """Settle: they are dropped for this reason."""
        ...

    def give_back(self, retried: bool = True) -> None:
        """Settle: they go back to their place in the queue. They count as retried if `retried` is true."""
        ...

    def yield_place(self) -> None:
        """Settle: they go to the end of the queue, with new numbers."""
        ...


class Keeping(Protocol):
    """What a delivery knows of the files that its events are in; see `_spool/`.

    The methods that only the buffer calls, such as `more`, are not here.
    """

    #: Logs a warning of this kind, but not too often.
    warn: Callable[[str, str], None]

    @property
    def path(self) -> str:
        """The directory that events are in."""
        ...

    @property
    def recovered_events(self) -> int:
        """How many events of dead processes were given to the buffer."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether there is room on the disk, as far as is known."""
        ...

    @property
    def wants_tending(self) -> bool:
        """Whether `tend` must be called now."""
        ...

    def put_off(self) -> bool:
        """Leave that to the next request, if the last one has told the files that it waits. False if it must be now."""
        ...

    #: Whether what dead processes have left is taken over. False once the emitter is being closed.
    takes_over: bool

    @property
    def closed(self) -> bool:
        """Whether the rest was left to other emitters."""
        ...

    @property
    def at_work_here(self) -> bool:
        """Whether this thread is in the middle of work on files that no other thread can do meanwhile.

        That can be so in a signal handler or a finalizer alone.
        """
        ...

    def due_at(self) -> float:
        """When `tend` must be called at the latest, by the monotonic clock."""
        ...

    def tend(self, take_over: bool = True) -> bool:
        """Look after the files. True if there may be room now where there was none. No lock is held.

        In the middle of that work it does nothing.
        """
        ...

    def tidy(self) -> None:
        """Remove the files that hold no event."""
        ...

    def close(self) -> None:
        """Leave the events to other emitters."""
        ...

    def after_fork(self) -> None:
        """In a forked child: begin without files."""
        ...


class EventQueue(Sink, Protocol):
    """The interface of the buffer, where events wait in order until a delivery takes them.

    `EventBuffer` is the native one, `StoreBuffer` has a user's event store behind this interface, and `BufferAround`
    is a buffer whose owner notes what is settled. The first accepted event has the number 0.
    """

    #: Sending starts once so many events, or so many bytes, are queued.
    batch_size: int
    byte_limit: int | None
    #: The wake flags. Only `Waking` writes them, and it says what they mean.
    hold: bool
    linger: bool
    notify: int
    starving: int

    # -- what is fixed -----------------------------------------------------------------------------------------------

    @property
    def query(self) -> bool:
        """Whether each event is a request of its own, by GET."""
        ...

    @property
    def capacity(self) -> int:
        """Most events queued and in flight together."""
        ...

    @property
    def max_bytes(self) -> int:
        """Most bytes queued and in flight together."""
        ...

    @property
    def max_request_bytes(self) -> int:
        """Most bytes of one request body."""
        ...

    @property
    def segment_bytes(self) -> int:
        """Most bytes of events in one request body."""
        ...

    @property
    def left_in(self) -> str | None:
        """The place where events stay after a close; None if they are lost when the process ends."""
        ...

    def share(self, lock: threading.RLock, /) -> None:
        """Use this lock, which is the delivery's, around all calls of the user's code."""
        ...

    # -- in ----------------------------------------------------------------------------------------------------------

    def prepare(self, payload: Payload) -> Encoded:
        """Encode one event in the form that this queue keeps."""
        ...

    def append_encoded(self, event: Encoded, urgent: bool = False) -> int | Encoded:
        """Queue what `prepare` returned, or what had no room before. Returns as `append`. `urgent`: see `starving`."""
        ...

    def size_of(self, event: Encoded, /) -> int:
        """The bytes that the event would take in a body."""
        ...

    def too_large(self, event: Encoded, /) -> bool:
        """Whether there can never be room for the event."""
        ...

    def has_room_for(self, event: Encoded, /) -> bool:
        """Whether another try to queue the event may succeed."""
        ...

    def drop_oldest(self, event: Encoded, /) -> int:
        """Drop queued events until there is room for this one. Returns how many: none if that does not help."""
        ...

    def count_dropped(self, reason: str, /) -> None:
        """Count an event that is dropped before it was queued."""
        ...

    # -- out ---------------------------------------------------------------------------------------------------------

    def take(self, max_bytes: int | None = None, min_events: int = 1) -> EventBatch | None:
        """Take the oldest events for one request: up to `max_bytes`, but `min_events` if they fit into a request."""
        ...

    @property
    def due(self) -> bool:
        """Whether there is enough to send."""
        ...

    @property
    def wanted(self) -> bool:
        """Whether there is enough even for a sender that has just sent."""
        ...

    # -- waking ------------------------------------------------------------------------------------------------------

    @property
    def signals(self) -> int:
        """How often `signal` was called."""
        ...

    def arm(self, sleeper: Sleeper, seen: int, /) -> bool:
        """Wake this sleeper when there is something to do. False if there is already, or if `signals` is not `seen`."""
        ...

    def disarm(self, sleeper: Sleeper, /) -> bool:
        """Do not wake this sleeper any more. False if it was woken already."""
        ...

    def signal(self, everyone: bool = False) -> None:
        """Wake one sleeper, or all of them."""
        ...

    # -- counts ------------------------------------------------------------------------------------------------------

    @property
    def queued_events(self) -> int: ...

    @property
    def queued_bytes(self) -> int: ...

    @property
    def in_flight_events(self) -> int: ...

    @property
    def in_flight_bytes(self) -> int: ...

    @property
    def unsettled_events(self) -> int:
        """The number of events that are queued or in flight."""
        ...

    @property
    def next_seq(self) -> int:
        """The number that the next event gets."""
        ...

    @property
    def head_seq(self) -> int:
        """The number of the oldest queued event."""
        ...

    @property
    def oldest_seq(self) -> int:
        """The number of the oldest event that is not settled."""
        ...

    @property
    def recheck_at(self) -> float:
        """When to look again even if nothing is queued, by the monotonic clock; infinity for never."""
        ...

    def counts(self) -> tuple[int, int, int, int, int, int, dict[str, int]]:
        """(queued, their bytes, in flight, sent, their bytes, retried, dropped by reason), at one moment."""
        ...

    # -- the end, and forks ------------------------------------------------------------------------------------------

    @property
    def spare_segments(self) -> int:
        """The number of free segments."""
        ...

    def trim(self, keep: int = 1, /) -> None:
        """Free all but `keep` of the free segments."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it takes no more events."""
        ...

    def close(self) -> None:
        """Take no more events."""
        ...

    @property
    def forked(self) -> bool:
        """Whether this process is a child that has not called `after_fork` yet."""
        ...

    def after_fork(self) -> None:
        """In a forked child: start empty."""
        ...
