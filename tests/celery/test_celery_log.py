"""What the log of a real Celery worker holds back is told when its process ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastemit.testing import Collector
from tests.support.celery_workers import RedisServer, emitters, patiently, running
from tests.support.slow import slow


@pytest.mark.parametrize("pool", ["prefork", slow("threads"), slow("solo")])
def test_a_worker_that_ends_tells_what_it_held_back(
    shared: RedisServer, collector: Collector, tmp_path: Path, pool: str
) -> None:
    broker = shared.database({"prefork": 13, "threads": 14, "solo": 15}[pool])
    collector.respond(400, times=None)
    # The worker takes longer than a second to start, and is stopped long before ten more have passed.
    with emitters(broker, collector.url) as make, running(tmp_path, broker, pool, concurrency=1) as worker:
        emitter = make()
        for _ in range(5):
            emitter.input({"e": "pv"})
            assert emitter.drain(10) is True
        patiently(lambda: len(collector.requests) == 5 and worker.log.count(" succeeded in ") == 5)
        assert worker.log.count("events dropped (rejected)") == 1
        worker.stop()
        assert "events dropped (rejected) (4 since the last such line): status 400" in worker.log
