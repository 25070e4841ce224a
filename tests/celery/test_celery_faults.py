"""Workers that are killed, brokers that go away, and what a CeleryEmitter does meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastemit.testing import Collector
from tests.support.celery_workers import (
    PATIENCE,
    MakeEmitter,
    RedisServer,
    Relayed,
    app_of,
    emitters,
    eventually,
    running,
)
from tests.support.delivery import RawServer, numbers, put, within
from tests.support.environment import environment

QUICK = {"max_retry_delay_seconds": 0.05}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that goes on, for tests in which something else fails; each uses a database of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, to do anything to."""
    server = RedisServer(tmp_path).start()
    yield server
    server.kill()


@pytest.fixture
def make(collector: Collector) -> Iterator[MakeEmitter]:
    with emitters("redis://127.0.0.1:1/0", collector.url) as make:
        yield make


def arrived(collector: Collector) -> set[int]:
    return set(numbers(collector.events))


# -- workers ---------------------------------------------------------------------------------------------------------


def test_a_pool_child_that_is_killed_while_it_sends_loses_nothing_not_even_twice(
    shared: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(1)
    collector.respond(hang=True, times=2, accept=False)
    with running(tmp_path, broker, concurrency=1) as worker:
        emitter = make(celery_app=app_of(broker))
        put(emitter, 3)
        emitter.flush()
        for requests in (1, 2):
            collector.wait_for_requests(requests, PATIENCE)
            (child,) = worker.children()
            os.kill(child, signal.SIGKILL)
        collector.wait_for(3, PATIENCE)
    assert arrived(collector) == {0, 1, 2}


def test_children_killed_at_random_lose_nothing(
    shared: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(11)
    collector.respond(delay=0.05, times=None)
    sent = 0
    with running(tmp_path, broker) as worker:
        emitter = make(celery_app=app_of(broker), **QUICK)
        for _ in range(12):
            for _ in range(4):
                put(emitter, 5, sent)
                emitter.flush()
                sent += 5
            collector.wait_for_requests(len(collector.requests) + 1, PATIENCE)
            with contextlib.suppress(IndexError, ProcessLookupError):
                os.kill(random.choice(worker.children()), signal.SIGKILL)
        eventually(lambda: arrived(collector) == set(range(sent)))


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_what_a_killed_worker_had_comes_back_after_the_visibility_timeout(
    pool: str, shared: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database({"prefork": 2, "threads": 3, "gevent": 4}[pool])
    collector.respond(hang=True, accept=False)
    emitter = make(celery_app=app_of(broker))
    put(emitter, 3)
    emitter.flush()
    with running(tmp_path, broker, pool, visibility_timeout=1) as worker:
        collector.wait_for_requests(1, PATIENCE)
        worker.kill()
    client = shared.client(db=int(broker[-1]))
    assert client.hlen("unacked") == 1
    # A worker looks for what others have left when it starts, and then every so often.
    (left_at,) = [score for _, score in client.zrange("unacked_index", 0, -1, withscores=True)]
    eventually(lambda: client.time()[0] > left_at + 1)
    with running(tmp_path, broker, pool, visibility_timeout=1):
        collector.wait_for(3, PATIENCE)
    assert arrived(collector) == {0, 1, 2}


def test_a_short_visibility_timeout_cuts_the_countdown_and_doubles_nothing(
    shared: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(12)
    collector.respond(503, headers={"Retry-After": "30"})
    emitter = make(celery_app=app_of(broker))
    with running(tmp_path, broker, visibility_timeout=4) as worker:
        put(emitter, 3)
        emitter.flush()
        collector.wait_for(3, PATIENCE)
        eventually(lambda: "succeeded" in worker.log)
    first, second = collector.requests
    assert 2 <= second.arrived - first.arrived < 30


def test_a_worker_that_is_stopped_hands_back_at_once_what_waits_for_its_next_attempt(
    shared: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(5)
    collector.respond(503, headers={"Retry-After": "3600"})
    emitter = make(celery_app=app_of(broker), max_retry_delay_seconds=2)
    with running(tmp_path, broker) as worker:
        put(emitter, 3)
        emitter.flush()
        # The retry is in the hands of the worker, which waits for its time.
        eventually(lambda: worker.log.count("received") == 2)
        worker.stop()
    assert shared.client(db=5).llen("celery") == 1
    assert collector.events == []
    with running(tmp_path, broker):
        collector.wait_for(3, PATIENCE)


@pytest.mark.parametrize("limit", ["task_soft_time_limit = 0.3", "task_time_limit = 1"])
def test_a_task_that_runs_into_a_time_limit_is_run_again(
    limit: str, shared: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(6 if "soft" in limit else 10)
    collector.respond(hang=True, accept=False)
    with running(tmp_path, broker, more=limit):
        emitter = make(celery_app=app_of(broker), **QUICK)
        put(emitter, 3)
        emitter.flush()
        collector.wait_for(3, PATIENCE)


def test_a_batch_that_cannot_go_back_to_the_broker_is_not_lost(
    server: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    def answer(_: Any) -> int:
        server.kill()
        return 503

    collector.respond(answer)
    emitter = make(celery_app=app_of(server.url), **QUICK)
    with running(tmp_path / "worker", server.url, visibility_timeout=1) as worker:
        put(emitter, 3)
        emitter.flush()
        eventually(lambda: [request.status for request in collector.requests] == [503])
        server.start()
        eventually(lambda: worker.supervise() and len(collector.events) >= 3)
    assert arrived(collector) == {0, 1, 2}


def test_a_batch_that_a_full_redis_does_not_take_back_is_not_lost(
    server: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    client = server.client()

    def answer(_: Any) -> int:
        client.config_set("maxmemory", 1)
        return 503

    def refused() -> bool:
        return bool(client.info("commandstats").get("cmdstat_lpush", {}).get("rejected_calls"))

    collector.respond(answer)
    emitter = make(celery_app=app_of(server.url), **QUICK)
    with running(tmp_path / "worker", server.url, visibility_timeout=600) as worker:
        put(emitter, 3)
        emitter.flush()
        eventually(refused)
        client.config_set("maxmemory", 0)
        eventually(lambda: worker.supervise() and len(collector.events) >= 3)
    assert arrived(collector) == {0, 1, 2}


# -- brokers ---------------------------------------------------------------------------------------------------------


def test_events_wait_in_the_buffer_while_the_broker_is_down(
    server: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    with running(tmp_path / "worker", server.url) as worker:
        emitter = make(celery_app=app_of(server.url), **QUICK)
        put(emitter, 3)
        emitter.flush()
        collector.wait_for(3, PATIENCE)
        server.kill()
        put(emitter, 10, 3)
        emitter.flush()
        stats = emitter.stats()
        assert (stats.queued_events, stats.sent_events, stats.last_status) == (10, 3, 202)
        assert stats.retry_delay > 0
        assert "refused" in str(stats.last_error)
        server.start()
        # Nobody asks for it: the backoff ends, and they go.
        eventually(lambda: emitter.stats().sent_events == 13)
        assert emitter.retry_delay == 0
        eventually(lambda: worker.supervise() and len(collector.events) >= 13)
    assert arrived(collector) == set(range(13))


def test_a_broker_that_was_restarted_costs_no_backoff(server: RedisServer, make: MakeEmitter) -> None:
    emitter = make(celery_app=app_of(server.url))
    put(emitter)
    emitter.flush()
    server.kill()
    server.start()
    put(emitter)
    assert emitter.drain()
    assert emitter.stats().failed_requests == 0


def test_a_connection_that_the_broker_has_given_up_costs_no_backoff(server: RedisServer, make: MakeEmitter) -> None:
    with Relayed(server.port) as relayed:
        emitter = make(celery_app=app_of(f"redis://127.0.0.1:{relayed.port}/0"))
        put(emitter)
        emitter.flush()
        # As with a firewall that forgets idle connections: they look open until something is sent.
        relayed.forget()
        put(emitter)
        assert emitter.drain()
    assert server.client().llen("celery") == 2
    assert emitter.stats().failed_requests == 0


def test_a_broker_that_is_down_is_asked_once_an_attempt(make: MakeEmitter) -> None:
    with RawServer(lambda _sock, _number: None) as closes_at_once:
        emitter = make(celery_app=app_of(f"redis://127.0.0.1:{closes_at_once.port}/0"))
        put(emitter)
        assert not emitter.drain()
        assert closes_at_once.connections == 1


def test_a_broker_that_hangs_holds_up_neither_input_nor_close(server: RedisServer, make: MakeEmitter) -> None:
    emitter = make(celery_app=app_of(server.url), batch_size=1)
    put(emitter)
    emitter.flush()
    with server.paused():
        with within(1.0):
            put(emitter, 100)
        with within(2.0, at_least=0.3):
            assert emitter.close(0.3) == 100


def test_a_broker_that_hangs_is_given_up_in_bounded_time(server: RedisServer, make: MakeEmitter) -> None:
    options = {"socket_timeout": 0.2, "socket_connect_timeout": 0.2}
    emitter = make(celery_app=app_of(server.url, broker_transport_options=options), **QUICK)
    put(emitter)
    emitter.flush()
    with server.paused():
        put(emitter, 3)
        with within(5.0):
            assert not emitter.drain()
    assert emitter.drain()


def test_the_time_that_is_left_bounds_the_wait_for_the_broker_also_without_threads(
    server: RedisServer, make: MakeEmitter
) -> None:
    emitter = make(celery_app=app_of(server.url), background=False)
    put(emitter)
    emitter.flush()
    with server.paused():
        put(emitter, 3)
        with within(3.0):
            assert emitter.close(0.3) == 3


def test_a_full_redis_is_a_broker_that_is_down(shared: RedisServer, make: MakeEmitter) -> None:
    emitter = make(celery_app=app_of(shared.database(7)), **QUICK)
    client = shared.client()
    client.config_set("maxmemory", 1)
    try:
        put(emitter, 3)
        emitter.flush()
        assert emitter.stats().queued_events == 3
        assert "OOM" in str(emitter.stats().last_error) or "maxmemory" in str(emitter.stats().last_error)
    finally:
        client.config_set("maxmemory", 0)
    eventually(lambda: emitter.stats().sent_events == 3)


def test_two_brokers_are_tried_in_turn(server: RedisServer, make: MakeEmitter) -> None:
    emitter = make(celery_app=app_of(f"redis://127.0.0.1:1/0;{server.url}"))
    put(emitter, 3)
    emitter.flush()
    assert emitter.stats().sent_events == 3


# -- processes -------------------------------------------------------------------------------------------------------

_SCRIPT = """
import os, sys, time
from celery import Celery
from fastemit.celery import CeleryEmitter

BROKER, URL = sys.argv[1:]
emitter = CeleryEmitter(URL, celery_app=Celery(broker=BROKER, set_as_current=False), **SETTINGS)

def put(count, first):
    for number in range(first, first + count):
        emitter.input({"n": number})
"""


def run(script: str, broker: str, url: str, settings: str = "{}", timeout: float = 20.0) -> str:
    """Run a script with an `emitter`; what it wrote to stdout."""
    program = _SCRIPT.replace("**SETTINGS", f"**{settings}") + script
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, broker, url]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_events_are_published_when_the_process_ends(shared: RedisServer, collector: Collector, tmp_path: Path) -> None:
    run("put(3, 0)", shared.database(8), collector.url)
    with running(tmp_path, shared.database(8)):
        collector.wait_for(3, PATIENCE)


def test_a_broker_that_is_down_does_not_hold_up_the_end_of_the_process(collector: Collector) -> None:
    with within(8.0):
        run("put(3, 0)", "redis://127.0.0.1:1/0", collector.url, "{'shutdown_timeout': 0.3}")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
@pytest.mark.parametrize("settings", ["{}", "{'background': False}"])
def test_a_forked_child_has_connections_of_its_own(
    settings: str, shared: RedisServer, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(9)
    script = """
put(3, 0)
assert emitter.drain()
mine = [producer.connection for producer in emitter._publisher._idle]
children = []
for child in range(3):
    pid = os.fork()
    if pid == 0:
        put(3, 10 * (child + 1))
        assert emitter.drain()
        theirs = [producer.connection for producer in emitter._publisher._idle]
        assert len(theirs) == 1 and theirs != mine
        sys.exit(0)
    children.append(pid)
put(3, 3)
assert emitter.drain()
assert [producer.connection for producer in emitter._publisher._idle] == mine
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
put(3, 6)
assert emitter.drain()
"""
    run(script, broker, collector.url, settings)
    with running(tmp_path, broker):
        collector.wait_for(18, PATIENCE)
    assert sorted(numbers(collector.events)) == [*range(9), 10, 11, 12, 20, 21, 22, 30, 31, 32]


def test_an_emitter_in_a_prefork_worker_of_the_user_s_publishes_from_its_children(
    shared: RedisServer, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(1)
    (tmp_path / "shop.py").write_text(f"""
from celery import Celery
from fastemit.celery import CeleryEmitter

app = Celery("shop", broker={broker!r})
emitter = CeleryEmitter({collector.url!r}, celery_app=app, flush_interval=0.05)
emitter.input({{"n": 1000}})
emitter.flush()

@app.task(name="track")
def track(number):
    emitter.input({{"n": number}})
""")
    app = app_of(broker)
    with running(tmp_path, broker, app="shop"):
        for number in range(20):
            app.send_task("track", (number,))
        collector.wait_for(21, PATIENCE)
    assert arrived(collector) == {*range(20), 1000}
