"""What a transport is asked, and what it answers. Nothing here knows how a request is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fastemit._buffer import Batch


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
    """What the delivery needs to know of the other end."""

    def send(self, batch: Batch, cap: float | None = None) -> Outcome:
        """Send a batch once. `cap` bounds each wait in seconds, on top of the transport's own timeout."""
        ...

    def post(self, body: bytes, cap: float | None = None) -> Outcome:
        """Send a ready-made body once."""
        ...

    def close(self) -> None:
        """Close idle connections. A later `send` opens new ones."""
        ...

    def after_fork(self) -> None:
        """In a forked child: forget the parent's connections without closing them."""
        ...
