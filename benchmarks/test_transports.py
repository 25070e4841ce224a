"""The short way of a request, `_transport/exchange.py`, compared with urllib3 and http.client for all of it.

Both are in one run, and `HttpTransport.lean` chooses. Everything else is the same: ring, passes, connection, server.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from typing import Any

import pytest
from bench_support import PAGE_VIEW_WITH_INT, SMOKE, event_of, interleaved
from pytest_benchmark.fixture import BenchmarkFixture
from servers import Nginx, Server

import fastemit
from fastemit._transport import HttpTransport

ROUNDS = 3 if SMOKE else 9
#: The two ways, named by the value of the switch.
WAYS = {"now": True, "before": False}
SMALL = "page views"
EVENTS: dict[str, dict[str, Any]] = {SMALL: PAGE_VIEW_WITH_INT, "1 kB": event_of(1_000), "10 kB": event_of(10_000)}
#: Bytes of events in a round.
TOTAL = 15_000_000 if SMOKE else 150_000_000

pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.benchmark(group="guards: the time that the whole test takes"),
]


@dataclass(frozen=True)
class Cost:
    """One round: events a second, and CPU microseconds for an event, of the process and of its sender thread."""

    rate: float
    cpu: float
    sender: float


def sender_clock(emitter: fastemit.Emitter) -> int:
    """The clock that measures the CPU time of its one sender thread."""
    (ident,) = emitter._delivery._guard.sending
    return time.pthread_getcpuclockid(ident)


def open_emitter(url: str, lean: bool, **settings: Any) -> fastemit.Emitter:
    """An emitter whose requests go this way. Its thread and its connection exist already."""
    before, HttpTransport.lean = HttpTransport.lean, lean
    try:
        emitter = fastemit.Emitter(url, **settings)
    finally:
        HttpTransport.lean = before
    for _ in repeat(None, 10):
        emitter.input(PAGE_VIEW_WITH_INT)
    assert emitter.drain(10)
    return emitter


def measure(emitter: fastemit.Emitter, put: Callable[[], int]) -> Cost:
    """The cost of the events that `put` passes to the emitter. `put` returns how many there are."""
    clock = sender_clock(emitter)
    sender, cpu, started = time.clock_gettime(clock), time.process_time(), time.perf_counter()
    count = put()
    assert emitter.drain(60)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    sender = time.clock_gettime(clock) - sender
    assert emitter.close(10) == 0
    assert emitter.stats().failed_requests == 0
    return Cost(count / seconds, cpu / count * 1e6, sender / count * 1e6)


def both(benchmark: BenchmarkFixture, run: Callable[[bool], Cost]) -> dict[str, Cost]:
    """Medians of rounds in which the two ways take turns."""
    costs: dict[str, list[Cost]] = {name: [] for name in WAYS}

    def run_of(name: str) -> Callable[[], float]:
        def once() -> float:
            costs[name].append(run(WAYS[name]))
            return costs[name][-1].rate

        return once

    benchmark.pedantic(interleaved, ({name: run_of(name) for name in WAYS}, ROUNDS), rounds=1)
    return {
        name: Cost(median(c.rate for c in each), median(c.cpu for c in each), median(c.sender for c in each))
        for name, each in costs.items()
    }


def full_speed(url: str, event: dict[str, Any], lean: bool) -> Cost:
    emitter = open_emitter(url, lean)
    take, count = emitter.input, TOTAL // (280 if event is PAGE_VIEW_WITH_INT else len(event["data"]))

    def put() -> int:
        for _ in repeat(None, count):
            take(event)
        return count

    return measure(emitter, put)


def told(costs: dict[str, Cost]) -> dict[str, float]:
    detail = {f"{name}, events/s": cost.rate for name, cost in costs.items()}
    detail |= {f"{name}, CPU us": cost.cpu for name, cost in costs.items()}
    return detail | {f"{name}, sender's CPU us": cost.sender for name, cost in costs.items()}


@pytest.mark.parametrize(("name", "aim"), [(SMALL, 1.15), ("1 kB", 1.3), ("10 kB", 1.3)])
def test_full_speed(
    name: str, aim: float, quick_server: Server | Nginx, benchmark: BenchmarkFixture, record: Any
) -> None:
    costs = both(benchmark, lambda lean: full_speed(quick_server.url, EVENTS[name], lean))
    now, before = costs["now"], costs["before"]
    what = "times urllib3 and http.client"
    if name == SMALL:
        record(f"a short way, {name}, CPU", now.cpu / before.cpu, what, 0.8, guard=1.4)
    record(f"a short way, {name}", now.rate / before.rate, what, aim, at_least=True, guard=1.5, detail=told(costs))


@pytest.mark.parametrize("name", EVENTS)
def test_tls(name: str, tls_server: Server, benchmark: BenchmarkFixture, record: Any) -> None:
    costs = both(benchmark, lambda lean: full_speed(tls_server.url, EVENTS[name], lean))
    ratio = costs["now"].rate / costs["before"].rate
    what = "times urllib3 and http.client"
    record(f"a short way, TLS, {name}", ratio, what, 1, at_least=True, guard=1.3, detail=told(costs))


def test_paced(quick_server: Server | Nginx, benchmark: BenchmarkFixture, record: Any) -> None:
    """The share of a core that the sender thread takes at 20,000 page views a second, as in a busy service."""
    seconds, step = (0.4 if SMOKE else 1.2), 0.01
    at_once = int(20_000 * step)

    def run(lean: bool) -> Cost:
        emitter = open_emitter(quick_server.url, lean)

        def put() -> int:
            next_at, count = time.perf_counter(), 0
            while count < seconds * 20_000:
                for _ in repeat(None, at_once):
                    emitter.input(PAGE_VIEW_WITH_INT)
                count += at_once
                next_at += step
                time.sleep(max(next_at - time.perf_counter(), 0))
            return count

        return measure(emitter, put)

    costs = both(benchmark, run)
    ratio = costs["now"].sender / costs["before"].sender
    detail = {f"{name}, % of a core": cost.sender * 20_000 / 1e4 for name, cost in costs.items()}
    record("a short way, sender at 20,000 a second", ratio, "times its CPU before", 0.5, guard=1.4, detail=detail)


def test_get(quick_server: Server | Nginx, benchmark: BenchmarkFixture, record: Any) -> None:
    count = 300 if SMOKE else 3_000

    def run(lean: bool) -> Cost:
        emitter = open_emitter(quick_server.url, lean, method="get")

        def put() -> int:
            for _ in repeat(None, count):
                emitter.input(PAGE_VIEW_WITH_INT)
            return count

        return measure(emitter, put)

    costs = both(benchmark, run)
    ratio = costs["now"].rate / costs["before"].rate
    what = "times urllib3 and http.client"
    record("a short way, GET", ratio, what, 2, at_least=True, guard=1.5, detail=told(costs))
