"""What fastemit takes from the program around it: memory for each queued event, and time of a busy loop."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench_support import PAGE_VIEW_WITH_INT, SMOKE, interleaved, medians
from pytest_benchmark.fixture import BenchmarkFixture
from servers import Server

import fastemit

pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.benchmark(group="guards: the time that the whole test takes"),
]

_GROWTH = """
import os, sys
sys.path.insert(0, sys.argv[1])
from bench_support import PAGE_VIEW_WITH_INT
from {package} import Emitter

def resident():
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

COUNT = 100_000
emitter = Emitter("http://127.0.0.1:9", batch_size=COUNT * 2, buffer_capacity=COUNT * 2 {more})
for number in range(COUNT + 100):
    if number == 100:
        before = resident()
    # A value of its own in each event, as a real one has; the names are shared.
    emitter.input({{**PAGE_VIEW_WITH_INT, "eid": f"{{number:036}}"}})
print((resident() - before) / COUNT)
sys.stdout.flush()
os._exit(0)
"""


def growth(package: str, more: str = "") -> float:
    """Bytes by which a process grows for each queued event."""
    script = _GROWTH.format(package=package, more=more)
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory(benchmark: BenchmarkFixture, record: Any) -> None:
    runs = {
        "fastemit, B": lambda: growth("fastemit", ", max_buffer_bytes=1 << 30"),
        "reference, B": lambda: growth("snowplow_tracker"),
    }
    results = benchmark.pedantic(interleaved, (runs, 1 if SMOKE else 3), rounds=1)
    sizes = medians(results)
    record("memory of a queued event", sizes["fastemit, B"], "bytes", 300, guard=1.1, detail=sizes)


def spin(turns: int) -> int:
    total = 0
    for number in range(turns):
        total += number * number
    return total


def test_host_overhead(server: Server, benchmark: BenchmarkFixture, record: Any) -> None:
    """A loop that computes and also tracks 20,000 events a second, to the same loop without.

    The events come by the clock of the work, not of the wall, so that both do the same whoever else wants the cores.
    The figure is of the time on the wall; the CPU of the process beside it has the sender's system calls in it, which
    need no GIL and hold nobody up.
    """
    turns, rate = 2_000, 20_000
    started = time.process_time()
    for _ in range(500):
        spin(turns)
    step = (time.process_time() - started) / 500
    steps = int((0.3 if SMOKE else 1.0) / step)

    def run_of(name: str, settings: dict[str, Any] | None) -> Callable[[], float]:
        def run() -> float:
            emitter = None if settings is None else fastemit.Emitter(server.url, **settings)
            owed, put = 0.0, 0
            cpu, started = time.process_time(), time.perf_counter()
            for _ in range(steps):
                spin(turns)
                owed += rate * step
                while owed >= 1:
                    owed -= 1
                    put += 1
                    if emitter is not None:
                        emitter.input(PAGE_VIEW_WITH_INT)
            walls[name].append(time.perf_counter() - started)
            cpu = time.process_time() - cpu
            if emitter is not None:
                assert emitter.close(10) == 0
                assert emitter.stats().sent_events == put
            return cpu

        return run

    kinds: dict[str, dict[str, Any] | None] = {"without": None, "default": {}, "batch_size=1000": {"batch_size": 1000}}
    walls: dict[str, list[float]] = {name: [] for name in kinds}
    runs = {name: run_of(name, settings) for name, settings in kinds.items()}
    results = benchmark.pedantic(interleaved, (runs, 5 if SMOKE else 25), rounds=1)
    seconds, wall = medians(results), medians(walls)
    slowed = (wall["default"] / wall["without"] - 1) * 100
    detail = {f"{name}, CPU s": value for name, value in seconds.items()}
    detail |= {f"{name}, s": value for name, value in wall.items()}
    record("host overhead", slowed, "% of a busy loop's time", 3, guard=30 if SMOKE else 5, detail=detail)
