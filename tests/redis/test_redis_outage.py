"""Everything at once: workers killed with `kill -9`, a collector that is down for a while, a Redis that is full."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter, RedisWorker
from fastemit.testing import Collector
from tests.support.environment import environment
from tests.support.redis_server import QUICK, redis, running
from tests.support.slow import slow
from tests.support.waiting import until

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL"),
    # A fork beside other threads, which is what is tested.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
DEAD = "{snowplow}:dead"
TAKEOVER = 0.3
PATIENCE = 40.0
ROUNDS = int(os.environ.get("FASTEMIT_REDIS_OUTAGES", "12"))


class Crew:
    """Workers in processes of their own, some forked and some fresh interpreters, that are killed and replaced."""

    def __init__(self, port: int, url: str, rng: random.Random) -> None:
        self._port, self._url, self._rng = port, url, rng
        self._forked: list[int] = []
        self._fresh: list[subprocess.Popen[str]] = []

    def fork(self) -> None:
        child = os.fork()
        if child == 0:
            try:
                emitter = AsyncEmitter(self._url, thread_count=2, max_retry_delay_seconds=0.05, buffer_capacity=40)
                client = redis.Redis(port=self._port, **QUICK)
                RedisWorker(emitter, client, poll_interval=0.005, takeover_after=TAKEOVER).run()
            finally:
                os._exit(0)
        self._forked.append(child)

    def start(self) -> None:
        """Over an interpreter of its own; returns before it is at work."""
        settings = {"poll_interval": 0.005, "takeover_after": TAKEOVER}
        program = Path(__file__).parents[1] / "support" / "redis_worker_process.py"
        command = [sys.executable, str(program), str(self._port), self._url, json.dumps(settings)]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
        self._fresh.append(process)

    def wait_for_fresh(self) -> None:
        for process in self._fresh:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def kill_one_forked(self) -> None:
        self._end_forked(self._forked.pop(self._rng.randrange(len(self._forked))))

    def kill_one_fresh(self) -> None:
        self._end_fresh(self._fresh.pop())

    @staticmethod
    def _end_forked(child: int) -> None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    @staticmethod
    def _end_fresh(process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        while self._forked:
            self._end_forked(self._forked.pop())
        while self._fresh:
            self.kill_one_fresh()


def put(rdb: Any, count: int, start: int) -> int:
    """Append so many events, however long Redis refuses them; the number of the next."""
    rdb.rpush("snowplow", *[json.dumps({"e": "pv", "n": str(number)}) for number in range(start, start + count)])
    return start + count


def lists(rdb: Any) -> list[str]:
    return [key.decode() for key in rdb.scan_iter() if rdb.type(key) == b"list"]


@pytest.mark.parametrize(("forked", "fresh"), [(2, 0), slow(6, 2)])
def test_books_balance_with_killed_workers_a_collector_that_is_down_and_a_full_redis(
    tmp_path: Path, collector: Collector, forked: int, fresh: int
) -> None:
    rng = random.Random(forked)
    with (
        running(tmp_path, "--maxmemory-policy", "noeviction", "--appendonly", "no") as server,
        server.client() as rdb,
        Crew(server.port, collector.url, rng) as crew,
    ):
        for _ in range(fresh):
            crew.start()
        crew.wait_for_fresh()
        for _ in range(forked):
            crew.fork()
        total, bad = put(rdb, 300, 0), 0
        until(lambda: len(collector.events) > 0, PATIENCE)
        held_by_the_dead = 0
        for number in range(ROUNDS):
            # In each third: the collector answers, is down, and is down while Redis is full.
            down, full = number % 3 > 0, number % 3 == 2
            if down:
                collector.respond(rng.choice([500, 503, 429]), times=3)
                collector.respond(reset=True, times=2)
            total = put(rdb, 100, total)
            rdb.rpush("snowplow", f"no event {number}")
            bad += 1
            if full:
                rdb.config_set("maxmemory", "1")
            time.sleep(rng.random() * 0.1)
            if fresh and number == ROUNDS // 2:
                crew.kill_one_fresh()
            crew.kill_one_forked()
            held_by_the_dead += len(lists(rdb)) > 1
            rdb.config_set("maxmemory", "0")
            crew.fork()
        assert held_by_the_dead > 0
        collector.respond(200)

        def sent() -> Counter[int]:
            return Counter(int(event["n"]) for event in collector.events)

        # The book: each event was sent, and nothing is counted that was not put in. The lists are looked at one after
        # the other, so that events which move from one to another meanwhile may be in none of them.
        until(lambda: lists(rdb) == [DEAD] and len(sent()) >= total, PATIENCE)
        assert set(sent()) == set(range(total))
        assert sorted(rdb.lrange(DEAD, 0, -1)) == sorted(f"no event {number}".encode() for number in range(bad))


def test_nothing_is_sent_twice_while_the_collector_is_down_for_longer_than_a_takeover(
    tmp_path: Path, collector: Collector
) -> None:
    """Workers that only wait hold what they have, and the others leave it to them."""
    collector.respond(503, times=None)
    with running(tmp_path, "--appendonly", "no") as server, server.client() as rdb:
        put(rdb, 400, 0)
        workers = [
            RedisWorker(
                Emitter(collector.url, buffer_capacity=50, max_retry_delay_seconds=0.1),
                rdb,
                poll_interval=0.01,
                takeover_after=TAKEOVER,
            )
            for _ in range(8)
        ]
        threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        until(lambda: rdb.llen("snowplow") == 0)
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 3 * TAKEOVER)
        assert sum(rdb.llen(key) for key in lists(rdb)) == 400
        collector.reset()
        until(lambda: lists(rdb) == [])
        for worker in workers:
            worker.request_shutdown()
        for thread in threads:
            thread.join(20)
        assert sorted(int(event["n"]) for event in collector.events) == list(range(400))
        assert sum(worker.recovered_events for worker in workers) == 0
