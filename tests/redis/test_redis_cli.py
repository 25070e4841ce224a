"""`fastemit redis-worker`, in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastemit.testing import Collector
from tests.support.emitters import until
from tests.support.redis_server import running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fastemit", "redis-worker", *arguments]


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


def test_what_goes_wrong_is_told_on_stderr_with_no_secret(collector: Collector) -> None:
    # Nobody listens there.
    arguments = command("--redis-url", "redis://me:s3cret@127.0.0.1:9/0", "--collector", collector.url, "--quiet")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert line.startswith("fastemit: WARNING: Redis failed: ConnectionError")
    assert process.returncode == 0
    assert "s3cret" not in line + out + err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--collector", "x", "--redis-url", "http://x"),
        ("--collector", "x", "--threads", "0"),
        ("--collector", "x", "--takeover-after", "soon"),
        ("--collector", "x", "--key", ""),
    ],
)
def test_a_usage_error_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fastemit: error: ")
    assert done.stderr.count("\n") == 1
