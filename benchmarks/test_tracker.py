"""Making and tracking an event: `fastemit.Tracker` compared with `snowplow_tracker.Tracker`, with the same emitter."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

import pytest
import snowplow_tracker
from bench_support import SMOKE, interleaved, medians
from pytest_benchmark.fixture import BenchmarkFixture
from tracked_events import EVENTS, subject

import fastemit

COUNT = 200  # in a round. Rounds are short, so that other programs interrupt few of them
ROUNDS = 40 if SMOKE else 400
#: The limit, as a multiple of the time of `snowplow_tracker.Tracker`.
AIMS = {"page view": 0.37, "page view with a Subject": 0.37, "structured": 0.40, "self-describing with a context": 0.42}


class Nothing:
    """An emitter that does nothing, so that only the Tracker is measured."""

    def input(self, payload: dict[str, Any]) -> None:
        pass


def run_of(cls: Any, kind: str, emitter: Any, settle: Callable[[], object]) -> Callable[[], float]:
    tracker = cls("shop", emitter, subject() if kind.endswith("Subject") else None, "web")
    make = EVENTS[kind]

    def run() -> float:
        # CPU time, so that other programs on this machine do not count.
        started = time.thread_time_ns()
        for _ in repeat(None, COUNT):
            tracker.track(make())
        took = time.thread_time_ns() - started
        settle()
        return took / COUNT

    run()
    return run


@pytest.mark.parametrize("kind", EVENTS)
@pytest.mark.benchmark(group="guards: the time that the whole test takes")
def test_tracker_ratios(kind: str, benchmark: BenchmarkFixture, record: Any) -> None:
    def nothing() -> None:
        pass

    emitter = fastemit.Emitter("http://127.0.0.1:9", batch_size=COUNT + 1, buffer_capacity=COUNT + 1)
    buffer: Any = emitter._buffer

    def empty() -> None:
        batch = buffer.take()
        assert len(batch) == COUNT
        batch.sent()

    runs = {
        "fastemit": run_of(fastemit.Tracker, kind, Nothing(), nothing),
        "snowplow_tracker": run_of(snowplow_tracker.Tracker, kind, Nothing(), nothing),
        "fastemit, and its Emitter": run_of(fastemit.Tracker, kind, emitter, empty),
        "snowplow_tracker, and fastemit's Emitter": run_of(snowplow_tracker.Tracker, kind, emitter, empty),
    }
    nanoseconds = medians(benchmark.pedantic(interleaved, (runs, ROUNDS), rounds=1))
    detail = {f"{name}, ns": value for name, value in nanoseconds.items()}
    ratio = nanoseconds["fastemit"] / nanoseconds["snowplow_tracker"]
    record(f"make and track, {kind}", ratio, "times snowplow_tracker.Tracker", AIMS[kind], guard=1.2, detail=detail)
    emitter.close(0)
