"""Strings of 1 to 100,000 characters, of every kind, compared with bare `orjson.dumps` of the same strings.

Each side gets strings of its own that nobody has read before. The reason: `orjson.dumps` keeps the UTF-8 of a string in
the string itself, so it is several times as fast when it gets the string again. An event is tracked once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from bench_support import SMOKE, STRINGS, interleaved, medians
from pytest_benchmark.fixture import BenchmarkFixture

from fastemit._buffer import EventBuffer

LENGTHS = [1, 8, 15, 16, 40, 100, 256, 1_000, 4_000, 16_000, 60_000, 100_000]
ROUNDS = 5 if SMOKE else 25
#: Characters of a round, in events of one string each. They are few, so that the queued events stay in the processor's
#: cache. The result of `orjson.dumps` also stays there, because it is thrown away at once.
CHARACTERS = 400_000


def fresh(unit: str, length: int) -> list[dict[str, str]]:
    encoded = (unit * (length // len(unit) + 1))[:length].encode()
    return [{"e": encoded.decode()} for _ in range(min(400, CHARACTERS // length))]


def seconds_of(take: Callable[[dict[str, str]], object], payloads: list[dict[str, str]]) -> float:
    started = time.perf_counter()
    for payload in payloads:
        take(payload)
    return (time.perf_counter() - started) / len(payloads)


def ratio_of(unit: str, length: int) -> float:
    buffer = EventBuffer(10_000, 1 << 26, 1_000_000, 10_000)
    buffer.notify = 0

    def fastemit() -> float:
        took = seconds_of(buffer.append, fresh(unit, length))
        while (batch := buffer.take()) is not None:
            batch.sent()
        return took

    def bare() -> float:
        return seconds_of(orjson.dumps, fresh(unit, length))

    times = medians(interleaved({"fastemit": fastemit, "orjson.dumps": bare}, ROUNDS))
    return times["fastemit"] / times["orjson.dumps"]


@pytest.mark.parametrize("kind", STRINGS)
@pytest.mark.benchmark(group="guards: the time that the whole test takes")
def test_strings(kind: str, benchmark: BenchmarkFixture, record: Any) -> None:
    ratios: dict[str, float] = benchmark.pedantic(
        lambda: {f"{length:,} characters": ratio_of(STRINGS[kind], length) for length in LENGTHS}, rounds=1
    )
    record(f"strings, {kind}", max(ratios.values()), "times orjson.dumps at worst", 1.0, guard=2, detail=ratios)
