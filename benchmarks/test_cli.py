"""`fastemit send`, as a process that a user starts: from a file to a collector."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from bench_support import PAGE_VIEW, PAGE_VIEW_WITH_INT, SMOKE, interleaved, medians
from implementations import COMPACT
from pytest_benchmark.fixture import BenchmarkFixture
from servers import Nginx, Server

EVENTS = 100_000 if SMOKE else 1_000_000
ROUNDS = 3
PARSED = orjson.dumps(PAGE_VIEW).replace(b'"uid":', rb'"u\u0069d":') + b"\n"

pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.benchmark(group="guards: the time that the whole test takes"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lines")
    strings = (orjson.dumps(PAGE_VIEW) + b"\n") * EVENTS
    contents = {
        "all strings": strings,
        "one int": (orjson.dumps(PAGE_VIEW_WITH_INT) + b"\n") * EVENTS,
        "spaces, as json.dumps writes them": (json.dumps(PAGE_VIEW).encode() + b"\n") * EVENTS,
        "gzip": gzip.compress(strings, 1),
        "one null": (orjson.dumps({**PAGE_VIEW, "tid": None}) + b"\n") * EVENTS,
        # A line with an escape in a name must be parsed. This shows the cost of a line that is not simple.
        "parsed": PARSED * (EVENTS // 10),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def test_send(files: dict[str, Path], quick_server: Server | Nginx, benchmark: BenchmarkFixture, record: Any) -> None:
    """Events a second from the first read to the last answer. The start of Python is not included."""

    def run_of(name: str) -> Callable[[], float]:
        def run() -> float:
            quick_server.reset()
            command = [sys.executable, "-m", "fastemit", "send", quick_server.url, str(files[name]), "--json"]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120)
            result = json.loads(done.stdout)
            events = EVENTS // 10 if name == "parsed" else EVENTS
            counts = quick_server.counts()
            assert (result["delivered"], counts.failed_requests) == (events, 0)
            assert counts.bytes == COMPACT.bytes(counts.requests, events)
            rate: float = result["delivered"] / result["seconds"]
            return rate

        return run

    results = benchmark.pedantic(interleaved, ({name: run_of(name) for name in files}, ROUNDS), rounds=1)
    rates = medians(results)
    detail = {f"{name}, events/s": rate for name, rate in rates.items()}
    simple = min(rate for name, rate in rates.items() if name != "parsed")
    record("fastemit send", simple, "events/s", 500_000, at_least=True, guard=3 if SMOKE else 1.5, detail=detail)
