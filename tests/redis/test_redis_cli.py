"""`fastemit redis-worker`, in a process of its own."""

from __future__ import annotations

import base64
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from fastemit.testing import Collector
from tests.support.redis_command import Started, command, run
from tests.support.redis_server import RedisServer, Relay, running
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")


#: Where nobody listens.
NOBODY = "redis://127.0.0.1:9/0"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_sends_the_list_tells_how_far_it_is_and_stops_at_a_signal(
    tmp_path: Path, collector: Collector, number: int
) -> None:
    with running(tmp_path, "--requirepass", "s3cret") as server, server.client() as rdb:
        for each in range(5):
            rdb.rpush("events", json.dumps({"e": "pv", "n": str(each)}))
        arguments = command("--redis-url", server.url, "--key", "events", "--collector", collector.url)
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            until(lambda: rdb.keys() and not [key for key in rdb.scan_iter() if rdb.type(key) == b"list"], 30)
            assert process.stdout is not None
            assert process.stdout.readline().startswith("redis-worker moves 'events' to http://127.0.0.1:")
            assert process.stdout.readline() == "5 sent, 0 rejected, 0 dead, 0 recovered, 0 in hand\n"
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        assert out == "redis-worker stopped: 5 sent, 0 rejected, 0 dead, 0 recovered, 0 in hand\n"
        assert rdb.keys() == []


# -- the start ---------------------------------------------------------------------------------------------------------


def test_a_redis_that_does_not_answer_is_an_error_after_the_connect_timeout() -> None:
    began = time.monotonic()
    done = run("--redis-url", NOBODY, "--collector", "c.example.com", "--connect-timeout", "0.5")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fastemit: error: Redis did not answer within 0.5 s: ConnectionError")
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - began > 0.4


def test_a_redis_that_hangs_is_an_error_after_the_connect_timeout() -> None:
    # It takes connections, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"
        done = run("--redis-url", url, "--collector", "c.example.com", "--connect-timeout", "0.5")
    assert (done.returncode, done.stderr) == (1, "fastemit: error: Redis did not answer within 0.5 s\n")


def test_a_redis_that_is_not_there_yet_is_waited_for_when_told_to(tmp_path: Path, collector: Collector) -> None:
    server = RedisServer(tmp_path)
    arguments = ("--redis-url", server.url, "--collector", collector.url, "--connect-timeout", "0.1", "--wait")
    try:
        with Started(*arguments) as worker:
            assert worker.line_of_errors().startswith("fastemit: warning: waiting for Redis: ConnectionError")
            server.start()
            with server.client() as rdb:
                rdb.rpush("snowplow", json.dumps({"e": "pv"}))
            assert collector.wait_for(1, 20)
            assert worker.end() == 0
    finally:
        server.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_redis(number: int) -> None:
    with Started("--redis-url", NOBODY, "--collector", "c.example.com", "--wait") as worker:
        assert "waiting for Redis" in worker.line_of_errors()
        assert worker.end(number) == 3


@pytest.mark.parametrize("wait", [[], ["--wait"]])
def test_a_wrong_password_is_an_error_at_once_that_does_not_show_it(tmp_path: Path, wait: list[str]) -> None:
    with running(tmp_path, "--requirepass", "s3cret") as server:
        done = run("--collector", "c.example.com", *wait, FASTEMIT_REDIS_URL=server.url.replace("s3cret", "wr0ng"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fastemit: error: Redis refuses the user or the password: ")
    assert "wr0ng" not in done.stderr


def test_a_user_that_may_run_no_scripts_is_an_error_at_once(server: RedisServer, rdb: Any) -> None:
    rdb.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">pw", "~*", "+@read")
    url = server.url.replace("redis://", "redis://reader:pw@")
    done = run("--redis-url", url, "--collector", "c.example.com")
    rdb.execute_command("ACL", "DELUSER", "reader")
    assert (done.returncode, "'eval'" in done.stderr.lower()) == (1, True)


# -- the end -----------------------------------------------------------------------------------------------------------


def test_a_worker_that_ends_while_redis_is_away_says_so_by_its_status(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as rdb:
        rdb.rpush("snowplow", json.dumps({"e": "pv"}))
        down = ("--collector", "http://127.0.0.1:9", "--shutdown-timeout", "0.2")
        with Started("--redis-url", server.url, *down) as worker:
            until(lambda: rdb.llen("snowplow") == 0, 20)
            server.kill()
            assert worker.end() == 3
    assert "Redis failed" in worker.err


def test_a_worker_that_ends_after_redis_has_come_back_ends_well(tmp_path: Path, collector: Collector) -> None:
    with (
        running(tmp_path) as server,
        server.client() as rdb,
        Started("--redis-url", server.url, "--collector", collector.url) as worker,
    ):
        rdb.rpush("snowplow", json.dumps({"e": "pv", "n": "0"}))
        assert collector.wait_for(1, 20)
        server.kill()
        assert "Redis failed" in worker.line_of_errors()
        server.start()
        rdb.rpush("snowplow", json.dumps({"e": "pv", "n": "1"}))
        assert collector.wait_for(2, 20)
        assert worker.end() == 0


# -- requests ----------------------------------------------------------------------------------------------------------


def test_headers_and_credentials_reach_the_collector_and_nobody_else(rdb: Any, server: RedisServer) -> None:
    with Collector() as collector:
        rdb.rpush("snowplow", json.dumps({"e": "pv"}))
        headers = ("--header", "X-Shop: 7", "--header", "X-Two:b:c")
        there = {"FASTEMIT_REDIS_URL": server.url, "FASTEMIT_COLLECTOR_CREDENTIALS": "me:a/b#c@d:e"}
        with Started("--collector", collector.url, *headers, **there) as worker:
            assert collector.wait_for(1, 20)
            assert worker.end() == 0
        (request,) = collector.requests
    sent = {name.lower(): value for name, value in request.headers.items()}
    assert (sent["x-shop"], sent["x-two"]) == ("7", "b:c")
    assert base64.b64decode(sent["authorization"].removeprefix("Basic ")) == b"me:a/b#c@d:e"
    assert "a/b" not in worker.out + worker.err


def test_a_collector_behind_tls_is_verified_by_the_authorities_named(
    rdb: Any, server: RedisServer, collector: Collector, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    rdb.rpush("snowplow", json.dumps({"e": "pv"}))
    port = int(collector.url.rpartition(":")[2].strip("/"))
    with Relay(port, context) as relay:
        to = ("--redis-url", server.url, "--collector", f"https://127.0.0.1:{relay.port}")
        with Started(*to, "--ca-certs", str(tmp_path / "ca.pem")) as worker:
            assert collector.wait_for(1, 20)
            assert worker.end() == 0


def test_a_request_takes_no_longer_than_the_timeout(rdb: Any, server: RedisServer, collector: Collector) -> None:
    collector.respond(delay=20, times=1)
    rdb.rpush("snowplow", json.dumps({"e": "pv"}))
    with Started("--redis-url", server.url, "--collector", collector.url, "--timeout", "0.2") as worker:
        assert "request failed: ReadTimeoutError" in worker.line_of_errors()
        assert worker.end() == 0


def test_the_result_is_one_json_object(rdb: Any, server: RedisServer, collector: Collector) -> None:
    for number in range(5):
        rdb.rpush("snowplow", json.dumps({"e": "pv", "n": str(number)}), *(["no event"] if number == 0 else []))
    with Started("--redis-url", server.url, "--collector", collector.url, "--json") as worker:
        until(lambda: [key for key in rdb.scan_iter() if rdb.type(key) == b"list"] == [b"{snowplow}:dead"], 20)
        assert worker.end() == 0
    result = json.loads(worker.out)
    assert result.pop("seconds") > 0
    assert result.pop("requests") >= 1
    assert result == {
        "status": 0, "sent": 5, "rejected": 0, "dead": 1, "recovered": 0, "left": 0, "failed_requests": 0,
        "last_error": None, "redis_error": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        pytest.param(("--collector", "x", "--redis-url", "http://x"), marks=pytest.mark.slow),
        ("--collector", "x", "--threads", "0"),
        pytest.param(("--collector", "x", "--takeover-after", "soon"), marks=pytest.mark.slow),
        ("--collector", "x", "--key", ""),
        pytest.param(("--collector", "x", "--connect-timeout", "0"), marks=pytest.mark.slow),
        pytest.param(("--collector", "x", "--timeout", "-1"), marks=pytest.mark.slow),
        pytest.param(("--collector", "x", "--header", "no colon"), marks=pytest.mark.slow),
        ("--collector", "x", "--ca-certs", "/no/such/file"),
    ],
)
def test_a_usage_error_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fastemit: error: ")
    assert done.stderr.count("\n") == 1
