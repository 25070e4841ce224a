"""A backlog that fails and is kept: what it costs per event does not grow with the number of events.

A cycle is what an outage costs an emitter with this many queued events. One request is answered 500, and its events go
back to the front. Then everything is sent, through `Emitter.flush` and the real delivery. Both flushes are timed,
filling the buffer is not. The second flush ignores the backoff that the first has started, so it includes no waiting.

The larger backlog is cheaper per event. A request costs some hundred microseconds of Python however many events it
carries, and so do the two hand-overs to the sender thread, so 100 events share the same cost as 10,000. The limit, 1.5
times the cost of the small one, is there to find work per event that grows with the backlog. `snowplow_tracker` has
such work: for each event that it puts back, it searches all queued events.
"""

from __future__ import annotations

import time
from itertools import repeat
from typing import Any

import pytest
from bench_support import PAGE_VIEW, SMOKE, interleaved, medians, timer_per_event
from pytest_benchmark.fixture import BenchmarkFixture
from servers import Server

from fastemit import Emitter

SIZES = (100, 1_000, 10_000)
ROUNDS = 10 if SMOKE else 40
#: The default: 10,000 events take three requests, and one of them fails. And a size with room for all of them.
REQUEST_BYTES = {"1 MB requests": 1_000_000, "one request": 8_000_000}


class Backlog:
    """An emitter that is filled with `size` events, which fail once and are then sent, again and again."""

    def __init__(self, server: Server, size: int, request_bytes: int) -> None:
        self._server = server
        self.size = size
        # Neither limit is reached, so nothing is sent before `flush`.
        self._emitter = Emitter(
            server.url, batch_size=size + 1, buffer_capacity=size + 1, max_request_bytes=request_bytes
        )

    def fill(self) -> None:
        take = self._emitter.input
        for _ in repeat(None, self.size):
            take(PAGE_VIEW)
        self._server.reset()
        self._server.fail(1)
        self._retried = self._emitter.stats().retried_events

    def fail_and_send(self) -> None:
        self._emitter.flush()
        self._emitter.flush()

    def check(self) -> None:
        counts, stats = self._server.counts(), self._emitter.stats()
        assert counts.events == self.size
        assert counts.failed_requests == 1
        assert counts.failed_events == stats.retried_events - self._retried > 0
        assert stats.queued_events == stats.in_flight_events == 0
        assert sum(stats.dropped_events.values()) == 0

    def run(self) -> float:
        """Microseconds per event of one cycle."""
        self.fill()
        started = time.perf_counter()
        self.fail_and_send()
        took = time.perf_counter() - started
        self.check()
        return took / self.size * 1e6


def with_timer(size: int) -> object:
    return pytest.param(size, marks=pytest.mark.benchmark(timer=timer_per_event(size)))


@pytest.mark.parametrize("size", [with_timer(size) for size in SIZES])
@pytest.mark.parametrize("requests", REQUEST_BYTES)
def test_backlog(requests: str, size: int, server: Server, benchmark: BenchmarkFixture) -> None:
    benchmark.group = f"a backlog fails once and is sent, {requests}: time per event"
    backlog = Backlog(server, size, REQUEST_BYTES[requests])
    backlog.run()
    benchmark.pedantic(backlog.fail_and_send, setup=backlog.fill, rounds=ROUNDS)
    backlog.check()


@pytest.mark.parametrize("requests", REQUEST_BYTES)
@pytest.mark.benchmark(group="guards: the time that the whole test takes")
def test_backlog_ratios(requests: str, server: Server, benchmark: BenchmarkFixture, record: Any) -> None:
    backlogs = [Backlog(server, size, REQUEST_BYTES[requests]) for size in SIZES]
    for backlog in backlogs:
        backlog.run()
    runs = {f"{backlog.size:,}": backlog.run for backlog in backlogs}
    results = benchmark.pedantic(interleaved, (runs, ROUNDS), rounds=1)
    microseconds = medians(results)
    ratio = microseconds["10,000"] / microseconds["100"]
    detail = {f"{size} events, us": value for size, value in microseconds.items()}
    record(f"a backlog that fails, {requests}", ratio, "of 100 events' cost with 10,000", 1.5, guard=1, detail=detail)
