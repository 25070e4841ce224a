"""What an event costs does not grow: with their number, with a backlog, with the threads that make them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import repeat
from statistics import median
from typing import Any

import orjson
import pytest
from bench_support import PAGE_VIEW_WITH_INT, SMOKE, interleaved, medians
from limits import ready_made_bodies
from pytest_benchmark.fixture import BenchmarkFixture
from servers import Nginx, Server

import fastemit

ROUNDS = 3 if SMOKE else 7
pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.benchmark(group="guards: the time that the whole test takes"),
]


def growth(costs: dict[int, float]) -> float:
    """The most that a larger number costs to what a smaller one costs, per event."""
    sizes = sorted(costs)
    return max(costs[large] / costs[small] for small in sizes for large in sizes if large > small)


def put(take: Callable[[dict[str, Any]], object], count: int) -> None:
    for _ in repeat(None, count):
        take(PAGE_VIEW_WITH_INT)


def test_many_events(server: Server, benchmark: BenchmarkFixture, record: Any) -> None:
    """From the first `input` until all are sent; CPU, since the whole takes long enough for others to interfere."""
    counts = (1_000, 10_000, 100_000) if SMOKE else (1_000, 10_000, 100_000, 1_000_000, 10_000_000)

    def run(count: int) -> float:
        emitter = fastemit.Emitter(server.url)
        put(emitter.input, 10)
        assert emitter.drain(10)  # the thread and the connection are there
        started = time.process_time()
        put(emitter.input, count)
        assert emitter.close(60) == 0
        return (time.process_time() - started) / count * 1e6

    def all_of_them() -> dict[int, float]:
        return {count: median(run(count) for _ in repeat(None, 1 if count > 1e6 else ROUNDS)) for count in counts}

    costs = benchmark.pedantic(all_of_them, rounds=1)
    detail = {f"{count:,} events, CPU us": cost for count, cost in costs.items()}
    record(f"{counts[0]:,} to {counts[-1]:,} events", growth(costs), "times the cost of fewer", 1.2, detail=detail)


def test_backlogs(benchmark: BenchmarkFixture, record: Any) -> None:
    """`input` while so many are queued; as many leave as come in, so that memory is used again."""
    sizes = (10, 1_000, 30_000) if SMOKE else (10, 1_000, 100_000, 1_000_000)
    batch = 3_000

    def run_of(size: int) -> Callable[[], float]:
        emitter = fastemit.Emitter(
            "http://127.0.0.1:9",
            batch_size=size + 3 * batch,
            buffer_capacity=size + 3 * batch,
            max_buffer_bytes=1 << 30,
            shutdown_timeout=0,
        )
        buffer: Any = emitter._buffer
        put(emitter.input, size)

        def run() -> float:
            started = time.perf_counter()
            put(emitter.input, batch)
            took = time.perf_counter() - started
            while buffer.queued_events > size:
                buffer.take(min_events=1).dropped("rejected")
            return took / batch * 1e9

        run()
        return run

    runs = {str(size): run_of(size) for size in sizes}
    results = benchmark.pedantic(interleaved, (runs, ROUNDS * 10), rounds=1)
    costs = {int(size): cost for size, cost in medians(results).items()}
    detail = {f"{size:,} queued, ns": cost for size, cost in costs.items()}
    record(f"backlogs of {sizes[0]} to {sizes[-1]:,}", growth(costs), "times the cost with fewer", 1.2, detail=detail)


def test_producers(quick_server: Server | Nginx, benchmark: BenchmarkFixture, record: Any) -> None:
    events = 40_000 if SMOKE else 400_000

    def run_of(threads: int) -> Callable[[], float]:
        def run() -> float:
            emitter = fastemit.Emitter(quick_server.url)
            producers = [
                threading.Thread(target=put, args=(emitter.input, events // threads)) for _ in repeat(None, threads)
            ]
            started = time.perf_counter()
            for producer in producers:
                producer.start()
            for producer in producers:
                producer.join()
            assert emitter.close(60) == 0
            took = time.perf_counter() - started
            assert emitter.stats().sent_events == events
            return events / took

        return run

    results = benchmark.pedantic(interleaved, ({str(n): run_of(n) for n in (1, 4)}, ROUNDS), rounds=1)
    rates = medians(results)
    detail = {f"{n} threads, events/s": rate for n, rate in rates.items()}
    record("4 producers", rates["4"] / rates["1"], "times one producer", 0.9, at_least=True, guard=2, detail=detail)


@pytest.mark.parametrize("size", [100, 1_000, 10_000, 100_000])
def test_event_sizes(size: int, quick_server: Server | Nginx, benchmark: BenchmarkFixture, record: Any) -> None:
    """Bytes a second, end to end, to ready-made bodies one after the other over the same kind of connection."""
    total = 30_000_000 if SMOKE else 500_000_000
    event = {"e": "ue", "p": "web", "tv": "py-1.1.0", "data": ""}
    event["data"] = "x" * (size - len(orjson.dumps(event)))
    ready = orjson.dumps({**event, "stm": "1767225600000"})
    count = total // len(ready)

    def ours() -> float:
        emitter = fastemit.Emitter(quick_server.url)
        started = time.perf_counter()
        take = emitter.input
        for _ in repeat(None, count):
            take(event)
        assert emitter.close(60) == 0
        stats = emitter.stats()
        assert stats.sent_events == count
        return stats.sent_bytes / (time.perf_counter() - started) / 1e6

    runs = {"fastemit, MB/s": ours, "by hand, MB/s": lambda: ready_made_bodies(quick_server.url, ready, total) / 1e6}
    results = benchmark.pedantic(interleaved, (runs, 3), rounds=1)
    rates = medians(results)
    ratio = rates["fastemit, MB/s"] / rates["by hand, MB/s"]
    what = "times ready-made bodies"
    # Against what lies in the processor's cache; see benchmarks/README.md.
    record(f"events of {size:,} B", ratio, what, 0.8, at_least=True, guard=10, detail=rates)
