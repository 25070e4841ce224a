"""The interface of a transport, and the outcome of a request. Nothing here knows how a request is made."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from fastemit._interfaces.queues import EventBatch

CONTENT_TYPE: Final = "application/json; charset=utf-8"
#: Seconds to connect and to read, unless the user sets others. Without a limit a sender could wait for ever.
DEFAULT_TIMEOUT: Final = (10.0, 30.0)
#: The most bytes of an answer that are read so that its connection can be used again.
ANSWER_LIMIT: Final = 64 * 1024


class Outcome(NamedTuple):
    """The outcome of one request.

    Attributes:
        status: HTTP status; None if no answer came.
        error: what went wrong, for people; None if an answer came.
        timed_out: the request was under way, but not answered in time.
        retry_after: the answer's `Retry-After` header, unchanged.
        location: the answer's `Location` header, unchanged.
    """

    status: int | None = None
    error: str | None = None
    timed_out: bool = False
    retry_after: str | None = None
    location: str | None = None


class _Here(threading.local):
    """The cutoff of the delivery whose request this thread makes."""

    cutoff: Cutoff | None = None


class Cutoff:
    """Cuts off the requests of a delivery when its time is up.

    A request that a thread makes in `within` calls `watch` with the object that it waits on. Requests that the program
    makes by hand are not made in `within`, so they go on.

    Thread safety: any thread may call anything. There is no lock, because each step on the dict is one operation.
    Either a thread that begins to watch sees `done`, or `cut` sees what the thread watches.
    """

    _here = _Here()

    def __init__(self) -> None:
        self.done = False
        self._watched: dict[int, tuple[Any, Callable[[Any], None]]] = {}  # by thread, what it waits on now

    @classmethod
    def current(cls) -> Cutoff | None:
        """The cutoff of the delivery whose request this thread makes; None if it makes none."""
        return cls._here.cutoff

    def within(self, request: Callable[..., Outcome], *arguments: Any) -> Outcome:
        """Make a request of the delivery in this thread."""
        here = self._here
        outer = here.cutoff
        here.cutoff = self
        try:
            return request(*arguments)
        finally:
            here.cutoff = outer
            self._watched.pop(threading.get_ident(), None)

    def watch(self, thing: Any, end: Callable[[Any], None]) -> None:
        """Let `cut` call `end(thing)`, until the thread watches something else or the request is over.

        Raises:
            ConnectionAbortedError: the requests were cut off already.
        """
        self._watched[threading.get_ident()] = thing, end
        if self.done:
            self.check()

    def check(self) -> None:
        """Raise `ConnectionAbortedError` if the delivery has cut its requests off."""
        if self.done:
            raise ConnectionAbortedError("cut off, because the emitter was closed and its time is up")

    def cut(self) -> None:
        """End the requests that are under way, and those that begin from now on."""
        self.done = True
        for thing, end in self._watched.copy().values():
            end(thing)


class Transport(Protocol):
    """What the delivery needs to know of a transport.

    No method raises an error of the network. `cap` bounds each wait in seconds, besides the transport's own timeout.
    """

    def send(self, batch: EventBatch, cap: float | None = None) -> Outcome:
        """Send the events of a batch once."""
        ...

    def close(self) -> None:
        """Close idle connections. A later request opens new ones."""
        ...

    def after_fork(self) -> None:
        """In a forked child: forget the parent's connections without closing them."""
        ...


class RequestTransport(ABC):
    """A `Transport` that makes the requests of an HTTP collector: POST with a body, or GET with a query.

    No method raises an error of the network.
    """

    #: (connect, read) in seconds; None for the default.
    timeout: tuple[float, float] | None
    #: Called while the collector works: a request of a delivery has been sent, and none of its answer was read yet. A
    #: transport may leave it out. It must not raise or log.
    meanwhile: Callable[[], None] | None = None

    def send(self, batch: EventBatch, cap: float | None = None) -> Outcome:
        if batch.query:
            return self.get(bytes(batch.body()).decode("ascii"), cap)
        return self.post(batch.body(), cap)

    @abstractmethod
    def post(self, body: bytes | memoryview, cap: float | None = None) -> Outcome:
        """Send a ready-made body once."""

    @abstractmethod
    def get(self, query: str, cap: float | None = None) -> Outcome:
        """Send one event as a ready-made query string."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def after_fork(self) -> None: ...
