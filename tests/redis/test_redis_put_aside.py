"""Keys and members of a wrong kind beside the list: each is put aside and named in the log, and the rest goes on."""

from __future__ import annotations

from typing import Any

import pytest

from fastemit import Emitter, RedisWorker
from fastemit.testing import Collector
from tests.support.redis_server import QUICK, RedisServer, redis
from tests.support.redis_workers import DEAD, arrived, at_work, event, left, make, put
from tests.support.waiting import until

DOWN = "http://127.0.0.1:9"
SIGNS = "{snowplow}:signs"
WORKERS = "{snowplow}:workers"


def warnings(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    return [line for line in lines if all(word in line for word in words)]


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("member", [b"\xff\xfe", b"", b"not a worker", "ü".encode()])
def test_a_member_that_is_no_worker_is_put_aside_and_named(
    server: RedisServer, rdb: Any, collector: Collector, caplog: pytest.LogCaptureFixture, member: bytes, decode: bool
) -> None:
    rdb.sadd(WORKERS, member)
    with server.client(decode_responses=decode) as client, at_work(make(collector, client, takeover_after=0.1)):
        put(rdb, 10)
        until(lambda: arrived(collector) == list(range(10)))
        until(lambda: not rdb.sismember(WORKERS, member) and not rdb.hexists(SIGNS, member))
        until(lambda: len(warnings(caplog, "put aside", member.decode("ascii", "backslashreplace"))) == 1)
    assert warnings(caplog, "Redis failed") == []


@pytest.mark.parametrize("kind", ["string", "hash", "stream"])
def test_an_in_flight_key_that_holds_no_list_is_put_aside_and_named(
    rdb: Any, collector: Collector, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    keys = [f"{{snowplow}}:inflight:w{number}" for number in range(3)]
    for number, key in enumerate(keys):
        rdb.sadd(WORKERS, f"w{number}")
        {"string": lambda key: rdb.set(key, "x"), "hash": lambda key: rdb.hset(key, "a", "b")}.get(
            kind, lambda key: rdb.xadd(key, {"a": "b"})
        )(key)
    put(rdb, 10)
    with at_work(make(collector, rdb, takeover_after=0.1)):
        until(lambda: arrived(collector) == list(range(10)))
        # Each by its name, not the last of them with a number.
        until(lambda: all(len(warnings(caplog, "put aside", key)) == 1 for key in keys))
    # They may be somebody's.
    assert sorted(key.decode() for key in rdb.scan_iter()) == keys
    assert warnings(caplog, "Redis failed") == []


def test_the_dead_are_found_beside_members_that_are_none(server: RedisServer, rdb: Any, collector: Collector) -> None:
    put(rdb, 10)
    dead = RedisWorker(Emitter(DOWN), rdb, takeover_after=0.1)
    assert len(dead._redis.take(0, 10, 10**6)) == 10  # type: ignore[arg-type]
    rdb.sadd(WORKERS, b"\xff", "w1")
    rdb.set("{snowplow}:inflight:w1", "x")
    rdb.hset(SIGNS, mapping={"w2": "never", "w3": "", "w4": b"\xff 1"})
    finder = make(collector, rdb, takeover_after=0.1)
    with at_work(finder):
        until(lambda: arrived(collector) == list(range(10)) and left(rdb) == [])
        until(lambda: {*rdb.smembers(WORKERS), *rdb.hkeys(SIGNS)} <= {finder._redis.id.encode()})


def test_events_of_a_dead_worker_that_cannot_be_put_back_keep_nobody_from_the_rest(
    server: RedisServer, rdb: Any, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    rdb.rpush("{snowplow}:inflight:another", event(0))
    rdb.sadd(WORKERS, "another")
    # A user that may touch what its own worker has in flight, and nobody else's.
    keys = ["~snowplow", "~{snowplow}:[asw]*", "~{snowplow}:inflight:" + "?" * 32]
    rdb.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", "+@all", *keys)
    with redis.Redis(port=server.port, username="limited", password="pw", **QUICK) as client:
        with at_work(make(collector, client, takeover_after=0.1)):
            put(rdb, 10, 10)
            until(lambda: arrived(collector) == list(range(10, 20)))
            until(lambda: warnings(caplog, "stay where they are", "another"))
        assert warnings(caplog, "Redis failed") == []
    rdb.execute_command("ACL", "DELUSER", "limited")
    assert rdb.llen("{snowplow}:inflight:another") == 1


def test_a_worker_whose_own_list_is_replaced_sends_what_it_has_and_goes_on(
    rdb: Any, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.respond(delay=0.3)
    put(rdb, 10)
    worker = make(collector, rdb)
    with at_work(worker):
        until(lambda: rdb.llen("snowplow") == 0)
        key = worker._redis.inflight
        rdb.set(key, "a string")
        put(rdb, 10, 10)
        until(lambda: set(arrived(collector)) == set(range(20)) and left(rdb) == [])
    assert len(warnings(caplog, key, "holds no list")) == 1
    assert rdb.get(key) == b"a string"


def test_a_dead_list_of_the_wrong_type_keeps_no_event_from_the_collector(
    rdb: Any, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    rdb.set(DEAD, "a string")
    for number in range(50):
        rdb.rpush("snowplow", event(number), "no event")
    worker = make(collector, rdb, buffer_capacity=10)
    with at_work(worker):
        until(lambda: arrived(collector) == list(range(50)))
        put(rdb, 50, 50)
        until(lambda: arrived(collector) == list(range(100)))
        # Nothing but these is still in Redis.
        until(lambda: rdb.lrange(worker._redis.inflight, 0, -1) == [b"no event"] * 50)
        assert warnings(caplog, DEAD, "WRONGTYPE") != []
        rdb.delete(DEAD)
        until(lambda: rdb.lrange(DEAD, 0, -1) == [b"no event"] * 50 and left(rdb) == [])
