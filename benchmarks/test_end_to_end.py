"""From `input` to the server's count, with default settings: nothing is lost, and how fast that is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from statistics import median

import pytest
import snowplow_tracker
from bench_support import PAGE_VIEW_WITH_INT, SMOKE, Server, interleaved, timer_per_event
from pytest_benchmark.fixture import BenchmarkFixture

import fastemit

FASTEMIT_EVENTS = 50_000 if SMOKE else 500_000
REFERENCE_EVENTS = 1_000 if SMOKE else 5_000
ROUNDS = 3 if SMOKE else 5
GROUP = "end to end, default settings: time per event"

pytestmark = pytest.mark.timeout(150)


def send_with_fastemit(server: Server, events: int) -> None:
    emitter = fastemit.Emitter(server.url)
    take = emitter.input
    for _ in repeat(None, events):
        take(PAGE_VIEW_WITH_INT)
    assert emitter.close(60) == 0


def send_with_reference(server: Server, events: int) -> None:
    emitter = snowplow_tracker.Emitter(server.url)
    take = emitter.input
    for _ in repeat(None, events):
        take(PAGE_VIEW_WITH_INT)
    emitter.flush()


SENDERS: dict[str, tuple[Callable[[Server, int], None], int]] = {
    "fastemit": (send_with_fastemit, FASTEMIT_EVENTS),
    "reference": (send_with_reference, REFERENCE_EVENTS),
}


@dataclass(frozen=True)
class Cost:
    """Of one round: events a second, CPU microseconds of this process an event, and the server's share of a core."""

    rate: float
    cpu: float
    server_share: float


def measure(server: Server, send: Callable[[Server, int], None], events: int) -> Cost:
    server_cpu = server.reset().cpu_seconds
    cpu, started = time.process_time(), time.perf_counter()
    send(server, events)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    counts = server.counts()
    assert counts.events == events
    return Cost(events / seconds, cpu / events * 1e6, (counts.cpu_seconds - server_cpu) / seconds)


def with_timer(name: str) -> object:
    timer = timer_per_event(SENDERS[name][1])
    return pytest.param(name, marks=pytest.mark.benchmark(group=GROUP, timer=timer))


@pytest.mark.parametrize("name", [with_timer(name) for name in SENDERS])
def test_end_to_end(name: str, server: Server, benchmark: BenchmarkFixture) -> None:
    send, events = SENDERS[name]

    def reset() -> None:
        server.reset()

    benchmark.pedantic(send, (server, events), setup=reset, rounds=ROUNDS)
    assert server.counts().events == events


@pytest.mark.benchmark(group="guards: the time that the whole test takes")
def test_end_to_end_ratios(server: Server, benchmark: BenchmarkFixture, report: Callable[[str], None]) -> None:
    costs: dict[str, list[Cost]] = {name: [] for name in SENDERS}

    def run_of(name: str) -> Callable[[], float]:
        def run() -> float:
            costs[name].append(measure(server, *SENDERS[name]))
            return costs[name][-1].rate

        return run

    benchmark.pedantic(interleaved, ({name: run_of(name) for name in SENDERS}, ROUNDS), rounds=1)
    middle = {
        name: Cost(median(c.rate for c in each), median(c.cpu for c in each), median(c.server_share for c in each))
        for name, each in costs.items()
    }
    ours, theirs = middle["fastemit"], middle["reference"]
    faster = ours.rate / theirs.rate
    report(
        f"end to end: {faster:.0f} times the events a second of the reference (at least 30) "
        f"at 1/{theirs.cpu / ours.cpu:.0f} of its CPU an event, none lost"
    )
    for name, cost in middle.items():
        report(
            f"  {name}: {cost.rate:,.0f} events/s, {cost.cpu:.2f} us of CPU an event, "
            f"the server took {cost.server_share:.0%} of a core"
        )
    benchmark.extra_info.update(faster=faster, **{name: vars(cost) for name, cost in middle.items()})
    assert faster >= 30
