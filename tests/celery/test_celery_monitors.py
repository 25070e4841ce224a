"""What monitors and logs show of tasks: how many events for which host, and no event, header or password."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastemit.testing import Collector
from tests.support.celery_workers import PATIENCE, MakeEmitter, RedisServer, app_of, messages, patiently, running
from tests.support.delivery import put

SECRETS = ("swordfish", "marmalade", "X-Api-Key")

#: The arguments of a task as the first version wrote them. Workers of all versions read it, and so its form stays.
OLD_TASK = {
    "body": '{"schema":"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4","data":'
    '[{"n":"0","aid":"marmalade","stm":"1700000000000"},{"n":"1","stm":"1700000000000"}]}',
    "to": {
        "endpoint": {
            "scheme": "http",
            "host": "127.0.0.1",
            "port": 1,
            "path": "/com.snowplowanalytics.snowplow/tp2",
            "username": "ann",
            "password": "swordfish",
        },
        "method": "post",
        "timeout": None,
        "headers": {"X-Api-Key": "marmalade"},
        "ca_certs": None,
        "max_delay": 60,
        "retry_codes": {},
        "max_bytes": 1_000_000,
    },
}


#: So that a worker holds tasks that it has not begun.
AHEAD = "worker_prefetch_multiplier = 4\n"


def emptied(server: RedisServer, number: int) -> str:
    """The address of a database with nothing in it."""
    server.client(db=number).flushdb()
    return server.database(number)


def old_task(collector: Collector) -> dict[str, Any]:
    task = json.loads(json.dumps(OLD_TASK))
    task["to"]["endpoint"]["port"] = collector.port
    return dict(task)


def secret(make: MakeEmitter, broker: str, collector: Collector, number: int) -> None:
    emitter = make(
        f"http://ann:swordfish@127.0.0.1:{collector.port}",
        celery_app=app_of(broker),
        headers={"X-Api-Key": "marmalade"},
        batch_size=100,
    )
    put(emitter, 1, number)
    emitter.input({"n": number + 1, "secret": "marmalade"})
    emitter.flush()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_inspect_shows_a_count_and_a_host(
    pool: str, shared: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = emptied(shared, 13 if pool == "prefork" else 14)
    inspect = app_of(broker).control.inspect(timeout=10, limit=1)
    collector.respond(503, headers={"Retry-After": "3600"})
    collector.respond(hang=True, times=None)
    with running(
        tmp_path, broker, pool, concurrency=1, more=AHEAD, loglevel="debug", visibility_timeout=6000
    ) as worker:
        secret(make_down, broker, collector, 0)
        patiently(lambda: any((inspect.scheduled() or {}).values()))
        secret(make_down, broker, collector, 2)
        collector.wait_for_requests(2, PATIENCE)
        secret(make_down, broker, collector, 4)
        patiently(lambda: sum(map(len, (inspect.reserved() or {}).values())))
        (active,) = (inspect.active() or {}).values()
        shown = [active, inspect.reserved(), inspect.scheduled(), inspect.query_task(active[0]["id"])]
        collector.reset()
        for told in shown:
            assert "<2 events for 127.0.0.1>" in str(told)
        told = str(shown) + worker.log
        assert [each for each in SECRETS if each in told] == []


def test_inspect_shows_no_more_of_a_task_of_the_first_version_or_of_a_stranger(
    shared: RedisServer, collector: Collector, tmp_path: Path
) -> None:
    broker = emptied(shared, 13)
    app = app_of(broker)
    inspect = app.control.inspect(timeout=10, limit=1)
    collector.respond(hang=True, times=None)
    with running(tmp_path, broker, concurrency=1, more=AHEAD):
        app.send_task("fastemit.send", kwargs=old_task(collector), kwargsrepr="<195 characters>")
        collector.wait_for_requests(1, PATIENCE)
        app.send_task("fastemit.send", kwargs={"body": "marmalade"}, argsrepr="()", kwargsrepr="()")
        patiently(lambda: sum(map(len, (inspect.reserved() or {}).values())))
        told = str([inspect.active(), inspect.reserved()])
        collector.reset()
    assert "<2 events for 127.0.0.1>" in told
    assert "<not a batch of fastemit's>" in told
    assert [each for each in SECRETS if each in told] == []


def test_a_message_tells_monitors_a_count_and_a_host(shared: RedisServer, make_down: MakeEmitter) -> None:
    emitter = make_down("https://ann:swordfish@collector.example.com/marmalade", celery_app=app_of(shared.database(1)))
    for count in (1, 3):
        put(emitter, count)
        emitter.flush()
    second, first = messages(shared.client(db=1))
    assert first["headers"]["kwargsrepr"] == "<1 event for collector.example.com>"
    assert second["headers"]["kwargsrepr"] == "<3 events for collector.example.com>"
    assert {first["headers"]["argsrepr"], second["headers"]["argsrepr"]} == {"()"}


def test_a_task_of_the_first_version_is_sent_and_retried(
    shared: RedisServer, collector: Collector, tmp_path: Path
) -> None:
    broker = emptied(shared, 13)
    collector.respond(503, headers={"Retry-After": "0"})
    with running(tmp_path, broker):
        app_of(broker).send_task("fastemit.send", kwargs=old_task(collector))
        assert [event["n"] for event in collector.wait_for(2, PATIENCE)] == ["0", "1"]
    assert {request.headers["X-Api-Key"] for request in collector.requests} == {"marmalade"}


def test_the_form_of_a_task_is_that_of_the_first_version(make_down: MakeEmitter) -> None:
    """So workers of that version read the tasks of this one while they are replaced."""
    emitter = make_down("http://ann:swordfish@127.0.0.1:1", headers={"X-Api-Key": "marmalade"})
    assert emitter._publisher.destination.written() == OLD_TASK["to"]
