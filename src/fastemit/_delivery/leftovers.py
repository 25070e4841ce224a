"""Sends the events of emitters that the program has dropped: with few threads, few bytes, and for a limited time.

A program may make an emitter for each web request, and drop it. If each kept its sender while the collector is down,
there would be thousands of threads, until the system can start no more. So the senders of a dropped emitter end, and
one of a few shared threads goes on with its delivery. No thread is started for that, because it may be impossible by
then: the sender of the first emitter that is dropped becomes the first shared thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from fastemit._delivery.schedule import FOREVER, Exit
from fastemit._delivery.waiting import Inbox
from fastemit._delivery.workers import work_on
from fastemit._process import lifecycle
from fastemit._time import monotonic
from fastemit.stats import ThrottledLog

if TYPE_CHECKING:
    from fastemit._delivery.delivery import Delivery

#: The most threads that send what dropped emitters have left.
MOST_THREADS: Final = 4
#: The most dropped emitters that are kept, and bytes of their events. With more, the oldest emitter is given up.
MOST_EMITTERS: Final = 2_000
MOST_BYTES: Final = 256 * 1024 * 1024
#: After this many seconds what is left is given up.
PATIENCE: Final = 3600.0


class _Place(Inbox):
    """The seat of a shared thread in one delivery. A note to it means: look at this delivery."""

    def __init__(self, delivery: Delivery) -> None:
        super().__init__()
        #: None when it is sent or given up.
        self.delivery: Delivery | None = delivery
        # Events in a spool take almost no memory.
        self.bytes = delivery.buffer.queued_bytes if delivery.left_in is None else 0
        self.share: _Share | None = None

    def put(self, note: Any) -> None:
        share = self.share
        if share is not None:
            share.inbox.put(self)


class _Share:
    """The deliveries of one shared thread. Only that thread touches `_looks`."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.load = 0  # deliveries that it has, or is to have; the pool's lock is held to change it
        self._looks: dict[_Place, float] = {}  # when to look at each again, if no note comes before

    def run(self, pool: _Pool) -> None:
        """Work until there is nothing left."""
        while True:
            for place in [place for place, when in self._looks.items() if when <= monotonic()]:
                self._attend(place, pool)
            if not self._looks and pool.end(self):
                return
            when = min(self._looks.values(), default=FOREVER)
            heard, place = self.inbox.wait(None if when == FOREVER else when - monotonic())
            if heard:
                self._attend(place, pool)

    def _attend(self, place: _Place, pool: _Pool) -> None:
        delivery = place.delivery
        if delivery is None:
            # It was given up, or the note came late.
            self._looks.pop(place, None)
            return
        delivery.buffer.disarm(place)
        step = work_on(delivery, place)
        if isinstance(step, Exit):
            self._looks.pop(place, None)
            pool.leave(place)
            # It may have been given up while this thread was in a request of it.
            delivery.tell_lost()
        else:
            self._looks[place] = FOREVER if step is None else monotonic() + step


class _Pool:
    """The shared threads of this process, and their deliveries.

    Thread safety: any sender thread may call anything. The lock is held for a few steps on lists. No finalizer takes
    it, and nothing that waits is called under it.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self._lock = threading.Lock()
        self._shares: list[_Share] = []
        self._places: dict[_Place, None] = {}  # in the order in which they were dropped
        self._bytes = 0
        #: Deliveries that no thread sends for. The end of the process sends them.
        self.kept: deque[Delivery] = deque()
        self.log = ThrottledLog()
        self.untold = False
        #: A thread that holds no lock has to tell `on_lost` of these.
        self.lost: deque[Delivery] = deque()

    def add(self, delivery: Delivery) -> _Share | None:
        """Take over what `delivery` has left. Returns a share that this thread has to run, or None if others do."""
        place = _Place(delivery)
        delivery.hand_over(place, monotonic() + PATIENCE)
        if not delivery.buffer.unsettled_events:
            delivery.sender_left(place)
            return None
        mine: _Share | None = None
        with self._lock:
            if len(self._shares) < MOST_THREADS:
                share = mine = _Share()
                self._shares.append(share)
            else:
                share = min(self._shares, key=lambda each: each.load)
            share.load += 1
            place.share = share
            self._places[place] = None
            self._bytes += place.bytes
            too_many = self._too_many()
        share.inbox.put(place)
        for each in too_many:
            self.leave(each)
            # Its thread then drops its reference.
            each.put(None)
        return mine

    def _too_many(self) -> list[_Place]:
        """The places that have to be given up, the oldest first. The newest one is never among them."""
        emitters, size = len(self._places), self._bytes
        given_up = []
        for place in self._places:
            if emitters == 1 or (emitters <= MOST_EMITTERS and size <= MOST_BYTES):
                break
            given_up.append(place)
            emitters -= 1
            size -= place.bytes
        return given_up

    def leave(self, place: _Place) -> None:
        """The delivery of this place is sent, or is given up. May be called again."""
        with self._lock:
            delivery, place.delivery = place.delivery, None
            if delivery is None:
                return
            del self._places[place]
            self._bytes -= place.bytes
            if place.share is not None:
                place.share.load -= 1
        left = delivery.buffer.unsettled_events
        delivery.sender_left(place)
        if left and delivery.left_in is None:
            self.log.add("events of dropped emitters given up", "the collector did not take them in time", left)

    def end(self, share: _Share) -> bool:
        """Whether the thread of this share has to end."""
        with self._lock:
            if share.load:
                return False
            self._shares.remove(share)
            return True


_pool = _Pool()


def take_over(given: list[Delivery]) -> None:
    """Go on with what a dropped emitter has left, in this thread, which was a sender of it, or in another.

    Args:
        given: the delivery. It is taken out of the list, so that the caller does not keep it alive.
    """
    pool = _here()
    share = pool.add(given.pop())
    if share is not None:
        share.run(pool)


def keep(delivery: Delivery) -> None:
    """Keep what a dropped emitter without threads has for the end of the process. Safe in a finalizer."""
    pool = _here()
    pool.kept.append(delivery)
    if len(pool.kept) > MOST_EMITTERS:
        # A finalizer in another thread may be quicker.
        with contextlib.suppress(IndexError):
            oldest = pool.kept.popleft()
            lifecycle.unregister(oldest)
            if oldest.report.on_lost is not None:
                pool.lost.append(oldest)
                pool.untold = True
            if pool.log.note(
                "events of dropped emitters given up", "too many emitters were dropped", oldest.buffer.unsettled_events
            ):
                pool.untold = True


def tell() -> None:
    """Log what `keep` has noted. The caller holds no lock."""
    if _pool.untold:
        _pool.untold = False
        _pool.log.write()
        while _pool.lost:
            # Another thread may be quicker.
            with contextlib.suppress(IndexError):
                _pool.lost.popleft().tell_lost()


def _here() -> _Pool:
    """The pool of this process."""
    global _pool
    if _pool.process != os.getpid():
        # The parent's deliveries are its own, and one of its threads may have held the lock.
        _pool = _Pool()
    return _pool
