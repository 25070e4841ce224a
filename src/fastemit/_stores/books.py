"""The books of an event store of the user's: what went in, what was settled, and what the store says of itself.

A store may lie, or be filled and emptied by others. Its `size()` decides when there is enough to send; the books say
whether a flush or a close is done, and an event is given up only when the store neither counts it nor hands it out.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from fastemit._buffer import EventBuffer
from fastemit._signals import guarded
from fastemit._time import monotonic
from fastemit.event_store import EventStore
from fastemit.stats import described
from fastemit.typing import PayloadDict

#: Seconds for which a store that failed, or said that it has events and then gave none, is left alone.
AFTER_A_FAULT: Final = 1.0


class Books(ABC):
    """The part of `StoreBuffer` that counts, and that asks the store what it holds.

    Thread safety: as `StoreBuffer`'s; its lock is held around each call of the store, and around the counters.

    Args:
        store, staged, complain: as `StoreBuffer`'s.
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
        self._unreturned: list[PayloadDict] = []  # kept events that `cleanup` did not take back, since it raised
        self._handed_out: list[PayloadDict] = []  # events that it gave, and that are not staged yet
        self._counts_out = False
        self._size_is_true = False  # as far as the last batch showed
        self._accepted = self._settled = self._sent = self._sent_bytes = self._retried = self._cleanups = 0
        # Events that came into the store by other ways: they are sent, and not counted as sent. Which of a batch they
        # are cannot be told from copies, so the first to be settled are taken for them.
        self._foreign = self._foreign_settled = 0
        self._dropped = {"overflow": 0, "rejected": 0, "oversize": 0, "closed": 0}

    @abstractmethod
    def signal(self, everyone: bool = False) -> None:
        """Have a sender look at what there is to do."""

    # -- what the store says, each call under the lock ---------------------------------------------------------------

    def _fault(self, what: str) -> None:
        now = monotonic()
        if now >= self._leave_alone_until:
            # Not put off by those who look meanwhile, or nobody would ever send while they do.
            self._leave_alone_until = now + AFTER_A_FAULT
        self._complain(what)
        # Nobody else may tell a sender that the store is to be asked again by then.
        self.signal()

    def _size(self) -> int | None:
        """What it says; None where it raised."""
        return guarded(
            lambda: max(int(self._store.size()), 0), lambda error: self._fault(f"size() raised {described(error)}")
        )

    def _stored(self) -> int:
        """How many events are in the store and not handed out, by what it says."""
        with self.lock:
            size = self._size() or 0
            if self._counts_out:
                size = max(size - self._staged.unsettled_events - len(self._handed_out), 0)
            return size + len(self._unreturned) + len(self._handed_out)

    def _cleanup(self, events: list[PayloadDict], need_retry: bool) -> bool:
        """Tell the store. False if it raised."""
        self._cleanups += 1

        def cleanup() -> bool:
            self._store.cleanup(events, need_retry)
            return True

        return bool(guarded(cleanup, lambda error: self._fault(f"cleanup() raised {described(error)}")))

    # -- the books ---------------------------------------------------------------------------------------------------

    def _balance(self, before: int | None, handed_out: int) -> None:
        """Set the books right by a batch that was handed out when `size()` was `before`."""
        self._size_is_true = before is not None and before >= handed_out
        if handed_out > self._owed:
            self._foreign += handed_out - self._owed
        elif before == handed_out:
            # That was all it had.
            self._write_off(handed_out)

    def _write_off(self, left: int) -> None:
        """There are so many events, whatever the books say."""
        gone = max(self._owed - left, 0)
        foreign = min(self._foreign - self._foreign_settled, gone)
        lost = gone - foreign
        self._foreign_settled += foreign
        # Where they were there may be room.
        self._cleanups += gone > 0
        if lost:
            self._settled += lost
            self._dropped["overflow"] += lost
            self._complain(f"{lost} of the events that it had taken are gone")

    @property
    def _owed(self) -> int:
        """How many events there are by the books, in the store and handed out."""
        return self._accepted - self._settled + self._foreign - self._foreign_settled

    # Numbers of events: the store may hand them out in any order, so these say how many are settled, not which.

    @property
    def next_seq(self) -> int:
        with self.lock:
            # Something may have come in by another way.
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
