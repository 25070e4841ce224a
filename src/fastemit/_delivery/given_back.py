"""Events that `on_failure` gives back to `input` although they are kept, and are sent again anyway.

`snowplow_tracker` before 0.13 forgot what it could not send, so programs used an `on_failure` that gives each event to
`input` again. fastemit keeps these events itself, so their number would double at each failure.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from fastemit._delivery.reporting import loaded
from fastemit._interfaces import Encoded, EventQueue, Sink
from fastemit.stats import say
from fastemit.typing import Payload

if TYPE_CHECKING:
    from fastemit._delivery.delivery import Delivery

#: The form in which events are compared: names and values in any order, without `stm`.
_Key: TypeAlias = "frozenset[tuple[str, str]] | tuple[bytes, ...]"
_STM: Final = "stm"


def _key_of_json(event: dict[str, str]) -> _Key:
    return frozenset(item for item in event.items() if item[0] != _STM)


def _key_of_query(event: bytes) -> _Key:
    return tuple(sorted(member for member in event.split(b"&") if not member.startswith(b"stm=")))


class Hooked(Protocol):
    """What this module needs of an emitter."""

    _buffer: EventQueue
    _delivery: Delivery

    def _open_intake(self, buffer: Sink, answer: Callable[[int | Encoded], None], /) -> None: ...

    def reached_limit(self) -> bool: ...


class _Kept:
    """The kept events that one call of `on_failure` is about. They are read only if it gives something to `input`.

    Args:
        bodies: those of their requests, so that it does not matter what the callback does with its dicts.
        query: whether they are query strings.
    """

    def __init__(self, bodies: list[bytes], query: bool) -> None:
        self._bodies = bodies
        self._query = query
        self._keys: set[_Key] = set()

    def has(self, event: bytes) -> bool:
        """Whether this encoded event equals one of them."""
        for body in self._bodies:
            if self._query:
                self._keys.add(_key_of_query(body))
            else:
                self._keys.update(map(_key_of_json, loaded(body)["data"]))
        self._bodies = []
        return (_key_of_query(event) if self._query else _key_of_json(loaded(event))) in self._keys


class GivenBack:
    """Looks at the events given to an emitter's `input` while an `on_failure` about kept events runs.

    At all other times `input` goes to the buffer directly, so it costs nothing more.

    Thread safety: any thread may call anything. Only events from the thread of the callback are looked at; those of
    other threads are passed on. The lock covers the change of the way that `input` takes.

    Args:
        emitter: whose `input` it is.
    """

    def __init__(self, emitter: weakref.ref[Hooked]) -> None:
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
        """In this block `input` leaves out events of this thread that are among these kept ones."""
        me = threading.get_ident()
        # A callback may call `send_events`. If that fails, another callback runs inside of the first.
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

    def append(self, payload: Payload) -> int | Encoded:
        """What `input` calls in place of the buffer's `append`. It returns the same."""
        emitter = self._emitter()
        assert emitter is not None  # its `input` is what comes here
        buffer = emitter._buffer
        kept = self._kept.get(threading.get_ident())
        if kept is None:
            return buffer.append(payload)
        event = buffer.prepare(payload)
        if not kept.has(event if isinstance(event, bytes) else event.encoded):
            return buffer.append_encoded(event)
        if not self._told:
            self._told = True
            say(
                logging.WARNING,
                "on_failure gave back events that are kept, and sent again anyway: they are left out; "
                "your on_failure no longer needs to do that",
            )
        return 0
