"""The books of a user's event store: what went in, what was settled, and what the store says about itself.

A store may say what is wrong, or others may fill and empty it. Its `size()` decides when there is enough to send. The
books decide whether a flush or a close is done. An event counts as lost only if the store neither counts it nor hands
it out.
"""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from fastemit._buffer import EventBuffer
from fastemit._signals import guarded, raise_of_signal_handler
from fastemit._time import monotonic
from fastemit._words import counted
from fastemit.event_store import EventStore
from fastemit.stats import described
from fastemit.typing import PayloadDict

#: Seconds for which a store that failed, or said that it has events and then gave none, is left alone.
AFTER_A_FAULT: Final = 1.0
#: A larger `size()` is taken for this, so that sums of such numbers stay within what the native side counts with.
MOST_EVENTS: Final = sys.maxsize // 4


class Books(ABC):
    """The part of `StoreBuffer` that counts, and that asks the store what it holds.

    Thread safety: that of `StoreBuffer`. Its lock is held around each call of the store, and around the counters.

    Args:
        store, staged, complain: as for `StoreBuffer`.
    """

    _bytes: int

    def __init__(self, store: EventStore, staged: EventBuffer, complain: Callable[[str], None]) -> None:
        self._store = store
        self._staged = staged
        self._complain = complain
        self.lock = threading.RLock()
        self._start_over()

    def _start_over(self) -> None:
        self._leave_alone_until = 0.0
        self._unreturned: list[PayloadDict] = []  # kept events that `cleanup` did not take back, because it raised
        self._handed_out: list[PayloadDict] = []  # events that the store gave, and that are not staged yet
        self._counts_out = False
        self._size_is_true = False  # as far as the last batch showed
        self._accepted = self._settled = self._sent = self._sent_bytes = self._retried = self._cleanups = 0
        # Events that somebody else put into the store. They are sent, but not counted as sent. A store may hand out
        # copies, so we cannot tell which they are: the first events that are settled count as these.
        self._foreign = self._foreign_settled = 0
        self._dropped = {"overflow": 0, "rejected": 0, "oversize": 0, "closed": 0}

    @abstractmethod
    def signal(self, everyone: bool = False) -> None:
        """Make a sender look at what there is to do."""

    @property
    def queued_bytes(self) -> int:
        return self._bytes

    @property
    def in_flight_events(self) -> int:
        return self._staged.in_flight_events

    @property
    def in_flight_bytes(self) -> int:
        return self._staged.in_flight_bytes

    # -- what the store says, each call under the lock ---------------------------------------------------------------

    def _fault(self, what: str) -> None:
        now = monotonic()
        if now >= self._leave_alone_until:
            # A later fault does not move this point, because then nobody would send while others keep looking.
            self._leave_alone_until = now + AFTER_A_FAULT
        self._complain(what)
        # Wakes a sender, which then waits for that point. Perhaps nothing else would wake one.
        self.signal()

    def _size(self) -> int | None:
        """What the store says its size is; None if it raised."""
        # As `guarded` does, which would make two functions for each event.
        try:
            size = int(self._store.size())
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            raise_of_signal_handler(error)
            self._fault(f"size() raised {described(error)}")
            return None
        return size if 0 <= size <= MOST_EVENTS else min(max(size, 0), MOST_EVENTS)

    def _stored(self) -> int:
        """How many events are in the store and not handed out, going by what the store says."""
        with self.lock:
            size = self._size() or 0
            if self._counts_out:
                size = max(size - self._staged.unsettled_events - len(self._handed_out), 0)
            return size + len(self._unreturned) + len(self._handed_out)

    def _cleanup(self, events: list[PayloadDict], need_retry: bool) -> bool:
        """Call the store's `cleanup`. False if it raised."""
        self._cleanups += 1

        def cleanup() -> bool:
            self._store.cleanup(events, need_retry)
            return True

        return bool(guarded(cleanup, lambda error: self._fault(f"cleanup() raised {described(error)}")))

    # -- the books ---------------------------------------------------------------------------------------------------

    def _balance(self, before: int | None, handed_out: int) -> None:
        """Correct the books after the store has handed out a batch, with a `size()` of `before`."""
        self._size_is_true = before is not None and before >= handed_out
        if handed_out > self._owed:
            self._foreign += handed_out - self._owed
        elif before == handed_out:
            # These were all the events that it had.
            self._write_off(handed_out)

    def _write_off(self, left: int) -> None:
        """Correct the books: there are only `left` events."""
        gone = max(self._owed - left, 0)
        foreign = min(self._foreign - self._foreign_settled, gone)
        lost = gone - foreign
        self._foreign_settled += foreign
        # There may be room where they were.
        self._cleanups += gone > 0
        if lost:
            self._settled += lost
            self._dropped["overflow"] += lost
            taken = "of the events that it had taken"
            self._complain(counted(lost, f"{taken} is gone", f"{taken} are gone"))

    @property
    def _owed(self) -> int:
        """How many events are in the store or handed out, going by the books."""
        return self._accepted - self._settled + self._foreign - self._foreign_settled

    # The store may hand out events in any order. So these numbers say how many are settled, and not which.

    @property
    def next_seq(self) -> int:
        with self.lock:
            # Somebody else may have put events into the store.
            self._foreign += max(self._stored() + self._staged.unsettled_events - self._owed, 0)
            return self._accepted + self._foreign

    @property
    def head_seq(self) -> int:
        with self.lock:
            return self.oldest_seq + self._staged.in_flight_events

    @property
    def oldest_seq(self) -> int:
        with self.lock:
            return self._settled + self._foreign_settled

    def counts(self) -> tuple[int, int, int, int, int, int, dict[str, int]]:
        with self.lock:
            foreign = self._foreign - self._foreign_settled
            in_flight = max(self._staged.unsettled_events - foreign, 0)
            queued = self._accepted - self._settled - in_flight
            return queued, self._bytes, in_flight, self._sent, self._sent_bytes, self._retried, dict(self._dropped)
