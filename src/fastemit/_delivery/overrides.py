"""What a subclass, or a patch, has put in place of an emitter's own methods."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastemit._delivery.given_back import GivenBack, Hooked
from fastemit._interfaces import Outcome

#: Methods that the delivery calls on the emitter if they are not the emitter's own.
NAMES: Final = ("http_post", "http_get", "send_events", "flush", "reached_limit")


class Hooks:
    """Looks at each pass for methods that are not the emitter's own, on its class and on itself.

    An emitter of a class that overrides something is kept alive, because its sender calls it. Any other is collected as
    soon as the program drops it.

    Args:
        emitter: the emitter.
        own: the functions that are its own, by name.
    """

    def __init__(self, emitter: Hooked, own: Mapping[str, frozenset[Any]]) -> None:
        self._own = own
        self._emitter = weakref.ref(emitter)
        #: Looks at what its callbacks give back to its `input`.
        self.given_back = GivenBack(self._emitter)
        self._kept = emitter if any(self._overridden(type(emitter), name) for name in NAMES) else None

    def _overridden(self, cls: type, name: str) -> bool:
        return getattr(cls, name) not in self._own[name]

    def find(self, name: str) -> Callable[..., Any] | None:
        """The method of this name if it is not the emitter's own, else None."""
        emitter = self._emitter()
        if emitter is None or (name not in emitter.__dict__ and getattr(type(emitter), name) in self._own[name]):
            return None
        method: Callable[..., Any] = getattr(emitter, name)
        return method

    @property
    def decide_when(self) -> bool:
        """Whether the emitter decides when to send: by a `flush` or a `reached_limit` that is not its own."""
        emitter = self._emitter()
        if emitter is None:
            return False
        # Without `find`, because a sender asks this twice for each request.
        cls: Any = type(emitter)
        itself, own = emitter.__dict__, self._own
        return (
            cls.flush not in own["flush"]
            or cls.reached_limit not in own["reached_limit"]
            or "flush" in itself
            or "reached_limit" in itself
        )

    def flush_if_reached(self, own_flush: Callable[[], None]) -> None:
        """What `input` of snowplow_tracker does after each event."""
        emitter = self._emitter()
        if emitter is not None and emitter.reached_limit():
            (self.find("flush") or own_flush)()


def answered_by_hook(answer: Any) -> Outcome:
    """The outcome that an overridden `http_post` or `http_get` returned: a status, or something with `status_code`."""
    status = getattr(answer, "status_code", answer)
    if isinstance(status, bool) or not isinstance(status, int):
        return Outcome(error=f"http_post and http_get must return a status or an answer that has one, not {answer!r}")
    # snowplow_tracker returns -1 if no answer came.
    return Outcome(status=status) if status > 0 else Outcome(error="no answer")
