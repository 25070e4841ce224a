"""A daemon, where events go to Redis or to a Celery broker, or where the parent's sockets are found in another way."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.process.test_daemon import DAEMON, files_are_whole, pytestmark, run
from tests.support.delivery import Rig
from tests.support.hosts import needs_host
from tests.support.processes import WatchedScript
from tests.support.redis_server import RedisServer

__all__ = ["pytestmark"]


def of_redis(server: RedisServer, make: str, use: str, in_use: bool) -> str:
    return DAEMON + textwrap.dedent(f"""
    import redis
    from fastemit import RedisEmitter, RedisWorker
    {make}
    {use}
    client = emitter.rdb if emitter is not None else worker._rdb
    if {in_use}:
        taken = client.connection_pool.get_connection()
        taken.send_command("PING")
    def main():
        global emitter, worker, client, taken
        {use}
        del client
        emitter = worker = taken = None
    as_daemon(main)
    if {in_use}:
        assert taken.read_response() in (b"PONG", "PONG")
    {use}
    """)


OURS = "from fastemit.redis._clients import client_of; emitter = RedisEmitter(client_of(URL))"
THEIRS = "emitter = RedisEmitter(redis.Redis.from_url(URL))"


@pytest.mark.parametrize(("make", "in_use"), [(OURS, False), (OURS, True), (THEIRS, False)])
def test_a_daemon_keeps_its_files_whoever_made_the_client_of_redis(
    server: RedisServer, rdb: Any, tmp_path: Path, make: str, in_use: bool
) -> None:
    script = of_redis(server, make, "put(emitter, 1); assert emitter.drain(5)", in_use)
    run(tmp_path, script, server.url)
    files_are_whole(tmp_path)
    assert rdb.llen("snowplow") == 3


def test_the_client_that_a_redis_emitter_or_worker_makes_is_watched() -> None:
    from fastemit import Emitter, RedisEmitter, RedisWorker
    from fastemit._process import sockets

    emitter, worker = RedisEmitter(), RedisWorker(Emitter("http://127.0.0.1:9"))
    watched = [reference() for reference, _ in sockets._holders.values()]
    assert emitter.rdb in watched
    assert any(client is not emitter.rdb for client in watched if client is not None)
    assert worker is not None


@pytest.mark.parametrize("dropped", [False, True])
def test_a_daemon_keeps_its_files_where_events_go_to_a_celery_broker(
    server: RedisServer, rdb: Any, tmp_path: Path, dropped: bool
) -> None:
    run(
        tmp_path,
        DAEMON
        + textwrap.dedent(f"""
    import celery
    from fastemit import CeleryEmitter
    app = celery.Celery("test", broker=URL, set_as_current=False)
    emitter = CeleryEmitter("http://127.0.0.1:9", celery_app=app)
    put(emitter, 1, 0)
    assert emitter.drain(10)
    def main():
        global emitter
        put(emitter, 1, 2)
        assert emitter.drain(10)
        if {dropped}:
            emitter = None
    as_daemon(main)
    put(emitter, 1, 3)
    assert emitter.drain(10)
    """),
        server.url,
    )
    files_are_whole(tmp_path)
    assert rdb.llen("celery") == 3


@needs_host("gevent")
@pytest.mark.parametrize("state", ["idle", "in flight"])
def test_a_child_under_gevent_leaves_the_connection_to_its_parent(rig: Rig, tmp_path: Path, state: str) -> None:
    """There the greenlets of the parent go on in the child, a sender that waits for an answer too."""
    if state == "in flight":
        rig.collector.respond()
        rig.collector.respond(delay=0.5)
    script = f"""
    emitter = Emitter(URL, batch_size=1)
    put(emitter, 1, 0)
    assert emitter.drain(5)
    if {state == "in flight"}:
        put(emitter, 1, 1)
        until(lambda: emitter.stats().in_flight_events == 1)
    child = os.fork()
    if child == 0:
        time.sleep(1.0)
        stats = emitter.stats()
        assert stats.sent_events == 0, stats
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    put(emitter, 1, 2)
    assert emitter.drain(5)
    """
    assert WatchedScript(rig, tmp_path)(script, preamble="from gevent import monkey; monkey.patch_all()\n").well
    expected = [[0], [2]] if state == "idle" else [[0], [1], [2]]
    assert rig.requests() == expected
    assert {request.connection for request in rig.collector.requests} == {1}


def test_a_fork_that_ran_no_hook_closes_nothing_at_its_end(rig: Rig, tmp_path: Path) -> None:
    """uWSGI forks in C. Here, too, urllib3's finalizers run at the end."""
    script = DAEMON.replace("sys.argv[2]", f"{str(tmp_path / 'files')!r}") + textwrap.dedent("""
    import ctypes
    emitter = Emitter(URL)
    put(emitter, 1, 0)
    assert emitter.drain(5)
    os.fork = ctypes.PyDLL(None).fork
    as_daemon(lambda: None)
    put(emitter, 1, 1)
    assert emitter.drain(5)
    """)
    assert WatchedScript(rig, tmp_path)(script).well
    files_are_whole(tmp_path)
    assert [request.connection for request in rig.collector.requests] == [1, 1]
