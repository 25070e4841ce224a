"""`CeleryEmitter`: what an event costs the process that tracks it, from `input` until it is in the broker."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench_support import PAGE_VIEW, SMOKE, interleaved, medians
from pytest_benchmark.fixture import BenchmarkFixture

sys.path.append(str(Path(__file__).parents[1]))

from fastemit.celery import CeleryEmitter
from tests.support.celery_workers import RedisServer, app_of, messages

EVENTS = 5_000 if SMOKE else 50_000
#: This many tasks take a few seconds.
SINGLE = 200 if SMOKE else 2_000
ROUNDS = 3 if SMOKE else 7


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "no").start()
    yield server
    server.kill()


def cost(work: Callable[[], None], events: int) -> float:
    """Microseconds of CPU of this process, all threads, for one event."""
    started = time.process_time()
    work()
    return (time.process_time() - started) / events * 1e6


@pytest.mark.benchmark(group="guards: the time that the whole test takes")
def test_producer_cost(redis_server: RedisServer, benchmark: BenchmarkFixture, report: Callable[[str], None]) -> None:
    app = app_of(redis_server.url)

    @app.task(name="one.event", serializer="json", ignore_result=True)
    def one_event(event: dict[str, str]) -> None:
        """Never run, because only publishing is measured here."""

    client = redis_server.client()

    def emitter_of(batch_size: int) -> Callable[[], float]:
        # Only a worker would use the URL, and there is no worker here.
        emitter = CeleryEmitter("http://127.0.0.1:1", celery_app=app, batch_size=batch_size, buffer_capacity=EVENTS + 1)

        def work() -> None:
            for _ in range(EVENTS):
                emitter.input(PAGE_VIEW)
            assert emitter.drain(60)

        def run() -> float:
            before = emitter.stats().sent_events
            took = cost(work, EVENTS)
            assert emitter.stats().sent_events - before == EVENTS
            assert client.llen("celery") > 0
            client.delete("celery")
            return took

        return run

    def one_task_an_event() -> float:
        def work() -> None:
            for _ in range(SINGLE):
                one_event.apply_async((PAGE_VIEW,))

        took = cost(work, SINGLE)
        assert len(messages(client)) > 0
        client.delete("celery")
        return took

    runs = {
        "batch_size=10": emitter_of(10),
        "batch_size=1000": emitter_of(1000),
        "one task an event": one_task_an_event,
    }
    for run in runs.values():
        run()
    results = benchmark.pedantic(interleaved, (runs, ROUNDS), rounds=1)
    microseconds = medians(results)
    ratio = microseconds["one task an event"] / microseconds["batch_size=10"]
    told = ", ".join(f"{name} {value:.2f} us" for name, value in microseconds.items())
    report(
        f"CeleryEmitter, CPU of the producer for one event: {ratio:.0f} times less than a task (at least 20): {told}"
    )
    benchmark.extra_info.update(microseconds=microseconds, ratio=ratio)
    assert ratio >= 20
