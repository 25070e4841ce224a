"""A process whose threads put in events as fast as they can: `test_overload.py` runs it, and reads what it saw.

Its one argument is JSON: `url`, `threads`, `sizes` (bytes of padding, which the events take in turn), and `settings` of
the emitter. It begins at once, ends its threads when its standard input is closed, prints "stopped", sends what is
left, and prints one line of JSON. Where `input` waits for a collector that is gone, its threads end when that is back.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

from fastemit import Emitter

#: Threads that hold the GIL for 5 ms each would let the sampler look only every 0.1 s.
SWITCH_INTERVAL = 0.0005
SAMPLE_INTERVAL = 0.002
#: Seconds for the threads to come back, and then for what is left to be sent.
PATIENCE = 60.0
#: Calls of `input` shorter than this are not told of one by one.
SLOW = 0.2


def memory(name: str) -> int:
    """`VmRSS` or `VmHWM` (the peak) of this process in bytes; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name)), 0)


class CountingHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Load:
    """The threads, and what is to be seen of the emitter while they run."""

    def __init__(self, url: str, threads: int, sizes: list[int], settings: dict[str, Any]) -> None:
        self.emitter = Emitter(url, **settings)
        self.policy = settings["overflow"]
        self.stop = threading.Event()
        self.begun = [0] * threads
        self.returned = [0] * threads
        self.slow_calls: list[tuple[float, float]] = []
        self.longest_call = 0.0
        #: When room was made, or waiting lost its point, as the sampler saw it.
        self.changes: list[float] = []
        self.samples = 0
        self.wrong: list[str] = []
        self.most_events = self.most_bytes = 0
        self.longest_gap = 0.0
        paddings = ["x" * size for size in sizes]
        self.threads = [
            threading.Thread(target=self.produce, args=(number, paddings), daemon=True) for number in range(threads)
        ]

    def produce(self, me: int, paddings: list[str]) -> None:
        take, begun, returned, clock = self.emitter.input, self.begun, self.returned, time.monotonic
        number = 0
        while not self.stop.is_set():
            payload = {"t": str(me), "n": str(number), "x": paddings[(me + number) % len(paddings)]}
            begun[me] += 1
            started = clock()
            take(payload)
            ended = clock()
            returned[me] += 1
            number += 1
            if ended - started > SLOW:
                self.slow_calls.append((started, ended))
            self.longest_call = max(self.longest_call, ended - started)

    def sample(self) -> None:
        """Look once; note what must not be."""
        buffer, least = self.emitter._buffer, sum(self.returned)
        stats = self.emitter.stats()
        most = sum(self.begun)
        self.samples += 1
        held = stats.queued_events + stats.in_flight_events
        told = held + stats.sent_events + sum(stats.dropped_events.values())
        size = buffer.queued_bytes + buffer.in_flight_bytes
        self.most_events, self.most_bytes = max(self.most_events, held), max(self.most_bytes, size, stats.queued_bytes)
        if not least <= told <= most:
            self.wrong.append(f"{told} events are told of, and between {least} and {most} were given")
        if held > buffer.capacity or stats.queued_bytes > buffer.max_bytes:
            self.wrong.append(f"{held} events and {stats.queued_bytes} bytes are held")

    def look_on(self, over: threading.Event) -> None:
        """Sample until `over`, and note when the emitter made room."""
        seen = (0, 0)
        last = time.monotonic()
        while not over.wait(SAMPLE_INTERVAL):
            self.sample()
            stats = self.emitter.stats()
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - last)
            last = now
            change = (stats.sent_events, stats.failed_requests if self.policy == "backpressure" else 0)
            if change != seen:
                seen = change
                self.changes.append(now)

    def longest_wait(self) -> float:
        """The most seconds that a call took from the first time on that there was room for it."""
        waits = [0.0]
        for started, ended in self.slow_calls:
            room = next((change for change in self.changes if change >= started), ended)
            waits.append(ended - room)
        return max(waits)


def main() -> None:
    setup = json.loads(sys.argv[1])
    sys.setswitchinterval(SWITCH_INTERVAL)
    log = CountingHandler()
    logging.getLogger("fastemit").addHandler(log)
    before = memory("VmRSS")
    load = Load(**setup)
    over = threading.Event()
    sampler = threading.Thread(target=load.look_on, args=(over,), daemon=True)
    for thread in [*load.threads, sampler]:
        thread.start()
    sys.stdin.read()
    load.stop.set()
    deadline = time.monotonic() + PATIENCE
    for thread in load.threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    stuck = sum(thread.is_alive() for thread in load.threads)
    print("stopped", flush=True)
    over.set()
    sampler.join(PATIENCE)
    load.sample()
    held_at_the_end = load.emitter.stats().queued_events
    left = load.emitter.close(PATIENCE)
    load.sample()
    stats = load.emitter.stats()
    told = {
        "given": load.returned,
        "stuck": stuck,
        "held_at_the_end": held_at_the_end,
        "left": left,
        "sent": stats.sent_events,
        "dropped": {reason: count for reason, count in stats.dropped_events.items() if count},
        "failed_requests": stats.failed_requests,
        "samples": load.samples,
        "wrong": load.wrong[:10],
        "most_events": load.most_events,
        "most_bytes": load.most_bytes,
        "longest_call": load.longest_call,
        "longest_wait": load.longest_wait(),
        "longest_gap": load.longest_gap,
        "memory_growth": memory("VmHWM") - before,
        "memory_peak": memory("VmHWM"),
        "log": log.lines,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
