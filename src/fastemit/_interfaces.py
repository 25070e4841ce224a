"""What a transport is asked, and what it answers. Nothing here knows how a request is made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

CONTENT_TYPE: Final = "application/json; charset=utf-8"
#: Seconds to connect and to read, when the user says nothing: a sender that waits for ever loses events silently.
DEFAULT_TIMEOUT: Final = (10.0, 30.0)
#: Bytes of an answer that are read so that its connection can be used again.
ANSWER_LIMIT: Final = 64 * 1024


@dataclass(frozen=True)
class Outcome:
    """What came of one request.

    Attributes:
        status: HTTP status; None when no answer came.
        error: what went wrong, for a person; None when an answer came.
        timed_out: the request was under way, and not answered in time.
        retry_after: the answer's `Retry-After` header, as it came.
        location: the answer's `Location` header, as it came.
    """

    status: int | None = None
    error: str | None = None
    timed_out: bool = False
    retry_after: str | None = None
    location: str | None = None


class Cutoff:
    """What a delivery cuts off its requests by, when its time is up.

    A request that a thread makes by `within` says what it waits on, by `watch`. Requests that the program makes by
    hand are not made by it, and go on.

    Thread safety: any thread may call anything. Each step on the dict is one operation of it, so there is no lock: a
    thread that begins to watch sees `done`, or `cut` sees what it watches.
    """

    _here = threading.local()

    def __init__(self) -> None:
        self.done = False
        self._watched: dict[int, tuple[Any, Callable[[Any], None]]] = {}  # by thread, what it waits on now

    @classmethod
    def current(cls) -> Cutoff | None:
        """That of the delivery whose request this thread makes."""
        found: Cutoff | None = getattr(cls._here, "cutoff", None)
        return found

    def within(self, request: Callable[[], Outcome]) -> Outcome:
        """Make a request of the delivery's in this thread."""
        outer = self.current()
        self._here.cutoff = self
        try:
            return request()
        finally:
            self._here.cutoff = outer
            self._watched.pop(threading.get_ident(), None)

    def watch(self, thing: Any, end: Callable[[Any], None]) -> None:
        """Have `end(thing)` called by `cut`, until something else is watched, or the request is over.

        Raises:
            ConnectionAbortedError: it is too late.
        """
        self._watched[threading.get_ident()] = thing, end
        self.check()

    def check(self) -> None:
        """Raise `ConnectionAbortedError` if the delivery has cut its requests off."""
        if self.done:
            raise ConnectionAbortedError("cut off, since the emitter was closed and its time is up")

    def cut(self) -> None:
        """End what is under way, and what begins from here on."""
        self.done = True
        for thing, end in self._watched.copy().values():
            end(thing)


class Transport(Protocol):
    """What the delivery needs to know of the other end.

    No method raises what the network does. `cap` bounds each wait in seconds, on top of the transport's own timeout.
    """

    #: (connect, read) in seconds; None for the default.
    timeout: tuple[float, float] | None

    def post(self, body: bytes | memoryview, cap: float | None = None) -> Outcome:
        """Send a ready-made body once."""
        ...

    def get(self, query: str, cap: float | None = None) -> Outcome:
        """Send one event as a ready-made query string."""
        ...

    def close(self) -> None:
        """Close idle connections. A later request opens new ones."""
        ...

    def after_fork(self) -> None:
        """In a forked child: forget the parent's connections without closing them."""
        ...
