"""Several workers, dead ones, and what Redis may do to a RedisWorker: nothing is lost, whoever dies."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter, RedisWorker
from fastemit.testing import Collector
from tests.support.redis_server import QUICK, RedisServer, Relay, redis, running
from tests.support.redis_workers import DEAD, PATIENCE, Process, arrived, at_work, event, left, make, put, take_for_dead
from tests.support.slow import slow_but
from tests.support.waiting import until

# -- several workers, and dead ones ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 8])
def test_workers_share_a_list_and_send_each_event_once(rdb: Any, collector: Collector, count: int) -> None:
    put(rdb, 3000)
    with at_work(*[make(collector, rdb, buffer_capacity=100) for _ in range(count)]):
        until(lambda: len(arrived(collector)) >= 3000 and left(rdb) == [], 20)
    assert sorted(arrived(collector)) == list(range(3000))


def test_what_a_dead_worker_had_goes_first_in_order(rdb: Any, collector: Collector) -> None:
    put(rdb, 10)
    dead = RedisWorker(Emitter(collector.url), rdb, takeover_after=0.2)
    assert len(dead._redis.take(0, 6, 10**6)) == 6  # type: ignore[arg-type]
    with at_work(make(collector, rdb, takeover_after=0.2)):
        until(lambda: sorted(arrived(collector)) == list(range(10)) and left(rdb) == [])


def test_nobody_takes_what_a_live_worker_holds(rdb: Any, collector: Collector) -> None:
    put(rdb, 10)
    slow = RedisWorker(Emitter("http://127.0.0.1:9", shutdown_timeout=0), rdb, poll_interval=0.01, takeover_after=0.4)
    with at_work(slow):
        until(lambda: rdb.llen("snowplow") == 0)
        other = make(collector, rdb, takeover_after=0.4)
        with at_work(other):
            began = time.monotonic()
            until(lambda: time.monotonic() - began > 1.5)
        assert (arrived(collector), other.recovered_events) == ([], 0)


def test_a_worker_that_was_taken_for_dead_forgets_nobodys_events(rdb: Any, collector: Collector) -> None:
    collector.respond(delay=0.3)
    put(rdb, 10)
    worker = make(collector, rdb)
    with at_work(worker):
        until(lambda: rdb.llen("snowplow") == 0)
        # Another puts them back, and this one takes them again: twice, but not never.
        take_for_dead(rdb, worker)
        until(lambda: left(rdb) == [])
    assert set(arrived(collector)) == set(range(10))


KILLS = int(os.environ.get("FASTEMIT_REDIS_KILLS", "50"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_books_balance_after_a_worker_was_killed_50_times(server: RedisServer, rdb: Any, collector: Collector) -> None:
    # One process forks a worker for each round: starting 50 interpreters would be most of the time.
    rng = random.Random(1)
    for status in [503, 200, 200, 200] * 3:
        collector.respond(status)
    total = interrupted = 0
    for _ in range(KILLS):
        put(rdb, 60, total)
        total += 60
        waiting = rdb.llen("snowplow")
        child = os.fork()
        if child == 0:
            try:
                client = redis.Redis(port=server.port)
                emitter = AsyncEmitter(collector.url, thread_count=2, max_retry_delay_seconds=0.02, buffer_capacity=50)
                RedisWorker(emitter, client, poll_interval=0.002, takeover_after=0.1).run()
            finally:
                os._exit(0)
        if rng.random() < 0.8:
            # It has taken some: on a busy machine that is a while after the fork.
            until(lambda waiting=waiting: rdb.llen("snowplow") < waiting, PATIENCE)  # type: ignore[misc]
        time.sleep(rng.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        interrupted += any(key != "snowplow" for key in left(rdb))
    assert interrupted > KILLS / 5
    with at_work(make(collector, rdb, takeover_after=0.1)):
        until(lambda: left(rdb) == [], PATIENCE)
    assert set(arrived(collector)) == set(range(total))
    assert rdb.llen(DEAD) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_that_it_had_sent(
    server: RedisServer, rdb: Any, collector: Collector, number: int
) -> None:
    worker = Process(server.port, collector.url, poll_interval=0.01).ready()
    put(rdb, 500)
    until(lambda: len(collector.requests) > 0, PATIENCE)
    assert worker.end(number) == (0, "ended\n")
    rest = [int(json.loads(each)["n"]) for each in rdb.lrange("snowplow", 0, -1)]
    assert sorted(arrived(collector) + rest) == list(range(500))
    assert [key for key in left(rdb) if key != "snowplow"] == []


def test_a_shutdown_asked_for_before_run_holds(rdb: Any, collector: Collector) -> None:
    put(rdb, 5)
    worker = make(collector, rdb)
    worker.request_shutdown()
    worker.run()
    assert rdb.llen("snowplow") == 5


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_the_earlier_signal_handlers_are_put_back(rdb: Any, collector: Collector) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    worker = make(collector, rdb)
    threading.Timer(0.1, worker.request_shutdown).start()
    worker.run()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


# -- what Redis may do -------------------------------------------------------------------------------------------------


def test_a_full_redis_can_be_emptied(tmp_path: Path, collector: Collector) -> None:
    with running(tmp_path, "--maxmemory-policy", "noeviction") as server, server.client() as rdb:
        rdb.rpush("snowplow", "nonsense")
        put(rdb, 2000)
        rdb.config_set("maxmemory", "1")
        with pytest.raises(redis.RedisError):
            rdb.rpush("snowplow", "x")
        with at_work(make(collector, rdb, buffer_capacity=300)):
            until(lambda: len(arrived(collector)) == 2000 and left(rdb) == [], 20)
        assert rdb.llen(DEAD) == 1


def test_dead_workers_are_found_in_a_full_redis(tmp_path: Path, collector: Collector) -> None:
    with running(tmp_path, "--maxmemory-policy", "noeviction") as server, server.client() as rdb:
        put(rdb, 10)
        RedisWorker(Emitter(collector.url), rdb, takeover_after=0.1)._redis.take(0, 10, 10**6)
        rdb.config_set("maxmemory", "1")
        with at_work(make(collector, rdb, takeover_after=0.1)):
            until(lambda: sorted(arrived(collector)) == list(range(10)) and left(rdb) == [])


def test_redis_killed_and_restarted_with_its_data(tmp_path: Path, collector: Collector) -> None:
    with running(tmp_path) as server, server.client() as rdb:
        put(rdb, 1000)
        worker = make(collector, rdb, buffer_capacity=50, takeover_after=0.5)
        with at_work(worker):
            for number in range(3):
                until(lambda number=number: len(arrived(collector)) > 100 * number)  # type: ignore[misc]
                server.kill()
                server.start()
            until(lambda: left(rdb) == [], 20)
        assert set(arrived(collector)) == set(range(1000))


@pytest.mark.slow
def test_connections_cut_at_random_moments_lose_nothing(server: RedisServer, rdb: Any, collector: Collector) -> None:
    rng = random.Random(2)
    put(rdb, 1500)
    with (
        Relay(server.port) as relay,
        redis.Redis(port=relay.port, **QUICK) as client,
        at_work(make(collector, client, buffer_capacity=100)),
    ):
        while left(rdb):
            # Somewhere in the next answers.
            relay.answer_bytes = rng.randrange(20_000)
            time.sleep(rng.random() * 0.02)
            relay.answer_bytes = None
            time.sleep(0.05)
    assert set(arrived(collector)) == set(range(1500))
    assert rdb.llen(DEAD) == 0


@pytest.mark.parametrize("seed", slow_but([0], range(3)))
def test_steps_that_were_done_and_never_answered_lose_nothing(
    server: RedisServer, rdb: Any, collector: Collector, seed: int
) -> None:
    rng = random.Random(seed)

    class Forgetful(redis.Redis):  # type: ignore[misc]
        def execute_command(self, *arguments: Any, **options: Any) -> Any:
            answer = super().execute_command(*arguments, **options)
            if rng.random() < 0.2:
                raise redis.ConnectionError("no answer")
            return answer

    for number in range(400):
        rdb.rpush("snowplow", event(number), *(["bad"] if number % 50 == 0 else []))
    with Forgetful(port=server.port, **QUICK) as client, at_work(make(collector, client, buffer_capacity=20)):
        until(lambda: left(rdb) == [], 20)
    assert sorted(arrived(collector)) == list(range(400))
    assert rdb.llen(DEAD) == 8


def test_the_wrong_type_at_the_key_is_told_and_waited_for(
    rdb: Any, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    rdb.set("snowplow", "a string")
    with at_work(make(collector, rdb)):
        until(lambda: "WRONGTYPE" in caplog.text)
        rdb.delete("snowplow")
        put(rdb, 3)
        until(lambda: len(arrived(collector)) == 3)
