"""From `input` until the server has all events: checks that none is lost, and measures the speed and the cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from typing import Any

import pytest
from bench_support import PAGE_VIEW_WITH_INT, SMOKE, interleaved, timer_per_event
from implementations import IMPLEMENTATIONS, Contender, Implementation, fastemit_of
from limits import loads_of_bodies
from pytest_benchmark.fixture import BenchmarkFixture
from servers import Nginx, Server

SCALE = 10 if SMOKE else 1
ROUNDS = 3 if SMOKE else 7
GROUP = "end to end: time per event"
RATIOS = "guards: the time that the whole test takes"

pytestmark = pytest.mark.timeout(150)


@dataclass(frozen=True)
class Cost:
    """One round: events a second, CPU microseconds of this process for an event, and the server's share of a core."""

    rate: float
    cpu: float
    server_share: float


def events_of(implementation: Implementation) -> int:
    return max(implementation.events // SCALE, 500)


def send(contender: Contender, events: int) -> None:
    take = contender.take
    for _ in repeat(None, events):
        take(PAGE_VIEW_WITH_INT)
    contender.finish()


def arrived(server: Server | Nginx, implementation: Implementation, events: int) -> None:
    """Checks that the server got each event once."""
    counts = server.counts()
    assert counts.failed_requests == 0
    if counts.events >= 0:
        assert counts.events == events
    assert counts.bytes == implementation.wire.bytes(counts.requests, events)


def measure(server: Server | Nginx, implementation: Implementation, events: int) -> Cost:
    server_cpu = server.reset().cpu_seconds
    cpu, started = time.process_time(), time.perf_counter()
    send(implementation.open(server.url), events)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    arrived(server, implementation, events)
    return Cost(events / seconds, cpu / events * 1e6, (server.counts().cpu_seconds - server_cpu) / seconds)


def with_timer(name: str) -> object:
    timer = timer_per_event(events_of(IMPLEMENTATIONS[name]))
    return pytest.param(name, marks=pytest.mark.benchmark(group=GROUP, timer=timer))


@pytest.mark.parametrize("name", [with_timer(name) for name in IMPLEMENTATIONS])
def test_end_to_end(name: str, quick_server: Server | Nginx, benchmark: BenchmarkFixture) -> None:
    implementation = IMPLEMENTATIONS[name]
    events = events_of(implementation)

    def setup() -> tuple[tuple[Contender, int], dict[str, Any]]:
        quick_server.reset()
        return (implementation.open(quick_server.url), events), {}

    benchmark.pedantic(send, setup=setup, rounds=2 if SMOKE else 3)
    arrived(quick_server, implementation, events)


def costs(
    server: Server | Nginx, implementations: dict[str, Implementation], benchmark: BenchmarkFixture
) -> dict[str, Cost]:
    """Medians of rounds in which the implementations take turns."""
    rounds: dict[str, list[Cost]] = {name: [] for name in implementations}

    def run_of(name: str) -> Callable[[], float]:
        def run() -> float:
            implementation = implementations[name]
            rounds[name].append(measure(server, implementation, events_of(implementation)))
            return rounds[name][-1].rate

        return run

    benchmark.pedantic(interleaved, ({name: run_of(name) for name in implementations}, ROUNDS), rounds=1)
    return {
        name: Cost(median(c.rate for c in each), median(c.cpu for c in each), median(c.server_share for c in each))
        for name, each in rounds.items()
    }


@pytest.mark.benchmark(group=RATIOS)
def test_end_to_end_ratios(
    quick_server: Server | Nginx, benchmark: BenchmarkFixture, record: Any, report: Callable[[str], None]
) -> None:
    middle = costs(quick_server, IMPLEMENTATIONS, benchmark)
    ours, hand, theirs = middle["fastemit"], middle["loop by hand"], middle["reference"]
    tuned = middle["reference, session, batch_size=500"]
    report(f"end to end, to {quick_server.name}:")
    for name, cost in middle.items():
        report(
            f"  {name}: {cost.rate:,.0f} events/s, {cost.cpu:.2f} us of CPU an event, "
            f"the server took {cost.server_share:.0%} of a core"
        )
    rates = {f"{name}, events/s": cost.rate for name, cost in middle.items()}
    cpu = {f"{name}, CPU us": cost.cpu for name, cost in middle.items()}
    guard = 3 if SMOKE else 1.5
    record("end to end", ours.rate / theirs.rate, "times the reference", 100, at_least=True, guard=guard, detail=rates)
    record("end to end, by hand", ours.rate / hand.rate, "times the loop by hand", 0.8, at_least=True, guard=guard)
    record("end to end, tuned", ours.rate / tuned.rate, "times the tuned reference", 6, at_least=True, guard=guard)
    record("CPU", theirs.cpu / ours.cpu, "times less than the reference", 80, at_least=True, guard=guard, detail=cpu)
    record("CPU, by hand", ours.cpu / hand.cpu, "times the loop by hand", 1.3, guard=guard)


@pytest.mark.benchmark(group=RATIOS)
def test_tls_ratio(tls_server: Server, benchmark: BenchmarkFixture, record: Any) -> None:
    both = {name: IMPLEMENTATIONS[name] for name in ("fastemit", "reference")}
    both["reference"] = Implementation(both["reference"].open, 1_000 * SCALE, both["reference"].wire)
    middle = costs(tls_server, both, benchmark)
    record(
        "TLS end to end",
        middle["fastemit"].rate / middle["reference"].rate,
        "times the reference",
        100,
        at_least=True,
        guard=3 if SMOKE else 1.5,
        detail={f"{name}, events/s": cost.rate for name, cost in middle.items()},
    )


@pytest.mark.benchmark(group=RATIOS)
def test_callback_ratio(server: Server, benchmark: BenchmarkFixture, record: Any) -> None:
    """What `on_success` adds, compared with what `orjson.loads` of the same bodies takes."""
    told = [0]

    def count(events: list[dict[str, Any]]) -> None:
        told[0] += len(events)

    events = 200_000 // SCALE

    def run_of(open_: Callable[[str], Contender]) -> Callable[[], float]:
        implementation = Implementation(open_, events, IMPLEMENTATIONS["fastemit"].wire)
        return lambda: measure(server, implementation, events).cpu

    runs = {
        "without, CPU us": run_of(fastemit_of()),
        "with on_success, CPU us": run_of(fastemit_of(on_success=count)),
        "orjson.loads, CPU us": lambda: loads_of_bodies(events),
    }
    results = benchmark.pedantic(interleaved, (runs, ROUNDS), rounds=1)
    middle = {name: median(values) for name, values in results.items()}
    assert told[0] == events * ROUNDS
    without, with_, limit = middle.values()
    record("on_success", (with_ - without) / limit, "times orjson.loads added", 1.3, guard=1.7, detail=middle)
