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
from typing import Any, Final, Protocol

from fastemit._time import monotonic
from fastemit.stats import described, say


class Closable(Protocol):
    """What is registered here."""

    shutdown_timeout: float

    def begin_close(self, deadline: float) -> None:
        """Take no more events and send what there is, until `deadline` on the monotonic clock. Does not wait."""
        ...

    def finish_close(self, deadline: float) -> int:
        """Wait for that until `deadline`; the number of events left."""
        ...

    def notice_fork(self) -> None:
        """Start empty in a forked child, unless that has been done. Nothing here may block."""
        ...


_open: Final[dict[int, weakref.ref[Any]]] = {}
#: Deliveries whose emitter was collected while they had events: kept until these are sent.
_orphans: Final[dict[int, Closable]] = {}
#: Held by the one thread that notices a fork which ran no hook; never in a process that has not been forked so.
fork_lock = threading.RLock()
#: Whether this process runs `close_all` at its end by something other than `atexit`.
_finalizers: Final[list[object]] = []


def renew_pools(manager: Any) -> object | None:
    """Give a `urllib3.PoolManager` of the user's new pools; the old ones, which are to be kept and not closed.

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


def close_all() -> None:
    """Close what is open, within one deadline: the longest `shutdown_timeout` among them."""
    closables = _all_open()
    if not closables:
        return
    deadline = monotonic() + max(closable.shutdown_timeout for closable in closables)
    for closable in closables:
        closable.begin_close(deadline)
    for closable in closables:
        try:
            closable.finish_close(deadline)
        except Exception as error:  # noqa: BLE001 - the others are still to be closed
            say(logging.ERROR, "an emitter could not be closed: %s", described(error))


def _in_child() -> None:
    # Finalize objects of the parent are not run in a child; a new one is registered at its first event.
    global fork_lock
    fork_lock = threading.RLock()
    _finalizers.clear()
    for closable in _all_open():
        closable.notice_fork()
    _orphans.clear()


def _close_all_after_threads() -> None:
    """Close what is open once the process's other threads, which may still put events in, have ended."""
    if not _all_open():
        return
    ending = threading.current_thread()

    def close_last() -> None:
        me = threading.current_thread()
        while others := [t for t in threading.enumerate() if not t.daemon and t not in (me, ending)]:
            for thread in others:
                thread.join()
        close_all()

    # multiprocessing waits for the child's threads after its finalizers, and tells thread pools to end only then: to
    # wait for them here would be for ever. So one more thread that it waits for does that, and closes.
    try:
        threading.Thread(target=close_last, name="fastemit-end", daemon=False).start()
    except RuntimeError:
        close_all()


def watch_exit() -> None:
    """Have `close_all` run at the end of this process. Called at each delivery's first event.

    `atexit` sees to it in a process that ends in the ordinary way. A child of `multiprocessing`, or of Celery's
    `billiard`, leaves by `os._exit` and runs only the finalizers of its own package's `util` module; a worker of a
    Celery pool not even these, but Celery sends a signal. From Python 3.13 on a child of `multiprocessing` runs what it
    has registered with `atexit` itself, once its threads have ended, and the finalizers after that, when no thread that
    they start would be waited for.
    """
    if _finalizers:
        return
    for package, close in (("multiprocessing", _close_all_after_threads), ("billiard", close_all)):
        process = sys.modules.get(f"{package}.process")
        util = sys.modules.get(f"{package}.util")
        if process is None or util is None:
            continue
        current = process.current_process()
        if isinstance(current, getattr(process, "_MainProcess", ())):
            continue
        # The priority decides the order among finalizers: those of queues and managers run later (lower).
        _finalizers.append(util.Finalize(None, close, exitpriority=100))
        if package == "multiprocessing":
            atexit.register(close_all)
        signals = sys.modules.get("celery.signals") if package == "billiard" else None
        if signals is not None:
            signals.worker_process_shutdown.connect(_celery_worker_ends, weak=False)


def _celery_worker_ends(**_: object) -> None:
    close_all()


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
