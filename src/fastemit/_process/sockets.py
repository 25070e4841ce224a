"""Sockets that a forked child inherits: there nobody may use or close their numbers.

A number may be another file's by then: a program that turns itself into a daemon closes all that it inherited, and
opens files of its own. To close such a number closes the daemon's file, and to write to it writes into that file. So in
the child each socket is detached: its object forgets the number, without a word to the other end, with which the parent
goes on talking. Whether it is idle or in use makes no difference: it may be reached by a finalizer, by the garbage
collector, or by a function of the parent's that goes on in the child (a signal handler that forks interrupts one, and
under gevent all greenlets go on).

Thread safety: as in `lifecycle`, each step on the registries is one operation of a dict.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from fastemit._buffer import keep_for_ever
from fastemit._process.lifecycle import first_in_child, renew_pools

Find = Callable[[Any], Iterator[Any]]

#: The sockets that were made here, each with the process that made it.
_made: Final[dict[int, tuple[weakref.ref[Any], int]]] = {}
#: What has sockets that are made elsewhere, with the function that finds those of another process.
_holders: Final[dict[int, tuple[weakref.ref[Any], Find]]] = {}
#: The TLS socket that each thread reads from at this moment.
reading: Final[dict[int, Any]] = {}


def _forget(registry: dict[int, Any], key: int) -> Callable[[object], object]:
    """Takes out an entry when its reference dies; not Python code, where what a signal handler raises would be lost."""
    return functools.partial(registry.pop, key)


def own(sock: Any, process: int | None = None) -> None:
    """Have a socket detached in the children of the process that made it; None for this one."""
    key = id(sock)
    _made[key] = weakref.ref(sock, _forget(_made, key)), os.getpid() if process is None else process


def watch(holder: Any, find: Find) -> None:
    """Have the sockets that `find(holder)` gives detached in a forked child."""
    key = id(holder)
    _holders[key] = weakref.ref(holder, _forget(_holders, key)), find


def detach(sock: Any) -> None:
    """Make a socket forget its number, and say nothing to the other end. Nothing is raised."""
    with contextlib.suppress(Exception):  # it is somebody else's object, and one more is to come
        tls = getattr(sock, "_sslobj", None)
        if tls is not None:
            # OpenSSL's side has the number too. It is not freed either, since that takes a lock which a thread that is
            # not here any more may have held.
            keep_for_ever(tls)
            sock._sslobj = None
        # TLS within TLS, and pyOpenSSL's, are objects around a socket.
        inner = getattr(sock, "socket", None)
        if inner is not None and not callable(inner):
            detach(inner)
        elif hasattr(sock, "detach"):
            sock.detach()


def detach_inherited() -> None:
    """In a forked child: detach what the parent had open. Does nothing the second time, nor in the parent."""
    process = os.getpid()
    for key, (reference, maker) in _made.copy().items():
        if maker != process:
            sock = reference()
            _made.pop(key, None)
            if sock is not None:
                detach(sock)
    for reference, find in _holders.copy().values():
        holder = reference()
        if holder is not None:
            detach_all(find, holder)


def detach_all(find: Find, holder: Any) -> None:
    """Detach what `find(holder)` gives, as far as it can be reached. Nothing is raised."""
    with contextlib.suppress(Exception):  # a user's may hold anything
        for sock in find(holder):
            detach(sock)


def _in_child() -> None:
    interrupted = reading.pop(threading.get_ident(), None)
    reading.clear()
    # TLS within TLS is an object around a socket.
    interrupted = getattr(interrupted, "socket", interrupted)
    if interrupted is not None and getattr(interrupted, "_sslobj", None) is not None:
        # A signal handler has forked in the middle of a read, which goes on in the child. CPython's does so for a TLS
        # socket that has been detached too, without end and with the number: so that is no socket any more. It is
        # nobody else's yet, since nothing has run in this process before.
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, interrupted.fileno(), inheritable=False)
            os.close(null)
    detach_inherited()


def renewed(manager: Any) -> object | None:
    """Give a `PoolManager` of the user's new pools, and detach what the old ones hold, which are returned."""
    pools = renew_pools(manager)
    detach_all(of_urllib3, pools)
    return pools


# -- where libraries keep theirs ---------------------------------------------------------------------------------------


def of_urllib3(pools: Any) -> Iterator[Any]:
    """The idle sockets of a `PoolManager`'s pools. Its locks may be held by a thread that is not here any more."""
    for pool in list(getattr(pools, "_container", {}).values()):
        for connection in list(getattr(getattr(pool, "pool", None), "queue", ())):
            sock = getattr(connection, "sock", None)
            if sock is not None:
                yield sock


def of_redis(client: Any) -> Iterator[Any]:
    """The sockets of a `redis.Redis` that another process made: idle ones and those in use."""
    yield from _of_redis_pool(getattr(client, "connection_pool", None))


def idle_of_redis(client: Any) -> Iterator[Any]:
    """The idle ones alone."""
    yield from _of_redis_pool(getattr(client, "connection_pool", None), ("_available_connections",))


def _of_redis_pool(
    pool: Any, kept_in: Iterable[str] = ("_available_connections", "_in_use_connections")
) -> Iterator[Any]:
    process = os.getpid()
    connections = [connection for name in kept_in for connection in list(getattr(pool, name, ()))]
    for connection in connections:
        sock = getattr(connection, "_sock", None)
        if sock is not None and getattr(connection, "pid", process) != process:
            yield sock


def of_kombu(connection: Any) -> Iterator[Any]:
    """The sockets of a connection to a broker, where that is Redis or speaks AMQP."""
    transport = getattr(connection, "_connection", None)
    sock = getattr(getattr(transport, "transport", None), "sock", None)
    if sock is not None:
        yield sock
    for channel in list(getattr(transport, "channels", None) or ()):
        for name in ("_pool", "_async_pool"):
            yield from _of_redis_pool(getattr(channel, name, None))


first_in_child.append(_in_child)
