"""`input` while the collector hangs, flaps or is slow: what the slowest calls cost the thread that tracks.

There is one producer thread, and an `AsyncEmitter` with its defaults. The control is the same loop with a deque's
`append` instead of `input`. Beside it a thread takes the items and posts as many bytes to the same server, by the same
rules.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
import snowplow_tracker
import urllib3
from bench_support import PAGE_VIEW_BYTES, PAGE_VIEW_WITH_INT, SMOKE, interleaved
from pytest_benchmark.fixture import BenchmarkFixture
from servers import Server

import fastemit
from fastemit._delivery.retry import Backoff

ROUNDS = 5 if SMOKE else 7
SECONDS = 0.15 if SMOKE else 0.5  # of a round
#: Seconds between two events; None means as fast as possible.
PACES = {"full speed": None, "2,000 a second": 0.0005}
#: The most samples of a round. Without a limit `snowplow_tracker` and the control would fill the memory.
MOST_EVENTS = 200_000
REFERENCE_EVENTS = 20_000
#: In seconds, more than the control.
PERCENTILE_LIMIT = 200e-6
WORST_LIMIT = 20e-3
#: Bytes that `stm` and a comma add to each event.
EVENT_BYTES = PAGE_VIEW_BYTES + 23
REQUEST_BYTES = 1_000_000
WEATHERS = ["slow", "hanging", "flapping"]

pytestmark = pytest.mark.timeout(300)


class Contender(Protocol):
    """Something that takes events and sends them in the background, until `end`."""

    take: Callable[[dict[str, Any]], object]
    most: int

    def end(self) -> None: ...


class Fastemit:
    most = MOST_EVENTS

    def __init__(self, server: Server) -> None:
        self._emitter = fastemit.AsyncEmitter(server.url)
        self.take = self._emitter.input

    def end(self) -> None:
        self._emitter.close(0.1)


class Control:
    most = MOST_EVENTS

    def __init__(self, server: Server) -> None:
        self._events: deque[Any] = deque(maxlen=10_000)
        self._url = f"{server.url}/com.snowplowanalytics.snowplow/tp2"
        self._body = memoryview(bytes(REQUEST_BYTES))
        self._over = threading.Event()
        self.take = self._events.append
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        pool = urllib3.PoolManager()
        backoff = Backoff(60.0)
        while not self._over.wait(backoff.wait or 0.0001):
            waiting = len(self._events)
            if waiting < 10:
                continue
            size = min(waiting * EVENT_BYTES, REQUEST_BYTES)
            try:
                ok = pool.request("POST", self._url, body=self._body[:size], retries=False).status == 200
            except urllib3.exceptions.HTTPError:
                ok = False
            if ok:
                backoff.succeeded(backoff.generation)
                for _ in range(size // EVENT_BYTES):
                    self._events.popleft()
            else:
                backoff.failed(backoff.generation, 0.0)
        pool.clear()

    def end(self) -> None:
        self._over.set()
        self._thread.join(5)


class Reference:
    most = REFERENCE_EVENTS

    def __init__(self, server: Server) -> None:
        self._emitter = snowplow_tracker.AsyncEmitter(server.url)
        self.take = self._emitter.input

    def end(self) -> None:
        """It cannot be ended. Its threads are daemons, and their events are dropped here."""
        self._emitter.queue.queue.clear()


CONTENDERS: dict[str, Callable[[Server], Contender]] = {
    "fastemit": Fastemit,
    "control": Control,
    # It has no aim to meet, so the short run leaves it out.
    **({} if SMOKE else {"reference": Reference}),
}


def time_calls(contender: Contender, pace: float | None) -> list[float]:
    """The time of each call, for as many calls as fit in a round."""
    take, clock, sleep = contender.take, time.perf_counter, time.sleep
    times: list[float] = []
    add, end = times.append, clock() + SECONDS
    for _ in range(contender.most):
        started = clock()
        take(PAGE_VIEW_WITH_INT)
        ended = clock()
        add(ended - started)
        if ended > end:
            break
        if pace is not None:
            sleep(pace)
    return sorted(times)


def measure(server: Server, name: str, weather: str, pace: float | None) -> tuple[float, float, float]:
    """Median, 99.9th percentile and worst time of one round."""
    server.weather(weather)
    contender = CONTENDERS[name](server)
    try:
        for _ in range(10):
            contender.take(PAGE_VIEW_WITH_INT)
        time.sleep(0.05)  # by now the sender is working
        times = time_calls(contender, pace)
    finally:
        server.weather("fine")
        contender.end()
    return times[len(times) // 2], times[len(times) * 999 // 1000], times[-1]


@pytest.fixture(autouse=True)
def fine_weather(server: Server) -> Iterator[None]:
    logging.getLogger("snowplow_tracker.emitters").setLevel(logging.CRITICAL)
    yield
    server.weather("fine")


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("weather", WEATHERS)
@pytest.mark.benchmark(group="guards: the time that the whole test takes")
def test_latency(
    weather: str, pace: str, server: Server, benchmark: BenchmarkFixture, report: Callable[[str], None], record: Any
) -> None:
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CONTENDERS}

    def run_of(name: str) -> Callable[[], float]:
        def run() -> float:
            rounds[name].append(measure(server, name, weather, PACES[pace]))
            return rounds[name][-1][1]

        return run

    benchmark.pedantic(interleaved, ({name: run_of(name) for name in CONTENDERS}, ROUNDS), rounds=1)
    # The median of the rounds, because other programs also make a call wait.
    middle = {name: [statistics.median(part) for part in zip(*each, strict=True)] for name, each in rounds.items()}
    over = [ours - control for ours, control in zip(middle["fastemit"], middle["control"], strict=True)]
    report(f"input, collector {weather}, {pace}:")
    for name, (half, most, worst) in middle.items():
        highest = max(each[2] for each in rounds[name])
        report(
            f"  {name}: median {half * 1e6:.1f} us, 99.9 % {most * 1e6:.0f} us, worst {worst * 1e3:.1f} ms "
            f"(of all rounds {highest * 1e3:.1f} ms)"
        )
    row = f"input, collector {weather}, {pace}"
    guard = 5 if SMOKE else 1.5
    record(f"{row}, 99.9 %", over[1] * 1e6, "us over the control", PERCENTILE_LIMIT * 1e6, guard=guard)
    record(f"{row}, worst", over[2] * 1e3, "ms over the control", WORST_LIMIT * 1e3, guard=guard)
