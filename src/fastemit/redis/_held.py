"""The events that a worker has taken out of the list, until Redis has forgotten them."""

from __future__ import annotations

from collections import deque
from logging import WARNING
from typing import Final

import redis

from fastemit._time import monotonic
from fastemit._words import counted
from fastemit.redis._source import Entry
from fastemit.redis.scripts import LOST, NO_LIST, InFlight, is_wrong_type
from fastemit.stats import ThrottledLog, say

#: Seconds until the next attempt after a dead list could not be written.
BURY_PAUSE: Final = 1.0


class Held:
    """The events of a worker's in-flight list, and what Redis is told of them.

    Thread safety: none; the worker's own thread calls it. Methods raise what the client raises.

    Args:
        in_flight: the list in Redis.
        log: for deaths, and for keys of a wrong type.
        takeover_after: seconds without a sign of life after which the worker is taken for dead.

    Attributes:
        entries: what Redis has in flight for this worker, oldest first.
        waiting: the entries that are not in the buffer yet.
        unsure: a step failed, but Redis may have done it all the same.
    """

    def __init__(self, in_flight: InFlight, log: ThrottledLog, takeover_after: float) -> None:
        self.entries: deque[Entry] = deque()
        self.waiting: deque[Entry] = deque()
        self.unsure = False
        self._redis = in_flight
        self._log = log
        self._takeover_after = takeover_after
        self._signed_at = self._bury_from = float("-inf")

    def take(self, most: int, most_bytes: int) -> bool:
        """Take at most `most` events from the list, and stop after `most_bytes`. False if there were none."""
        now = monotonic()
        taken = self._redis.take(len(self.entries), most, most_bytes)
        if isinstance(taken, int):
            self._check(taken)
            return True
        if taken:
            self._signed_at = now
            self._note(taken)
        return bool(taken)

    def _note(self, taken: list[bytes]) -> None:
        entries = [Entry(raw) for raw in taken]
        self.entries += entries
        self.waiting += entries

    def tell_redis(self) -> None:
        """Have Redis move what is to be moved, and forget what is settled. Also gives a sign of life."""
        if self.unsure:
            self._agree()
        for entry in [entry for entry in self.entries if entry.yielded or entry.dead]:
            if entry.settled and not entry.dead:
                entry.yielded = False
            elif not (self._bury_in_redis(entry) if entry.dead else self._move_to_end(entry)):
                return
        count = 0
        for entry in self.entries:
            if not entry.settled:
                break
            count += 1
        now = monotonic()
        if count or (self.entries and now - self._signed_at > self._takeover_after / 4):
            if not self._check(self._redis.settle(len(self.entries), count)):
                return
            self._signed_at = now
            for _ in range(count):
                self.entries.popleft()

    def _move_to_end(self, entry: Entry) -> bool:
        if not self._check(self._redis.move(len(self.entries), entry.raw, None)):
            return False
        self._take_out(entry)
        entry.yielded = False
        self.entries.append(entry)
        return True

    def _bury_in_redis(self, entry: Entry) -> bool:
        now = monotonic()
        if now >= self._bury_from:
            try:
                if not self._check(self._redis.move(len(self.entries), entry.raw, self._redis.dead)):
                    return False
            except redis.ResponseError as error:
                if not is_wrong_type(error):
                    raise
                self._log.add("the dead list is of a wrong type", f"{self._redis.dead}: {error}")
                self._bury_from = now + BURY_PAUSE
            else:
                self._take_out(entry)
                return True
        # Redis forgets settled events from the oldest on. This one would stop that, so it goes to the end.
        if self.entries[0] is entry and any(other.settled for other in self.entries):
            return self._move_to_end(entry)
        return True

    def _take_out(self, entry: Entry) -> None:
        """Do what LREM did: it removes the first entry with this value. If that is another one, they change places."""
        for place, other in enumerate(self.entries):
            if other.raw == entry.raw:
                self.entries[self.entries.index(entry)] = other
                del self.entries[place]
                return

    def _check(self, answer: int) -> bool:
        """Act on what a step answered. False if the step was not done."""
        if answer == LOST:
            # Other workers have the in-flight list now. What is in the buffer is sent all the same.
            self._tell_of_death(len(self.entries))
            self.waiting.clear()
            self._begin_anew()
        elif answer == NO_LIST:
            # The events are still sent from here, because nobody else has them.
            say(WARNING, "put aside: %s", f"{self._redis.inflight} holds no list any more. Another key is used instead")
            self._begin_anew()
        elif answer < 0:
            self.unsure = True
        return answer >= 0

    def _tell_of_death(self, events: int) -> None:
        self._log.add("taken for dead", f"after {self._takeover_after:g} s, with {counted(events, 'event')}")

    def _begin_anew(self) -> None:
        self._redis.begin()
        self.entries.clear()

    def _agree(self) -> None:
        """Ask Redis what is in flight for this worker, after a step that may or may not have been done."""
        known: dict[bytes, list[Entry]] = {}
        # `pop` takes unsettled entries first: if Redis has one of two equal events, that one is still to be sent.
        for entry in sorted(self.entries, key=lambda entry: not entry.settled):
            known.setdefault(entry.raw, []).append(entry)
        held = self._redis.all_held()
        self.unsure = False
        if isinstance(held, int):
            self._check(held)
            return
        self.entries.clear()
        for raw in held:
            same = known.get(raw)
            if same:
                self.entries.append(same.pop())
            else:
                self._note([raw])
        gone = sum(not (entry.settled or entry.dead) for entries in known.values() for entry in entries)
        if gone:
            self._tell_of_death(gone)
        # The others were moved to the dead list already.
        still = set(map(id, self.entries))
        self.waiting = deque(entry for entry in self.waiting if id(entry) in still)
