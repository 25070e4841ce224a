"""An event store of the user's with the face of the native buffer, so that the delivery has one kind of work.

Events live in the store; a batch that the store hands out is staged in a native buffer, which makes the requests. One
batch is out at a time, since a store may hand out again what was not cleaned up.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastemit._buffer import NOTIFY_ALWAYS, NOTIFY_WHEN_DUE, Batch, EventBuffer, KeptEvent
from fastemit.event_store import EventStore, InMemoryEventStore
from fastemit.retry import POISON_AFTER
from fastemit.schedule import FOREVER
from fastemit.stats import described
from fastemit.typing import PayloadDict

#: Seconds for which a store that failed, or said that it has events and then gave none, is left alone.
AFTER_A_FAULT: Final = 1.0


class StoreEvent:
    """An event on its way into the store: what `append` gives back when the store refused it."""

    def __init__(self, kept: KeptEvent, size: int) -> None:
        self.payload: PayloadDict = kept.original
        self.size = size
        self.cleanups = -1  # how many there had been when it was refused


class StoreBatch:
    """A `Batch` whose settling is told to the store."""

    def __init__(self, owner: StoreBuffer, batch: Batch, events: list[PayloadDict]) -> None:
        self._owner = owner
        self._batch = batch
        self._events = events
        self.stamp = batch.stamp
        self.body = batch.body
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
    def oversize(self) -> bool:
        return self._batch.oversize

    @property
    def server_errors(self) -> int:
        """0: which events they are is not known once they are back in the store, so the owner does the counting."""
        return 0

    @server_errors.setter
    def server_errors(self, value: int) -> None:
        self._owner.server_errors += value

    def split(self) -> StoreBatch:
        first = self._batch.split()
        count = len(first)
        events, self._events = self._events[:count], self._events[count:]
        return StoreBatch(self._owner, first, events)

    # Under the owner's lock, since a batch that is settled here and not cleaned up yet could be handed out again.

    def sent(self) -> None:
        with self._owner.lock:
            size = self._batch.nbytes
            self._batch.sent()
            self._owner.settle(self._events, None, size)

    def dropped(self, reason: str) -> None:
        with self._owner.lock:
            self._batch.dropped(reason)
            self._owner.settle(self._events, reason, 0)

    def give_back(self, retried: bool = True) -> None:
        with self._owner.lock:
            self._batch.dropped("overflow")  # out of the staging buffer, whose counters nobody reads
            self._owner.keep(self._events, retried)

    def yield_place(self) -> None:
        """The store decides the order."""
        self.give_back()


class StoreBuffer:
    """`EventBuffer`'s interface over an `EventStore`.

    Thread safety: one reentrant lock is held around each call of the store, and around the counters.

    Args:
        store: the user's.
        staged: makes the requests; a native buffer that keeps what its events were made from.
        batch_size, byte_limit: as `EventBuffer`'s.
        complain: told what a store did wrong.
    """

    spare_segments = 0
    capacity = sys.maxsize

    def __init__(
        self,
        store: EventStore,
        staged: EventBuffer,
        batch_size: int,
        byte_limit: int | None,
        complain: Callable[[str], None],
    ) -> None:
        self._store = store
        self._staged = staged
        self._complain = complain
        self.batch_size = batch_size
        self.byte_limit = byte_limit
        self.segment_bytes = staged.segment_bytes
        self.max_request_bytes = staged.max_request_bytes
        self.query = staged.query
        self.closed = False
        self._start_over()
        # What the store held before belongs to another process, or to nobody: it is sent, and not counted.
        self._foreign = self._size()

    def _start_over(self) -> None:
        self.lock = threading.RLock()
        self._sleepers: list[Any] = []
        self.signals = 0
        self.notify = NOTIFY_ALWAYS
        self.hold = False
        self.starving = 0
        self._pressed = False
        self._leave_alone_until = 0.0
        self._foreign = 0
        self._cleaned: dict[int, PayloadDict] = {}  # since the last batch was taken, by identity
        self._unreturned: list[PayloadDict] = []  # kept events that `cleanup` did not take back, since it raised
        self._counts_out = False
        self._lost = 0  # events that the store did not take back
        self._accepted = self._sent = self._sent_bytes = self._retried = self._cleanups = 0
        self._bytes = 0  # of what was put in since the last batch was taken, as the reference counts
        self.server_errors = 0
        # After so many server errors one event may be the cause. Then a part that fails goes back alone, and what is
        # left of its batch goes on, in parts of this many events: halved by a failure, doubled by a success.
        self._bite: int | None = None
        self._failed = False  # something of the batch that is out failed
        self._dropped = {"overflow": 0, "rejected": 0, "oversize": 0, "closed": 0}

    # -- the store's four methods, each under the lock ---------------------------------------------------------------

    def _fault(self, what: str) -> None:
        self._leave_alone_until = time.monotonic() + AFTER_A_FAULT
        self._complain(what)

    def _size(self) -> int:
        with self.lock:
            try:
                return max(int(self._store.size()), 0)
            except Exception as error:  # noqa: BLE001 - whatever a store of the user's raises
                self._fault(f"size() raised {described(error)}")
                return 0

    def _stored(self) -> int:
        """How many events are in the store and not handed out."""
        with self.lock:
            handed_out = self._staged.unsettled_events if self._counts_out else 0
            return max(self._size() - handed_out, 0) + len(self._unreturned)

    def _cleanup(self, events: Sequence[PayloadDict], need_retry: bool) -> bool:
        """Tell the store. False if it raised."""
        self._cleanups += 1
        try:
            self._store.cleanup(list(events), need_retry)
        except Exception as error:  # noqa: BLE001 - whatever a store of the user's raises
            self._fault(f"cleanup() raised {described(error)}")
            return False
        return True

    # -- in ----------------------------------------------------------------------------------------------------------

    def append(self, payload: Any) -> int | StoreEvent:
        kept: Any = self._staged.prepare(payload)
        return self.append_encoded(StoreEvent(kept, self._staged.size_of(kept)))

    def append_encoded(self, event: StoreEvent, urgent: bool = False) -> int | StoreEvent:
        if self.closed or self.forked:
            return event
        inbox = None
        with self.lock:
            if self.starving and not urgent:
                taken = False
            else:
                try:
                    taken = self._store.add_event(event.payload) is not False
                except Exception as error:  # noqa: BLE001 - whatever a store of the user's raises
                    self._complain(f"add_event() raised {described(error)}; the event is dropped")
                    self._dropped["overflow"] += 1
                    return 0
            if taken:
                self._accepted += 1
                self._bytes += event.size
            else:
                self._pressed = True
                event.cleanups = self._cleanups
            due = self.due
            if due and not self.hold and self._sleepers:
                inbox = self._sleepers.pop()
        if inbox is not None:
            inbox.put(None)
        if not taken:
            return event
        return 1 if self.notify == NOTIFY_ALWAYS or (due and self.notify == NOTIFY_WHEN_DUE) else 0

    def size_of(self, event: StoreEvent) -> int:
        return event.size

    def too_large(self, event: StoreEvent) -> bool:
        return event.size > 0xFFFF0000

    def has_room_for(self, event: StoreEvent) -> bool:
        """Whether it is worth another try: something was cleaned up since the store refused it."""
        return event.cleanups != self._cleanups

    def count_dropped(self, reason: str) -> None:
        with self.lock:
            self._dropped[reason] += 1

    def drop_oldest(self, event: StoreEvent) -> int:
        raise AssertionError("a store of the user's cannot drop its oldest; Emitter refuses that policy")

    # -- out ---------------------------------------------------------------------------------------------------------

    def take(self, max_bytes: int | None = None, min_events: int = 1) -> StoreBatch | None:
        with self.lock:
            if not self._staged.unsettled_events and time.monotonic() >= self._leave_alone_until:
                self._stage()
            if self._bite is not None:
                max_bytes, min_events = 1, self._bite
            first = self._staged.head_seq
            batch = self._staged.take(max_bytes, min_events)
            if batch is None:
                return None
            return StoreBatch(self, batch, self._staged.originals_of(first, len(batch)))

    def _stage(self) -> None:
        unreturned, self._unreturned = self._unreturned, []
        if unreturned:
            self._give(unreturned)
            if self._unreturned:
                return
        self._pressed = False
        self._bytes = 0
        if not self._failed:
            self.server_errors, self._bite = 0, None
        self._failed = False
        before = self._size()
        try:
            events = list(self._store.get_events_batch())
        except Exception as error:  # noqa: BLE001 - whatever a store of the user's raises
            return self._fault(f"get_events_batch() raised {described(error)}")
        # Some stores count what they have handed out until it is cleaned up, and some do not.
        self._counts_out = bool(events) and self._size() >= before
        if not events and before:
            self._fault("size() says that there are events, and get_events_batch() gives none")
        if any(id(event) in self._cleaned for event in events):
            self._fault("get_events_batch() gave again what had been cleaned up")
        self._cleaned = {}
        bad = 0
        for event in events:
            try:
                kept: Any = self._staged.prepare(event)
            except Exception as error:  # noqa: BLE001 - what cannot be encoded would be in the way for ever
                self._complain(f"get_events_batch() gave what is no event ({described(error)})")
                self._cleanup([event], False)
                bad += 1
            else:
                # The store gets back the very objects that it handed out.
                self._staged.append_encoded(KeptEvent(kept.encoded, event))
        if bad:
            # Of those, as many as are missing were put in here and changed since; the others are somebody else's.
            missing = self._accepted - self._settled - (self._staged.unsettled_events + self._stored() - self._foreign)
            self._dropped["rejected"] += max(min(bad, missing), 0)

    @property
    def _settled(self) -> int:
        return self._sent + self._dropped["rejected"] + self._dropped["oversize"] + self._lost

    def settle(self, events: list[PayloadDict], reason: str | None, size: int) -> None:
        """Some events were sent (`reason` None) or dropped."""
        with self.lock:
            own = max(len(events) - self._foreign, 0)
            self._foreign -= len(events) - own
            if reason is None:
                self._sent += own
                self._sent_bytes += size
                self._bite = None if self._bite is None else self._bite * 2
            else:
                self._dropped[reason] += own
            self._cleanup(events, False)
            self._cleaned.update((id(event), event) for event in events)

    def keep(self, events: list[PayloadDict], retried: bool) -> None:
        """Some events are to be sent again: they, and the rest of their batch, go back to the store."""
        with self.lock:
            self._retried += len(events) * retried
            self._failed = True
            if self.server_errors >= POISON_AFTER:
                self._bite = max(len(events) // 2, 1)
                self._give(events)
                return
            # In one call, so that a store which puts them first keeps their order.
            events = list(events)
            first = self._staged.head_seq
            while (rest := self._staged.take()) is not None:
                count = len(rest)
                events += self._staged.originals_of(first, count)
                rest.dropped("overflow")
                first += count
            self._give(events)

    def _give(self, events: list[PayloadDict]) -> None:
        """Give events back, and count those that the store did not take."""
        before = self._size()
        if not self._cleanup(events, True):
            # They stay here, and are offered to it again before the next batch.
            self._unreturned += events
            return
        lost = before + (0 if self._counts_out else len(events)) - self._size()
        if 0 < lost <= len(events):
            self._dropped["overflow"] += lost
            self._lost += lost
            self._complain(f"cleanup() with need_retry kept {len(events) - lost} of {len(events)} events")

    # -- waking ------------------------------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        size = self._stored()
        return size > 0 and (
            size >= self.batch_size or self._pressed or (self.byte_limit is not None and self._bytes >= self.byte_limit)
        )

    def arm(self, inbox: Any, seen: int) -> bool:
        with self.lock:
            # While a batch is out, whoever carries it looks what comes after it.
            nothing = self.hold or self.recheck_at != FOREVER or self._staged.in_flight_events or not self.due
            if self.signals != seen or not nothing:
                return False
            self._sleepers.append(inbox)
            return True

    def disarm(self, inbox: Any) -> bool:
        with self.lock:
            if inbox not in self._sleepers:
                return False
            self._sleepers.remove(inbox)
            return True

    def signal(self, everyone: bool = False) -> None:
        with self.lock:
            self.signals += 1
            if everyone:
                woken, self._sleepers = self._sleepers, []
            else:
                woken = [self._sleepers.pop()] if self._sleepers else []
        for inbox in woken:
            inbox.put(None)

    # -- state -------------------------------------------------------------------------------------------------------

    @property
    def queued_events(self) -> int:
        """What there is to take: of the batch that is out, or else in the store."""
        if self._staged.unsettled_events:
            return self._staged.queued_events
        if time.monotonic() < self._leave_alone_until:
            return 0
        return self._stored()

    @property
    def recheck_at(self) -> float:
        """When the store is asked again after it was at fault."""
        return self._leave_alone_until if time.monotonic() < self._leave_alone_until else FOREVER

    @property
    def queued_bytes(self) -> int:
        return self._bytes

    @property
    def unsettled_events(self) -> int:
        return self._stored() + self._staged.unsettled_events

    # Numbers of events: the store may hand them out in any order, so these say how many are settled, not which.

    @property
    def next_seq(self) -> int:
        return self._accepted

    @property
    def head_seq(self) -> int:
        with self.lock:
            return self._accepted - self._stored() - self._staged.queued_events

    @property
    def oldest_seq(self) -> int:
        with self.lock:
            return self._accepted - self.unsettled_events

    def trim(self, keep: int = 1) -> None:
        self._staged.trim(keep)

    def close(self) -> None:
        self.closed = True

    def counts(self) -> tuple[int, int, int, int, int, int, dict[str, int]]:
        with self.lock:
            in_flight = max(self._staged.unsettled_events - self._foreign, 0)
            queued = max(self._accepted - self._settled - in_flight, 0)
            return queued, self._bytes, in_flight, self._sent, self._sent_bytes, self._retried, dict(self._dropped)

    # -- fork --------------------------------------------------------------------------------------------------------

    @property
    def forked(self) -> bool:
        return self._staged.forked

    def after_fork(self) -> None:
        """In a forked child: the store's events are the parent's, unless it has an `after_fork` that says otherwise."""
        own = getattr(self._store, "after_fork", None)
        if callable(own):
            own()
        else:
            self._store = InMemoryEventStore()
        self._start_over()
        self._staged.after_fork()
