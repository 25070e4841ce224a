"""What fastemit takes from its program: memory for each queued event, and CPU while a busy loop runs."""

from __future__ import annotations

import os
import re
import shutil
import statistics
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
    """How many bytes a process grows by for each queued event."""
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
    """A loop that computes and also tracks 20,000 events a second, compared with the same loop without tracking.

    The events are paced by the work done, not by the wall clock, so that both loops do the same on a busy machine.
    The figure is the CPU of the whole process, including the sender with its system calls. That is more than the time
    by which the loop is delayed. If two cores share one physical core, the server also makes the loop slower.
    """
    turns, rate = 2_000, 20_000
    started = time.process_time()
    for _ in range(500):
        spin(turns)
    step = (time.process_time() - started) / 500
    steps = int((0.3 if SMOKE else 1.0) / step)

    def run_of(settings: dict[str, Any] | None) -> Callable[[], float]:
        def run() -> float:
            emitter = None if settings is None else fastemit.Emitter(server.url, **settings)
            owed, put = 0.0, 0
            cpu = time.process_time()
            for _ in range(steps):
                spin(turns)
                owed += rate * step
                while owed >= 1:
                    owed -= 1
                    put += 1
                    if emitter is not None:
                        emitter.input(PAGE_VIEW_WITH_INT)
            cpu = time.process_time() - cpu
            if emitter is not None:
                assert emitter.close(10) == 0
                assert emitter.stats().sent_events == put
            return cpu

        return run

    kinds: dict[str, dict[str, Any] | None] = {"without": None, "default": {}, "batch_size=1000": {"batch_size": 1000}}
    runs = {name: run_of(settings) for name, settings in kinds.items()}
    rounds = benchmark.pedantic(interleaved, (runs, 5 if SMOKE else 25), rounds=1)
    # The clock rate of the machine changes between rounds, and less within one round.
    pairs = zip(rounds["default"], rounds["without"], strict=True)
    slowed = (statistics.median(with_ / without for with_, without in pairs) - 1) * 100
    detail = {f"{name}, CPU s": value for name, value in medians(rounds).items()}
    record("host overhead, CPU", slowed, "% of a busy loop's", 3, guard=10 if SMOKE else 2, detail=detail)


_BUSY = """
import sys
sys.path.insert(0, sys.argv[1])
from bench_support import PAGE_VIEW_WITH_INT
from test_host import spin
from fastemit import Emitter

url, steps, events, requests = sys.argv[2], *map(int, sys.argv[3:])
emitter = Emitter(url)
emitter.input(PAGE_VIEW_WITH_INT)
assert emitter.drain(60)
for _ in range(requests):
    for _ in range(steps):
        spin(2_000)
    for _ in range(events):
        emitter.input(PAGE_VIEW_WITH_INT)
    assert emitter.drain(60)
assert emitter.close(60) == 0
"""


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="counts instructions with valgrind")
def test_host_overhead_in_instructions(
    server: Server, benchmark: BenchmarkFixture, record: Any, tmp_path: Path
) -> None:
    """The same by instructions of the process, which other programs do not change. 800 events go into a request.

    At 20,000 events a second, 800 come in the 40 ms between two requests. The loop does as many steps of work as take
    that long here. The work of the kernel is not counted.
    """
    script = tmp_path / "busy.py"
    script.write_text(_BUSY)
    started = time.process_time()
    for _ in range(500):
        spin(2_000)
    steps = round(0.04 / ((time.process_time() - started) / 500))

    def run(steps: int, events: int, requests: int) -> int:
        callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={tmp_path / 'out'}"]
        program = [sys.executable, str(script), str(Path(__file__).parent), server.url]
        done = subprocess.run(
            [*callgrind, *program, str(steps), str(events), str(requests)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        assert done.returncode == 0, done.stderr
        assert found is not None
        return int(found[1])

    def measured() -> tuple[float, float]:
        nothing, work = run(0, 0, 1), run(steps, 0, 1)
        few, many = run(0, 800, 2), run(0, 800, 12)
        return work - nothing, (many - few) / 10

    work, tracking = benchmark.pedantic(measured, rounds=1)
    detail = {"800 events and their request, instructions": tracking, "40 ms of work, instructions": work}
    record("host overhead, instructions", tracking / work * 100, "% of a busy loop's", 3, guard=1.5, detail=detail)
