"""A user's event store that looks like the native buffer, so that the delivery has one kind of queue.

Events live in the store. A batch that the store hands out is copied into a native buffer ("staged"), which makes the
requests. Only one batch is out at a time, because a store may hand out again what was not cleaned up. `batch.py` has
the batches, and `books.py` counts what goes in and out.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Final

from fastemit._batch import is_due, is_worth_a_request
from fastemit._buffer import NOTIFY_ALWAYS, NOTIFY_WHEN_DUE, EventBuffer
from fastemit._delivery import FOREVER, POISON_AFTER
from fastemit._encode import KeptEvent
from fastemit._interfaces import Encoded, Sleeper
from fastemit._signals import guarded, raise_of_signal_handler
from fastemit._stores.batch import Refused, StoreBatch, kept_of
from fastemit._stores.books import Books
from fastemit._time import monotonic
from fastemit.event_store import EventStore, InMemoryEventStore
from fastemit.stats import described
from fastemit.typing import Payload, PayloadDict


class StoreBuffer(Books):
    """`EventBuffer`'s interface over an `EventStore`. Its counters are `Books`.

    Thread safety: one reentrant lock is held around each call of the store, and around the books. It is the delivery's
    own lock. With two locks there could be a deadlock: a signal handler or finalizer that runs in the middle of a
    store's method has the first and waits for the second, and a sender has the second and waits for the first.

    Args:
        store: the user's event store.
        staged: the native buffer that makes the requests. It keeps what its events were made from.
        batch_size, byte_limit: as for `EventBuffer`.
        complain: called with what the store did wrong, while the lock is held.
        lost: called with the reason and the events that are lost by that, while the lock is held.
    """

    spare_segments: Final = 0
    left_in: Final = "the event store"
    #: The store bounds itself.
    capacity: Final = sys.maxsize
    max_bytes: Final = sys.maxsize

    def __init__(
        self,
        store: EventStore,
        staged: EventBuffer,
        batch_size: int,
        byte_limit: int | None,
        complain: Callable[[str], None],
        lost: Callable[[str, list[PayloadDict]], None] = lambda _reason, _events: None,
    ) -> None:
        self._tell_lost = lost
        self.batch_size = batch_size
        self.byte_limit = byte_limit
        self.segment_bytes = staged.segment_bytes
        self.max_request_bytes = staged.max_request_bytes
        self.query = staged.query
        self.closed = False
        super().__init__(store, staged, complain)

    def share(self, lock: threading.RLock) -> None:
        """Use this lock from now on. It is the delivery's."""
        self.lock = lock

    def _start_over(self) -> None:
        super()._start_over()
        self._sleepers: list[Sleeper] = []
        self.signals = 0
        self.notify = NOTIFY_ALWAYS
        self.hold = False
        self.linger = False
        self.starving = 0
        self._pressed = False
        self._cleaned: list[PayloadDict] = []  # since the last batch was taken
        self._uncleaned: list[PayloadDict] = []  # settled events of which `cleanup` was not told, since it raised
        self._bytes = 0  # of the events that came since the last batch was taken, counted as snowplow_tracker does
        self.server_errors = 0
        # After several server errors one event may be the cause. From then on a batch is sent in parts of this many
        # events. A part that fails goes back alone, and halves the number. A success doubles it.
        self._bite: int | None = None
        self._failed = False  # something of the batch that is out failed
        # The most events that the store takes: its `buffer_capacity`, which that of snowplow_tracker has. `_most` is
        # the number that it had when it last refused one. It may have refused that for another reason.
        said = getattr(self._store, "buffer_capacity", None)
        self._capacity = min(said, sys.maxsize) if type(said) is int and said > 0 else sys.maxsize
        self._most = self._capacity
        # What is in the store already belongs to another process, or to nobody.
        self._foreign = self._stored()

    # -- in ----------------------------------------------------------------------------------------------------------

    def append(self, payload: Payload) -> int | Refused | KeptEvent:
        return self.append_encoded(self.prepare(payload))

    def prepare(self, payload: Payload) -> bytes | KeptEvent:
        return self._staged.prepare(payload)

    def append_encoded(self, event: Encoded, urgent: bool = False) -> int | Refused | KeptEvent:
        kept = kept_of(event)
        if self.closed or self._staged.forked:
            return kept
        inbox = None
        due = False
        with self.lock:
            taken = False
            if not self.starving or urgent:
                # As `guarded` does, which would make two functions for each event.
                try:
                    taken = self._store.add_event(kept.original) is not False
                except Exception as error:  # noqa: BLE001 - the user's code may raise anything
                    raise_of_signal_handler(error)
                    self._add_event_raised(error, kept.original)
                    return 1  # so that the caller logs it
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
                    # A signal handler has raised in `size`. The event is in the store, so a sender has to look.
                    self.signal()
                    raise
                if due and not self.hold and self._sleepers:
                    inbox = self._sleepers.pop()
        if inbox is not None:
            inbox.put(None)
        if not taken:
            return refused
        return 1 if (due and self.notify == NOTIFY_WHEN_DUE) or self.notify == NOTIFY_ALWAYS else 0

    def _add_event_raised(self, error: Exception, event: PayloadDict) -> None:
        self._complain(f"add_event() raised {described(error)}; the event is dropped")
        self._dropped["overflow"] += 1
        self._tell_lost("overflow", [event])

    def size_of(self, event: Encoded) -> int:
        return self._staged.size_of(kept_of(event))

    def too_large(self, event: Encoded) -> bool:
        return self.size_of(event) > 0xFFFF0000

    def has_room_for(self, event: Encoded) -> bool:
        """Whether another try makes sense: something was cleaned up since the store refused the event."""
        return not isinstance(event, Refused) or event.cleanups != self._cleanups

    def count_dropped(self, reason: str) -> None:
        with self.lock:
            self._dropped[reason] += 1

    def drop_oldest(self, event: Encoded) -> int:
        raise AssertionError("a store of the user's cannot drop its oldest; Emitter refuses that policy")

    # -- out ---------------------------------------------------------------------------------------------------------

    def take(self, max_bytes: int | None = None, min_events: int = 1) -> StoreBatch | None:
        with self.lock:
            if not self._staged.unsettled_events and monotonic() >= self._leave_alone_until:
                self._stage()
            # A GET has only one event, whatever happened before.
            if self._bite is not None and not self.query:
                max_bytes, min_events = 1, self._bite
            batch = self._staged.take(max_bytes, min_events)
            return None if batch is None else StoreBatch(self, batch, batch.originals())

    def _stage(self) -> None:
        """Stage a batch: first what the store gave before a signal handler raised, or else what it gives now."""
        before = None
        if not self._handed_out:
            # Until the store knows that these are settled, it may hand them out again, or have no room for others.
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
            # An event that cannot be encoded would block the others for ever.
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
            self._tell_lost("rejected", unfit)

    def _ask(self, before: int | None) -> bool:
        """Ask the store for a batch. False if it raised.

        Args:
            before: what its `size()` was before.
        """

        def ask() -> bool:
            batch = self._store.get_events_batch()
            # In one step, so that the events are noted before a signal handler can raise.
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
        # Some stores count an event until it is cleaned up, others until it is handed out. Where the size is not
        # known, assume the first, because otherwise the events of this batch would count twice.
        after = self._size() if before is not None else None
        self._counts_out = before is None or after is None or (bool(events) and after >= before)
        if not events and before:
            self._fault("size() says that there are events, and get_events_batch() gives none")
        if not set(map(id, self._cleaned)).isdisjoint(map(id, events)):
            self._fault("get_events_batch() gave again what had been cleaned up")
        self._cleaned = []
        return True

    def settle(self, events: list[PayloadDict], reason: str | None, size: int) -> None:
        """Note that some events were sent (`reason` None) or dropped."""
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
            # Noted before the store is told, because a signal handler may raise in the call. Then nobody knows whether
            # the store was told.
            known = len(self._uncleaned)
            self._uncleaned += events
            if self._cleanup(events, False):
                del self._uncleaned[known:]

    def keep(self, events: list[PayloadDict], retried: bool) -> None:
        """Give events that must be sent again back to the store, with the rest of their batch."""
        with self.lock:
            self._retried += len(events) * retried
            self._failed = True
            if self.server_errors >= POISON_AFTER:
                self._bite = max(len(events) // 2, 1)
                self._give(events)
                return
            # All go back in one call. With several calls, a store that puts events first would reverse their order.
            events = list(events)
            while (rest := self._staged.take()) is not None:
                events += rest.originals()
                rest.dropped("overflow")
            if self._give(events) and self._size_is_true and (left := self._size()) is not None:
                # Other events of the batch may still be in a request, or wait here until the store takes them back.
                self._write_off(left + self._staged.unsettled_events + len(self._unreturned))

    def _give(self, events: list[PayloadDict]) -> bool:
        """Give events back to the store. If it does not take them, they are offered again before the next batch."""
        # Noted before the call, because a signal handler may raise in it. Then nobody knows whether the store has them.
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
            # The store may have no room only because it does not know yet that these are settled.
            return True
        limits = self.batch_size, self.byte_limit, self._capacity
        return is_due(size, self._staged.unsettled_events, self._bytes, self._pressed, *limits)

    @property
    def wanted(self) -> bool:
        size = self._stored()
        limits = self.segment_bytes, self._most
        return self._is_due(size) and (
            not self.linger
            or is_worth_a_request(size, self._staged.unsettled_events, self._bytes, self._pressed, *limits)
        )

    def arm(self, inbox: Sleeper, seen: int) -> bool:
        with self.lock:
            # While a batch is out, the thread that sends it looks for more when it is done.
            nothing = self.hold or self.recheck_at != FOREVER or self._staged.in_flight_events or not self.wanted
            if self.signals != seen or not nothing:
                return False
            self._sleepers.append(inbox)
            return True

    def disarm(self, inbox: Sleeper) -> bool:
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
        """How many events can be taken: from the batch that is out, or else from the store by `size()` or the books."""
        if self._staged.unsettled_events:
            return self._staged.queued_events
        if monotonic() < self._leave_alone_until:
            return 0
        return self._stored() or self._owed or len(self._uncleaned)

    @property
    def recheck_at(self) -> float:
        """When the store is asked again after it failed."""
        return self._leave_alone_until if monotonic() < self._leave_alone_until else FOREVER

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
        """In a forked child: start empty, because the events are the parent's. A store's own `after_fork` decides."""
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
