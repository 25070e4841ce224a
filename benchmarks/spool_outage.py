"""A program of its own, so that its memory is that of nothing else: events into a spool while the collector is away.

    python benchmarks/spool_outage.py FOLDER EVENTS

Prints, as JSON, what `input` took in each tenth of them (nanoseconds an event, CPU of the thread and by the clock), and
the memory of the process, anonymous and mapped together, while it was idle and at its most (MB).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from itertools import repeat
from pathlib import Path

from bench_support import PAGE_VIEW

import fastemit

#: Events between two looks at the memory.
STEP = 10_000


def memory() -> float:
    """Megabytes that are resident: anonymous, of files, and shared."""
    status = Path("/proc/self/status").read_text("ascii")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile", "RssShmem")) / 1024


def main() -> None:
    folder, events = sys.argv[1], int(sys.argv[2])
    logging.disable(logging.CRITICAL)
    emitter = fastemit.Emitter(
        "http://127.0.0.1:9", spool=folder, buffer_capacity=events + 1, max_buffer_bytes=1 << 40, shutdown_timeout=0
    )
    take = emitter.input
    take(PAGE_VIEW)
    deadline = time.monotonic() + 10
    while emitter._buffer.spare_files < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    idle = most = memory()
    tenths, passed = [], []
    for _ in range(10):
        spent = clock = 0.0
        for _ in range(events // 10 // STEP):
            started, began = time.thread_time(), time.perf_counter()
            for _ in repeat(None, STEP):
                take(PAGE_VIEW)
            spent += time.thread_time() - started
            clock += time.perf_counter() - began
            most = max(most, memory())
        tenths.append(spent / (events // 10 // STEP * STEP) * 1e9)
        passed.append(clock / (events // 10 // STEP * STEP) * 1e9)
    queued = emitter._buffer.unsettled_events
    size = sum(file.stat().st_size for file in Path(folder).rglob("*.seg"))
    found = {"tenths": tenths, "passed": passed, "idle": idle, "most": most, "queued": queued, "disk": size / 1e6}
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
