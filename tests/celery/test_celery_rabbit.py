"""CeleryEmitter over a real RabbitMQ, whose workers and whose server are killed: books event by event."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastemit.testing import Collector
from tests.support.celery_workers import Worker
from tests.support.environment import environment
from tests.support.rabbit import RabbitServer, running
from tests.support.stores import python_blocks
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(550)]

#: Seconds until all has arrived: workers and brokers have to be started again.
PATIENCE = 200.0
#: How often something is killed. A server that starts again takes 10 s and more, in which nobody can do anything.
KILLS = 4
PRODUCER = """
import json, sys, time
from fastemit import CeleryEmitter

url, prefix, count, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
emitter = CeleryEmitter(
    url, batch_size=20, flush_interval=0.1, max_retry_delay_seconds=1, buffer_capacity=100000,
    max_request_bytes=8000,
)
began = time.monotonic()
for number in range(count):
    emitter.input({"e": "pv", "eid": f"{prefix}-{number}", "url": "https://example.com/" + "x" * 150})
    ahead = number / rate - (time.monotonic() - began)
    if ahead > 0.01:
        time.sleep(ahead)
# A program that ends before the broker is back loses what the broker has not got: that is not what is tested here.
emitter.drain(300, retry=True)
emitter.close()
stats = emitter.stats()
print(json.dumps([stats.sent_events, stats.dropped_events]))
"""


def documented(server: RabbitServer) -> str:
    """The configuration that our page recommends, with this broker."""
    (block,) = [block for _, block in python_blocks("docs/scaling-celery.md") if "x-delivery-limit" in block]
    return block.replace("amqp://user:password@rabbit.example.com//", server.url)


@pytest.fixture
def rabbit(tmp_path: Path) -> Iterator[RabbitServer]:
    directory = tmp_path / "rabbit"
    directory.mkdir()
    with running(directory) as server:
        yield server


def producer(url: str, prefix: str, count: int, seconds: float, directory: Path) -> subprocess.Popen[str]:
    """A program that tracks so many events in so many seconds."""
    command = [sys.executable, "-c", PRODUCER, url, prefix, str(count), str(count / seconds)]
    return subprocess.Popen(
        command, cwd=directory, env=environment(PYTHONPATH=str(directory)), stdout=subprocess.PIPE, text=True
    )


def counted(collector: Collector) -> Counter[str]:
    return Counter(event["eid"] for event in collector.events)


@pytest.mark.parametrize("killed", ["worker", "broker", "both"])
def test_nothing_is_lost_whoever_is_killed(killed: str, rabbit: RabbitServer, tmp_path: Path) -> None:
    count, seconds = 2000, 14.0
    configuration = documented(rabbit)
    with Collector() as collector:
        workers = [
            Worker(tmp_path / f"worker{number}", configuration=configuration, name=f"worker{number}")
            for number in (0, 1)
        ]
        producers = []
        try:
            for worker in workers:
                worker.wait_until_ready()
            collector.respond(delay=0.05, times=None)
            producers = [
                producer(collector.url, f"p{number}", count, seconds, tmp_path / "worker0") for number in (0, 1)
            ]
            kills: Counter[str] = Counter()
            for turn in range(KILLS):
                collector.wait_for_requests(len(collector.requests) + 5, PATIENCE)
                collector.respond(200 if turn % 2 else 503, delay=0.05, times=None)
                collector.wait_for_requests(len(collector.requests) + 5, PATIENCE)
                if killed != "worker":
                    rabbit.kill()
                    kills["broker"] += 1
                if killed != "broker":
                    workers[turn % 2].kill()
                    kills["worker"] += 1
                if killed != "worker":
                    rabbit.start()
                for worker in workers:
                    worker.supervise()
            collector.respond(200, times=None)
            told = [json.loads(each.communicate(timeout=PATIENCE)[0]) for each in producers]
            expected = {f"p{each}-{number}" for each in (0, 1) for number in range(count)}

            def all_there() -> bool:
                for worker in workers:
                    worker.supervise()
                return len(counted(collector)) >= len(expected)

            try:
                until(all_there, PATIENCE)
            finally:
                arrived = counted(collector)
                print(f"{killed}: {dict(kills)}, {len(arrived)} of {len(expected)} arrived, {arrived.total()} copies")
            assert set(arrived) == expected
            assert [each for each, _ in told] == [count, count]
            assert set(kills.values()) == {KILLS}
        finally:
            for each in producers:
                each.kill()
                each.wait()
            for worker in workers:
                worker.kill()
