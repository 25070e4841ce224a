"""Events that CeleryEmitter hands to real Celery workers, over a real Redis."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastemit.testing import Collector
from tests.support.celery_workers import (
    PATIENCE,
    QUICK,
    MakeEmitter,
    RedisServer,
    Worker,
    app_of,
    arrived,
    messages,
    patiently,
    requested,
    running,
)
from tests.support.delivery import numbers, put
from tests.support.slow import slow

# -- delivery --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["prefork", "threads", slow("gevent")])
def test_a_worker_of_each_kind_sends_what_an_emitter_hands_over(
    pool: str, worker_of: Callable[[str], Worker], make: MakeEmitter, collector: Collector
) -> None:
    broker = worker_of(pool).broker
    emitters = [make(celery_app=app_of(broker)) for _ in range(3)]
    for first, emitter in zip((0, 100, 200), emitters, strict=True):
        put(emitter, 100, first)
        emitter.flush()
    collector.wait_for(300, PATIENCE)
    assert arrived(collector) == list(range(300))


def test_a_worker_keeps_its_connections(worker: Worker, make: MakeEmitter, collector: Collector) -> None:
    emitter = make()
    for number in range(20):
        put(emitter, 1, number)
        emitter.flush()
    collector.wait_for(20, PATIENCE)
    # One for each of the two processes of its pool.
    assert collector.connections <= 2


def test_each_event_of_get_is_a_request(worker: Worker, make: MakeEmitter, collector: Collector) -> None:
    emitter = make(method="get", batch_size=3)
    for name in ("é & ü", "a=b", "stm=1234567890123"):
        emitter.input({"e": "pv", "page": name})
    emitter.flush()
    events = collector.wait_for(3, PATIENCE)
    assert sorted(event["page"] for event in events) == ["a=b", "stm=1234567890123", "é & ü"]
    assert {(request.method, request.path) for request in collector.requests} == {("GET", "/i")}


def test_what_json_libraries_disagree_on_arrives_as_it_was_given(
    worker: Worker, make: MakeEmitter, collector: Collector
) -> None:
    event = {
        "half a pair": "\ud800",
        "quotes": '"stm":"1234567890123"}',
        "all of it": "é\u2028\x00\\",
        "n": str(1 << 70),
    }
    emitter = make()
    emitter.input(event)
    emitter.flush()
    (got,) = collector.wait_for(1, PATIENCE)
    del got["stm"]
    assert got == event


def test_the_address_its_password_the_headers_and_the_rules_travel(
    worker: Worker, make: MakeEmitter, collector: Collector
) -> None:
    emitter = make(
        f"http://ann:s%C3%A9same@127.0.0.1:{collector.port}/prefix",
        headers={"X-Team": "tea"},
        custom_retry_codes={404: False},
    )
    collector.respond(404)
    put(emitter)
    emitter.flush()
    (request,) = collector.wait_for_requests(1, PATIENCE)
    assert request.path == "/prefix/com.snowplowanalytics.snowplow/tp2"
    assert request.headers["X-Team"] == "tea"
    assert base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode() == "ann:sésame"
    # The 404 has dropped the first event, so what comes next is another.
    put(emitter, 1, 1)
    emitter.flush()
    collector.wait_for(1, PATIENCE)
    assert requested(collector) == [[0], [1]]


def test_neither_events_nor_a_password_are_in_the_log_of_a_worker(
    server: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    collector.respond(503)
    collector.respond(400)
    # A new one has not logged anything yet, so nothing is held back.
    with running(tmp_path, server.database(4)) as worker:
        app = app_of(server.database(4))
        emitter = make(f"http://ann:swordfish@127.0.0.1:{collector.port}", celery_app=app, **QUICK)
        emitter.input({"secret": "marmalade"})
        emitter.flush()
        patiently(lambda: "events dropped (rejected): status 400" in worker.log)
        patiently(lambda: "request failed: status 503" in worker.log)
        patiently(lambda: "succeeded" in worker.log)
    assert "marmalade" not in worker.log
    assert "swordfish" not in worker.log


# -- what travels ----------------------------------------------------------------------------------------------------


def test_one_task_in_json_carries_all_that_is_queued(server: RedisServer, make: MakeEmitter) -> None:
    emitter = make(celery_app=app_of(server.database(1)), batch_size=1000)
    put(emitter, 500)
    emitter.flush()
    (message,) = messages(server.client(db=1))
    assert message["content-type"] == "application/json"
    _, arguments, _ = json.loads(base64.b64decode(message["body"]))
    assert numbers(json.loads(arguments["body"])["data"]) == list(range(500))
    stats = emitter.stats()
    assert (stats.sent_events, stats.requests, stats.last_status) == (500, 1, 202)


@pytest.mark.parametrize("serializer", ["pickle", "yaml"])
def test_json_crosses_the_broker_whatever_the_app_has_for_a_serializer(
    serializer: str, server: RedisServer, make: MakeEmitter
) -> None:
    emitter = make(celery_app=app_of(server.database(1), task_serializer=serializer))
    put(emitter)
    emitter.flush()
    assert [message["content-type"] for message in messages(server.client(db=1))] == ["application/json"]


def test_a_message_says_nothing_of_the_events_where_monitors_look(server: RedisServer, make: MakeEmitter) -> None:
    emitter = make("http://ann:swordfish@127.0.0.1:1", celery_app=app_of(server.database(1)))
    emitter.input({"secret": "marmalade"})
    emitter.flush()
    (message,) = messages(server.client(db=1))
    del message["body"]
    assert "marmalade" not in json.dumps(message)
    assert "swordfish" not in json.dumps(message)


# -- what is no batch ------------------------------------------------------------------------------------------------


def test_a_task_that_is_no_batch_is_dropped_and_the_rest_goes_on(
    server: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    app, client = app_of(server.database(6)), server.client(db=6)
    emitter = make(celery_app=app)
    to = emitter._publisher.destination.written()
    no_batches: list[dict[str, object]] = [
        {},
        {"body": "{}"},
        {"body": 5, "to": to},
        {"body": "{}", "to": {"method": "put"}},
        {"body": "\ud800", "to": to},
        {"body": "é", "to": {**to, "method": "get"}},
        {"body": "{}", "to": to, "delay": "long"},
        {"x": 1},
    ]
    for arguments in no_batches:
        app.send_task("fastemit.send", kwargs=arguments)
    put(emitter)
    emitter.flush()
    with running(tmp_path, server.database(6)) as worker:
        collector.wait_for(1, PATIENCE)
        patiently(lambda: client.llen("celery") == 0 and client.hlen("unacked") == 0)
        assert "not a batch of fastemit's" in worker.log
        assert "Retry in" not in worker.log
    assert requested(collector) == [[0]]


def test_pickle_is_refused_also_where_the_configuration_allows_it(
    server: RedisServer, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = server.database(2)
    more = "accept_content = ['pickle', 'json']\ntask_serializer = 'pickle'\n"
    with running(tmp_path / "worker", broker, more=more) as worker:
        app_of(broker).send_task("fastemit.send", kwargs={"body": "x", "to": {}}, serializer="pickle")
        patiently(lambda: "ContentDisallowed" in worker.log)
        emitter = make(celery_app=app_of(broker))
        put(emitter)
        emitter.flush()
        collector.wait_for(1, PATIENCE)


# -- apps ------------------------------------------------------------------------------------------------------------


def test_an_app_of_the_user_s_own_sends_with_its_own_worker_and_queue(
    server: RedisServer, collector: Collector, tmp_path: Path, make: MakeEmitter
) -> None:
    directory = tmp_path / "theirs"
    directory.mkdir()
    (directory / "shop.py").write_text(
        "from celery import Celery\n"
        f"app = Celery('shop', broker='{server.database(3)}', include=['fastemit.celery'])\n"
        "app.conf.task_default_queue = 'events'\n"
    )
    theirs = app_of(server.database(3), task_default_queue="events")
    with running(directory, "redis://127.0.0.1:1/0", app="shop"):
        emitter = make(celery_app=theirs)
        put(emitter, 3)
        emitter.flush()
        collector.wait_for(3, PATIENCE)


def test_an_app_that_runs_tasks_at_once_needs_no_broker(make: MakeEmitter, collector: Collector) -> None:
    emitter = make(celery_app=app_of("redis://127.0.0.1:1/0", task_always_eager=True), **QUICK)
    collector.respond(503)
    put(emitter, 3)
    emitter.flush()
    assert emitter.stats().queued_events == 3
    collector.wait_for(3, PATIENCE)
    patiently(lambda: emitter.stats().sent_events == 3)
