"""Two dangers for the events of a list: workers that died with some of them, and a Redis that may delete the list."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from logging import WARNING
from typing import Any, Final

import redis

from fastemit._signals import guarded, raise_of_signal_handler
from fastemit.redis.scripts import GONE, NO_LIST, InFlight
from fastemit.stats import ThrottledLog, described, say

#: The form of a worker's id.
_ID: Final = re.compile(rb"[0-9a-f]{32}")


def put_back_of_dead(in_flight: InFlight, log: ThrottledLog) -> Iterator[int]:
    """Put back the events of dead workers, and yield the number of events of each step.

    If Redis refuses that for one worker, the log names it, and the next worker's turn comes. Other errors of the client
    are raised.
    """
    for worker, sign in in_flight.silent():
        name = worker.decode("ascii", "backslashreplace")
        try:
            while (moved := in_flight.recover(worker, sign)) > 0:
                log.add("events of a dead worker put back", f"worker {name}", moved)
                yield moved
        except redis.ResponseError as error:
            raise_of_signal_handler(error)
            log.add("events of a dead worker stay where they are", f"worker {name}: {described(error)}")
            continue
        if moved == NO_LIST:
            key = in_flight.inflight_of(worker).decode("utf-8", "backslashreplace")
            say(WARNING, "put aside: %s", f"{key} holds no list. It is left as it is, and worker {name} is forgotten")
        elif moved == GONE and not _ID.fullmatch(worker):
            say(WARNING, "put aside: %s", f"the worker {name}, which had no events and is none of fastemit's")


#: The pools, or clients without one, whose Redis was asked already.
_asked: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def warn_of_eviction(rdb: Any, key: str) -> None:
    """Warn, once for a client, if its Redis may delete lists when it is full. Errors are ignored."""

    def ask() -> None:
        # A program may make a client for each request. These share a pool.
        asked = getattr(rdb, "connection_pool", rdb)
        if asked in _asked:
            return
        _asked.add(asked)
        node = getattr(rdb, "get_node_from_key", None)
        info = rdb.info("memory") if node is None else rdb.info("memory", target_nodes=node(key))
        policy = str(info.get("maxmemory_policy", ""))
        if policy.startswith("allkeys-"):
            say(
                WARNING,
                "the maxmemory-policy of Redis is %s: when Redis is full it may delete the list %r, and every "
                "event in the list is lost. Set it to noeviction",
                policy,
                key,
            )

    # Many providers of Redis do not allow that question.
    guarded(ask, lambda _: None)
