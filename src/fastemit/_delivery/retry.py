"""What an answer means, and how long to wait: pure rules, with time and chance passed in."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping
from datetime import timezone
from typing import Final

#: Statuses that mean that the events themselves are not wanted. The list of snowplow_tracker.
NOT_RETRIED: Final = frozenset({400, 401, 403, 410, 422})
#: After so many answers of this kind a batch is no longer sent as one; see `Verdict.KEEP`.
POISON_AFTER: Final = 5
#: The least seconds from a failure to the next attempt, so that a tiny `max_retry_delay_seconds` makes no busy loop.
MIN_DELAY: Final = 0.01


class Verdict(enum.Enum):
    """What becomes of the events of one request."""

    SENT = "sent"
    REJECTED = "rejected"
    SPLIT = "split"
    KEEP = "keep"


def judge(status: int | None, events: int, custom_retry_codes: Mapping[int, bool]) -> Verdict:
    """The verdict on a request with `events` events that was answered with `status` (None: no answer).

    2xx is always sent. 413 with two or more events is always split, because a smaller request may pass.
    `custom_retry_codes` decides everything else that it names. For the rest the rules are those of snowplow_tracker.
    """
    if status is None:
        return Verdict.KEEP
    if 200 <= status < 300:
        return Verdict.SENT
    if status == 413 and events > 1:
        return Verdict.SPLIT
    # They are read once, because the user may change them at any time.
    retry = custom_retry_codes.get(status)
    if retry is not None:
        return Verdict.KEEP if retry else Verdict.REJECTED
    if status in NOT_RETRIED or (status in (413, 414) and events == 1):
        return Verdict.REJECTED
    return Verdict.KEEP


def is_poison_sign(status: int | None) -> bool:
    """Whether one event may have caused `status`: a server error, but not 503, which is about the server."""
    return status is not None and 500 <= status < 600 and status != 503


def retry_after_seconds(status: int | None, value: str | None, now: float) -> float | None:
    """Seconds that a 429 or 503 asks to wait; None if it does not, or if what it asks makes no sense.

    Args:
        status: the answer's status.
        value: its `Retry-After` header: seconds, or a date (RFC 9110, 10.2.3).
        now: the time in seconds since 1970, which a date is compared with.
    """
    if status not in (429, 503) or value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # Cut before int(), because a header of 10,000 digits is no number that anybody meant.
        seconds = float(int(value[:18]))
    else:
        # Imported here, because it takes longer than all of this package. Transports over HTTP have imported it before
        # there are threads.
        from email.utils import parsedate_to_datetime

        try:
            when = parsedate_to_datetime(value)
            if when.tzinfo is None:
                when = when.replace(tzinfo=timezone.utc)
            seconds = when.timestamp() - now
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return seconds if seconds > 0 else None


def by_chance() -> float:
    """0 <= x < 1. From the system, since the module `random` would be one more to import at the start."""
    return int.from_bytes(os.urandom(6), "little") / 2**48


class Backoff:
    """The delay after failures: one for an emitter, however many requests fail in the same outage.

    The delay is that of snowplow_tracker: `min(2 * delay + random(0..1), max_delay)`. Each request knows the
    `generation` in which it started. The outcome of an older one changes nothing, so ten requests that fail together
    count once.

    Thread safety: none of its own; the delivery's lock is held around each call.

    Args:
        max_delay: longest delay, in seconds.
        chance: a function that gives 0 <= x < 1.
    """

    def __init__(self, max_delay: float, chance: Callable[[], float] = by_chance) -> None:
        self.max_delay = max_delay
        self._chance = chance
        self.generation = 0
        #: Seconds. The next failure doubles them.
        self.delay = 0.0
        #: Seconds of the present wait: the delay, or what the collector asked for if that is longer. 0 when open.
        self.wait = 0.0
        #: Whether sending goes on freely, because there is no wait.
        self.open = True
        #: When the wait is over, on the clock of `now`.
        self.until = 0.0

    def limit(self, max_delay: float) -> None:
        """Change the longest delay. A longer wait ends sooner."""
        self.max_delay = max_delay
        self.delay = min(self.delay, max_delay)
        if self.wait > max_delay:
            # But not before `MIN_DELAY` has passed, even if the wait is nearly nothing.
            self.until -= max(self.wait, MIN_DELAY) - max(max_delay, MIN_DELAY)
            self._wait_for(max_delay)

    def failed(self, generation: int, now: float, asked: float | None = None) -> bool:
        """A request of `generation` failed and its events are kept. True if this changed the delay.

        Args:
            generation: the one that the request started in.
            now: a monotonic time, in seconds.
            asked: seconds of a `Retry-After`, if there was one.
        """
        if generation != self.generation:
            return False
        self.generation += 1
        # A delay of exactly 0 would be no backoff. chance gives 0 once in 2**53 calls.
        self.delay = min(2 * self.delay + (self._chance() or 1e-3), self.max_delay)
        self._wait_for(min(max(self.delay, asked or 0.0), self.max_delay))
        self.until = now + max(self.wait, MIN_DELAY)
        return True

    def succeeded(self, generation: int) -> bool:
        """A request of `generation` was answered for good. True if that opened the gate."""
        if generation != self.generation or self.open:
            return False
        self.delay = 0.0
        self._wait_for(0.0)
        return True

    def _wait_for(self, seconds: float) -> None:
        self.wait = seconds
        # An attribute of its own, because it is read several times for each request.
        self.open = seconds == 0.0

    def hurry(self, until: float) -> None:
        """Wait no longer than `until`."""
        self.until = min(self.until, until)
