"""Ways to wait: inboxes that a thread sleeps on, and the queue of those who wait for room.

An inbox is a deque and a lock that is released for each note. `put` never blocks. A finalizer or a signal handler may
call it in the middle of anything, and it may come before the `wait`. A timed `wait` is cooperative under gevent.
(`SimpleQueue` would do the same, but before Python 3.13 its `get` waits for ever when a signal handler runs longer than
its timeout.)
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from fastemit._interfaces import Keeping
from fastemit._time import monotonic

#: A thread that has waited for room for this many seconds goes before new ones.
STARVING_AFTER: Final = 0.1


class Guard:
    """The lock of a delivery's state, and the threads that send for it.

    The lock is reentrant, because a signal handler may interrupt a thread that holds it. It is never held during a
    request, a callback or a wait.

    Args:
        files: what the events are in, if they are in files.
    """

    def __init__(self, files: Keeping | None = None) -> None:
        self.lock = threading.RLock()
        # Files know the reporter, which knows this.
        self._files = None if files is None else weakref.ref(files)
        #: Identifiers of the threads that send: sender threads, and others while they send.
        self.sending: set[int] = set()

    def must_not_wait(self) -> bool:
        """Whether this thread, if it waited for the delivery, would wait for itself.

        That is so in a thread that sends (also in a callback), and in a signal handler or finalizer that runs while its
        thread holds the lock, or is in the middle of work on files. There is one lock for all of the state, so one look
        is enough for that.
        """
        # Private, but threading.Condition relies on it, and gevent's lock has it for that reason.
        owned: bool = self.lock._is_owned()  # type: ignore[attr-defined]
        if owned or threading.get_ident() in self.sending:
            return True
        files = None if self._files is None else self._files()
        return files is not None and files.at_work_here

    @contextlib.contextmanager
    def as_sender(self) -> Iterator[None]:
        """Count this thread among those that send while the block runs. Blocks may be nested."""
        me = threading.get_ident()
        outermost = me not in self.sending
        try:
            # Inside the `try`, because a signal handler that raises may run at the end of any call.
            self.sending.add(me)
            yield
        finally:
            if outermost:
                self.sending.discard(me)


class OneSends:
    """The turn of the one thread that sends where there are no sender threads.

    A signal handler may raise as soon as the turn is taken, before its owner knows. So `leave` is called in any case,
    and the lock itself tells who owns it. If the turn is still not left, the next call of its thread leaves it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def take(self, timeout: float | None) -> bool:
        """Wait for the turn for so many seconds; None: as long as it takes."""
        left = -1.0 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
        return self._lock.acquire(timeout=left)

    def leave(self) -> None:
        """Leave the turn, if this thread has it."""
        # Private, but threading.Condition relies on it; see Guard.
        while self._lock._is_owned():  # type: ignore[attr-defined]
            self._lock.release()


class Inbox:
    """What one thread waits on. Each note wakes it once, even if the note comes before the wait."""

    def __init__(self) -> None:
        self._notes: deque[Any] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()

    def put(self, note: Any) -> None:
        self._notes.append(note)
        # It was released already, and nobody has waited since.
        with contextlib.suppress(RuntimeError):
            self._bell.release()

    def wait(self, timeout: float | None) -> tuple[bool, Any]:
        """(True, the note), or (False, None) if `timeout` seconds have passed without one. None waits for ever."""
        deadline = None if timeout is None else monotonic() + timeout
        while not self._notes:
            left = -1.0
            if deadline is not None:
                left = min(max(deadline - monotonic(), 0.0), threading.TIMEOUT_MAX)
            if not self._bell.acquire(timeout=left) and not self._notes:
                return False, None
        return True, self._notes.popleft()


class Flush(Inbox):
    """Waits until the events with numbers below `target` are settled, or an attempt has failed.

    With `retry` no failure ends the wait.
    """

    def __init__(self, target: int, retry: bool = False) -> None:
        super().__init__()
        self.target = target
        self.retry = retry
        self.over = False
        #: One of its events was kept, and has a new number.
        self.left_one = False

    def end(self) -> None:
        self.over = True
        self.put(None)

    def wait_until(self, deadline: float | None) -> None:
        while not self.over:
            if not self.wait(None if deadline is None else deadline - monotonic())[0]:
                return


class RoomQueue:
    """Those who wait for room in the buffer, in the order in which they came.

    Thread safety: none of its own; the delivery's lock is held around each call but `Inbox.wait`.
    """

    def __init__(self) -> None:
        #: Nobody else changes it.
        self.waiting: Final[deque[Inbox]] = deque()

    def join(self, inbox: Inbox, again: bool) -> None:
        """Join the queue. `again`: it was woken but found no room, so it keeps its place."""
        if again:
            self.waiting.appendleft(inbox)
        else:
            self.waiting.append(inbox)

    def leave(self, inbox: Inbox) -> None:
        with contextlib.suppress(ValueError):
            self.waiting.remove(inbox)

    def wake(self, places: int | None = None) -> None:
        """Wake the first `places` of them, or all."""
        while self.waiting and (places is None or places > 0):
            self.waiting.popleft().put(None)
            if places is not None:
                places -= 1
