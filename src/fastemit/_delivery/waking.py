"""When an event wakes somebody. Only this module writes the four wake flags of the buffer."""

from __future__ import annotations

from fastemit._delivery.waiting import Inbox
from fastemit._interfaces import EventQueue


class Waking:
    """Writes `hold`, `linger`, `notify` and `starving` of a buffer, which `append` reads.

    Thread safety: the delivery's lock is held around each call.

    Args:
        buffer: the delivery's.
    """

    def __init__(self, buffer: EventQueue) -> None:
        self._buffer = buffer
        self._urgent: set[Inbox] = set()

    def hold(self, value: bool) -> None:
        """Whether no event wakes a sender, because the gate is shut, or something else than their number decides."""
        self._buffer.hold = value

    def linger(self, value: bool) -> None:
        """Whether events wake a sender only when there is much to send, because a request was made a moment ago."""
        self._buffer.linger = value

    def notify(self, when: int) -> None:
        """When `append` asks for a call of `Delivery.answer`. One of the `NOTIFY_` numbers."""
        self._buffer.notify = when

    def urge(self, inbox: Inbox) -> None:
        """Accept only events of the owner of `inbox`, and of others that have waited as long."""
        self._urgent.add(inbox)
        self._buffer.starving = len(self._urgent)

    def relax(self, inbox: Inbox) -> bool:
        """End `urge` for the owner of `inbox`. Returns whether it was urgent. May be called again."""
        was = inbox in self._urgent or self._buffer.starving != len(self._urgent)
        self._urgent.discard(inbox)
        # Counted from the start, because a signal handler may have raised in the middle of `urge`, or of this.
        self._buffer.starving = len(self._urgent)
        return was
