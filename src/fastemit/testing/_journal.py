"""What the collector has received and will answer: all of its state, and the lock around it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from fastemit._time import monotonic
from fastemit._words import counted
from fastemit.testing._answer import NOT_FOUND, OK, Answer, check_status
from fastemit.testing._payload import judge
from fastemit.testing._request import Request

T = TypeVar("T")

#: The bytes that a request is taken to need besides its body and its target.
_REQUEST_BYTES = 1000


class BadEvent(NamedTuple):
    """One event, or one whole request, that does not follow the payload_data 1-0-4 rules."""

    #: The request it came with.
    request: Request
    #: The event as decoded; None when the request as a whole could not be decoded.
    event: Any
    #: What is wrong with it: at least one sentence.
    errors: list[str]


class Verdict(NamedTuple):
    """The accepted events, judged."""

    good: list[tuple[Request, dict[str, Any]]]
    bad: list[BadEvent]


class Totals(NamedTuple):
    """What came since the start or the last reset, including what is no longer kept."""

    requests: int
    #: Accepted events that follow the payload_data 1-0-4 rules.
    good: int
    #: Those that do not, and bodies that are no envelope.
    bad: int
    #: How many of `good` and `bad` are no longer kept, because newer ones needed the room.
    forgotten: int


class Ticket(NamedTuple):
    """The journal when a request arrived, to tell later whether it was reset or released since."""

    generation: int
    releases: int
    #: The request's place in the order of arrival.
    number: int


class Journal:
    """Requests in the order of arrival, accepted ones in the order of acceptance, and the script.

    Thread safety: every method may be called from any thread. `_changed` covers the lists, the script and the
    counters, and is held for a few assignments only. Whoever asks for events holds `_decoding` while they are
    decoded. The connection threads wait for `_decoding`, and parse JSON, only when there is more than may be kept.
    `_decoding` is taken before `_changed`.

    Args:
        keeps_bodies: whether events can be asked for.
        max_bytes: bytes that may be kept. When there are more, the oldest requests are forgotten with their events,
            but never the newest one. None: no bound.
    """

    def __init__(self, *, keeps_bodies: bool, max_bytes: int | None) -> None:
        self.keeps_bodies = keeps_bodies
        self._max_bytes = max_bytes
        self.closing = threading.Event()
        self._changed = threading.Condition(threading.Lock())
        self._decoding = threading.Lock()
        self._script: deque[Answer] = deque()
        self._generation = 0
        self._releases = 0
        self._failure: Exception | None = None
        self._forget()

    def _forget(self) -> None:
        # The keys of both are places in the order of arrival. The second one is sorted by acceptance.
        self._requests: dict[int, Request] = {}
        self._accepted: dict[int, Request] = {}
        self._arrived_count = 0
        self._accepted_count = 0
        self._bytes = 0
        self._events: list[dict[str, Any]] = []
        self._undecoded: list[Request] = []  # what of _accepted is not in _events yet
        self._verdict = Verdict([], [])
        self._unjudged: list[Request] = []  # what of _accepted is not in _verdict yet
        self._forgotten_good = 0
        self._forgotten_bad = 0

    # What the connection threads call.

    def arrived(self, request: Request) -> tuple[Answer, Ticket]:
        """Note a request and take its answer from the script."""
        with self._changed:
            answer = self._next_answer(request)
            ticket = Ticket(self._generation, self._releases, self._arrived_count)
            self._arrived_count += 1
            self._requests[ticket.number] = request
            self._bytes += _size(request)
            if answer.is_immediate:
                assert isinstance(answer.status, int)
                self._note_answered(request, answer, answer.status, ticket)
            elif answer.accept:
                self._note_accepted(request, ticket)
            self._changed.notify_all()
            full = self._is_full()
        if full:
            self._make_room()
        return answer, ticket

    def _is_full(self) -> bool:
        return self._max_bytes is not None and self._bytes > self._max_bytes and len(self._requests) > 1

    def _make_room(self) -> None:
        """Forget the oldest requests, with their events, which are counted first."""
        with self._decoding:
            while True:
                with self._changed:
                    if not self._is_full():
                        return
                    number, oldest = next(iter(self._requests.items()))
                    accepted = number in self._accepted
                # Parses JSON, so `_changed` is not held. No reset can come meanwhile, because it needs `_decoding`. The
                # request may be accepted meanwhile; then it is looked at again.
                judged = self._judged(oldest) if accepted else Verdict([], [])
                with self._changed:
                    if accepted != (number in self._accepted):
                        continue
                    del self._requests[number]
                    self._bytes -= _size(oldest)
                    if not accepted:
                        continue
                    self._count_forgotten(judged)
                    self._drop(number, oldest, judged)

    def _drop(self, number: int, oldest: Request, judged: Verdict) -> None:
        """Take an accepted request out of all lists."""
        is_first = next(iter(self._accepted)) == number
        del self._accepted[number]
        if not is_first:  # it was accepted later than it came, so its events are somewhere in the middle
            self._undecoded, self._unjudged = list(self._accepted.values()), list(self._accepted.values())
            self._events, self._verdict = [], Verdict([], [])
            return
        if self._undecoded and self._undecoded[0] is oldest:
            del self._undecoded[0]
        else:
            del self._events[: len(oldest.events) if self.keeps_bodies else 0]
        if self._unjudged and self._unjudged[0] is oldest:
            del self._unjudged[0]
        else:
            del self._verdict.good[: len(judged.good)]
            del self._verdict.bad[: len(judged.bad)]

    def _judged(self, request: Request) -> Verdict:
        found = Verdict([], [])
        if self.keeps_bodies:
            _judge_into(found, request)
        return found

    def _count_forgotten(self, judged: Verdict) -> None:
        self._forgotten_good += len(judged.good)
        self._forgotten_bad += len(judged.bad)

    def _next_answer(self, request: Request) -> Answer:
        if not self._script:
            return OK if request.carries_events else NOT_FOUND
        answer = self._script[0]
        if answer.times is not None:
            answer.times -= 1
            if answer.times == 0:
                self._script.popleft()
        return answer

    def decide(self, answer: Answer, request: Request) -> int:
        """The status of an answer. If the user's function raises, the next wait raises that."""
        if not callable(answer.status):
            return answer.status
        try:
            return check_status("status", answer.status(request))
        except Exception as error:  # noqa: BLE001  the user's own function: it may raise anything
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            return 500

    def answering(self, request: Request, answer: Answer, status: int, ticket: Ticket) -> None:
        """Note that an answer that was not immediate is about to go out."""
        with self._changed:
            if ticket.generation == self._generation:
                self._note_answered(request, answer, status, ticket)
                self._changed.notify_all()

    def _note_answered(self, request: Request, answer: Answer, status: int, ticket: Ticket) -> None:
        request.answered(status)
        kept_already = answer.accept and not answer.is_immediate
        if (status < 300 if answer.accept is None else answer.accept) and not kept_already:
            self._note_accepted(request, ticket)

    def _note_accepted(self, request: Request, ticket: Ticket) -> None:
        if not request.carries_events:
            return
        self._accepted_count += 1
        if ticket.number not in self._requests:  # it had to go while its answer was waited for
            self._count_forgotten(self._judged(request))
            return
        self._accepted[ticket.number] = request
        self._undecoded.append(request)
        self._unjudged.append(request)

    def hold(self, ticket: Ticket) -> bool:
        """Wait for a release. False when the collector is closing instead."""
        with self._changed:
            self._changed.wait_for(lambda: self.closing.is_set() or self._releases != ticket.releases)
            return not self.closing.is_set()

    # What the collector's user calls.

    def close(self) -> None:
        """Wake every connection that waits."""
        with self._changed:
            self.closing.set()
            self._changed.notify_all()

    def script(self, answer: Answer) -> None:
        """Append to the script; an entry without end yields its place."""
        with self._changed:
            if self._script and self._script[-1].times is None:
                self._script.pop()
            self._script.append(answer)

    def release(self) -> None:
        """Let the held requests be answered."""
        with self._changed:
            self._releases += 1
            self._changed.notify_all()

    def reset(self) -> None:
        """Forget everything and let the held requests be answered."""
        with self._decoding, self._changed:
            self._generation += 1
            self._releases += 1
            self._failure = None
            self._script.clear()
            self._forget()
            self._changed.notify_all()

    def requests(self) -> list[Request]:
        """The requests so far."""
        with self._changed:
            return list(self._requests.values())

    def events(self) -> list[dict[str, Any]]:
        """The accepted events so far, decoding what came since the last time."""
        self._need_bodies()
        with self._decoding:
            self._decode()
            return list(self._events)

    def _need_bodies(self) -> None:
        if not self.keeps_bodies:
            raise RuntimeError("events are not known: the collector was made with keep_bodies=False")

    def _decode(self) -> None:
        with self._changed:
            new, self._undecoded = self._undecoded, []
        for request in new:
            self._events += request.events

    def verdict(self) -> Verdict:
        """The accepted events so far, judged."""
        self._need_bodies()
        with self._decoding:
            self._judge()
            return Verdict(list(self._verdict.good), list(self._verdict.bad))

    def _judge(self) -> None:
        with self._changed:
            new, self._unjudged = self._unjudged, []
        for request in new:
            _judge_into(self._verdict, request)

    def totals(self) -> Totals:
        """How much came."""
        self._need_bodies()
        with self._decoding:
            self._judge()
            with self._changed:
                good, bad = self._forgotten_good, self._forgotten_bad
                return Totals(
                    self._arrived_count,
                    len(self._verdict.good) + good,
                    len(self._verdict.bad) + bad,
                    good + bad,
                )

    def wait_for(self, count: int, timeout: float) -> list[dict[str, Any]]:
        """Wait until `count` events were accepted."""
        return self._wait(count, timeout, self.events, "events")

    def wait_for_requests(self, count: int, timeout: float) -> list[Request]:
        """Wait until `count` requests arrived."""
        return self._wait(count, timeout, self.requests, "requests")

    def _wait(self, count: int, timeout: float, get: Callable[[], list[T]], what: str) -> list[T]:
        deadline = monotonic() + timeout
        while True:
            with self._changed:
                seen = self._mark()
            found = get()
            if self._failure is not None:
                raise RuntimeError("the function given to respond(status=...) failed") from self._failure
            if len(found) >= count:
                return found
            self._check_kept(what)
            with self._changed:
                # Not Condition.wait_for, which reads `time.monotonic`: a test may have frozen that.
                while self._mark() == seen and (remaining := deadline - monotonic()) > 0:
                    self._changed.wait(remaining)
                if self._mark() == seen:
                    raise TimeoutError(self._explain(len(found), count, timeout, what))

    def _check_kept(self, what: str) -> None:
        """Raise if requests were forgotten, because these may have been what the caller waits for."""
        with self._changed:
            gone = self._arrived_count - len(self._requests)
            events = self._forgotten_good + self._forgotten_bad
        if gone:
            raise RuntimeError(
                f"cannot tell how many {what} arrived: the oldest were forgotten ({counted(gone, 'request')} with "
                f"{counted(events, 'event')}), because more than max_bytes={self._max_bytes} came; give the collector "
                "more, or None for no bound"
            )

    def _mark(self) -> tuple[int, int, int, bool]:
        return self._generation, self._arrived_count, self._accepted_count, self._failure is not None

    def _explain(self, found: int, count: int, timeout: float, what: str) -> str:
        answers: dict[int | None, int] = {}
        for request in self._requests.values():
            answers[request.status] = answers.get(request.status, 0) + 1
        listed = ", ".join(f"{status or 'no answer'}: {number}" for status, number in answers.items())
        return f"{found} of {count} {what} arrived within {timeout:g} s; requests by answer: {listed or 'none'}"


def _size(request: Request) -> int:
    return _REQUEST_BYTES + len(request.body) + len(request.target)


def _judge_into(verdict: Verdict, request: Request) -> None:
    if request.decoded.error is not None:
        verdict.bad.append(BadEvent(request, None, [request.decoded.error]))
    for event in request.decoded.items:
        if errors := judge(event):
            verdict.bad.append(BadEvent(request, event, errors))
        else:
            verdict.good.append((request, event))
