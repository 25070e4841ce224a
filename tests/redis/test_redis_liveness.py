"""Who is alive: by signs that no eviction reaches and the clock of Redis; beside workers of the released version."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter, RedisEmitter, RedisWorker
from fastemit.redis.scripts import InFlight
from fastemit.testing import Collector
from tests.support.redis_server import QUICK, RedisServer, redis, running
from tests.support.redis_workers import arrived, at_work, left, make, put
from tests.support.released_redis_steps import as_released
from tests.support.waiting import until

DOWN = "http://127.0.0.1:9"
#: Seconds without a sign after which a worker is dead, and those after which it would have been taken for dead.
TAKEOVER = 0.4
LONG = 2 * TAKEOVER
SIGNS = "{snowplow}:signs"


def holding(rdb: Any, released: bool = False, most: int = 100, takeover: float = TAKEOVER) -> RedisWorker:
    """A worker that holds what it takes, since its collector is down."""
    emitter = Emitter(DOWN, shutdown_timeout=0, buffer_capacity=most)
    worker = RedisWorker(emitter, rdb, poll_interval=0.01, takeover_after=takeover)
    return as_released(worker) if released else worker


def die_with(rdb: Any, count: int, released: bool = False) -> None:
    """Take events as a worker that is killed then."""
    assert len(holding(rdb, released)._redis.take(0, count, 10**6)) == count  # type: ignore[arg-type]


@contextlib.contextmanager
def again_and_again(act: Callable[[], object]) -> Iterator[None]:
    over = threading.Event()

    def loop() -> None:
        while not over.wait(0.002):
            act()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def wait(seconds: float) -> None:
    began = time.monotonic()
    until(lambda: time.monotonic() - began > seconds)


# -- eviction ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evicted", ["{snowplow}:alive:*", "{snowplow}:[as]*"], ids=["what expires", "every sign"])
def test_a_live_worker_whose_signs_are_evicted_is_not_taken_for_dead(
    server: RedisServer, rdb: Any, collector: Collector, evicted: str
) -> None:
    put(rdb, 10)
    slow, other = holding(rdb), make(collector, rdb, takeover_after=TAKEOVER)
    with server.client() as evictor, at_work(slow, other):
        until(lambda: rdb.llen("snowplow") == 0)
        first = slow._redis.id
        with again_and_again(lambda: [evictor.delete(key) for key in evictor.scan_iter(evicted)]):
            wait(LONG)
        assert (other.recovered_events, slow._redis.id) == (0, first)


def test_nothing_expires_but_the_key_for_workers_of_the_released_version(rdb: Any) -> None:
    put(rdb, 10)
    with at_work(holding(rdb)):
        until(lambda: rdb.llen("snowplow") == 0)
        expiring = [key for key in rdb.scan_iter() if rdb.pttl(key) > 0]
        assert [key[: len(b"{snowplow}:alive:")] for key in expiring] == [b"{snowplow}:alive:"]
        assert rdb.hlen(SIGNS) == 1


@pytest.mark.slow
def test_a_full_redis_that_evicts_what_expires_is_emptied_once(tmp_path: Path, collector: Collector) -> None:
    collector.respond(delay=0.02, times=None)
    settings = ("--maxmemory", "3mb", "--maxmemory-policy", "volatile-lru", "--appendonly", "no")
    with running(tmp_path, *settings) as server, server.client() as rdb:
        count = 0
        with contextlib.suppress(redis.RedisError):
            while True:
                put(rdb, 50, count)
                count += 50
        with contextlib.suppress(redis.RedisError):
            # Something else fills what is left.
            while True:
                rdb.rpush("filler", "x" * 1000)
        workers = [make(collector, rdb, buffer_capacity=1000, takeover_after=1.0) for _ in range(2)]
        with at_work(*workers):
            until(lambda: len(set(arrived(collector))) == count and left(rdb) == ["filler"], 50)
        evicted = rdb.info("stats")["evicted_keys"]
    # The collector's own counts: each event came once, although signs of life were thrown away.
    assert (len(collector.events), [worker.recovered_events for worker in workers]) == (count, [0, 0])
    assert evicted > 0


# -- clocks and outages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-2 * 86400, 2 * 86400])
def test_a_new_primary_with_another_clock_finds_the_dead_and_spares_the_living(
    rdb: Any, collector: Collector, ahead: int
) -> None:
    put(rdb, 10)
    die_with(rdb, 5)
    slow, other = holding(rdb, most=5), make(collector, rdb, takeover_after=TAKEOVER)
    # It is not to find the dead one itself, nor to take what the other has found.
    slow._looked_at = float("inf")
    with at_work(slow):
        until(lambda: rdb.llen("snowplow") == 0)
        rdb.delete(*rdb.scan_iter("{snowplow}:alive:*"))
        for name, sign in rdb.hgetall(SIGNS).items():
            # As though the clock of Redis were another now.
            at, silence = sign.split()
            rdb.hset(SIGNS, name, b"%d %s" % (int(at) - 1000 * ahead, silence))
        with at_work(other):
            until(lambda: len(arrived(collector)) == 5)
            wait(LONG)
            assert (other.recovered_events, slow._redis.id.encode() in rdb.hkeys(SIGNS)) == (5, True)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP")
def test_a_redis_that_was_away_for_longer_than_a_silence_may_last_takes_nobody_for_dead(
    server: RedisServer, rdb: Any, collector: Collector
) -> None:
    put(rdb, 10)
    # A busy machine may keep a thread from its next sign for longer than TAKEOVER.
    silence = 5 * TAKEOVER
    slow, other = holding(rdb, takeover=silence), make(collector, rdb, takeover_after=silence)
    with at_work(slow, other):
        until(lambda: 0 in (rdb.llen("snowplow"), len(collector.events)) and rdb.hlen(SIGNS) > 0)
        first, had = slow._redis.id, other.recovered_events
        with server.paused():
            time.sleep(silence + TAKEOVER)
        # They look, and give their signs, several times in a silence.
        wait(silence)
        assert (slow._redis.id, other.recovered_events) == (first, had)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP")
@pytest.mark.parametrize("hangs", ["a call before the look", "the look"])
def test_a_redis_that_hung_for_longer_than_a_silence_may_last_takes_nobody_for_dead(
    server: RedisServer, rdb: Any, hangs: str
) -> None:
    """No call fails, if the client has no time limit. So nothing but the time of the call tells that Redis was away."""
    put(rdb, 10)
    slow, other = InFlight(rdb, "snowplow", TAKEOVER), InFlight(rdb, "snowplow", TAKEOVER)
    slow.take(0, 10, 10**6)
    assert other.silent() == []
    with ThreadPoolExecutor(1) as pool:
        with server.paused():
            answer: Future[Any] = pool.submit(other.silent if hangs == "the look" else lambda: other.take(0, 1, 1))
            time.sleep(LONG)
        assert answer.result() == []
    # It was as fast as it could be, and `slow` not.
    assert other.silent() == []
    # A dead worker is still found.
    wait(LONG)
    until(lambda: [name for name, _ in other.silent()] == [slow.id.encode()])


# -- beside workers of the released version ----------------------------------------------------------------------------


@pytest.mark.parametrize(("dead", "live"), [(True, False), (False, True)], ids=["released dead", "released lives"])
def test_a_dead_worker_of_either_version_is_found_by_the_other(
    rdb: Any, collector: Collector, dead: bool, live: bool
) -> None:
    put(rdb, 10)
    die_with(rdb, 5, released=dead)
    finder = make(collector, rdb, takeover_after=TAKEOVER)
    with at_work(as_released(finder) if live else finder):
        until(lambda: sorted(arrived(collector)) == list(range(10)) and left(rdb) == [])
    assert finder.recovered_events == 5


@pytest.mark.parametrize(("holds", "looks"), [(True, False), (False, True)], ids=["released holds", "released looks"])
def test_a_live_worker_of_either_version_is_spared_by_the_other(
    rdb: Any, collector: Collector, holds: bool, looks: bool
) -> None:
    put(rdb, 10)
    slow, other = holding(rdb, holds), make(collector, rdb, takeover_after=TAKEOVER)
    with at_work(slow):
        until(lambda: rdb.llen("snowplow") == 0)
        with at_work(as_released(other) if looks else other):
            wait(LONG)
    assert (arrived(collector), other.recovered_events) == ([], 0)


def test_what_a_released_worker_takes_over_from_a_live_one_is_not_lost(
    server: RedisServer, rdb: Any, collector: Collector
) -> None:
    put(rdb, 30)
    slow, other = holding(rdb), as_released(make(collector, rdb, takeover_after=TAKEOVER))
    with server.client() as evictor, at_work(slow):
        until(lambda: rdb.llen("snowplow") == 0)
        with (
            again_and_again(lambda: [evictor.delete(key) for key in evictor.scan_iter("{snowplow}:alive:*")]),
            at_work(other),
        ):
            until(lambda: set(arrived(collector)) == set(range(30)))
    with at_work(make(collector, rdb, takeover_after=TAKEOVER)):
        until(lambda: left(rdb) == [])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_released_workers_are_replaced_one_by_one_without_loss(
    server: RedisServer, rdb: Any, collector: Collector
) -> None:
    rng = random.Random(7)

    def hired(released: bool) -> int:
        child = os.fork()
        if child == 0:
            try:
                emitter = AsyncEmitter(collector.url, thread_count=2, buffer_capacity=50, max_retry_delay_seconds=0.05)
                client = redis.Redis(port=server.port, **QUICK)
                worker = RedisWorker(emitter, client, poll_interval=0.005, takeover_after=TAKEOVER)
                (as_released(worker) if released else worker).run()
            finally:
                os._exit(0)
        return child

    crew = [hired(True) for _ in range(4)]
    total = 0
    with RedisEmitter(rdb, batch_size=20) as emitter:
        for place in range(4):
            for _ in range(30):
                for _ in range(20):
                    emitter.input({"e": "pv", "n": str(total)})
                    total += 1
                time.sleep(0.005)
            # In turn killed, and told to end.
            os.kill(crew[place], signal.SIGKILL if place % 2 == 0 else signal.SIGTERM)
            os.waitpid(crew[place], 0)
            crew[place] = hired(False)
            time.sleep(rng.random() * TAKEOVER)
    try:
        until(lambda: len(set(arrived(collector))) == total and left(rdb) == [], 30)
    finally:
        for child in crew:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
    assert set(arrived(collector)) == set(range(total))
    # What two killed workers had in hand came twice at the most.
    assert len(collector.events) - total <= 2 * 50


# -- a Redis that may throw the list away ------------------------------------------------------------------------------


@pytest.fixture
def policy(rdb: Any) -> Iterator[Callable[[str], None]]:
    yield lambda name: rdb.config_set("maxmemory-policy", name)
    rdb.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize("decode", [False, True])
def test_a_worker_warns_once_when_redis_may_throw_the_list_away(
    server: RedisServer, collector: Collector, policy: Any, caplog: pytest.LogCaptureFixture, decode: bool
) -> None:
    policy("allkeys-lru")
    with server.client(decode_responses=decode) as client, at_work(make(collector, client)):
        until(lambda: "noeviction" in caplog.text)
        put(client, 5)
        until(lambda: len(collector.events) == 5)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "allkeys-lru" in line
    assert "'snowplow'" in line


@pytest.mark.parametrize("batch_size", [1, 10])
def test_an_emitter_warns_once_when_redis_may_throw_the_list_away(
    server: RedisServer, policy: Any, caplog: pytest.LogCaptureFixture, batch_size: int
) -> None:
    policy("allkeys-random")
    with server.client() as client:
        for _ in range(2):
            with RedisEmitter(client, batch_size=batch_size) as emitter:
                for number in range(20):
                    emitter.input({"n": number})
    assert [record.args[:1] for record in caplog.records if record.levelname == "WARNING"] == [("allkeys-random",)]


@pytest.mark.parametrize("name", ["noeviction", "volatile-lru", "volatile-ttl"])
def test_no_policy_that_leaves_the_list_is_warned_of(
    server: RedisServer, policy: Any, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    policy(name)
    with server.client() as client, RedisEmitter(client) as emitter:
        emitter.input({"n": "0"})
        assert client.llen("snowplow") == 1
    assert caplog.records == []


def test_a_redis_that_does_not_let_its_user_ask_is_used_all_the_same(
    server: RedisServer, rdb: Any, policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    policy("allkeys-lru")
    rdb.execute_command("ACL", "SETUSER", "pusher", "reset", "on", ">pw", "~*", "-@all", "+rpush")
    with redis.Redis(port=server.port, username="pusher", password="pw", **QUICK) as client:
        with RedisEmitter(client) as emitter:
            emitter.input({"n": "0"})
        assert emitter.stats().sent_events == 1
    rdb.execute_command("ACL", "DELUSER", "pusher")
    assert (rdb.llen("snowplow"), caplog.records) == (1, [])
