"""Workers and emitters of a Redis Cluster that is resharded, and of a primary that fails over by a Sentinel."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastemit import RedisEmitter
from fastemit.redis._clients import client_of
from fastemit.testing import Collector
from tests.support.redis_command import Started, run
from tests.support.redis_topologies import Cluster, cluster, watched
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")]

LISTS = "snowplow", "{snowplow}:dead"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("nodes")) as made:
        yield made


@pytest.fixture
def client(nodes: Cluster) -> Iterator[Any]:
    with nodes.client() as client:
        for node in nodes.nodes:
            with node.client() as direct:
                direct.flushall()
        yield client


def arrived(collector: Collector) -> set[int]:
    return {int(each["n"]) for each in collector.events}


def event(number: int) -> dict[str, str]:
    return {"e": "pv", "n": str(number)}


def test_an_address_without_a_cluster_in_it_is_an_error_that_says_what_to_write(nodes: Cluster, client: Any) -> None:
    own = nodes.owner("snowplow")
    done = run("--redis-url", nodes.nodes[own - 1].url, "--collector", "c.example.com")
    assert (done.returncode, done.stdout) == (1, "")
    assert "redis+cluster://" in done.stderr


def test_the_command_finds_the_node_of_the_list_by_any_other(nodes: Cluster, client: Any, collector: Collector) -> None:
    client.rpush("snowplow", *[json.dumps(event(number)) for number in range(100)])
    others = [node for number, node in enumerate(nodes.nodes) if number != nodes.owner("snowplow")]
    # The first of them is nobody.
    url = f"redis+cluster://127.0.0.1:9,127.0.0.1:{others[0].port}"
    with Started("--redis-url", url, "--collector", collector.url) as worker:
        until(lambda: arrived(collector) == set(range(100)), 30)
        assert worker.end() == 0
    assert client.exists("snowplow") == 0


def test_a_list_that_is_moved_to_another_node_is_followed_by_both_sides(
    nodes: Cluster, client: Any, collector: Collector
) -> None:
    url = f"redis+cluster://127.0.0.1:{nodes.nodes[0].port}"
    total = 0
    with (
        Started("--redis-url", url, "--collector", collector.url, "--takeover-after", "2") as worker,
        client_of(url) as mine,
        RedisEmitter(mine, batch_size=10, max_retry_delay_seconds=0.2) as emitter,
    ):
        for _ in range(3):
            for _ in range(300):
                emitter.input(event(total))
                total += 1
            nodes.move("snowplow", (nodes.owner("snowplow") + 1) % 3)
        assert emitter.drain(20, retry=True)
        until(lambda: arrived(collector) == set(range(total)), 30)
        assert worker.end() == 0


def test_a_worker_of_a_single_node_ends_with_an_error_when_the_list_is_moved_away(
    nodes: Cluster, client: Any, collector: Collector
) -> None:
    own = nodes.owner("snowplow")
    with Started("--redis-url", nodes.nodes[own].url, "--collector", collector.url) as worker:
        client.rpush("snowplow", json.dumps(event(0)))
        until(lambda: arrived(collector) == {0}, 30)
        nodes.move("snowplow", (own + 1) % 3)
        assert worker.ends() == 1
    assert "redis+cluster://" in worker.err


def test_a_failover_by_a_sentinel_loses_nothing_that_the_replica_has(tmp_path: Path, collector: Collector) -> None:
    with watched(tmp_path) as servers, servers.primary.client() as old, client_of(servers.url) as mine:
        with (
            Started("--redis-url", servers.url, "--collector", collector.url, "--takeover-after", "2") as worker,
            RedisEmitter(mine, batch_size=10, max_retry_delay_seconds=0.2) as emitter,
        ):
            for number in range(500):
                emitter.input(event(number))
            assert emitter.drain(20)
            assert old.wait(1, 10_000) == 1
            servers.primary.kill()
            for number in range(500, 1000):
                emitter.input(event(number))
            assert emitter.drain(30, retry=True)
            until(lambda: arrived(collector) == set(range(1000)), 30)
            assert worker.end() == 0
        with servers.replica.client() as new:
            assert new.info("replication")["role"] == "master"
            assert [new.llen(key) for key in LISTS] == [0, 0]
