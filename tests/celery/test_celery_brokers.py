"""Brokers that go away, and processes that end or fork: what a CeleryEmitter does meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastemit.testing import Collector
from tests.support.celery_workers import (
    PATIENCE,
    QUICK,
    MakeEmitter,
    RedisServer,
    Relayed,
    app_of,
    arrived,
    patiently,
    running,
)
from tests.support.delivery import RawServer, numbers, put, within
from tests.support.environment import environment
from tests.support.slow import slow

# -- brokers ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_events_wait_in_the_buffer_while_the_broker_is_down(
    own_server: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    with running(tmp_path / "worker", own_server.url) as worker:
        emitter = make_down(celery_app=app_of(own_server.url), **QUICK)
        put(emitter, 3)
        emitter.flush()
        collector.wait_for(3, PATIENCE)
        own_server.kill()
        put(emitter, 10, 3)
        emitter.flush()
        stats = emitter.stats()
        assert (stats.queued_events, stats.sent_events, stats.last_status) == (10, 3, 202)
        assert stats.retry_delay > 0
        assert "refused" in str(stats.last_error)
        own_server.start()
        # Nobody asks for it: the backoff ends, and they go.
        patiently(lambda: emitter.stats().sent_events == 13)
        assert emitter.retry_delay == 0
        patiently(lambda: worker.supervise() and len(collector.events) >= 13)
    assert set(arrived(collector)) == set(range(13))


def test_a_broker_that_was_restarted_costs_no_backoff(own_server: RedisServer, make_down: MakeEmitter) -> None:
    emitter = make_down(celery_app=app_of(own_server.url))
    put(emitter)
    emitter.flush()
    own_server.kill()
    own_server.start()
    put(emitter)
    assert emitter.drain()
    assert emitter.stats().failed_requests == 0


def test_a_connection_that_the_broker_has_given_up_costs_no_backoff(
    own_server: RedisServer, make_down: MakeEmitter
) -> None:
    with Relayed(own_server.port) as relayed:
        emitter = make_down(celery_app=app_of(f"redis://127.0.0.1:{relayed.port}/0"))
        put(emitter)
        emitter.flush()
        # As with a firewall that forgets idle connections: they look open until something is sent.
        relayed.forget()
        put(emitter)
        assert emitter.drain()
    assert own_server.client().llen("celery") == 2
    assert emitter.stats().failed_requests == 0


def test_a_broker_that_is_down_is_asked_once_an_attempt(make_down: MakeEmitter) -> None:
    with RawServer(lambda _sock, _number: None) as closes_at_once:
        emitter = make_down(celery_app=app_of(f"redis://127.0.0.1:{closes_at_once.port}/0"))
        put(emitter)
        assert not emitter.drain()
        assert closes_at_once.connections == 1


def test_a_broker_that_hangs_holds_up_neither_input_nor_close(own_server: RedisServer, make_down: MakeEmitter) -> None:
    emitter = make_down(celery_app=app_of(own_server.url), batch_size=1)
    put(emitter)
    emitter.flush()
    with own_server.paused():
        with within(1.0):
            put(emitter, 100)
        with within(2.0, at_least=0.3):
            assert emitter.close(0.3) == 100


def test_a_broker_that_hangs_is_given_up_in_bounded_time(own_server: RedisServer, make_down: MakeEmitter) -> None:
    options = {"socket_timeout": 0.2, "socket_connect_timeout": 0.2}
    emitter = make_down(celery_app=app_of(own_server.url, broker_transport_options=options), **QUICK)
    put(emitter)
    emitter.flush()
    with own_server.paused():
        put(emitter, 3)
        with within(5.0):
            assert not emitter.drain()
    assert emitter.drain()


def test_the_time_that_is_left_bounds_the_wait_for_the_broker_also_without_threads(
    own_server: RedisServer, make_down: MakeEmitter
) -> None:
    emitter = make_down(celery_app=app_of(own_server.url), background=False)
    put(emitter)
    emitter.flush()
    with own_server.paused():
        put(emitter, 3)
        with within(3.0):
            assert emitter.close(0.3) == 3


def test_a_full_redis_is_a_broker_that_is_down(shared: RedisServer, make_down: MakeEmitter) -> None:
    emitter = make_down(celery_app=app_of(shared.database(7)), **QUICK)
    client = shared.client()
    client.config_set("maxmemory", 1)
    try:
        put(emitter, 3)
        emitter.flush()
        assert emitter.stats().queued_events == 3
        assert "OOM" in str(emitter.stats().last_error) or "maxmemory" in str(emitter.stats().last_error)
    finally:
        client.config_set("maxmemory", 0)
    patiently(lambda: emitter.stats().sent_events == 3)


def test_two_brokers_are_tried_in_turn(own_server: RedisServer, make_down: MakeEmitter) -> None:
    emitter = make_down(celery_app=app_of(f"redis://127.0.0.1:1/0;{own_server.url}"))
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
@pytest.mark.parametrize("settings", ["{}", slow("{'background': False}")])
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


@pytest.mark.slow
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
    assert set(arrived(collector)) == {*range(20), 1000}
