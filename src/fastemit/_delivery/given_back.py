"""Events that `on_failure` gives back to `input` although they are kept, and are sent again anyway.

`snowplow_tracker` before 0.13 forgot what it could not send, and the usual remedy was an `on_failure` that gives each
event to `input` again. With an emitter that keeps them, their number would double at each failure.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import orjson

from fastemit.stats import say

#: An event as it is compared: names and values in any order, without `stm`.
_Key: TypeAlias = "frozenset[tuple[str, str]] | tuple[bytes, ...]"
_STM: Final = "stm"


def _key_of_json(event: dict[str, str]) -> _Key:
    return frozenset(item for item in event.items() if item[0] != _STM)


def _key_of_query(event: bytes) -> _Key:
    return tuple(sorted(member for member in event.split(b"&") if not member.startswith(b"stm=")))


def _loaded(document: bytes) -> Any:
    try:
        return orjson.loads(document)
    except ValueError:
        # A lone surrogate, which only `json` reads.
        return json.loads(document)


class _Kept:
    """The kept events that one call of `on_failure` is about. They are read only if it gives something to `input`.

    Args:
        bodies: of their requests: what the callback does with its dicts changes nothing here.
        query: whether they are query strings.
    """

    def __init__(self, bodies: list[bytes], query: bool) -> None:
        self._bodies = bodies
        self._query = query
        self._keys: set[_Key] = set()

    def has(self, event: bytes) -> bool:
        """Whether this event, as it was encoded, equals one of them."""
        for body in self._bodies:
            if self._query:
                self._keys.add(_key_of_query(body))
            else:
                self._keys.update(map(_key_of_json, _loaded(body)["data"]))
        self._bodies = []
        return (_key_of_query(event) if self._query else _key_of_json(_loaded(event))) in self._keys


class GivenBack:
    """Stands in the way of an emitter's `input` while an `on_failure` runs that is about kept events.

    At all other times it is in nobody's way: `input` goes to the buffer directly, and costs nothing more.

    Thread safety: any thread may call anything. Only events from the thread of the callback are looked at; those of
    other threads are passed on. The lock covers the change of the way that `input` takes.

    Args:
        emitter: whose `input` it is.
    """

    def __init__(self, emitter: weakref.ref[Any]) -> None:
        self._emitter = emitter
        self._in_the_way = False
        self._told = False
        self.start_over()

    def start_over(self) -> None:
        """In a forked child: the callbacks that run, and what is kept, are the parent's."""
        self._lock = threading.RLock()
        self._kept: dict[int, _Kept] = {}  # by thread
        self._stand(False)

    def _stand(self, in_the_way: bool) -> None:
        emitter = self._emitter()
        if emitter is not None and in_the_way != self._in_the_way:
            emitter._open_intake(self if in_the_way else emitter._buffer, emitter._delivery.answer)
            self._in_the_way = in_the_way

    @contextlib.contextmanager
    def left_out(self, bodies: list[bytes], query: bool) -> Iterator[None]:
        """While this lasts, what this thread gives to `input` and is among these kept events is left out."""
        me = threading.get_ident()
        # A callback may call `send_events`, whose failure calls back within.
        earlier = self._kept.get(me)
        try:
            with self._lock:
                self._kept[me] = _Kept(bodies, query)
                self._stand(True)
            yield
        finally:
            with self._lock:
                self._kept.pop(me, None)
                if earlier is not None:
                    self._kept[me] = earlier
                self._stand(bool(self._kept))

    def append(self, payload: Any) -> Any:
        """What `input` calls in place of the buffer's `append`, and answers as that does."""
        emitter: Any = self._emitter()  # alive, since its `input` is what comes here
        buffer = emitter._buffer
        kept = self._kept.get(threading.get_ident())
        if kept is None:
            return buffer.append(payload)
        event = buffer.prepare(payload)
        if not kept.has(getattr(event, "encoded", event)):
            return buffer.append_encoded(event)
        if not self._told:
            self._told = True
            say(
                logging.WARNING,
                "on_failure gave back events that are kept, and sent again anyway: they are left out; "
                "your on_failure no longer needs to do that",
            )
        return 0
