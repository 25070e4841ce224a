"""Redis servers that belong together: a Cluster whose slots can be moved, and a primary that Sentinels watch."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.redis_server import QUICK, RedisServer, redis, redis_binary
from tests.support.waiting import until

SLOTS = 16384
#: Seconds for servers that have to find each other.
PATIENCE = 30.0


class Cluster:
    """Nodes that have a part of the slots each."""

    def __init__(self, nodes: list[RedisServer]) -> None:
        self.nodes = nodes
        self._clients = [node.client() for node in nodes]

    def meet(self) -> None:
        share = -(-SLOTS // len(self.nodes))
        for number, client in enumerate(self._clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER", "ADDSLOTS", *range(number * share, min((number + 1) * share, SLOTS)))
            self._clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[number].port)
        until(lambda: all("cluster_state:ok" in self._info(client) for client in self._clients), PATIENCE)
        until(lambda: all(len(self._slots(client)) == len(self.nodes) for client in self._clients), PATIENCE)

    @staticmethod
    def _info(client: Any) -> str:
        return str(client.execute_command("CLUSTER", "INFO"))

    @staticmethod
    def _slots(client: Any) -> Any:
        return client.execute_command("CLUSTER", "SLOTS")

    def client(self) -> Any:
        return redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port)

    def owner(self, key: str) -> int:
        """The number of the node that has a key."""
        with self.client() as client:
            port = client.get_node_from_key(key).port
        return next(number for number, node in enumerate(self.nodes) if node.port == port)

    def move(self, key: str, to: int) -> None:
        """Move the slot of a key, with all that is in it, while clients go on."""
        slot = redis.cluster.key_slot(key.encode())
        source, target = self._clients[self.owner(key)], self._clients[to]
        ids = [client.execute_command("CLUSTER", "MYID") for client in (source, target)]
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        while names := source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.execute_command("MIGRATE", "127.0.0.1", self.nodes[to].port, "", 0, 5000, "KEYS", *names)
        for client in (target, source, *self._clients):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for node in self.nodes:
            node.kill()


@contextlib.contextmanager
def cluster(directory: Path, count: int = 3) -> Iterator[Cluster]:
    nodes = []
    for number in range(count):
        home = directory / f"node{number}"
        home.mkdir()
        node = RedisServer(home, "--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
        # Nodes talk to each other on a port that is 10,000 higher.
        while node.port > 55_535:
            node = RedisServer(home, "--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
        nodes.append(node.start())
    made = Cluster(nodes)
    try:
        made.meet()
        yield made
    finally:
        made.close()


class Watched:
    """A primary with a replica, and a Sentinel that makes the replica the primary when the first one is gone."""

    def __init__(self, primary: RedisServer, replica: RedisServer, sentinel_port: int) -> None:
        self.primary = primary
        self.replica = replica
        self.sentinel_port = sentinel_port
        self.url = f"redis+sentinel://127.0.0.1:{sentinel_port}/orders/0"


@contextlib.contextmanager
def watched(directory: Path) -> Iterator[Watched]:
    for name in ("primary", "replica", "sentinel"):
        (directory / name).mkdir()
    primary = RedisServer(directory / "primary").start()
    replica = RedisServer(directory / "replica", "--replicaof", "127.0.0.1", str(primary.port)).start()
    port = free_port()
    settings = directory / "sentinel" / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory / 'sentinel'}\n"
        f"sentinel monitor orders 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds orders 500\nsentinel failover-timeout orders 5000\n"
    )
    with (directory / "sentinel" / "log").open("ab") as log:
        sentinel = subprocess.Popen([redis_binary(), str(settings), "--sentinel"], stdout=log, stderr=log)
    try:
        with redis.Redis(port=port, **QUICK) as client:
            until(lambda: _replicas(client) == 1, PATIENCE)
        yield Watched(primary, replica, port)
    finally:
        sentinel.kill()
        sentinel.wait()
        primary.kill()
        replica.kill()


def _replicas(client: Any) -> int:
    with contextlib.suppress(redis.RedisError):
        return len(client.sentinel_slaves("orders"))
    return 0
