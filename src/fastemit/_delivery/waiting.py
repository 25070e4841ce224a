"""Ways to wait: inboxes that a thread sleeps on, and the queue of those who wait for room.

An inbox is a deque and a lock that is released for each note: `put` never blocks, may be called by a finalizer or a
signal handler in the middle of anything, and may come before the `wait`; a timed `wait` is cooperative under gevent.
(`SimpleQueue` would do the same, but until Python 3.13 its `get` waits for ever when a signal handler runs past the end
of its timeout.)
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from fastemit._time import monotonic

#: Seconds after which a thread that waits for room goes before those that come new.
STARVING_AFTER: Final = 0.1


class Guard:
    """The lock of a delivery's state, and the threads that send for it.

    The lock is reentrant, since a signal handler may run in the middle of a section of the thread that it interrupts,
    and it is never held during a request, a callback or a wait.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        #: Identifiers of the threads that send: sender threads, and others while they are in the middle of it.
        self.sending: set[int] = set()

    def must_not_wait(self) -> bool:
        """Whether this thread, if it waited for the delivery, would wait for itself.

        That is so in a thread that sends, callbacks included, and in a signal handler or finalizer that runs while
        its thread holds the lock. One lock for all of the state lets one look tell.
        """
        # Private, but threading.Condition relies on it, and gevent's lock has it for that reason.
        owned: bool = self.lock._is_owned()  # type: ignore[attr-defined]
        return owned or threading.get_ident() in self.sending

    @contextlib.contextmanager
    def as_sender(self) -> Iterator[None]:
        """Be one of the threads that send for a while; may be nested."""
        me = threading.get_ident()
        outermost = me not in self.sending
        try:
            # Inside: a signal handler that raises may run at the end of any call.
            self.sending.add(me)
            yield
        finally:
            if outermost:
                self.sending.discard(me)


class OneSends:
    """The turn of the one thread that sends where there are no sender threads.

    A signal handler may raise as soon as the turn is taken, before the one who takes it knows. So `leave` is called in
    any case, and the lock itself says whose it is; one that was not left even so is left by its thread's next call.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def take(self, timeout: float | None) -> bool:
        """Wait for it for so many seconds; None for as long as it takes."""
        left = -1.0 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
        return self._lock.acquire(timeout=left)

    def leave(self) -> None:
        """Leave it, where it is this thread's."""
        # Private, but threading.Condition relies on it; see Guard.
        while self._lock._is_owned():  # type: ignore[attr-defined]
            self._lock.release()


class Inbox:
    """What one thread waits on; each note wakes it once, also when it comes early."""

    def __init__(self) -> None:
        self._notes: deque[Any] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()

    def put(self, note: Any) -> None:
        self._notes.append(note)
        # Rung already, and not heard yet.
        with contextlib.suppress(RuntimeError):
            self._bell.release()

    def wait(self, timeout: float | None) -> tuple[bool, Any]:
        """(True, the note), or (False, None) when `timeout` seconds passed without one; None waits for ever."""
        deadline = None if timeout is None else monotonic() + timeout
        while not self._notes:
            left = -1.0
            if deadline is not None:
                left = min(max(deadline - monotonic(), 0.0), threading.TIMEOUT_MAX)
            if not self._bell.acquire(timeout=left) and not self._notes:
                return False, None
        return True, self._notes.popleft()


class Flush(Inbox):
    """Somebody who waits until the events numbered below `target` are settled, or an attempt has failed.

    With `retry` no failure ends the wait.
    """

    def __init__(self, target: int, retry: bool = False) -> None:
        super().__init__()
        self.target = target
        self.retry = retry
        self.over = False
        #: One of its events was kept, and has a new number since.
        self.left_one = False

    def end(self) -> None:
        self.over = True
        self.put(None)

    def wait_until(self, deadline: float | None) -> None:
        while not self.over:
            if not self.wait(None if deadline is None else deadline - monotonic())[0]:
                return


class RoomQueue:
    """Those who wait for room in the buffer, first come first.

    Thread safety: none of its own; the delivery's lock is held around each call but `Inbox.wait`.
    """

    def __init__(self) -> None:
        self._waiting: deque[Inbox] = deque()

    def join(self, inbox: Inbox, again: bool) -> None:
        """Queue up; `again` for one who was woken in vain, and keeps its place."""
        if again:
            self._waiting.appendleft(inbox)
        else:
            self._waiting.append(inbox)

    def leave(self, inbox: Inbox) -> None:
        with contextlib.suppress(ValueError):
            self._waiting.remove(inbox)

    def wake(self, places: int | None = None) -> None:
        """Wake so many, or all of them."""
        while self._waiting and (places is None or places > 0):
            self._waiting.popleft().put(None)
            if places is not None:
                places -= 1
