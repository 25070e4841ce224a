"""Fork and exit: what every open delivery is told when its process forks or ends.

Thread safety: the registry is a plain dict of weak references. Each step on it is one operation of the dict. So a
finalizer, which may run at any allocation, needs no lock here.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from fastemit._system import end_with_main, in_subinterpreter
from fastemit._time import monotonic, sleep
from fastemit._words import counted
from fastemit.stats import described, logger, say


class Closable(Protocol):
    """What is registered here."""

    shutdown_timeout: float

    def begin_close(self, deadline: float) -> None:
        """Take no more events, and send those that are there until `deadline` (monotonic clock). Does not wait."""
        ...

    def finish_close(self, deadline: float) -> int:
        """Wait for that until `deadline`. Returns the number of events that are left."""
        ...

    def begin_end(self, deadline: float) -> None:
        """Send the events that are there until `deadline` (monotonic clock). Does not wait."""
        ...

    @property
    def sending(self) -> bool:
        """Whether its own threads are still sending these events."""
        ...

    def finish_end(self, deadline: float) -> int:
        """Wait for that until `deadline`. It goes on taking events, which are sent when somebody flushes.

        Returns:
            The number of events that are left and that it has not logged itself.
        """
        ...

    def notice_fork(self) -> None:
        """In a forked child: start empty, unless that has been done. Must not block."""
        ...


_open: Final[dict[int, weakref.ref[Any]]] = {}
#: Deliveries whose emitter was collected while they had events. They are kept until these are sent.
_orphans: Final[dict[int, Closable]] = {}
#: Held by the one thread that notices a fork that ran no hook. In a process that was not forked so, nobody holds it.
fork_lock = threading.RLock()
#: Not empty when something other than `atexit` runs `end` in this process.
_finalizers: Final[list[object]] = []
#: Functions that a forked child calls before everything else here.
first_in_child: Final[list[Callable[[], None]]] = []
#: Seconds that sender threads have to end after the deadline, where somebody waits for them.
LAST_STEPS: Final = 0.5
#: The names of sender threads begin with this.
SENDER_NAME: Final = "fastemit-sender"
#: How many emitters send at the same time at the end of the process. When these hang, more begin.
AT_ONCE: Final = 16
#: When no emitter is done for this many seconds, as many again begin.
STALL: Final = 0.1
#: Seconds between two looks whether one is done.
A_MOMENT: Final = 0.001
_ended = False
_ends_by = float("inf")


def renew_pools(manager: Any) -> object | None:
    """Give a user's `urllib3.PoolManager` new pools. Returns the old ones, whose sockets have to be detached.

    For a forked child, because a connection that two processes use garbles what both send. An object that only looks
    like such a manager is left as it is.
    """
    pools: Any = getattr(manager, "pools", None)
    if pools is not None:
        try:
            renewed = type(pools)(getattr(pools, "_maxsize", 10), dispose_func=getattr(pools, "dispose_func", None))
            manager.pools = renewed
        except Exception as error:  # noqa: BLE001 - the user's may hold anything
            say(logging.WARNING, "connections may be shared with the parent process: %s", described(error))
    kept: object | None = pools
    return kept


def register(closable: Closable) -> None:
    key = id(closable)

    # A default argument, because the interpreter may have cleared this module when `forget` is called.
    def forget(_: object, pop: Any = _open.pop) -> None:
        pop(key, None)

    _open[key] = weakref.ref(closable, forget)


def unregister(closable: Closable) -> None:
    _open.pop(id(closable), None)
    _orphans.pop(id(closable), None)


def adopt(closable: Closable) -> None:
    """Keep a delivery alive until `unregister`, although nothing else refers to it. Safe in a finalizer."""
    _orphans[id(closable)] = closable


def _all_open() -> list[Closable]:
    # dict.copy is one step. A comprehension over the dict is not, and an entry may go while it runs.
    alive = {key: ref() for key, ref in _open.copy().items()}
    alive.update(_orphans.copy())
    return [closable for closable in alive.values() if closable is not None]


def ended() -> bool:
    """Whether the end of this process has begun. After that no thread may be started."""
    return _ended


def end() -> None:
    """The process ends: every open delivery sends its events within one deadline, the longest `shutdown_timeout`.

    Nothing is closed, because an exit handler that runs later may still track and flush. A second call, which the child
    of a pool makes, sends what has come since then. Its deadline is not later than that of the first.
    """
    global _ended, _ends_by
    _ended = True
    closables = _all_open()
    if closables:
        _ends_by = min(_ends_by, monotonic() + max(closable.shutdown_timeout for closable in closables))
    _begin_in_turn(closables, _ends_by)
    left = 0
    for closable in closables:
        try:
            left += closable.finish_end(_ends_by)
        except Exception as error:  # noqa: BLE001 - the others have to send too
            say(logging.ERROR, "an emitter could not send at the end: %s", described(error))
    if left:
        what = counted(left, "event of a dropped emitter left, which is", "events of dropped emitters left, which are")
        say(logging.WARNING, "the process ends with %s lost", what)
    if in_subinterpreter():
        # Python aborts the process when a subinterpreter is destroyed while it has another thread. Threads of closed
        # emitters may still be at their last steps, too.
        until = monotonic() + LAST_STEPS
        for thread in threading.enumerate():
            if thread.name.startswith(SENDER_NAME):
                thread.join(max(until - monotonic(), 0.0))


def _begin_in_turn(closables: list[Closable], deadline: float) -> None:
    """Tell each delivery that the process ends, a few at a time.

    If a thousand senders woke at once, they would slow down each other, and the collector, until the time is up. So the
    next begins when one is done. When none is done for a while, because they hang, more begin.
    """
    waiting = deque(closables)
    under_way: list[Closable] = []
    at_once = AT_ONCE
    patience = monotonic() + STALL
    while waiting:
        while waiting and len(under_way) < at_once:
            closable = waiting.popleft()
            closable.begin_end(deadline)
            under_way.append(closable)
        still = [closable for closable in under_way if closable.sending]
        now = monotonic()
        if len(still) < len(under_way):
            patience = now + STALL
        elif now >= min(patience, deadline):
            at_once, patience = 2 * at_once, now + STALL
        else:
            sleep(A_MOMENT)
        under_way = still


def may_log() -> bool:
    """Whether a line can be logged while Python shuts down. Other threads stand still then, and may hold a lock."""
    # Not `current_thread`: under gevent it makes a new thread object, and raises while gevent shuts down.
    me = threading.get_ident()
    if any(thread.ident != me and not thread.name.startswith(SENDER_NAME) for thread in threading.enumerate()):
        return False
    its_logger: logging.Logger | None = logger
    while its_logger is not None:
        for handler in its_logger.handlers:
            lock = handler.lock
            if lock is not None:
                if not lock.acquire(blocking=False):
                    return False
                lock.release()
        its_logger = its_logger.parent if its_logger.propagate else None
    return True


def _in_child() -> None:
    # A child does not run the Finalize objects of its parent. It registers a new one at its first event.
    global fork_lock, _ended, _ends_by
    for call in first_in_child:
        call()
    _ended, _ends_by = False, float("inf")
    fork_lock = threading.RLock()
    _finalizers.clear()
    for closable in _all_open():
        closable.notice_fork()
    _orphans.clear()


def _end_after_threads() -> None:
    """Call `end` when the other threads of the process have ended, because these may still track."""
    if not _all_open():
        return
    if _ended:
        end()
        return
    ending = threading.current_thread()

    def end_last() -> None:
        me = threading.current_thread()
        while others := [t for t in threading.enumerate() if not t.daemon and t not in (me, ending)]:
            for thread in others:
                thread.join()
        end()

    # multiprocessing waits for the child's threads after its finalizers, and tells thread pools to end only then. So to
    # wait for them here would take for ever. One more thread waits for them, and multiprocessing waits for that one.
    try:
        threading.Thread(target=end_last, name="fastemit-end", daemon=False).start()
    except RuntimeError:
        end()


def watch_exit() -> None:
    """Make sure that `end` runs at the end of this process. Called at the first event of each delivery.

    In a process that ends in the ordinary way `atexit` runs it. A child of `multiprocessing`, or of `billiard`, which
    is Celery's, leaves by `os._exit`, and runs only the finalizers of its own package's `util` module. A worker of a
    Celery pool does not even run these, but Celery sends a signal. From Python 3.13 on a child of `multiprocessing`
    runs what it has itself registered with `atexit` when its threads have ended. Its finalizers run after that, and
    nobody would wait for a thread that they start.
    """
    if _finalizers or _ended:
        return
    for package, finish in (("multiprocessing", _end_after_threads), ("billiard", end)):
        process = sys.modules.get(f"{package}.process")
        util = sys.modules.get(f"{package}.util")
        if process is None or util is None:
            continue
        current = process.current_process()
        if isinstance(current, getattr(process, "_MainProcess", ())):
            continue
        # The priority decides the order of finalizers. Those of queues and managers have a lower one, and run later.
        _finalizers.append(util.Finalize(None, finish, exitpriority=100))
        if package == "multiprocessing":
            atexit.register(end)
        signals = sys.modules.get("celery.signals") if package == "billiard" else None
        if signals is not None:
            signals.worker_process_shutdown.connect(_celery_worker_ends, weak=False)


def _celery_worker_ends(**_: object) -> None:
    end()


atexit.register(end)
if in_subinterpreter():
    end_with_main()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
