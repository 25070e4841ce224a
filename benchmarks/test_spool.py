"""What events in mapped files cost: a buffer and an emitter, with and without files, and other ways to keep events."""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import pytest
from bench_support import PAGE_VIEW, SMOKE, interleaved, medians
from implementations import COMPACT, Implementation, fastemit_of
from pytest_benchmark.fixture import BenchmarkFixture
from servers import Nginx, Server
from test_end_to_end import measure

import fastemit
from fastemit._buffer import EventBuffer
from fastemit._files import file_size, format_file

EVENTS = 3_000  # in a round. They fit one request of 1 MB, and so one file
ROUNDS = 100 if SMOKE else 1_000


class OnTheHeap:
    """A buffer that nobody sends from. After each round its events are settled, outside the measured time."""

    def __init__(self) -> None:
        self.buffer = self.made()
        self.buffer.notify = 0

    def made(self) -> EventBuffer:
        return EventBuffer(100_000, 1 << 28, 1_000_000, 500)

    def run(self) -> float:
        """Nanoseconds an event."""
        append = self.buffer.append
        started = time.perf_counter_ns()
        for _ in repeat(None, EVENTS):
            append(PAGE_VIEW)
        took = time.perf_counter_ns() - started
        assert self.buffer.queued_events == EVENTS
        while (batch := self.buffer.take()) is not None:
            batch.sent()
        self.tend()
        return took / EVENTS

    def tend(self) -> None:
        pass


class InFiles(OnTheHeap):
    """Four files that are used again and again."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.maps = {number: self.mapped(folder / str(number)) for number in range(4)}
        for number in self.maps:
            self.lend(number)

    def made(self) -> EventBuffer:
        return EventBuffer(100_000, 1 << 28, 1_000_000, 500, files=True)

    def mapped(self, path: Path) -> mmap.mmap:
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            os.truncate(handle, file_size(self.buffer.file_bytes))
            return mmap.mmap(handle, 0)
        finally:
            os.close(handle)

    def lend(self, number: int) -> None:
        format_file(self.maps[number], number, 0, self.buffer.file_bytes)
        self.buffer.lend(number, self.maps[number])

    def tend(self) -> None:
        for number in self.buffer.finished():
            self.lend(number)


@pytest.mark.benchmark(group="guards: the time that the whole test takes")
def test_an_event_in_a_file(tmp_path: Path, benchmark: BenchmarkFixture, record: Any) -> None:
    runs: dict[str, Callable[[], float]] = {"heap": OnTheHeap().run, "files": InFiles(tmp_path).run}
    for run in runs.values():
        for _ in range(10):
            run()
    results = benchmark.pedantic(interleaved, (runs, ROUNDS), rounds=1)
    nanoseconds = medians(results)
    ratio = nanoseconds["files"] / nanoseconds["heap"]
    detail = {f"{name}, ns": value for name, value in nanoseconds.items()}
    record("input into files", ratio, "of the time without", 1.05, guard=1.1, detail=detail)


# -- a whole emitter -------------------------------------------------------------------------------------------------

NOWHERE = "http://127.0.0.1:9"
GROUP = pytest.mark.benchmark(group="guards: the time that the whole test takes")
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory on the disk. It is removed afterwards."""
    yield tmp_path / "spool"
    shutil.rmtree(tmp_path / "spool", ignore_errors=True)


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A directory on a tmpfs."""
    if not os.access(SHARED_MEMORY, os.W_OK):
        pytest.skip("there is no /dev/shm")
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as path:
        yield Path(path) / "spool"


def put(take: Callable[[dict[str, str]], object], count: int) -> float:
    """Nanoseconds an event."""
    started = time.perf_counter_ns()
    for _ in repeat(None, count):
        take(PAGE_VIEW)
    return (time.perf_counter_ns() - started) / count


def steady(server: Server, **settings: Any) -> Callable[[], float]:
    """Rounds of `input`, each sent outside the measured time, so that memory and files are used again."""
    emitter = fastemit.Emitter(server.url, batch_size=EVENTS + 1, buffer_capacity=EVENTS + 1, **settings)

    def run() -> float:
        took = put(emitter.input, EVENTS)
        assert emitter.stats().queued_events == EVENTS
        assert emitter.drain(30)
        return took

    for _ in range(10):
        run()
    return run


@GROUP
def test_input_in_the_steady_state(server: Server, folder: Path, benchmark: BenchmarkFixture, record: Any) -> None:
    runs = {"without": steady(server), "with a spool": steady(server, spool=folder)}
    nanoseconds = medians(benchmark.pedantic(interleaved, (runs, ROUNDS // 2), rounds=1))
    detail = {f"{name}, ns": value for name, value in nanoseconds.items()}
    ratio = nanoseconds["with a spool"] / nanoseconds["without"]
    record("input with a spool", ratio, "of the time without", 1.05, guard=1.1, detail=detail)


@dataclass
class Growth:
    """For an event, in nanoseconds: CPU of the thread that tracks, CPU of all threads, and the time that passed."""

    thread: float
    all: float
    wall: float


def growing(folder: Path | None, found: list[Growth]) -> Callable[[], float]:
    """`input` at full speed while the collector is away. The buffer is empty at first, so each file and page is new."""
    events = 60_000 if SMOKE else 300_000

    def run() -> float:
        settings: dict[str, Any] = {} if folder is None else {"spool": folder}
        emitter = fastemit.Emitter(
            NOWHERE, buffer_capacity=events + 1, max_buffer_bytes=1 << 30, shutdown_timeout=0, **settings
        )
        emitter.input(PAGE_VIEW)
        thread, process = time.thread_time_ns(), time.process_time_ns()
        wall = put(emitter.input, events)
        thread, process = time.thread_time_ns() - thread, time.process_time_ns() - process
        assert emitter._buffer.unsettled_events == events + 1
        emitter.close()
        if folder is not None:
            shutil.rmtree(folder)
        found.append(Growth(thread / events, process / events, wall))
        return thread / events

    return run


@GROUP
def test_input_while_a_backlog_grows(
    folder: Path, memory_folder: Path, benchmark: BenchmarkFixture, record: Any
) -> None:
    """By CPU of the thread that tracks, because the time that passes depends on what else the machine does."""
    folders = {"without": None, "on disk": folder, "on tmpfs": memory_folder}
    found: dict[str, list[Growth]] = {name: [] for name in folders}
    runs = {name: growing(path, found[name]) for name, path in folders.items()}
    nanoseconds = medians(benchmark.pedantic(interleaved, (runs, 3 if SMOKE else 9), rounds=1))
    detail = {f"{name}, CPU ns": value for name, value in nanoseconds.items()}
    for name, each in found.items():
        detail[f"{name}, CPU ns of all threads"] = median(growth.all for growth in each)
        detail[f"{name}, ns passed"] = median(growth.wall for growth in each)
    for place in ("on disk", "on tmpfs"):
        ratio = nanoseconds[place] / nanoseconds["without"]
        record(f"input, a growing backlog {place}", ratio, "of the CPU without", 1.05, guard=1.5, detail=detail)


@GROUP
@pytest.mark.timeout(150)
def test_end_to_end_with_a_spool(
    quick_server: Server | Nginx, folder: Path, memory_folder: Path, benchmark: BenchmarkFixture, record: Any
) -> None:
    """With the same limit of events, because a longer queue does not fit the processor's cache, in files or not."""
    events = 50_000 if SMOKE else 2_000_000

    def run_of(**settings: Any) -> Callable[[], float]:
        implementation = Implementation(fastemit_of(buffer_capacity=10_000, **settings), events, COMPACT)
        return lambda: 1e6 / measure(quick_server, implementation, events).rate

    runs = {"without": run_of(), "on disk": run_of(spool=folder), "on tmpfs": run_of(spool=memory_folder)}
    microseconds = medians(benchmark.pedantic(interleaved, (runs, 3 if SMOKE else 9), rounds=1))
    detail = {f"{name}, us": value for name, value in microseconds.items()}
    for place in ("on disk", "on tmpfs"):
        ratio = microseconds[place] / microseconds["without"]
        record(f"end to end, a spool {place}", ratio, "of the time without", 1.1, guard=2.5, detail=detail)


def run_program(name: str, *arguments: object) -> str:
    command = [sys.executable, str(Path(__file__).with_name(name)), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=140).stdout


@GROUP
@pytest.mark.timeout(150)
def test_what_was_left_is_sent_as_fast_as_from_memory(
    server: Server, folder: Path, benchmark: BenchmarkFixture, record: Any
) -> None:
    """To a server that looks at what it gets. nginx throws it away at the speed of memory, as no collector does."""
    events = 100_000 if SMOKE else 1_000_000

    def from_memory() -> float:
        emitter = fastemit.Emitter(
            server.url, batch_size=events + 1, buffer_capacity=events + 1, max_buffer_bytes=1 << 30
        )
        put(emitter.input, events)
        return sent(emitter, time.perf_counter())

    def from_files() -> float:
        run_program("spool_left.py", folder, server.url, events)
        started = time.perf_counter()
        emitter = fastemit.Emitter(server.url, spool=folder)
        rate = sent(emitter, started)
        assert emitter.stats().recovered_events == events
        return rate

    def sent(emitter: fastemit.Emitter, started: float) -> float:
        assert emitter.drain(100)
        took = time.perf_counter() - started
        assert emitter.stats().sent_events == events
        emitter.close()
        return events / took

    runs = {"from memory": from_memory, "from what was left": from_files}
    rates = medians(benchmark.pedantic(interleaved, (runs, 3 if SMOKE else 5), rounds=1))
    detail = {f"{name}, events/s": rate for name, rate in rates.items()}
    ratio = rates["from what was left"] / rates["from memory"]
    record(
        f"taking over {events:,} events",
        ratio,
        "times the speed from memory",
        0.8,
        at_least=True,
        guard=2,
        detail=detail,
    )


def have_memory(size: int) -> None:
    """Use so many bytes of memory once, and free them.

    A virtual machine gets its memory from the host at the first use of each page. There `input` takes three times as
    long once the files need memory that the machine has never used. That says nothing of fastemit.
    """
    found = re.search(r"^MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text("ascii"), re.MULTILINE)
    assert found is not None
    script = (
        "import mmap, sys; m = mmap.mmap(-1, int(sys.argv[1])); [m.__setitem__(i, 1) for i in range(0, len(m), 4096)]"
    )
    subprocess.run([sys.executable, "-c", script, str(min(size, int(found[1]) * 1024 * 4 // 5))], check=True)


@GROUP
@pytest.mark.timeout(150)
def test_a_long_outage(folder: Path, benchmark: BenchmarkFixture, record: Any) -> None:
    """By CPU of the thread that tracks, including the kernel's work for it. The time that passed is reported too."""
    events = 300_000 if SMOKE else 10_000_000
    # Four times what the files take, because the kernel chooses the pages.
    have_memory(4 * 330 * events)
    found = json.loads(benchmark.pedantic(run_program, ("spool_outage.py", folder, events), rounds=1))
    assert found["queued"] == events + 1
    tenths = found["tenths"]
    name = f"an outage of {events:,} events"
    detail = {f"tenth {number}, CPU ns": took for number, took in enumerate(tenths, 1)}
    detail |= {f"tenth {number}, ns passed": took for number, took in enumerate(found["passed"], 1)}
    record(f"{name}, input", tenths[-1] / tenths[0], "of its first tenth's CPU", 1.5, guard=2, detail=detail)
    detail = {"idle, MB": found["idle"], "on the disk, MB": found["disk"]}
    record(f"{name}, memory", found["most"] - found["idle"], "MB over the idle emitter", 64, guard=1, detail=detail)


# -- comparisons -----------------------------------------------------------------------------------------------------


def documented_store() -> Any:
    """The store with a file from the page on event stores, exactly as the page shows it."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "drop-in.md").read_text("utf-8")
    found = re.search(r"^class SQLiteStore:\n(?:(?:    .*)?\n)+", page, re.MULTILINE)
    assert found is not None
    names: dict[str, Any] = {"json": json, "sqlite3": sqlite3}
    exec(found[0], names)
    return names["SQLiteStore"]


@GROUP
def test_the_ways_of_others(server: Server, folder: Path, benchmark: BenchmarkFixture, record: Any) -> None:
    """One row for each event in SQLite, as in the trackers for Go, Java and C++, and the store that the docs show."""
    folder.mkdir()
    rows = 2_000 if SMOKE else 20_000
    few = 50 if SMOKE else 300
    encoded = orjson.dumps(PAGE_VIEW)

    def database(name: str, *pragmas: str) -> sqlite3.Connection:
        connection = sqlite3.connect(folder / name, isolation_level=None)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, event BLOB)")
        return connection

    def insert(connection: sqlite3.Connection, count: int) -> float:
        statement, row = "INSERT INTO events (event) VALUES (?)", (encoded,)
        return put(lambda _: connection.execute(statement, row), count)

    as_it_comes = database("as-it-comes.db")
    # This is as safe as a spool: events survive the death of the process, but not of the machine.
    quickest = database("quickest.db", "journal_mode=WAL", "synchronous=OFF")
    store = documented_store()(str(folder / "store.db"))
    emitter = fastemit.Emitter(NOWHERE, event_store=store, batch_size=1_000_000, shutdown_timeout=0)
    runs = {
        "a spool": steady(server, spool=folder / "spool"),
        "SQLite": lambda: insert(as_it_comes, few),
        "SQLite, WAL, synchronous=OFF": lambda: insert(quickest, rows),
        "the documented store": lambda: put(emitter.input, few),
    }
    nanoseconds = medians(benchmark.pedantic(interleaved, (runs, 3 if SMOKE else 5), rounds=1))
    emitter.close()
    detail = {f"{name}, ns": value for name, value in nanoseconds.items()}
    for name, aim in (("SQLite, WAL, synchronous=OFF", 5), ("SQLite", 10), ("the documented store", 10)):
        ratio = nanoseconds[name] / nanoseconds["a spool"]
        row = f"a row an event, {name}" if name.startswith("SQLite") else f"an event into {name}"
        record(row, ratio, "times input with a spool", aim, at_least=True, detail=detail)
