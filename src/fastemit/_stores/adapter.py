"""An event store of the user's with the face of the native buffer, so that the delivery has one kind of work.

Events live in the store; a batch that the store hands out is staged in a native buffer, which makes the requests. One
batch is out at a time, since a store may hand out again what was not cleaned up. `batch.py` is its batches, and
`books.py` counts what went in and out.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from fastemit._buffer import NOTIFY_ALWAYS, NOTIFY_WHEN_DUE, EventBuffer, KeptEvent
from fastemit._delivery import FOREVER, POISON_AFTER
from fastemit._signals import guarded
from fastemit._stores.batch import Refused, StoreBatch
from fastemit._stores.books import Books
from fastemit._time import monotonic
from fastemit.event_store import EventStore, InMemoryEventStore
from fastemit.stats import described
from fastemit.typing import PayloadDict


class StoreBuffer(Books):
    """`EventBuffer`'s interface over an `EventStore`.

    It keeps books of its own, which `Books` are.

    Thread safety: one reentrant lock is held around each call of the store, and around the books. It is the delivery's
    own: a signal handler or finalizer that runs in the middle of a store's method, and so has one of two locks, would
    wait for the other with a sender that has it and waits for the first.

    Args:
        store: the user's.
        staged: makes the requests; a native buffer that keeps what its events were made from.
        batch_size, byte_limit: as `EventBuffer`'s.
        complain: told what a store did wrong, with the lock held.
    """

    spare_segments = 0
    left_in = "the event store"
    capacity = sys.maxsize

    def __init__(
        self,
        store: EventStore,
        staged: EventBuffer,
        batch_size: int,
        byte_limit: int | None,
        complain: Callable[[str], None],
    ) -> None:
        self.batch_size = batch_size
        self.byte_limit = byte_limit
        self.segment_bytes = staged.segment_bytes
        self.max_request_bytes = staged.max_request_bytes
        self.query = staged.query
        self.closed = False
        super().__init__(store, staged, complain)

    def share(self, lock: threading.RLock) -> None:
        """Use this lock, the delivery's, from here on."""
        self.lock = lock

    def _start_over(self) -> None:
        super()._start_over()
        self._sleepers: list[Any] = []
        self.signals = 0
        self.notify = NOTIFY_ALWAYS
        self.hold = False
        self.linger = False
        self.starving = 0
        self._pressed = False
        self._cleaned: list[PayloadDict] = []  # since the last batch was taken
        self._uncleaned: list[PayloadDict] = []  # settled events of which `cleanup` was not told, since it raised
        self._bytes = 0  # of what was put in since the last batch was taken, as the reference counts
        self.server_errors = 0
        # After so many server errors one event may be the cause. Then a part that fails goes back alone, and what is
        # left of its batch goes on, in parts of this many events: halved by a failure, doubled by a success.
        self._bite: int | None = None
        self._failed = False  # something of the batch that is out failed
        # Events that it takes at the most, as far as is known: some say it, as the reference's does; or else what it
        # had when it last refused one.
        capacity = getattr(self._store, "buffer_capacity", None)
        self._most = capacity if type(capacity) is int else sys.maxsize
        # What the store holds already belongs to another process, or to nobody.
        self._foreign = self._stored()

    # -- in ----------------------------------------------------------------------------------------------------------

    def append(self, payload: Any) -> int | Refused | KeptEvent:
        return self.append_encoded(self.prepare(payload))

    def prepare(self, payload: Any) -> bytes | KeptEvent:
        return self._staged.prepare(payload)

    def append_encoded(self, event: Any, urgent: bool = False) -> int | Refused | KeptEvent:
        kept: KeptEvent = event.kept if type(event) is Refused else event
        if self.closed or self._staged.forked:
            return kept
        inbox = None
        due = False
        with self.lock:
            taken = False
            if not self.starving or urgent:
                answer = guarded(lambda: self._store.add_event(kept.original) is not False, self._add_event_raised)
                if answer is None:
                    return 1  # so that somebody tells
                taken = answer
                if not taken:
                    self._most = self._stored() + self._staged.unsettled_events
            if taken:
                self._accepted += 1
                self._bytes += self._staged.size_of(kept)
            else:
                self._pressed = True
                refused = Refused(kept, self._cleanups)
            if (self._sleepers and not self.hold) or self.notify == NOTIFY_WHEN_DUE:
                try:
                    due = self.wanted
                except BaseException:
                    # What a signal handler raises in `size`: the event is in, so a sender looks in its place.
                    self.signal()
                    raise
                if due and not self.hold and self._sleepers:
                    inbox = self._sleepers.pop()
        if inbox is not None:
            inbox.put(None)
        if not taken:
            return refused
        return 1 if (due and self.notify == NOTIFY_WHEN_DUE) or self.notify == NOTIFY_ALWAYS else 0

    def _add_event_raised(self, error: Exception) -> None:
        self._complain(f"add_event() raised {described(error)}; the event is dropped")
        self._dropped["overflow"] += 1

    def size_of(self, event: Any) -> int:
        return self._staged.size_of(event.kept if type(event) is Refused else event)

    def too_large(self, event: Any) -> bool:
        return self.size_of(event) > 0xFFFF0000

    def has_room_for(self, event: Any) -> bool:
        """Whether it is worth another try: something was cleaned up since the store refused it."""
        return type(event) is not Refused or event.cleanups != self._cleanups

    def count_dropped(self, reason: str) -> None:
        with self.lock:
            self._dropped[reason] += 1

    def drop_oldest(self, event: Any) -> int:
        raise AssertionError("a store of the user's cannot drop its oldest; Emitter refuses that policy")

    # -- out ---------------------------------------------------------------------------------------------------------

    def take(self, max_bytes: int | None = None, min_events: int = 1) -> StoreBatch | None:
        with self.lock:
            if not self._staged.unsettled_events and monotonic() >= self._leave_alone_until:
                self._stage()
            # A GET carries one event, whatever happened before.
            if self._bite is not None and not self.query:
                max_bytes, min_events = 1, self._bite
            batch = self._staged.take(max_bytes, min_events)
            return None if batch is None else StoreBatch(self, batch, batch.originals())

    def _stage(self) -> None:
        """Have a batch staged: of what the store gave before a signal handler raised, or by asking it for more."""
        before = None
        if not self._handed_out:
            # Until it knows that they are settled it may hand them out again, or have no room for others.
            if self._uncleaned:
                if not self._cleanup(self._uncleaned, False):
                    return
                self._uncleaned = []
            unreturned, self._unreturned = self._unreturned, []
            if unreturned and not self._give(unreturned):
                return
            if not self._failed:
                self.server_errors, self._bite = 0, None
            self._failed = False
            before = self._size()
            if not self._ask(before):
                return
        self._balance(before, len(self._handed_out))
        events = self._handed_out
        unfit: list[PayloadDict] = []
        first = self._staged.next_seq

        def done() -> int:
            return self._staged.next_seq - first + len(unfit)

        def stage() -> bool:
            while done() < len(events):
                self._staged.stage(events[done()])
            return False

        def leave_out(error: Exception) -> bool:
            # What cannot be encoded would be in the way for ever.
            self._complain(f"get_events_batch() gave what is no event ({described(error)})")
            unfit.append(events[done()])
            return True

        try:
            while guarded(stage, leave_out):
                pass
        finally:
            del events[: done()]
        if unfit:
            self.settle(unfit, "rejected", 0)

    def _ask(self, before: int | None) -> bool:
        """Have the store hand out a batch. False if it raised.

        Args:
            before: its `size()` before that.
        """

        def ask() -> bool:
            batch = self._store.get_events_batch()
            # In one step: what a signal handler raises after it finds them there.
            self._handed_out.extend(batch)
            return True

        if not guarded(ask, lambda error: self._fault(f"get_events_batch() raised {described(error)}")):
            self._handed_out.clear()
            return False
        events = self._handed_out
        if events or not before:
            # Cleared only after a successful read, so that a failed store is asked again.
            self._pressed = False
            self._bytes = 0
        # Some stores count what they have handed out until it is cleaned up, and some do not.
        # Where it did not say, as if it did: else what is out would count twice.
        after = self._size() if before is not None else None
        self._counts_out = before is None or after is None or (bool(events) and after >= before)
        if not events and before:
            self._fault("size() says that there are events, and get_events_batch() gives none")
        if not set(map(id, self._cleaned)).isdisjoint(map(id, events)):
            self._fault("get_events_batch() gave again what had been cleaned up")
        self._cleaned = []
        return True

    def settle(self, events: list[PayloadDict], reason: str | None, size: int) -> None:
        """Some events were sent (`reason` None) or dropped."""
        with self.lock:
            foreign = min(self._foreign - self._foreign_settled, len(events))
            own = len(events) - foreign
            self._foreign_settled += foreign
            self._settled += own
            if reason is None:
                self._sent += own
                self._sent_bytes += size
                self._bite = None if self._bite is None else self._bite * 2
            else:
                self._dropped[reason] += own
            self._cleaned += events
            # Before it is told, since a signal handler may raise in there: then nobody knows whether it was.
            known = len(self._uncleaned)
            self._uncleaned += events
            if self._cleanup(events, False):
                del self._uncleaned[known:]

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
            while (rest := self._staged.take()) is not None:
                events += rest.originals()
                rest.dropped("overflow")
            if self._give(events) and self._size_is_true and (left := self._size()) is not None:
                # Others of the batch may be on their way yet, or wait here to be taken back.
                self._write_off(left + self._staged.unsettled_events + len(self._unreturned))

    def _give(self, events: list[PayloadDict]) -> bool:
        """Give events back. Those that it does not take stay here, and are offered again before the next batch."""
        # Before it is asked, since a signal handler may raise in there: then nobody knows whether it has them.
        known = len(self._unreturned)
        self._unreturned += events
        taken = self._cleanup(events, True)
        if taken:
            del self._unreturned[known:]
        return taken

    # -- waking ------------------------------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        return self._is_due(self._stored())

    def _is_due(self, size: int) -> bool:
        if self._uncleaned:
            # What it was not told of may be all that keeps it from having room.
            return True
        return size > 0 and (
            size >= self.batch_size or self._pressed or (self.byte_limit is not None and self._bytes >= self.byte_limit)
        )

    @property
    def wanted(self) -> bool:
        size = self._stored()
        return self._is_due(size) and (
            not self.linger
            or self._pressed
            or self._bytes >= self.segment_bytes
            or 2 * (size + self._staged.unsettled_events) >= self._most
        )

    def arm(self, inbox: Any, seen: int) -> bool:
        with self.lock:
            # While a batch is out, whoever carries it looks what comes after it.
            nothing = self.hold or self.recheck_at != FOREVER or self._staged.in_flight_events or not self.wanted
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
        """What there is to take: of the batch that is out, or else in the store, by what it says or by the books."""
        if self._staged.unsettled_events:
            return self._staged.queued_events
        if monotonic() < self._leave_alone_until:
            return 0
        return self._stored() or self._owed or len(self._uncleaned)

    @property
    def recheck_at(self) -> float:
        """When the store is asked again after it was at fault."""
        return self._leave_alone_until if monotonic() < self._leave_alone_until else FOREVER

    @property
    def queued_bytes(self) -> int:
        return self._bytes

    @property
    def in_flight_events(self) -> int:
        return self._staged.in_flight_events

    @property
    def unsettled_events(self) -> int:
        with self.lock:
            return max(self._stored() + self._staged.unsettled_events, self._owed)

    def trim(self, keep: int = 1) -> None:
        self._staged.trim(keep)

    def close(self) -> None:
        self.closed = True

    # -- fork --------------------------------------------------------------------------------------------------------

    @property
    def forked(self) -> bool:
        return self._staged.forked

    def after_fork(self) -> None:
        """In a forked child: the store's events are the parent's, unless it has an `after_fork` that says otherwise."""
        own = getattr(self._store, "after_fork", None)
        if not callable(own):
            self._store = InMemoryEventStore()
        else:
            guarded(own, self._after_fork_raised)
        self._staged.after_fork()
        self._start_over()

    def _after_fork_raised(self, error: Exception) -> None:
        self._complain(f"after_fork() raised {described(error)}; this process does without it")
        self._store = InMemoryEventStore()
