"""GET, one request an event: fastemit keeps its connection open, and `snowplow_tracker` makes a new one each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

import pytest
import requests
import snowplow_tracker
from bench_support import PAGE_VIEW_WITH_INT, SMOKE, interleaved, medians
from pytest_benchmark.fixture import BenchmarkFixture
from servers import Server

import fastemit

EVENTS = 100 if SMOKE else 500
ROUNDS = 5 if SMOKE else 11

CONTENDERS: dict[str, Callable[[str], Any]] = {
    "fastemit": lambda url: fastemit.Emitter(url, method="get"),
    "reference": lambda url: snowplow_tracker.Emitter(url, method="get"),
    "reference with a session": lambda url: snowplow_tracker.Emitter(url, method="get", session=requests.Session()),
}


@pytest.mark.benchmark(group="guards: the time that the whole test takes")
def test_get_ratios(server: Server, benchmark: BenchmarkFixture, record: Any) -> None:
    def run_of(name: str) -> Callable[[], float]:
        emitter = CONTENDERS[name](server.url)

        def run() -> float:
            server.reset()
            started = time.perf_counter()
            for _ in repeat(None, EVENTS):
                emitter.input(dict(PAGE_VIEW_WITH_INT))
            emitter.flush()
            took = time.perf_counter() - started
            counts = server.counts()
            assert (counts.events, counts.requests) == (EVENTS, EVENTS)
            return EVENTS / took

        run()
        return run

    runs = {name: run_of(name) for name in CONTENDERS}
    results = benchmark.pedantic(interleaved, (runs, ROUNDS), rounds=1)
    rates = medians(results)
    detail = {f"{name}, events/s": rate for name, rate in rates.items()}
    ratio = rates["fastemit"] / rates["reference"]
    record("GET", ratio, "times the reference", 7.4, at_least=True, guard=2, detail=detail)
