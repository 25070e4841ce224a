"""The cost of an event does not grow with the number of events, with a backlog, or with the threads that track."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from statistics import median
from typing import Any

import orjson
import pytest
from bench_support import PAGE_VIEW_WITH_INT, SMOKE, event_of, interleaved, medians
from implementations import PREFIX, Wire
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
    """The largest ratio of the cost per event of a larger number to that of a smaller number."""
    sizes = sorted(costs)
    return max(costs[large] / costs[small] for small in sizes for large in sizes if large > small)


def put(take: Callable[[dict[str, Any]], object], count: int) -> None:
    for _ in repeat(None, count):
        take(PAGE_VIEW_WITH_INT)


def test_many_events(server: Server, benchmark: BenchmarkFixture, record: Any) -> None:
    """From the first `input` until all are sent. By CPU, because it takes so long that other programs interfere."""
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
    """`input` while this many are queued. As many leave as come in, so that memory is used again."""
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


@contextlib.contextmanager
def by_size(size: int, server: Server | Nginx) -> Iterator[tuple[dict[str, Callable[[], float]], bytes]]:
    """Functions that send events of this size and return bytes a second, and such an event as it is in a body."""
    url = server.url
    total = 30_000_000 if SMOKE else 500_000_000
    event = event_of(size)
    ready = orjson.dumps({**event, "stm": "1767225600000"})
    count = total // len(ready)

    def ours() -> float:
        server.reset()
        emitter = fastemit.Emitter(url)
        started = time.perf_counter()
        take = emitter.input
        for _ in repeat(None, count):
            take(event)
        assert emitter.close(60) == 0
        took = time.perf_counter() - started
        assert emitter.stats().sent_events == count
        counts = server.counts()
        assert counts.failed_requests == 0
        assert counts.bytes == Wire(len(PREFIX) + 2, len(ready), 1).bytes(counts.requests, count)
        return emitter.stats().sent_bytes / took / 1e6

    warm = fastemit.Emitter(url)

    def again() -> float:
        # Its memory was filled once before, as in a program that has run for a while.
        started, take = time.perf_counter(), warm.input
        for _ in repeat(None, count):
            take(event)
        assert warm.drain(60)
        return count * (len(ready) + 1) / (time.perf_counter() - started) / 1e6

    runs = {
        "fastemit, MB/s": ours,
        "fastemit, its memory used before, MB/s": again,
        "by hand, MB/s": lambda: ready_made_bodies(url, ready, total) / 1e6,
    }
    yield runs, ready
    # Otherwise its sender thread would still run during the next rows.
    assert warm.close(10) == 0


@pytest.mark.parametrize(("size", "aim"), [(1_000, 0.75), (10_000, 0.8), (100_000, 0.8)])
def test_event_sizes(
    size: int, aim: float, byte_server: Server | Nginx, benchmark: BenchmarkFixture, record: Any
) -> None:
    """Bytes a second, end to end, compared with ready-made bodies sent one by one over the same kind of connection."""
    with by_size(size, byte_server) as (runs, _):
        rates = medians(benchmark.pedantic(interleaved, (runs, ROUNDS), rounds=1))
    ratio = rates["fastemit, MB/s"] / rates["by hand, MB/s"]
    # A short run is little more than the first use of memory, and machines differ in what that costs.
    guard = 5 if SMOKE else 2
    record(f"events of {size:,} B", ratio, "times ready-made bodies", aim, at_least=True, guard=guard, detail=rates)


def test_small_events(byte_server: Server | Nginx, benchmark: BenchmarkFixture, record: Any) -> None:
    """Bytes a second of small events, end to end, compared with calls of `input` alone, which is the upper limit."""
    event = event_of(100)
    batch, batches = 5_000, 10 if SMOKE else 100

    def alone() -> float:
        emitter = fastemit.Emitter("http://127.0.0.1:9", batch_size=2 * batch, buffer_capacity=2 * batch)
        buffer: Any = emitter._buffer
        took, take = 0.0, emitter.input
        for _ in repeat(None, batches):
            started = time.perf_counter()
            for _ in repeat(None, batch):
                take(event)
            took += time.perf_counter() - started
            while buffer.queued_events:
                buffer.take(min_events=1).dropped("rejected")
        assert emitter.close(0) == 0
        return batches * batch * (len(ready) + 1) / took / 1e6

    with by_size(100, byte_server) as (runs, ready):
        runs["input alone, MB/s"] = alone
        rates = medians(benchmark.pedantic(interleaved, (runs, ROUNDS), rounds=1))
    ratio = rates["fastemit, MB/s"] / rates["input alone, MB/s"]
    record("events of 100 B", ratio, "times input alone", 0.9, at_least=True, guard=5, detail=rates)
