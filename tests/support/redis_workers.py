"""What the tests of RedisWorker share: events in a list, workers in threads and in processes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastemit import Emitter, RedisWorker
from fastemit.testing import Collector
from tests.support.environment import environment

DEAD = "{snowplow}:dead"

#: Seconds for processes that have to be started first.
PATIENCE = 30.0

MakeWorker = Callable[..., RedisWorker]


def event(number: int) -> str:
    return json.dumps({"e": "pv", "p": "srv", "tv": "test", "n": str(number)})


def put(rdb: Any, count: int, start: int = 0) -> None:
    rdb.rpush("snowplow", *[event(number) for number in range(start, start + count)])


def arrived(collector: Collector) -> list[int]:
    return [int(each["n"]) for each in collector.events]


#: In one step, or events that a worker takes meanwhile are seen in neither list.
LISTS = """
local lists = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('TYPE', key).ok == 'list' then lists[#lists + 1] = key end
end
return lists
"""


def left(rdb: Any) -> list[str]:
    """The keys that hold events, other than the dead list."""
    return [key.decode() for key in rdb.eval(LISTS, 0) if key.decode() != DEAD]


def take_for_dead(rdb: Any, worker: RedisWorker) -> int:
    """Put back what a worker has, as another does that takes it for dead; how many events."""
    name = worker._redis.id.encode()
    rdb.delete(worker._redis._alive)
    rdb.hset("{snowplow}:signs", name, "1 1")
    return worker._redis.recover(name, b"1 1")


@contextlib.contextmanager
def at_work(*workers: RedisWorker) -> Iterator[None]:
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.request_shutdown()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def make(collector: Collector, rdb: Any, cls: Any = Emitter, **settings: Any) -> RedisWorker:
    mine = {name: settings.pop(name) for name in ("poll_interval", "takeover_after", "key") if name in settings}
    settings.setdefault("max_retry_delay_seconds", 0.05)
    return RedisWorker(cls(collector.url, **settings), rdb, **{"poll_interval": 0.01, **mine})


class Process:
    def __init__(self, port: int, url: str, **settings: Any) -> None:
        program = Path(__file__).with_name("redis_worker_process.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(port), url, json.dumps(settings)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> Process:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        rest = self.process.communicate(timeout=PATIENCE)[0]
        return self.process.returncode, rest
