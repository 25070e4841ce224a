"""What the tests of whole emitters share: emitters that count, a recorder of callbacks, conditions with deadlines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import fastemit
from fastemit.testing import Collector
from tests.support.waiting import DEADLINE

TP2 = "/com.snowplowanalytics.snowplow/tp2"
#: Backoffs that a test waits for.
QUICK = 0.02
Events = Sequence[dict[str, Any]]


class _Counting:
    """Counts the calls of `input` that returned."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.returned = 0
        self._count_lock = threading.Lock()
        super().__init__(*args, **kwargs)

    def input(self, payload: Any) -> None:
        super().input(payload)  # type: ignore[misc]
        with self._count_lock:
            self.returned += 1


class CountingEmitter(_Counting, fastemit.Emitter):
    pass


class CountingAsyncEmitter(_Counting, fastemit.AsyncEmitter):
    pass


def accounted(stats: fastemit.EmitterStats) -> int:
    """Events that were given to `input`, as the counters tell it."""
    return stats.sent_events + sum(stats.dropped_events.values()) + stats.queued_events + stats.in_flight_events


class Recorder:
    """Both callbacks: what they were called with, in order."""

    def __init__(self) -> None:
        self.successes: list[list[dict[str, str]]] = []
        self.failures: list[tuple[int, list[dict[str, str]]]] = []

    def success(self, events: list[dict[str, str]]) -> None:
        self.successes.append(events)

    def failure(self, sent_count: int, events: list[dict[str, str]]) -> None:
        self.failures.append((sent_count, events))


def numbered(*numbers: int) -> list[dict[str, str]]:
    """Payloads of the same size, told apart by `n`."""
    return [{"n": f"{number:05}"} for number in numbers]


def numbers(events: Iterable[dict[str, Any]]) -> list[int]:
    return [int(event["n"]) for event in events]


def feed(emitter: fastemit.Emitter, *payloads: dict[str, Any]) -> None:
    for payload in payloads:
        emitter.input(payload)


def requests_of(collector: Collector) -> list[list[int]]:
    """The numbers of the events of each request, in the order of arrival."""
    return [numbers(request.events) for request in collector.requests]


def threads_of(count: int, target: Callable[[int], object]) -> list[threading.Thread]:
    """So many started daemon threads, each with its number."""
    threads = [threading.Thread(target=target, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def join(threads: Iterable[threading.Thread], timeout: float = DEADLINE) -> None:
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
        assert not thread.is_alive()


def sender_threads() -> Iterator[threading.Thread]:
    return (thread for thread in threading.enumerate() if thread.name.startswith("fastemit-sender"))
