"""What a transport is asked, and what it answers. Nothing here knows how a request is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

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
