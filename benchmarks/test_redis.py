"""Over Redis: what an event costs its producer, and how much a worker moves, compared with `snowplow_tracker`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from bench_support import PAGE_VIEW_WITH_INT, SMOKE, interleaved
from pytest_benchmark.fixture import BenchmarkFixture
from servers import Server

sys.path.append(str(Path(__file__).parents[1]))
from tests.support.redis_server import RedisServer, running

SCALE = 20 if SMOKE else 1
ROUNDS = 1 if SMOKE else 3
REFERENCE = Path(sys.prefix) / "reference-0.15"
GROUP = "redis: guards, the time that the whole test takes"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running(tmp_path_factory.mktemp("redis"), "--appendonly", "no") as server:
        yield server


class Rival:
    """A process that waits for a start signal, and then reports how many seconds its work took."""

    def __init__(self, side: str, server: RedisServer, url: str, what: str, count: int) -> None:
        path = [str(REFERENCE)] * (side == "reference") + [os.path.abspath(entry) for entry in sys.path if entry]
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("redis_rival.py")),
                side,
                str(server.port),
                url,
                what,
                str(count),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def start(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def seconds(self) -> float:
        out = self._process.communicate(timeout=120)[0]
        assert self._process.returncode == 0
        return float(out)


def pushing(server: RedisServer, side: str, what: str, count: int) -> float:
    """Seconds an event."""
    rival = Rival(side, server, "-", what, count)
    rival.start()
    seconds = rival.seconds()
    with server.client() as rdb:
        assert rdb.llen("snowplow") == count
        rdb.flushall()
    return seconds / count


def moving(server: RedisServer, url: str, side: str, count: int, workers: int = 1) -> float:
    """Seconds an event, with this many workers."""
    event = json.dumps(PAGE_VIEW_WITH_INT)
    with server.client() as rdb:
        for _ in range(0, count, 1000):
            rdb.rpush("snowplow", *[event] * min(count, 1000))
    rivals = [Rival(side, server, url, "work", count) for _ in range(workers)]
    for rival in rivals:
        rival.start()
    return max(rival.seconds() for rival in rivals) / count


@pytest.mark.benchmark(group=GROUP)
@pytest.mark.skipif(not REFERENCE.is_dir(), reason="snowplow-tracker 0.15.0 is not installed beside")
def test_what_an_event_costs_its_producer(benchmark: BenchmarkFixture, redis_server: RedisServer, report: Any) -> None:
    def measure() -> dict[str, list[float]]:
        return interleaved(
            {
                "reference": lambda: pushing(redis_server, "reference", "push1", 5000 // SCALE),
                "batch_size=1": lambda: pushing(redis_server, "fastemit", "push1", 5000 // SCALE),
                "batch_size=100": lambda: pushing(redis_server, "fastemit", "push100", 100_000 // SCALE),
            },
            ROUNDS,
        )

    costs = {name: median(values) for name, values in benchmark.pedantic(measure, rounds=1).items()}
    for name, least in (("batch_size=1", 0.9), ("batch_size=100", 15.0)):
        times = costs["reference"] / costs[name]
        report(f"RedisEmitter, {name}: {costs[name] * 1e6:.1f} us an event, {times:.1f} times the reference's speed")
        if not SMOKE:
            assert times >= least


@pytest.mark.benchmark(group=GROUP)
@pytest.mark.skipif(not REFERENCE.is_dir(), reason="snowplow-tracker 0.15.0 is not installed beside")
def test_what_a_worker_moves(benchmark: BenchmarkFixture, redis_server: RedisServer, report: Any) -> None:
    with Server() as collector:

        def measure() -> dict[str, list[float]]:
            return interleaved(
                {
                    "reference": lambda: moving(redis_server, collector.url, "reference", 3000 // SCALE),
                    "1 worker": lambda: moving(redis_server, collector.url, "fastemit", 100_000 // SCALE),
                    "4 workers": lambda: moving(redis_server, collector.url, "fastemit", 200_000 // SCALE, 4),
                },
                ROUNDS,
            )

        costs = {name: median(values) for name, values in benchmark.pedantic(measure, rounds=1).items()}
    for name, seconds in costs.items():
        times = costs["reference"] / seconds
        report(f"RedisWorker, {name}: {1 / seconds:,.0f} events/s, {times:.1f} times the reference's")
    if not SMOKE:
        assert costs["reference"] / costs["1 worker"] >= 20
        if (os.cpu_count() or 1) >= 8:
            assert costs["1 worker"] / costs["4 workers"] >= 2
