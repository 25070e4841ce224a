"""`on_lost` of a `RedisEmitter`, and of the emitter of a `RedisWorker`."""

from __future__ import annotations

from typing import Any

import pytest

from fastemit import RedisEmitter
from fastemit.testing import Collector
from tests.support.lost import Lost
from tests.support.redis_workers import at_work, left, make, put
from tests.support.waiting import until


class Down:
    """A client of a Redis that is not there."""

    def rpush(self, *_: Any) -> int:
        raise ConnectionError("no Redis today")


@pytest.mark.parametrize(("overflow", "expected"), [("drop_newest", [2, 3]), ("drop_oldest", [0, 1])])
@pytest.mark.usefixtures("no_short_delay")
def test_events_without_room_are_lost(overflow: Any, expected: list[int]) -> None:
    lost = Lost()
    emitter = RedisEmitter(Down(), batch_size=100, buffer_capacity=2, overflow=overflow, on_lost=lost)
    emitter.input({"n": 0, "list": [1, 2]})
    assert emitter.drain() is False  # while the backoff runs nothing is in flight
    for number in range(1, 4):
        emitter.input({"n": number, "list": [1, 2]})
    assert lost.by_reason() == {"overflow": expected}
    assert lost.calls[0][1][0] == {"n": expected[0], "list": [1, 2]}
    emitter.close(0)


def test_what_a_close_could_not_push_is_left() -> None:
    lost = Lost()
    emitter = RedisEmitter(Down(), on_lost=lost)
    emitter.input({"n": 1})
    assert emitter.close(0.05) == 1
    emitter.input({"n": 2})
    assert lost.by_reason() == {"left": [1], "closed": [2]}


def test_on_lost_is_checked() -> None:
    with pytest.raises(TypeError, match="on_lost must be callable or None"):
        RedisEmitter(Down(), on_lost="lost")  # type: ignore[arg-type]


def test_a_worker_tells_of_what_the_collector_refuses(collector: Collector, rdb: Any) -> None:
    lost = Lost()
    collector.respond(400)
    worker = make(collector, rdb, on_lost=lost)
    put(rdb, 3)
    with at_work(worker):
        until(lambda: sum(map(len, lost.by_reason().values())) + len(collector.events) >= 3)
    assert set(lost.by_reason()) == {"rejected"}


def test_what_a_worker_leaves_in_redis_is_not_lost(collector: Collector, rdb: Any) -> None:
    lost = Lost()
    collector.respond(503, times=None)
    worker = make(collector, rdb, on_lost=lost, shutdown_timeout=0.05)
    put(rdb, 3)
    with at_work(worker):
        collector.wait_for_requests(1)
    assert left(rdb) == ["snowplow"]
    assert lost.calls == []
