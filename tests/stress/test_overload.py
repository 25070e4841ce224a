"""Sixteen threads that put in events as fast as they can, while the collector is slow, silent, gone, or comes and goes.

Each case runs for a second; `FASTEMIT_OVERLOAD_SECONDS=20` makes it 20.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.emitters import DEADLINE, feed, join, numbered, numbers, threads_of
from tests.support.environment import environment
from tests.support.slow import slow, slow_but
from tests.support.waiting import until

SECONDS = float(os.environ.get("FASTEMIT_OVERLOAD_SECONDS", "1"))
WEATHERS = ["slow", "silent", "gone", "flapping"]
#: Bytes of padding, so that it is now the one and now the other bound that is reached.
SIZES = [10, 100, 1000]
THREADS = 16
CAPACITY = 2_500
BUFFER_BYTES = 1024 * 1024
MEGABYTE = 1024 * 1024
#: How long a thread may wait once there is room.
LONGEST_WAIT = 1.0
SETTINGS: dict[str, Any] = {
    "batch_size": 100,
    "buffer_capacity": CAPACITY,
    "max_buffer_bytes": BUFFER_BYTES,
    "max_request_bytes": 300_000,
    "request_timeout": 0.3,
    "max_retry_delay_seconds": 0.2,
}

pytestmark = pytest.mark.timeout(60 + 4 * SECONDS)


class Weather:
    """What the collector does during a run, and how that ends; none of it loses an answer."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self._over = threading.Event()
        self._flapper: threading.Thread | None = None

    def slow(self) -> None:
        self.collector.respond(delay=0.02, times=None)

    def silent(self) -> None:
        # What hangs is not accepted when it is let go: nobody waits for that answer any more.
        self.collector.respond(503, hang=True, times=None)

    def gone(self) -> None:
        self.collector.close()

    def flapping(self) -> None:
        self._flapper = threading.Thread(target=self._flap, daemon=True)
        self._flapper.start()

    def _flap(self) -> None:
        collector = self.collector
        while not self._over.is_set():
            collector.respond(delay=0.01, times=None)
            self._over.wait(0.15)
            collector.respond(503, times=None)
            self._over.wait(0.1)
            collector.respond(reset=True, times=None)
            self._over.wait(0.1)

    def clears(self) -> None:
        self._over.set()
        if self._flapper is not None:
            self._flapper.join(DEADLINE)
        self.collector.start()
        self.collector.respond(times=None)
        self.collector.release()


def run(collector: Collector, weather: str, policy: str, sizes: list[int], **settings: Any) -> Any:
    """What the producer saw, with `arrived`: for each of its threads, the numbers of its events as they came."""
    setup = {
        "url": collector.url,
        "threads": THREADS,
        "sizes": sizes,
        "settings": {**SETTINGS, "overflow": policy, **settings},
    }
    sky = Weather(collector)
    getattr(sky, weather)()
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("overload_producer.py")), json.dumps(setup)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as producer:
        try:
            assert producer.stdin is not None
            assert producer.stdout is not None
            time.sleep(SECONDS)
            producer.stdin.close()
            if policy == "block":
                # Its threads wait for just that.
                sky.clears()
            stopped = producer.stdout.readline()
            sky.clears()
            line = producer.stdout.readline()
        finally:
            producer.kill()
    assert stopped == "stopped\n"
    saw = SimpleNamespace(**json.loads(line))
    saw.arrived = [[] for _ in range(THREADS)]
    for request in collector.requests:
        if request.status is not None and request.status < 300:
            for event in json.loads(request.body)["data"]:
                saw.arrived[int(event["t"])].append(int(event["n"]))
    saw.overflow = saw.dropped.pop("overflow", 0)
    return saw


def increasing(values: list[int]) -> bool:
    return all(first < second for first, second in itertools.pairwise(values))


def check(saw: Any) -> None:
    """What holds whatever the policy and the weather."""
    # The bounds and the counters, at every look.
    assert saw.wrong == []
    # Few on a machine that has little time for the sampler beside sixteen others.
    assert saw.samples >= 2
    assert saw.most_events <= CAPACITY
    assert saw.most_bytes <= BUFFER_BYTES
    assert saw.memory_growth <= BUFFER_BYTES + 30 * MEGABYTE
    assert len(saw.log) < 10
    # Nobody was left asleep, and nobody was passed by for long. A gap between two looks is the machine's, or the GIL's.
    assert saw.stuck == 0
    assert saw.longest_wait <= LONGEST_WAIT + saw.longest_gap
    # The books: what arrived, once each and in order, and what was dropped, are what was given.
    assert (saw.left, saw.dropped) == (0, {})
    assert all(increasing(numbers) for numbers in saw.arrived)
    arrived = sum(map(len, saw.arrived))
    assert (arrived, arrived + saw.overflow) == (saw.sent, sum(saw.given))


@pytest.mark.parametrize("weather", slow_but(["flapping"], WEATHERS))
def test_block_drops_nothing(collector: Collector, weather: str) -> None:
    saw = run(collector, weather, "block", SIZES)
    check(saw)
    assert saw.overflow == 0
    assert saw.arrived == [list(range(given)) for given in saw.given]


@pytest.mark.slow
def test_backpressure_drops_nothing_while_the_collector_is_slow(collector: Collector) -> None:
    saw = run(collector, "slow", "backpressure", SIZES)
    check(saw)
    assert saw.overflow == 0
    assert saw.arrived == [list(range(given)) for given in saw.given]


@pytest.mark.parametrize("weather", ["silent", slow("gone")])
@pytest.mark.parametrize("policy", [slow("backpressure"), "drop_newest"])
def test_without_a_collector_the_first_events_are_kept(collector: Collector, policy: str, weather: str) -> None:
    saw = run(collector, weather, policy, [200])
    check(saw)
    assert saw.overflow > 0
    assert saw.most_events == CAPACITY
    assert saw.arrived == [list(range(len(arrived))) for arrived in saw.arrived]


@pytest.mark.parametrize("weather", [slow("silent"), "gone"])
def test_without_a_collector_drop_oldest_keeps_the_last_events(collector: Collector, weather: str) -> None:
    saw = run(collector, weather, "drop_oldest", [200])
    check(saw)
    assert saw.overflow > 0
    assert saw.most_events == CAPACITY
    # All but those that were in a request at some time are the last that their thread gave.
    last = sum(last_in_a_row(arrived, given) for arrived, given in zip(saw.arrived, saw.given, strict=True))
    assert saw.sent - last <= 2 * SETTINGS["max_request_bytes"] / 200
    assert last > 0


def last_in_a_row(arrived: list[int], given: int) -> int:
    """How many of the last events that were given arrived, up to the first that did not."""
    here = set(arrived)
    return next(back for back in range(given + 1) if given - 1 - back not in here)


@pytest.mark.parametrize("weather", ["slow", slow("flapping")])
@pytest.mark.parametrize("policy", [slow("drop_newest"), "drop_oldest"])
def test_a_policy_that_drops_does_so_without_waiting(collector: Collector, policy: str, weather: str) -> None:
    saw = run(collector, weather, policy, SIZES)
    check(saw)
    assert saw.overflow > 0
    # It shares one GIL with fifteen others and the sampler.
    assert saw.longest_call <= 0.3 + 2 * saw.longest_gap


def test_backpressure_drops_and_waits_in_turn_while_the_collector_flaps(collector: Collector) -> None:
    saw = run(collector, "flapping", "backpressure", SIZES)
    check(saw)
    assert saw.overflow > 0
    assert saw.sent >= saw.most_events


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
def test_a_full_buffer_of_the_default_size_is_all_the_memory_that_is_taken(collector: Collector, policy: str) -> None:
    size = 64 * MEGABYTE
    saw = run(collector, "gone", policy, [4000], buffer_capacity=1_000_000, max_buffer_bytes=size, batch_size=10)
    assert size * 0.99 < saw.most_bytes <= size
    assert saw.memory_growth <= size + 30 * MEGABYTE
    assert saw.overflow > 0
    assert saw.wrong == []


# -- everybody is woken ------------------------------------------------------------------------------------------------


class Crowd:
    """Sixteen threads that wait in `input` for room."""

    def __init__(self, collector: Collector, emitter: Any) -> None:
        self.emitter = emitter
        self.threads = threads_of(THREADS, lambda me: feed(emitter, *numbered(me + 1)))
        until(lambda: len(emitter._delivery._admission._room.waiting) == THREADS)

    def return_within_a_second(self) -> bool:
        join(self.threads, LONGEST_WAIT)
        return True


@pytest.fixture
def crowd(collector: Collector, make_emitter: MakeEmitter) -> Callable[..., Crowd]:
    """Has them wait while event 0 is in a request that hangs."""

    def gather(policy: str, **answer: Any) -> Crowd:
        collector.respond(hang=True, **answer)
        emitter = make_emitter(batch_size=1, buffer_capacity=1, overflow=policy)
        feed(emitter, *numbered(0))
        collector.wait_for_requests(1)
        return Crowd(collector, emitter)

    return gather


@pytest.mark.parametrize("policy", ["block", "backpressure"])
def test_room_wakes_everybody(collector: Collector, crowd: Callable[..., Crowd], policy: str) -> None:
    waiting = crowd(policy)
    collector.release()
    assert waiting.return_within_a_second()
    assert sorted(numbers(collector.wait_for(THREADS + 1))) == list(range(THREADS + 1))


@pytest.mark.parametrize("policy", ["block", "backpressure"])
def test_close_wakes_everybody(crowd: Callable[..., Crowd], policy: str) -> None:
    waiting = crowd(policy)
    waiting.emitter.close(0)
    assert waiting.return_within_a_second()
    assert waiting.emitter.stats().dropped_events["closed"] == THREADS


def test_a_failure_wakes_everybody_under_backpressure(collector: Collector, crowd: Callable[..., Crowd]) -> None:
    waiting = crowd("backpressure", status=503, headers={"Retry-After": "60"})
    collector.release()
    assert waiting.return_within_a_second()
    assert waiting.emitter.stats().dropped_events["overflow"] == THREADS


def test_a_failure_wakes_nobody_under_block_and_the_success_after_it_everybody(
    collector: Collector, crowd: Callable[..., Crowd]
) -> None:
    waiting = crowd("block", status=503, headers={"Retry-After": "60"})
    collector.release()
    until(lambda: waiting.emitter.retry_delay == 60)
    assert len(waiting.emitter._delivery._admission._room.waiting) == THREADS
    waiting.emitter.async_flush()
    assert waiting.return_within_a_second()
    assert sorted(numbers(collector.wait_for(THREADS + 1))) == list(range(THREADS + 1))
