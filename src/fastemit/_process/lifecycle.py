"""Fork and exit: what every open delivery is told when its process divides or ends.

Thread safety: the registry is a plain dict of weak references. Each step on it is one operation of the dict, so that
a finalizer, which may run at any allocation, needs no lock here.
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

from fastemit._buffer import end_with_main, in_subinterpreter
from fastemit._time import monotonic, sleep
from fastemit.stats import described, logger, say


class Closable(Protocol):
    """What is registered here."""

    shutdown_timeout: float

    def begin_close(self, deadline: float) -> None:
        """Take no more events and send what there is, until `deadline` on the monotonic clock. Does not wait."""
        ...

    def finish_close(self, deadline: float) -> int:
        """Wait for that until `deadline`; the number of events left."""
        ...

    def begin_end(self, deadline: float) -> None:
        """Send what there is, until `deadline` on the monotonic clock. Does not wait."""
        ...

    @property
    def sending(self) -> bool:
        """Whether that is still under way, in threads of its own."""
        ...

    def finish_end(self, deadline: float) -> int:
        """Wait for that until `deadline`; go on taking events, to be sent by those who flush.

        Returns:
            The number of events left that it has not told of itself.
        """
        ...

    def notice_fork(self) -> None:
        """Start empty in a forked child, unless that has been done. Nothing here may block."""
        ...


_open: Final[dict[int, weakref.ref[Any]]] = {}
#: Deliveries whose emitter was collected while they had events: kept until these are sent.
_orphans: Final[dict[int, Closable]] = {}
#: Held by the one thread that notices a fork which ran no hook; never in a process that has not been forked so.
fork_lock = threading.RLock()
#: Whether this process runs `end` by something other than `atexit`.
_finalizers: Final[list[object]] = []
#: Called in a forked child before anything else here is.
first_in_child: Final[list[Callable[[], None]]] = []
#: Seconds that sender threads are given to end after the deadline, where they are waited for.
LAST_STEPS: Final = 0.5
#: What the names of sender threads begin with.
SENDER_NAME: Final = "fastemit-sender"
#: Emitters that send at the same time at the end of the process, unless they hang.
AT_ONCE: Final = 16
#: Seconds without one that is done, after which as many again begin.
STALL: Final = 0.1
#: Seconds between two looks whether one is done.
A_MOMENT: Final = 0.001
_ended = False
_ends_by = float("inf")


def renew_pools(manager: Any) -> object | None:
    """Give a `urllib3.PoolManager` of the user's new pools; the old ones, whose sockets are to be detached.

    For a forked child: a connection that two processes use garbles what both send. What only looks like such a manager
    is left as it is.
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

    # The default argument keeps `pop` reachable while the interpreter takes modules apart.
    def forget(_: object, pop: Any = _open.pop) -> None:
        pop(key, None)

    _open[key] = weakref.ref(closable, forget)


def unregister(closable: Closable) -> None:
    _open.pop(id(closable), None)
    _orphans.pop(id(closable), None)


def adopt(closable: Closable) -> None:
    """Keep alive a delivery that nothing else refers to any more, until `unregister`. Safe in a finalizer."""
    _orphans[id(closable)] = closable


def _all_open() -> list[Closable]:
    # dict.copy is one step; a list comprehension over the dict is not, and references die meanwhile.
    alive = {key: ref() for key, ref in _open.copy().items()}
    alive.update(_orphans.copy())
    return [closable for closable in alive.values() if closable is not None]


def ended() -> bool:
    """Whether the end of this process has been seen to: no thread is to be started any more."""
    return _ended


def end() -> None:
    """The process ends: have what is open send what it has, within one deadline, the longest `shutdown_timeout` of all.

    Nothing is closed, since an exit handler that runs later may still track, and flush. A second call, as the child of
    a pool makes one, sends what has come since; its deadline is no later than that of the first.
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
        except Exception as error:  # noqa: BLE001 - the others are still to be seen to
            say(logging.ERROR, "an emitter could not send at the end: %s", described(error))
    if left:
        say(logging.WARNING, "the process ends with %d events of dropped emitters left, which are lost", left)
    if in_subinterpreter():
        # Python aborts the process when a subinterpreter is destroyed while it has another thread. Those of emitters
        # that are closed may be at their last steps, too.
        until = monotonic() + LAST_STEPS
        for thread in threading.enumerate():
            if thread.name.startswith(SENDER_NAME):
                thread.join(max(until - monotonic(), 0.0))


def _begin_in_turn(closables: list[Closable], deadline: float) -> None:
    """Have each begin with its end, a few at a time.

    A thousand senders that wake at once get into each other's way, and into the collector's, until the time is up. The
    next begins when one is done, and where none is done for a while, since they hang, more begin beside them.
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
    """Whether a line can be logged while Python is taken apart: other threads stand still then, with what they hold."""
    # Not `current_thread`, which under gevent makes a new one, and raises while greenlets are taken apart.
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
    # Finalize objects of the parent are not run in a child; a new one is registered at its first event.
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
    """Call `end` once the process's other threads, which may still put events in, have ended."""
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

    # multiprocessing waits for the child's threads after its finalizers, and tells thread pools to end only then: to
    # wait for them here would be for ever. So one more thread that it waits for does that.
    try:
        threading.Thread(target=end_last, name="fastemit-end", daemon=False).start()
    except RuntimeError:
        end()


def watch_exit() -> None:
    """Have `end` run at the end of this process. Called at each delivery's first event.

    `atexit` sees to it in a process that ends in the ordinary way. A child of `multiprocessing`, or of Celery's
    `billiard`, leaves by `os._exit` and runs only the finalizers of its own package's `util` module; a worker of a
    Celery pool not even these, but Celery sends a signal. From Python 3.13 on a child of `multiprocessing` runs what it
    has registered with `atexit` itself, once its threads have ended, and the finalizers after that, when no thread that
    they start would be waited for.
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
        # The priority decides the order among finalizers: those of queues and managers run later (lower).
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
