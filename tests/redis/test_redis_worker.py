"""RedisWorker over a real Redis and a real collector: the ordinary way, entries that are no events, and names."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fastemit import Emitter, RedisEmitter, RedisWorker
from fastemit.redis.scripts import beside
from fastemit.testing import Collector
from tests.support.emitters import Recorder
from tests.support.redis_server import RedisServer, redis
from tests.support.redis_workers import DEAD, arrived, at_work, event, left, make, put
from tests.support.reference import needs_reference_0_15, runner_with_0_15
from tests.support.stores import ListStore
from tests.support.waiting import until

# -- the ordinary way --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("decode", [False, True])
def test_events_arrive_in_order_and_leave_redis(
    server: RedisServer, rdb: Any, collector: Collector, method: str, decode: bool
) -> None:
    put(rdb, 300)
    with server.client(decode_responses=decode) as client:
        worker = make(collector, client, method=method)
        with at_work(worker):
            until(lambda: len(arrived(collector)) == 300)
            until(lambda: left(rdb) == [])
    assert arrived(collector) == list(range(300))
    assert rdb.keys() == []


def test_an_event_stays_in_redis_until_the_collector_has_answered(rdb: Any, collector: Collector) -> None:
    collector.respond(delay=0.5)
    put(rdb, 3)
    with at_work(make(collector, rdb)):
        until(lambda: len(collector.requests) == 1 or rdb.llen("snowplow") == 0)
        held = [key for key in left(rdb) if "inflight" in key]
        assert [rdb.llen(key) for key in held] == [3]
        until(lambda: left(rdb) == [])
    assert arrived(collector) == [0, 1, 2]


def test_values_become_strings_as_in_the_reference(rdb: Any, collector: Collector) -> None:
    rdb.rpush("snowplow", '{"i": 1, "n": null, "t": true, "f": 1.5, "nan": NaN}')
    with at_work(make(collector, rdb)):
        collector.wait_for(1, 10)
    assert {name: collector.events[0][name] for name in "intf"} == {"i": "1", "n": "None", "t": "True", "f": "1.5"}


def test_the_callbacks_of_the_emitter_run(rdb: Any, collector: Collector) -> None:
    told = Recorder()
    put(rdb, 5)
    worker = make(collector, rdb)
    worker.emitter.on_success = told.success
    with at_work(worker):
        until(lambda: sum(map(len, told.successes)) == 5)


def test_events_that_the_collector_refuses_leave_redis(rdb: Any, collector: Collector) -> None:
    collector.respond(status=400, times=None)
    put(rdb, 5)
    worker = make(collector, rdb)
    with at_work(worker):
        until(lambda: worker.stats().dropped_events["rejected"] == 5 and left(rdb) == [])


def test_a_collector_that_is_down_is_waited_for(rdb: Any, collector: Collector) -> None:
    collector.respond(500, times=3)
    put(rdb, 50)
    with at_work(make(collector, rdb)):
        until(lambda: left(rdb) == [])
    assert sorted(set(arrived(collector))) == list(range(50))


@pytest.mark.parametrize("store", [None, ListStore])
def test_a_worker_takes_no_more_than_its_emitter_can_hold(rdb: Any, store: Any) -> None:
    put(rdb, 500)
    emitter = Emitter(
        "http://127.0.0.1:9", buffer_capacity=100, shutdown_timeout=0, event_store=None if store is None else store()
    )
    worker = RedisWorker(emitter, rdb, poll_interval=0.01)
    with at_work(worker):
        until(lambda: rdb.llen("snowplow") == 400)
        until(lambda: worker.stats().failed_requests > 1)
        assert rdb.llen("snowplow") == 400


def test_what_is_left_at_the_end_goes_back_in_order(rdb: Any) -> None:
    put(rdb, 20)
    worker = RedisWorker(Emitter("http://127.0.0.1:9", shutdown_timeout=0), rdb)
    with at_work(worker):
        until(lambda: rdb.llen("snowplow") == 0)
    assert [json.loads(each)["n"] for each in rdb.lrange("snowplow", 0, -1)] == [str(number) for number in range(20)]
    assert rdb.keys() == [b"snowplow"]


def test_one_poisonous_event_holds_up_nobody_and_is_not_lost(rdb: Any) -> None:
    seen: Counter[str] = Counter()

    class Poisoned(Emitter):
        def http_post(self, data: str) -> int:
            events = [each["n"] for each in json.loads(data)["data"]]
            seen.update(events if "3" not in events else [])
            return 500 if "3" in events else 200

    put(rdb, 10)
    worker = RedisWorker(
        Poisoned("http://unused", max_retry_delay_seconds=0.001, shutdown_timeout=0), rdb, poll_interval=0.01
    )
    with at_work(worker):
        until(lambda: len(seen) == 9)
        put(rdb, 10, start=10)
        until(lambda: len(seen) == 19)
        until(lambda: sum(rdb.llen(key) for key in left(rdb)) == 1)
    assert rdb.lrange("snowplow", 0, -1) == [event(3).encode()]


# -- what is no event --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [False, True])
def test_what_is_no_event_goes_to_the_dead_list_and_the_rest_goes_on(
    server: RedisServer, rdb: Any, collector: Collector, decode: bool
) -> None:
    bad = [b"{", b"[1]", b"\xff\xfe", b"", b"7", b"{"]
    for number, each in enumerate(bad):
        rdb.rpush("snowplow", each, event(number))
    with server.client(decode_responses=decode) as client:
        worker = make(collector, client)
        with at_work(worker):
            until(lambda: sorted(arrived(collector)) == list(range(6)) and left(rdb) == [])
    assert (sorted(rdb.lrange(DEAD, 0, -1)), worker.dead_events) == (sorted(bad), 6)


def test_an_entry_of_10_mb_is_sent_alone(rdb: Any, collector: Collector) -> None:
    rdb.rpush("snowplow", event(0), json.dumps({"n": "1", "big": "x" * 10_000_000}), event(2))
    with at_work(make(collector, rdb)):
        until(lambda: sorted(arrived(collector)) == [0, 1, 2] and left(rdb) == [])


def test_an_entry_that_fits_no_buffer_goes_to_the_dead_list(rdb: Any, collector: Collector) -> None:
    rdb.rpush("snowplow", json.dumps({"n": "1", "big": "x" * 5000}), event(2))
    with at_work(make(collector, rdb, max_buffer_bytes=4096)):
        until(lambda: arrived(collector) == [2] and left(rdb) == [])
    assert rdb.llen(DEAD) == 1


@needs_reference_0_15
def test_events_of_the_references_emitter_are_sent(
    server: RedisServer, rdb: Any, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        import sys, redis, warnings
        warnings.simplefilter("ignore")
        from snowplow_tracker.redis.redis_emitter import RedisEmitter
        emitter = RedisEmitter(redis.StrictRedis(port=int(sys.argv[1])))
        for number in range(5):
            emitter.input({"n": str(number), "s": "\\u00fc", "i": 7})
    """
    ended = runner_with_0_15(tmp_path, monkeypatch)(script, str(server.port))
    assert ended.status == 0, ended.errors
    with at_work(make(collector, rdb)):
        until(lambda: len(collector.events) == 5)
    assert [(each["n"], each["s"], each["i"]) for each in collector.events] == [(str(n), "ü", "7") for n in range(5)]


# -- names and arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "expected"),
    [("snowplow", "{snowplow}:dead"), ("a{b}c", "a{b}c:dead"), ("{b}", "{b}:dead"), ("a{}b", "{a{}b}:dead")],
)
def test_keys_beside_the_list_have_its_hash_tag(key: str, expected: str) -> None:
    assert beside(key, "dead") == expected
    if key != "a{}b":
        assert redis.cluster.key_slot(expected.encode()) == redis.cluster.key_slot(key.encode())


def test_only_a_fastemit_emitter_will_do(rdb: Any) -> None:
    with pytest.raises(TypeError, match=r"fastemit\.Emitter"):
        RedisWorker(object(), rdb)  # type: ignore[arg-type]


def test_emitter_and_worker_together(rdb: Any, collector: Collector) -> None:
    with at_work(make(collector, rdb)), RedisEmitter(rdb, batch_size=20) as emitter:
        for number in range(1000):
            emitter.input(json.loads(event(number)))
        emitter.flush()
        until(lambda: len(arrived(collector)) == 1000)
    assert arrived(collector) == list(range(1000))
