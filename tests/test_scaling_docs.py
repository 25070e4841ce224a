"""The examples of docs/scaling.md, run with a real Redis and a real collector."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from emitter_support import until
from redis_server import QUICK, redis, running
from store_support import python_blocks

import fastemit
from fastemit.testing import Collector


def example(word: str) -> str:
    return next(block for _, block in python_blocks("docs/scaling.md") if word in block)


def test_the_producer_and_the_worker_of_the_redis_part(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as server:
        original = redis.Redis
        monkeypatch.setattr(redis, "Redis", lambda host: original(port=server.port, **QUICK))
        exec(compile(example("RedisEmitter("), "docs/scaling.md", "exec"), {})
        with original(port=server.port, **QUICK) as rdb:
            assert rdb.llen("snowplow") == 1
            made: list[Any] = []

            class Here(fastemit.RedisWorker):
                def __init__(self, emitter: fastemit.Emitter, *arguments: Any) -> None:
                    super().__init__(fastemit.Emitter(collector.url), *arguments)
                    made.append(self)

            monkeypatch.setattr(fastemit, "RedisWorker", Here)
            code = compile(example("RedisWorker("), "docs/scaling.md", "exec")
            thread = threading.Thread(target=exec, args=(code, {}))
            thread.start()
            until(lambda: len(collector.events) == 1)
            made[0].request_shutdown()
            thread.join(10)
            assert not thread.is_alive()
        assert collector.events[0]["url"] == "https://example.com"
