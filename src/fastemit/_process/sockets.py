"""Sockets that a forked child inherits. In the child nobody may use or close their numbers.

A program that turns itself into a daemon closes everything that it inherited, and opens files of its own. Then the
number of a socket may be that of such a file: whoever closes the number closes the file, and whoever writes to it
writes into the file. So the child detaches each socket: its object forgets the number. The other end is told nothing,
because the parent goes on talking to it. Sockets that are in use are detached too. A finalizer or the garbage collector
may reach them, or a function of the parent that goes on in the child: one that a forking signal handler has
interrupted, or, under gevent, any greenlet.

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

from fastemit._process.lifecycle import first_in_child, renew_pools
from fastemit._system import keep_for_ever

Find = Callable[[Any], Iterator[Any]]

#: Sockets that fastemit made, each with the process that made it.
_made: Final[dict[int, tuple[weakref.ref[Any], int]]] = {}
#: Objects with sockets that others made, each with the function that finds those of another process.
_holders: Final[dict[int, tuple[weakref.ref[Any], Find]]] = {}
#: The TLS socket that each thread reads from at this moment.
reading: Final[dict[int, Any]] = {}


def _forget(registry: dict[int, Any], key: int) -> Callable[[object], object]:
    """Removes an entry when its reference dies. In C, because a signal handler's exception would be lost here."""
    return functools.partial(registry.pop, key)


def own(sock: Any, process: int | None = None) -> None:
    """Let children of `process`, which made this socket, detach it. None is this process."""
    key = id(sock)
    _made[key] = weakref.ref(sock, _forget(_made, key)), os.getpid() if process is None else process


def watch(holder: Any, find: Find) -> None:
    """Let a forked child detach the sockets that `find(holder)` gives."""
    key = id(holder)
    _holders[key] = weakref.ref(holder, _forget(_holders, key)), find


def detach(sock: Any) -> None:
    """Make a socket forget its number, and tell the other end nothing. Raises nothing."""
    with contextlib.suppress(Exception):  # the object is somebody else's, and the next socket has to be detached too
        tls = getattr(sock, "_sslobj", None)
        if tls is not None:
            # OpenSSL's object has the number too. It is never freed, because that takes a lock, which a thread of the
            # parent may have held.
            keep_for_ever(tls)
            sock._sslobj = None
        # TLS within TLS, and pyOpenSSL's TLS, are objects around a socket.
        inner = getattr(sock, "socket", None)
        if inner is not None and not callable(inner):
            detach(inner)
        elif hasattr(sock, "detach"):
            sock.detach()


def detach_inherited() -> None:
    """In a forked child: detach what the parent had open. In the parent, and the second time, it does nothing."""
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
    """Detach what `find(holder)` gives, as far as it can be reached. Raises nothing."""
    with contextlib.suppress(Exception):  # an object of the user's may hold anything
        for sock in find(holder):
            detach(sock)


def _in_child() -> None:
    interrupted = reading.pop(threading.get_ident(), None)
    reading.clear()
    # TLS within TLS is an object around a socket.
    interrupted = getattr(interrupted, "socket", interrupted)
    if interrupted is not None and getattr(interrupted, "_sslobj", None) is not None:
        # A signal handler has forked in the middle of a read, and the read goes on in the child. CPython goes on
        # reading a TLS socket by its number, without an end, even if it has been detached. So the number is given to
        # /dev/null. No other file has it yet, because nothing else has run in this process.
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, interrupted.fileno(), inheritable=False)
            os.close(null)
    detach_inherited()


def renewed(manager: Any) -> object | None:
    """Give a user's `PoolManager` new pools, and detach the sockets of the old ones. Returns the old ones."""
    pools = renew_pools(manager)
    detach_all(of_urllib3, pools)
    return pools


# -- where libraries keep theirs ---------------------------------------------------------------------------------------


def of_urllib3(pools: Any) -> Iterator[Any]:
    """The idle sockets of a `PoolManager`'s pools, without their locks, which a thread of the parent may have held."""
    for pool in list(getattr(pools, "_container", {}).values()):
        for connection in list(getattr(getattr(pool, "pool", None), "queue", ())):
            sock = getattr(connection, "sock", None)
            if sock is not None:
                yield sock


def of_redis(client: Any) -> Iterator[Any]:
    """The sockets of a `redis.Redis` that another process made, idle or in use."""
    yield from _of_redis_pool(getattr(client, "connection_pool", None))


def idle_of_redis(client: Any) -> Iterator[Any]:
    """As `of_redis`, but only idle ones."""
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
    """The sockets of a connection to a broker that is Redis or speaks AMQP."""
    transport = getattr(connection, "_connection", None)
    sock = getattr(getattr(transport, "transport", None), "sock", None)
    if sock is not None:
        yield sock
    for channel in list(getattr(transport, "channels", None) or ()):
        for name in ("_pool", "_async_pool"):
            yield from _of_redis_pool(getattr(channel, name, None))


first_in_child.append(_in_child)
