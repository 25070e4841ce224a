"""A long backlog in Redis, and the takeover of what a dead worker had: how long, and how long others wait meanwhile.

    python benchmarks/redis_backlog.py --backlog 1000000 --takeover 500000 --rounds 3

Starts a Redis, a server that counts events, and `fastemit redis-worker`. Another version of fastemit to compare with is
given by the folder that it is installed in: `--beside FOLDER`; the two take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench_support import PAGE_VIEW_WITH_INT
from servers import Server

sys.path.append(str(Path(__file__).parents[1]))
from tests.support.redis_server import RedisServer, running

EVENT = json.dumps(PAGE_VIEW_WITH_INT)
DEAD = "0" * 32


def fill(rdb: Any, key: str, count: int) -> None:
    for start in range(0, count, 10_000):
        rdb.rpush(key, *[EVENT] * min(10_000, count - start))


@contextlib.contextmanager
def worker(server: RedisServer, collector: str, folder: str | None, *more: str) -> Iterator[None]:
    path = [folder] if folder else [os.path.abspath(entry) for entry in sys.path if entry]
    arguments = ["--redis-url", server.url, "--collector", collector, "--quiet", *more]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastemit", "redis-worker", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def wait(condition: Callable[[], object], pause: float = 0.005) -> float:
    while not condition():
        time.sleep(pause)
    return time.perf_counter()


def cpu_of_redis(rdb: Any) -> float:
    told = rdb.info("cpu")
    return float(told["used_cpu_user"] + told["used_cpu_sys"])


def cpu_of_children() -> float:
    """Of those that have ended, the worker's start included."""
    told = resource.getrusage(resource.RUSAGE_CHILDREN)
    return told.ru_utime + told.ru_stime


def backlog(server: RedisServer, folder: str | None, count: int) -> dict[str, float]:
    with server.client() as rdb, Server() as collector:
        rdb.flushall()
        before = rdb.info("memory")["used_memory"]
        fill(rdb, "snowplow", count)
        size = rdb.info("memory")["used_memory"] - before
        of_redis, of_worker = cpu_of_redis(rdb), cpu_of_children()
        with worker(server, collector.url, folder):
            # From the first events on, so that the start of Python is not among it.
            started = wait(lambda: rdb.llen("snowplow") < count)
            ended = wait(lambda: not rdb.llen("snowplow") and not next(rdb.scan_iter("{snowplow}:inflight:*"), None))
        return {
            "MB in Redis": size / 1e6,
            "events/s": count / (ended - started),
            "us of CPU an event, worker": 1e6 * (cpu_of_children() - of_worker) / count,
            "us of CPU an event, Redis": 1e6 * (cpu_of_redis(rdb) - of_redis) / count,
        }


def takeover(server: RedisServer, folder: str | None, count: int) -> dict[str, float]:
    with server.client() as rdb:
        rdb.flushall()
        fill(rdb, f"{{snowplow}}:inflight:{DEAD}", count)
        rdb.sadd("{snowplow}:workers", DEAD)
        pings: list[tuple[float, float]] = []
        over = threading.Event()

        def ping() -> None:
            with server.client() as client:
                while not over.is_set():
                    began = time.perf_counter()
                    client.ping()
                    pings.append((began, time.perf_counter() - began))

        thread = threading.Thread(target=ping)
        thread.start()
        # Nobody listens there, so that what is put back stays.
        with worker(server, "http://127.0.0.1:9", folder, "--takeover-after", "1"):
            started = wait(lambda: rdb.llen(f"{{snowplow}}:inflight:{DEAD}") < count, 0.001)
            ended = wait(lambda: not rdb.exists(f"{{snowplow}}:inflight:{DEAD}"))
            over.set()
            thread.join()
        waits = sorted(wait for began, wait in pings if began + wait >= started and began <= ended)
        return {
            "s of takeover": ended - started,
            "ms PING p50": 1000 * waits[len(waits) // 2],
            "ms PING p99": 1000 * waits[int(len(waits) * 0.99)],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--takeover", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", metavar="FOLDER")
    args = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), "--appendonly", "no") as server:
        for _ in range(args.rounds):
            for name, where in [("here", None), *([("beside", args.beside)] if args.beside else [])]:
                of_round = {**backlog(server, where, args.backlog), **takeover(server, where, args.takeover)}
                for what, value in of_round.items():
                    found.setdefault(what, {}).setdefault(name, []).append(value)
    for what, sides in found.items():
        print(f"{what}: " + "; ".join(f"{name} {median(values):,.1f}" for name, values in sides.items()))


if __name__ == "__main__":
    main()
