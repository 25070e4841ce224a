"""What the collector has received and will answer: all of its state, and the lock around it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from fastemit._time import monotonic
from fastemit.testing._answer import NOT_FOUND, OK, Answer, check_status
from fastemit.testing._payload import judge
from fastemit.testing._request import Request

T = TypeVar("T")


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


class Ticket(NamedTuple):
    """The journal when a request arrived, to tell later whether it was reset or released since."""

    generation: int
    releases: int


class Journal:
    """Requests in the order of arrival, accepted ones in the order of acceptance, and the script.

    Thread safety: every method may be called from any thread. `_changed` covers the lists, the script and the
    counters, and is held for a few assignments only. `_decoding` is held by whoever asks for events while
    they are decoded, which the connection threads never wait for: they do no JSON. Taken in the order
    `_decoding`, `_changed`.
    """

    def __init__(self, *, keeps_bodies: bool) -> None:
        self.keeps_bodies = keeps_bodies
        self.closing = threading.Event()
        self._changed = threading.Condition(threading.Lock())
        self._decoding = threading.Lock()
        self._script: deque[Answer] = deque()
        self._generation = 0
        self._releases = 0
        self._failure: Exception | None = None
        self._forget()

    def _forget(self) -> None:
        self._requests: list[Request] = []
        self._accepted: list[Request] = []
        self._events: list[dict[str, Any]] = []
        self._decoded_count = 0  # how many of _accepted are in _events
        self._verdict = Verdict([], [])
        self._judged_count = 0  # how many of _accepted are in _verdict

    # What the connection threads call.

    def arrived(self, request: Request) -> tuple[Answer, Ticket]:
        """Note a request and take its answer from the script."""
        with self._changed:
            answer = self._next_answer(request)
            self._requests.append(request)
            if answer.is_immediate:
                assert isinstance(answer.status, int)
                self._note_answered(request, answer, answer.status)
            elif answer.accept:
                self._note_accepted(request)
            self._changed.notify_all()
            return answer, Ticket(self._generation, self._releases)

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
        """The status of an answer; what a function of the user's raises, the next wait raises."""
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
                self._note_answered(request, answer, status)
                self._changed.notify_all()

    def _note_answered(self, request: Request, answer: Answer, status: int) -> None:
        request.answered(status)
        kept_already = answer.accept and not answer.is_immediate
        if (status < 300 if answer.accept is None else answer.accept) and not kept_already:
            self._note_accepted(request)

    def _note_accepted(self, request: Request) -> None:
        if request.carries_events:
            self._accepted.append(request)

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
            return list(self._requests)

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
        while self._decoded_count < len(self._accepted):
            self._events += self._accepted[self._decoded_count].events
            self._decoded_count += 1

    def verdict(self) -> Verdict:
        """The accepted events so far, judged."""
        self._need_bodies()
        with self._decoding:
            good, bad = self._verdict
            while self._judged_count < len(self._accepted):
                request = self._accepted[self._judged_count]
                self._judged_count += 1
                if request.decoded.error is not None:
                    bad.append(BadEvent(request, None, [request.decoded.error]))
                for event in request.decoded.items:
                    if errors := judge(event):
                        bad.append(BadEvent(request, event, errors))
                    else:
                        good.append((request, event))
            return Verdict(list(good), list(bad))

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
            with self._changed:
                # Not Condition.wait_for, which reads `time.monotonic`: a test may have frozen that.
                while self._mark() == seen and (remaining := deadline - monotonic()) > 0:
                    self._changed.wait(remaining)
                if self._mark() == seen:
                    raise TimeoutError(self._explain(len(found), count, timeout, what))

    def _mark(self) -> tuple[int, int, int, bool]:
        return self._generation, len(self._requests), len(self._accepted), self._failure is not None

    def _explain(self, found: int, count: int, timeout: float, what: str) -> str:
        answers: dict[int | None, int] = {}
        for request in self._requests:
            answers[request.status] = answers.get(request.status, 0) + 1
        listed = ", ".join(f"{status or 'no answer'}: {number}" for status, number in answers.items())
        return f"{found} of {count} {what} arrived within {timeout:g} s; requests by answer: {listed or 'none'}"
