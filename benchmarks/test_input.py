"""`input` while the sender is idle: what an event costs the thread that tracks it."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any, Protocol

import orjson
import pytest
import snowplow_tracker
from bench_support import (
    PAGE_VIEW,
    PAGE_VIEW_BYTES,
    PAGE_VIEW_WITH_INT,
    SMOKE,
    interleaved,
    medians,
    timer_per_event,
)
from pytest_benchmark.fixture import BenchmarkFixture
from servers import Server

import fastemit

EVENTS = 1_000  # in a round. Rounds are short, so that other programs interrupt few of them
ROUNDS = 100 if SMOKE else 500
PAYLOADS: dict[str, dict[str, Any]] = {"one int": PAGE_VIEW_WITH_INT, "all strings": PAGE_VIEW}


class Contender(Protocol):
    """Something that takes events. `settle` checks that it has them all, and empties it."""

    take: Callable[[dict[str, Any]], object]

    def settle(self, events: int) -> None: ...


class Fastemit:
    def __init__(self, server: Server) -> None:
        self._server = server
        # Never reached: the sender sleeps until `settle`.
        self._emitter = fastemit.Emitter(server.url, batch_size=EVENTS + 1, buffer_capacity=EVENTS + 1)
        self.take = self._emitter.input

    def settle(self, events: int) -> None:
        assert self._emitter.stats().queued_events == events
        self._server.reset()
        assert self._emitter.drain(30)
        assert self._server.counts().events == events


class Reference:
    def __init__(self, server: Server) -> None:
        emitter = snowplow_tracker.Emitter(server.url, batch_size=EVENTS + 1, buffer_capacity=EVENTS + 1)
        self._store = emitter.event_store
        self.take = emitter.input

    def settle(self, events: int) -> None:
        assert self._store.size() == events
        assert len(self._store.get_events_batch()) == events


class BareOrjson:
    """The limit: `orjson.dumps` of a dict with only strings. The result is not used."""

    def __init__(self, server: Server) -> None:
        self.take = orjson.dumps

    def settle(self, events: int) -> None:
        assert len(self.take(PAGE_VIEW)) == PAGE_VIEW_BYTES


class Confluent:
    """For comparison, if it is installed: the time of another client with a native core for an event of this size.

    It is given the JSON, and there is no broker.
    """

    def __init__(self, server: Server) -> None:
        import confluent_kafka

        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": "127.0.0.1:9", "queue.buffering.max.messages": EVENTS * 2, "log_level": 0}
        )
        value, produce = orjson.dumps(PAGE_VIEW), self._producer.produce
        self.take = lambda _: produce("events", value)

    def settle(self, events: int) -> None:
        assert len(self._producer) == events
        self._producer.purge()
        self._producer.poll(0)


CONTENDERS: dict[str, Callable[[Server], Contender]] = {
    "fastemit": Fastemit,
    "orjson.dumps": BareOrjson,
    "reference": Reference,
}
if importlib.util.find_spec("confluent_kafka"):
    CONTENDERS["confluent-kafka produce"] = Confluent
#: The limit, as a multiple of `orjson.dumps`.
AIMS = {"one int": 1.6, "all strings": 1.25}


def payload_for(contender: str, kind: str) -> dict[str, Any]:
    return PAGE_VIEW if contender == "orjson.dumps" else dict(PAYLOADS[kind])


def take_all(contender: Contender, payload: dict[str, Any]) -> None:
    take = contender.take
    for _ in repeat(None, EVENTS):
        take(payload)


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.benchmark(timer=timer_per_event(EVENTS))
def test_input(name: str, kind: str, server: Server, benchmark: BenchmarkFixture) -> None:
    benchmark.group = f"input, sender idle, page view with {kind}: time per event"
    contender, payload = CONTENDERS[name](server), payload_for(name, kind)
    take_all(contender, payload)  # after this the memory is there, and is used again

    def settle() -> None:
        contender.settle(EVENTS)

    benchmark.pedantic(take_all, (contender, payload), setup=settle, rounds=ROUNDS)
    contender.settle(EVENTS)


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.benchmark(group="guards: the time that the whole test takes")
def test_input_ratios(kind: str, server: Server, benchmark: BenchmarkFixture, record: Any) -> None:
    def run_of(name: str) -> Callable[[], float]:
        contender, payload = CONTENDERS[name](server), payload_for(name, kind)

        def run() -> float:
            started = time.perf_counter()
            take_all(contender, payload)
            took = time.perf_counter() - started
            contender.settle(EVENTS)
            return took / EVENTS * 1e9

        run()
        return run

    runs = {name: run_of(name) for name in CONTENDERS}
    results = benchmark.pedantic(interleaved, (runs, ROUNDS), rounds=1)
    nanoseconds = medians(results)
    detail = {f"{name}, ns": value for name, value in nanoseconds.items()}
    to_limit = nanoseconds["fastemit"] / nanoseconds["orjson.dumps"]
    to_reference = nanoseconds["reference"] / nanoseconds["fastemit"]
    record(f"input, {kind}", to_limit, "times orjson.dumps", AIMS[kind], guard=2, detail=detail)
    record(
        f"input, {kind}, to the reference", to_reference, "times as fast as the reference", 6, at_least=True, guard=2
    )
