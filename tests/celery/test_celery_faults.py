"""Workers that are killed, stopped or run into limits: nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from fastemit.testing import Collector
from tests.support.celery_workers import PATIENCE, QUICK, MakeEmitter, RedisServer, app_of, arrived, patiently, running
from tests.support.delivery import put
from tests.support.slow import slow

# -- workers ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pool_child_that_is_killed_while_it_sends_loses_nothing_not_even_twice(
    shared: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(1)
    collector.respond(hang=True, times=2, accept=False)
    with running(tmp_path, broker, concurrency=1) as worker:
        emitter = make_down(celery_app=app_of(broker))
        put(emitter, 3)
        emitter.flush()
        for requests in (1, 2):
            collector.wait_for_requests(requests, PATIENCE)
            (child,) = worker.children()
            os.kill(child, signal.SIGKILL)
        collector.wait_for(3, PATIENCE)
    assert set(arrived(collector)) == {0, 1, 2}


@pytest.mark.slow
def test_children_killed_at_random_lose_nothing(
    shared: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(11)
    collector.respond(delay=0.05, times=None)
    sent = 0
    with running(tmp_path, broker) as worker:
        emitter = make_down(celery_app=app_of(broker), **QUICK)
        for _ in range(12):
            for _ in range(4):
                put(emitter, 5, sent)
                emitter.flush()
                sent += 5
            collector.wait_for_requests(len(collector.requests) + 1, PATIENCE)
            with contextlib.suppress(IndexError, ProcessLookupError):
                os.kill(random.choice(worker.children()), signal.SIGKILL)
        patiently(lambda: set(arrived(collector)) == set(range(sent)))


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_what_a_killed_worker_had_comes_back_after_the_visibility_timeout(
    pool: str, shared: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database({"prefork": 2, "threads": 3, "gevent": 4}[pool])
    collector.respond(hang=True, accept=False)
    emitter = make_down(celery_app=app_of(broker))
    put(emitter, 3)
    emitter.flush()
    with running(tmp_path, broker, pool, visibility_timeout=1) as worker:
        collector.wait_for_requests(1, PATIENCE)
        worker.kill()
    client = shared.client(db=int(broker[-1]))
    assert client.hlen("unacked") == 1
    # A worker looks for what others have left when it starts, and then every so often.
    (left_at,) = [score for _, score in client.zrange("unacked_index", 0, -1, withscores=True)]
    patiently(lambda: client.time()[0] > left_at + 1)
    with running(tmp_path, broker, pool, visibility_timeout=1):
        collector.wait_for(3, PATIENCE)
    assert set(arrived(collector)) == {0, 1, 2}


@pytest.mark.slow
def test_a_short_visibility_timeout_cuts_the_countdown_and_doubles_nothing(
    shared: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(12)
    collector.respond(503, headers={"Retry-After": "30"})
    emitter = make_down(celery_app=app_of(broker))
    with running(tmp_path, broker, visibility_timeout=4) as worker:
        put(emitter, 3)
        emitter.flush()
        collector.wait_for(3, PATIENCE)
        patiently(lambda: "succeeded" in worker.log)
    first, second = collector.requests
    assert 2 <= second.arrived - first.arrived < 30


def test_a_worker_that_is_stopped_hands_back_at_once_what_waits_for_its_next_attempt(
    shared: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(5)
    collector.respond(503, headers={"Retry-After": "3600"})
    emitter = make_down(celery_app=app_of(broker), max_retry_delay_seconds=2)
    with running(tmp_path, broker) as worker:
        put(emitter, 3)
        emitter.flush()
        # The retry is in the hands of the worker, which waits for its time.
        patiently(lambda: worker.log.count("received") == 2)
        worker.stop()
    assert shared.client(db=5).llen("celery") == 1
    assert collector.events == []
    with running(tmp_path, broker):
        collector.wait_for(3, PATIENCE)


@pytest.mark.parametrize("limit", ["task_soft_time_limit = 0.3", slow("task_time_limit = 1")])
def test_a_task_that_runs_into_a_time_limit_is_run_again(
    limit: str, shared: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(6 if "soft" in limit else 10)
    collector.respond(hang=True, accept=False)
    with running(tmp_path, broker, more=limit):
        emitter = make_down(celery_app=app_of(broker), **QUICK)
        put(emitter, 3)
        emitter.flush()
        collector.wait_for(3, PATIENCE)


@pytest.mark.slow
def test_a_batch_that_cannot_go_back_to_the_broker_is_not_lost(
    own_server: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    def answer(_: Any) -> int:
        own_server.kill()
        return 503

    collector.respond(answer)
    emitter = make_down(celery_app=app_of(own_server.url), **QUICK)
    with running(tmp_path / "worker", own_server.url, visibility_timeout=1) as worker:
        put(emitter, 3)
        emitter.flush()
        patiently(lambda: [request.status for request in collector.requests] == [503])
        own_server.start()
        patiently(lambda: worker.supervise() and len(collector.events) >= 3)
    assert set(arrived(collector)) == {0, 1, 2}


@pytest.mark.slow
def test_a_batch_that_a_full_redis_does_not_take_back_is_not_lost(
    own_server: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    client = own_server.client()

    def answer(_: Any) -> int:
        client.config_set("maxmemory", 1)
        return 503

    def refused() -> bool:
        return bool(client.info("commandstats").get("cmdstat_lpush", {}).get("rejected_calls"))

    collector.respond(answer)
    emitter = make_down(celery_app=app_of(own_server.url), **QUICK)
    with running(tmp_path / "worker", own_server.url, visibility_timeout=600) as worker:
        put(emitter, 3)
        emitter.flush()
        patiently(refused)
        client.config_set("maxmemory", 0)
        patiently(lambda: worker.supervise() and len(collector.events) >= 3)
    assert set(arrived(collector)) == {0, 1, 2}
