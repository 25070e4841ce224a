"""The life of a RedisWorker: how it rests, gives its sign of life, is forked, and ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

import pytest

from fastemit import Emitter, RedisWorker
from fastemit.testing import Collector
from tests.support.redis_server import QUICK, RedisServer, redis
from tests.support.waiting import until

#: Where nobody listens.
DOWN = "http://127.0.0.1:9"


class Counting(redis.Redis):  # type: ignore[misc]
    """A client that counts its commands."""

    commands = 0

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        self.commands += 1
        return super().execute_command(*arguments, **options)


def put(rdb: Any, count: int) -> None:
    rdb.rpush("snowplow", *[json.dumps({"e": "pv", "n": str(number)}) for number in range(count)])


def inflight(rdb: Any) -> list[int]:
    """How many events each worker has."""
    return sorted(rdb.llen(key) for key in rdb.scan_iter("{snowplow}:inflight:*"))


def started(worker: RedisWorker) -> threading.Thread:
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    return thread


def ended(worker: RedisWorker, thread: threading.Thread) -> None:
    worker.request_shutdown()
    thread.join(20)
    assert not thread.is_alive()


def test_an_idle_worker_asks_redis_once_in_an_interval_however_much_it_has_sent(
    server: RedisServer, rdb: Any, collector: Collector
) -> None:
    put(rdb, 1000)
    with Counting(port=server.port, **QUICK) as client:
        worker = RedisWorker(Emitter(collector.url, method="get"), client, poll_interval=0.05)
        thread = started(worker)
        until(lambda: worker.stats().sent_events == 1000 and not inflight(rdb))
        before, began = client.commands, time.monotonic()
        until(lambda: time.monotonic() - began > 0.5)
        # Two more than the intervals: the step that was under way, and the look for dead workers.
        assert client.commands - before <= (time.monotonic() - began) / 0.05 + 2
        ended(worker, thread)


def test_an_idle_worker_takes_an_event_within_its_interval(rdb: Any, collector: Collector) -> None:
    worker = RedisWorker(Emitter(collector.url), rdb, poll_interval=0.05)
    thread = started(worker)
    until(lambda: worker._looked_at > 0)
    waits = []
    for number in range(5):
        began = time.monotonic()
        put(rdb, 1)
        until(lambda number=number: len(collector.events) == number + 1)  # type: ignore[misc]
        waits.append(time.monotonic() - began)
    ended(worker, thread)
    assert min(waits) < 0.5


def test_a_worker_lives_through_a_long_outage_of_the_collector(rdb: Any) -> None:
    put(rdb, 20)
    worker = RedisWorker(Emitter(DOWN, shutdown_timeout=0), rdb, poll_interval=0.01, takeover_after=0.4)
    thread = started(worker)
    until(lambda: inflight(rdb) == [20])
    first, began = worker._redis.id, time.monotonic()
    until(lambda: time.monotonic() - began > 1.2)
    assert (worker._redis.id, inflight(rdb)) == (first, [20])
    ended(worker, thread)


def test_a_worker_that_takes_long_to_end_is_not_taken_for_dead(rdb: Any, collector: Collector) -> None:
    put(rdb, 5)
    slow = RedisWorker(
        Emitter(DOWN, shutdown_timeout=1.5, max_retry_delay_seconds=0.1), rdb, poll_interval=0.01, takeover_after=0.4
    )
    thread = started(slow)
    until(lambda: inflight(rdb) == [5])
    slow.request_shutdown()
    other = RedisWorker(Emitter(collector.url), rdb, poll_interval=0.01, takeover_after=0.4)
    others = started(other)
    thread.join(20)
    # Then it gave them back itself.
    until(lambda: len(collector.events) == 5)
    ended(other, others)
    assert other.recovered_events == 0


def test_what_is_sent_while_a_worker_ends_leaves_redis_at_once(rdb: Any, collector: Collector) -> None:
    collector.respond(500, times=2)
    put(rdb, 5)
    worker = RedisWorker(Emitter(collector.url, shutdown_timeout=10, max_retry_delay_seconds=0.1), rdb)
    thread = started(worker)
    until(lambda: inflight(rdb) == [5])
    ended(worker, thread)
    assert (len(collector.requests), rdb.keys()) == (3, [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_children_that_run_the_same_worker_are_workers_of_their_own(
    server: RedisServer, rdb: Any, collector: Collector
) -> None:
    worker = RedisWorker(
        Emitter(DOWN, buffer_capacity=10, shutdown_timeout=0),
        redis.Redis(port=server.port, **QUICK),
        poll_interval=0.01,
    )
    put(rdb, 20)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            try:
                worker.run()
            finally:
                os._exit(0)
        children.append(child)
    try:
        until(lambda: inflight(rdb) == [10, 10])
    finally:
        for child in children:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
    # In no order between the two.
    events = rdb.lrange("snowplow", 0, -1)
    assert sorted(int(json.loads(event)["n"]) for event in events) == list(range(20))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGALRM")
@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_what_a_signal_handler_raises_ends_it_and_what_it_had_goes_back(rdb: Any, error: type[BaseException]) -> None:
    put(rdb, 20)

    def handler(*_: object) -> None:
        raise error("the program's")

    earlier = signal.signal(signal.SIGALRM, handler)
    try:
        worker = RedisWorker(Emitter(DOWN, shutdown_timeout=0), rdb, poll_interval=0.01)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(error, match="the program's"):
            worker.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert (rdb.llen("snowplow"), rdb.keys()) == (20, [b"snowplow"])


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_a_second_sigterm_while_it_ends_changes_nothing(rdb: Any) -> None:
    put(rdb, 20)
    worker = RedisWorker(Emitter(DOWN, shutdown_timeout=0.4), rdb, poll_interval=0.01)
    for seconds in (0.2, 0.3, 0.4):
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM)).start()
    worker.run()
    assert (rdb.llen("snowplow"), rdb.keys()) == (20, [b"snowplow"])


def test_a_worker_can_be_run_again(rdb: Any, collector: Collector) -> None:
    worker = RedisWorker(Emitter(collector.url), rdb, poll_interval=0.01)
    for number in range(2):
        put(rdb, 5)
        thread = started(worker)
        until(lambda number=number: len(collector.events) == 5 * (number + 1) and not inflight(rdb))  # type: ignore[misc]
        ended(worker, thread)
    assert worker.stats().sent_events == 5


def test_an_event_without_room_is_read_once(rdb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastemit.redis import redis_worker

    read: list[bytes] = []
    original = redis_worker.event_of
    monkeypatch.setattr(redis_worker, "event_of", lambda raw: read.append(raw) or original(raw))
    for _ in range(3):
        rdb.rpush("snowplow", json.dumps({"big": "x" * 50_000}))
    worker = RedisWorker(Emitter(DOWN, max_buffer_bytes=120_000, shutdown_timeout=0), rdb, poll_interval=0.005)
    thread = started(worker)
    until(lambda: len(read) >= 3)
    failed = worker.stats().failed_requests
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 0.3 and worker.stats().failed_requests >= failed)
    ended(worker, thread)
    assert len(read) == 3
