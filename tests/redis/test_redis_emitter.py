"""RedisEmitter over a real Redis: what lies in the list, what `input` promises, and what Redis may do to it."""

from __future__ import annotations

import datetime
import json
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from fastemit import RedisEmitter
from tests.support.delivery import Ended
from tests.support.emitters import accounted, join, threads_of
from tests.support.hosts import needs_host
from tests.support.redis_server import QUICK, RedisServer, Relay, redis, running
from tests.support.reference import needs_reference_0_15, runner_with_0_15
from tests.support.waiting import until


def listed(rdb: Any, key: str = "snowplow") -> list[Any]:
    return [json.loads(event) for event in rdb.lrange(key, 0, -1)]


def test_an_event_is_in_redis_when_input_returns(rdb: Any) -> None:
    with RedisEmitter(rdb) as emitter:
        emitter.input({"e": "pv"})
        assert listed(rdb) == [{"e": "pv"}]


def test_the_positional_parameters_are_the_references(rdb: Any) -> None:
    with RedisEmitter(rdb, "my_snowplow_key") as emitter:
        emitter.input({"e": "pv"})
        assert (emitter.rdb, emitter.key) == (rdb, "my_snowplow_key")
    assert listed(rdb, "my_snowplow_key") == [{"e": "pv"}]


@pytest.mark.parametrize("batch_size", [1, 10])
def test_json_values_keep_their_types_and_others_are_strings(rdb: Any, batch_size: int) -> None:
    when = datetime.datetime(2026, 1, 2, 3, 4, 5)
    with RedisEmitter(rdb, batch_size=batch_size) as emitter:
        emitter.input(
            {"i": 1, "f": 0.5, "n": None, "t": True, "l": [1, {"a": "b"}], "d": when, "big": 2**70, "s": "\ud800"}
        )
    assert listed(rdb) == [
        {"i": 1, "f": 0.5, "n": None, "t": True, "l": [1, {"a": "b"}], "d": str(when), "big": 2**70, "s": "\ud800"}
    ]


@pytest.mark.parametrize("batch_size", [1, 10])
def test_what_is_no_event_raises_and_nothing_is_pushed(rdb: Any, batch_size: int) -> None:
    with RedisEmitter(rdb, batch_size=batch_size) as emitter:
        with pytest.raises(TypeError, match="payload must be a mapping"):
            emitter.input([1])  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            emitter.input({(1, 2): "a"})
    assert listed(rdb) == []


def test_batches_keep_the_order_and_an_stm_of_the_callers(rdb: Any) -> None:
    with RedisEmitter(rdb, batch_size=7) as emitter:
        for number in range(1000):
            emitter.input({"n": number, "stm": "1"})
        emitter.flush()
        assert emitter.stats().sent_events == 1000
    assert listed(rdb) == [{"n": number, "stm": "1"} for number in range(1000)]


def test_an_event_is_captured_at_the_call(rdb: Any) -> None:
    with RedisEmitter(rdb, batch_size=100) as emitter:
        event: dict[str, Any] = {"l": [1]}
        emitter.input(event)
        event["l"].append(2)
    assert listed(rdb) == [{"l": [1]}]


@pytest.mark.parametrize("batch_size", [1, 50])
def test_eight_threads_lose_nothing(rdb: Any, batch_size: int) -> None:
    with RedisEmitter(rdb, batch_size=batch_size) as emitter:

        def feed(thread: int) -> None:
            for number in range(200):
                emitter.input({"n": thread * 200 + number})

        join(threads_of(8, feed))
        emitter.flush()
        assert accounted(emitter.stats()) == emitter.stats().sent_events == 1600
    assert sorted(event["n"] for event in listed(rdb)) == list(range(1600))


@pytest.mark.parametrize("decode", [False, True])
def test_decode_responses_makes_no_difference(server: RedisServer, rdb: Any, decode: bool) -> None:
    with server.client(decode_responses=decode) as client, RedisEmitter(client, batch_size=2) as emitter:
        emitter.input({"e": "ü"})
        emitter.input({"e": "pv"})
        emitter.flush()
    assert listed(rdb) == [{"e": "ü"}, {"e": "pv"}]


def test_the_wrong_type_at_the_key_keeps_the_events_until_it_is_gone(rdb: Any) -> None:
    rdb.set("snowplow", "a string")
    with RedisEmitter(rdb, max_retry_delay_seconds=0.05) as emitter:
        for number in range(3):
            emitter.input({"n": number})
        until(lambda: emitter.retry_delay > 0)
        assert "WRONGTYPE" in str(emitter.stats().last_error)
        rdb.delete("snowplow")
        until(lambda: len(listed(rdb)) == 3)
        assert accounted(emitter.stats()) == 3
    assert [event["n"] for event in listed(rdb)] == [0, 1, 2]


def test_a_full_redis_raises_nothing_and_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "--maxmemory-policy", "noeviction") as server, server.client() as rdb:
        rdb.config_set("maxmemory", "1")
        with RedisEmitter(rdb, max_retry_delay_seconds=0.05) as emitter:
            for number in range(20):
                emitter.input({"n": number})
            until(lambda: "OutOfMemory" in str(emitter.stats().last_error))
            rdb.config_set("maxmemory", "0")
            until(lambda: rdb.llen("snowplow") == 20)
        assert [event["n"] for event in listed(rdb)] == list(range(20))


@pytest.mark.parametrize("batch_size", [1, 10])
def test_a_redis_that_is_killed_and_comes_back_gets_all_in_order(tmp_path: Path, batch_size: int) -> None:
    with running(tmp_path) as server, server.client() as rdb:
        with RedisEmitter(rdb, batch_size=batch_size, max_retry_delay_seconds=0.05) as emitter:
            for number in range(30):
                emitter.input({"n": number})
            emitter.flush()
            server.kill()
            for number in range(30, 60):
                emitter.input({"n": number})
            until(lambda: emitter.retry_delay > 0)
            server.start()
            until(lambda: emitter.stats().queued_events + emitter.stats().in_flight_events < batch_size)
        assert [event["n"] for event in listed(rdb)] == list(range(60))


def test_a_connection_cut_in_the_middle_of_an_answer_loses_nothing(server: RedisServer, rdb: Any) -> None:
    with (
        Relay(server.port) as relay,
        redis.Redis(port=relay.port, **QUICK) as client,
        RedisEmitter(client, batch_size=10, max_retry_delay_seconds=0.05) as emitter,
    ):
        for number in range(200):
            if number % 50 == 25:
                relay.cut()
            emitter.input({"n": number})
        emitter.drain(5)
        until(lambda: emitter.stats().queued_events == emitter.stats().in_flight_events == 0)
    # What was answered to nobody may be there twice.
    assert {event["n"] for event in listed(rdb)} == set(range(200))


def test_a_replica_that_takes_no_writes_is_waited_for(tmp_path: Path, server: RedisServer, rdb: Any) -> None:
    with running(tmp_path, "--replicaof", "127.0.0.1", str(server.port)) as replica, replica.client() as client:
        with RedisEmitter(client, max_retry_delay_seconds=0.05) as emitter:
            emitter.input({"n": 1})
            until(lambda: "ReadOnly" in str(emitter.stats().last_error))
            client.replicaof("no", "one")
            until(lambda: emitter.stats().sent_events == 1)
        assert listed(client) == [{"n": 1}]


def test_a_password_is_used_and_in_no_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path, "--requirepass", "s3cret") as server, server.client() as rdb:
        with RedisEmitter(rdb) as emitter:
            emitter.input({"n": 1})
        assert listed(rdb) == [{"n": 1}]
        with (
            redis.Redis(port=server.port, password="wr0ng", **QUICK) as wrong,
            RedisEmitter(wrong, shutdown_timeout=0) as emitter,
        ):
            emitter.input({"n": 1})
            until(lambda: emitter.stats().last_error is not None)
            assert "wr0ng" not in str(emitter.stats().last_error) + caplog.text


def test_tls(server: RedisServer, rdb: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        Relay(server.port, context) as relay,
        redis.Redis(host="127.0.0.1", port=relay.port, ssl=True, ssl_ca_certs=str(tmp_path / "ca.pem")) as client,
        RedisEmitter(client) as emitter,
    ):
        emitter.input({"n": 1})
        assert listed(rdb) == [{"n": 1}]


def test_after_close_events_are_dropped_and_counted(rdb: Any) -> None:
    emitter = RedisEmitter(rdb)
    assert emitter.close() == 0
    emitter.input({"n": 1})
    assert emitter.stats().dropped_events["closed"] == 1
    assert listed(rdb) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_pushes_over_connections_of_its_own(rdb: Any) -> None:
    with RedisEmitter(rdb) as emitter:
        emitter.input({"n": 1})
        child = os.fork()
        if child == 0:
            status = 1
            try:
                emitter.input({"n": 2})
                status = 0 if emitter.stats().sent_events == 1 else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        emitter.input({"n": 3})
    assert [event["n"] for event in listed(rdb)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"key": ""}, "key"),
        ({"key": 3}, "key"),
        ({"rdb": 3}, "rdb"),
        ({"batch_size": 0}, "batch_size"),
        ({"overflow": "x"}, "overflow"),
    ],
)
def test_wrong_arguments_are_named(rdb: Any, settings: dict[str, Any], name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        RedisEmitter(**{"rdb": rdb, **settings})


@needs_reference_0_15
@needs_host("gevent")  # which that worker is made of
def test_the_worker_of_the_reference_reads_our_events(
    server: RedisServer, rdb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisEmitter(rdb, batch_size=3) as emitter:
        for number in range(3):
            emitter.input({"n": number, "s": "ü"})
    script = """
        import sys, time, redis
        from snowplow_tracker.redis import redis_worker
        class Printing:
            def input(self, payload):
                print(payload)
        port = int(sys.argv[1])
        worker = redis_worker.RedisWorker(Printing(), redis.StrictRedis(port=port))
        for _ in range(3):
            worker.pop_payload()
        worker.pool.join()
        print(time.time())
    """
    ended: Ended = runner_with_0_15(tmp_path, monkeypatch)(script, str(server.port))
    assert ended.status == 0, ended.errors
    assert ended.lines[:-1] == [str({"n": number, "s": "ü"}) for number in range(3)]
