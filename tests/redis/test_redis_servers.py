"""RedisWorker behind TLS, with a password, with few permissions, in a cluster, on a replica, beside keys gone wrong."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from fastemit import Emitter, RedisEmitter, RedisWorker
from fastemit.redis._clients import client_of
from fastemit.testing import Collector
from tests.support.redis_server import QUICK, RedisServer, Relay, redis, running
from tests.support.slow import slow
from tests.support.stores import ROOT
from tests.support.waiting import until

DEAD = "{snowplow}:dead"
DOWN = "http://127.0.0.1:9"


def put(rdb: Any, count: int, key: str = "snowplow") -> None:
    rdb.rpush(key, *[json.dumps({"e": "pv", "n": str(number)}) for number in range(count)])


class Working:
    """A worker in a thread, for the time of a `with`."""

    def __init__(
        self, url: str, rdb: Any, key: str = "snowplow", takeover_after: float = 30.0, **settings: Any
    ) -> None:
        emitter = Emitter(url, **{"shutdown_timeout": 5.0, **settings})
        self.worker = RedisWorker(emitter, rdb, key, poll_interval=0.01, takeover_after=takeover_after)
        self._thread = threading.Thread(target=self.worker.run, daemon=True)

    def __enter__(self) -> RedisWorker:
        self._thread.start()
        return self.worker

    def __exit__(self, *_: object) -> None:
        self.worker.request_shutdown()
        self._thread.join(20)
        assert not self._thread.is_alive()


def lists(rdb: Any) -> list[str]:
    return [key.decode() for key in rdb.scan_iter() if rdb.type(key) == b"list"]


def has_sent_all(rdb: Any, collector: Collector, count: int) -> bool:
    return len(collector.events) == count and not lists(rdb)


# -- ways to a server --------------------------------------------------------------------------------------------------


def test_a_worker_behind_tls(server: RedisServer, rdb: Any, collector: Collector, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    certificate = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(certificate))
    put(rdb, 100)
    with (
        Relay(server.port, context) as relay,
        client_of(f"rediss://127.0.0.1:{relay.port}/0?ssl_ca_certs={certificate}") as client,
        Working(collector.url, client),
    ):
        until(lambda: has_sent_all(rdb, collector, 100))


def test_a_worker_trusts_no_certificate_that_it_does_not_know(
    server: RedisServer, rdb: Any, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    put(rdb, 5)
    with (
        Relay(server.port, context) as relay,
        client_of(f"rediss://127.0.0.1:{relay.port}/0") as client,
        Working(collector.url, client),
    ):
        until(lambda: "certificate verify failed" in caplog.text)
    assert rdb.llen("snowplow") == 5


def test_a_worker_with_a_password_and_one_with_a_wrong_one(
    tmp_path: Path, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, "--requirepass", "s3cret") as server, server.client() as rdb:
        put(rdb, 10)
        wrong = server.url.replace("s3cret", "wr0ng")
        with client_of(wrong) as client, Working(collector.url, client):
            until(lambda: "Redis failed" in caplog.text)
        assert rdb.llen("snowplow") == 10
        with client_of(server.url) as client, Working(collector.url, client):
            until(lambda: has_sent_all(rdb, collector, 10))
    assert re.search("s3cret|wr0ng", caplog.text) is None


def test_a_read_only_replica_is_waited_for(
    server: RedisServer, rdb: Any, tmp_path: Path, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    put(rdb, 10)
    with running(tmp_path, "--replicaof", "127.0.0.1", str(server.port)) as replica, replica.client() as client:
        until(lambda: client.llen("snowplow") == 10)
        with Working(collector.url, client):
            until(lambda: "ReadOnly" in caplog.text or "READONLY" in caplog.text)
            assert (len(collector.events), client.llen("snowplow")) == (0, 10)
            # As after a failover.
            client.replicaof("no", "one")
            until(lambda: has_sent_all(client, collector, 10))


def test_a_primary_that_refuses_writes_for_a_while_loses_nothing_of_what_is_in_hand(
    tmp_path: Path, collector: Collector
) -> None:
    collector.respond(500, times=3)
    with running(tmp_path) as other, other.client() as rdb:
        put(rdb, 10)
        with Working(collector.url, rdb, max_retry_delay_seconds=0.05):
            until(lambda: len(collector.requests) > 0)
            # Writes are refused, and what there is stays.
            rdb.config_set("min-replicas-to-write", "1")
            until(lambda: len(collector.requests) > 3)
            rdb.config_set("min-replicas-to-write", "0")
            until(lambda: lists(rdb) == [])
    assert {event["n"] for event in collector.events} == {str(number) for number in range(10)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """All of a cluster on one node, which refuses keys of two slots all the same."""
    directory = tmp_path_factory.mktemp("cluster")
    server = RedisServer(directory, "--cluster-enabled", "yes")
    # Nodes talk to each other on a port that is 10,000 higher.
    while server.port > 55_535:
        server = RedisServer(directory, "--cluster-enabled", "yes")
    try:
        with server.start().client() as node:
            node.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            until(lambda: "cluster_state:ok" in str(node.execute_command("CLUSTER", "INFO")))
        yield server
    finally:
        server.kill()


@pytest.mark.parametrize("key", ["snowplow", "a{b}c", slow("{b}"), slow("a{b")])
def test_every_step_keeps_to_one_slot_of_a_cluster(cluster: RedisServer, collector: Collector, key: str) -> None:
    with cluster.client() as node, redis.RedisCluster(host="127.0.0.1", port=cluster.port) as client:
        node.flushall()
        with RedisEmitter(client, key, batch_size=5) as emitter:
            for number in range(20):
                emitter.input({"e": "pv", "n": str(number)})
        node.rpush(key, "no event")
        dead = RedisWorker(Emitter(DOWN), client, key, takeover_after=0.1)
        assert len(dead._redis.take(0, 5, 10**6)) == 5  # type: ignore[arg-type]
        with Working(collector.url, client, key, takeover_after=0.1) as worker:
            until(lambda: len(collector.events) == 20 and worker.dead_events == 1)
            until(lambda: lists(node) == [worker._redis.dead])
        assert worker.recovered_events == 5


# -- permissions -------------------------------------------------------------------------------------------------------


def documented_commands() -> tuple[set[str], set[str]]:
    """Of the worker and of the producer, as docs/scaling.md has them."""
    text = " ".join((ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").split())
    found = re.search(r"The worker needs the commands (.*?); the producer (.*?)\.", text)
    assert found is not None
    worker, producer = (set(re.findall(r"\b[A-Z]{3,}\b", part)) for part in found.groups())
    return worker, producer


@pytest.fixture
def limited(server: RedisServer, rdb: Any) -> Iterator[Any]:
    """Makes clients of users that may do so many commands, on the list's keys only."""
    made: list[Any] = []

    def make(commands: set[str]) -> Any:
        rules = [f"+{name.lower()}" for name in sorted(commands)]
        rdb.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", "~*snowplow*", "-@all", *rules)
        made.append(redis.Redis(port=server.port, username="limited", password="pw", **QUICK))
        return made[-1]

    yield make
    rdb.execute_command("ACL", "DELUSER", "limited")
    for client in made:
        client.close()


def test_the_commands_of_the_documentation_are_all_that_a_worker_needs(
    rdb: Any, collector: Collector, limited: Any
) -> None:
    client = limited(documented_commands()[0])
    collector.respond(500, times=1)
    put(rdb, 30)
    rdb.rpush("snowplow", "no event")
    dead = RedisWorker(Emitter(DOWN), rdb, takeover_after=0.1)
    assert len(dead._redis.take(0, 5, 10**6)) == 5  # type: ignore[arg-type]
    with Working(collector.url, client, takeover_after=0.1, max_retry_delay_seconds=0.5) as worker:
        until(lambda: len({event["n"] for event in collector.events}) == 30 and worker.dead_events == 1)
        # What it does when a step's answer was lost, and a sign of life.
        worker._held.unsure = True
        until(lambda: not worker._held.unsure)
        until(lambda: lists(rdb) == [DEAD])
    assert worker.recovered_events == 5
    put(rdb, 5)
    with Working(DOWN, client, shutdown_timeout=0):
        until(lambda: rdb.llen("snowplow") == 0)
    assert rdb.llen("snowplow") == 5


def test_no_command_of_the_documentation_is_one_too_many(rdb: Any, collector: Collector, limited: Any) -> None:
    from fastemit.redis import scripts as redis_list

    scripts = redis_list.TAKE + redis_list.SETTLE + redis_list.MOVE + redis_list.LOOK + redis_list.RECOVER
    called = set(re.findall(r"redis\.call\('([A-Z]+)'", scripts))
    assert documented_commands() == (called | {"EVAL", "LRANGE"}, {"RPUSH"})


@pytest.mark.parametrize("batch_size", [1, 10])
def test_rpush_is_all_that_a_producer_needs(rdb: Any, limited: Any, batch_size: int) -> None:
    with RedisEmitter(limited(documented_commands()[1]), batch_size=batch_size) as emitter:
        for number in range(20):
            emitter.input({"n": number})
    assert rdb.llen("snowplow") == 20


# -- keys of a wrong type ----------------------------------------------------------------------------------------------


def test_a_key_of_the_wrong_type_costs_a_worker_that_ends_nothing(rdb: Any, collector: Collector) -> None:
    put(rdb, 10)
    with Working(DOWN, rdb, shutdown_timeout=0, takeover_after=0.3):
        until(lambda: rdb.llen("snowplow") == 0)
        rdb.set("snowplow", "a string")
    rdb.delete("snowplow")
    with Working(collector.url, rdb, takeover_after=0.3):
        until(lambda: has_sent_all(rdb, collector, 10))


def test_a_dead_list_of_the_wrong_type_is_waited_for(
    rdb: Any, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    rdb.set(DEAD, "a string")
    rdb.rpush("snowplow", "no event")
    with Working(collector.url, rdb):
        until(lambda: "WRONGTYPE" in caplog.text)
        rdb.delete(DEAD)
        until(lambda: rdb.lrange(DEAD, 0, -1) == [b"no event"])


def test_a_set_of_workers_of_the_wrong_type_is_waited_for(
    rdb: Any, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    rdb.set("{snowplow}:workers", "a string")
    put(rdb, 10)
    with Working(collector.url, rdb):
        until(lambda: "WRONGTYPE" in caplog.text)
        assert rdb.llen("snowplow") == 10
        rdb.delete("{snowplow}:workers")
        until(lambda: has_sent_all(rdb, collector, 10))
