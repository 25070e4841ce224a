"""Who is woken by an event: the one writer of the buffer's four wake flags."""

from __future__ import annotations

from fastemit._buffer import EventBuffer
from fastemit._delivery.waiting import Inbox


class Waking:
    """Writes `hold`, `linger`, `notify` and `starving` of a buffer, which `append` reads.

    Thread safety: the delivery's lock is held around each call.

    Args:
        buffer: the delivery's.
    """

    def __init__(self, buffer: EventBuffer) -> None:
        self._buffer = buffer
        self._urgent: set[Inbox] = set()

    def hold(self, value: bool) -> None:
        """Whether no event wakes a sender: the gate is shut, or it is not the number of events that decides."""
        self._buffer.hold = value

    def linger(self, value: bool) -> None:
        """Whether an event wakes a sender only when there is much to send: a request was made a moment ago."""
        self._buffer.linger = value

    def notify(self, when: int) -> None:
        """When `append` asks for a call of `Delivery.answer`: one of the `NOTIFY_` numbers."""
        self._buffer.notify = when

    def urge(self, inbox: Inbox) -> None:
        """Take no event but those of `inbox`'s owner, and of others that have waited as long."""
        self._urgent.add(inbox)
        self._buffer.starving = len(self._urgent)

    def relax(self, inbox: Inbox) -> bool:
        """End that for `inbox`'s owner, if it was so; whether it was. May be said again."""
        was = inbox in self._urgent or self._buffer.starving != len(self._urgent)
        self._urgent.discard(inbox)
        # Counted anew, and not one less: a signal handler may have raised in the middle of `urge`, or of this.
        self._buffer.starving = len(self._urgent)
        return was
