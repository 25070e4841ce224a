"""The examples of docs/scaling.md, run with a real Redis and a real collector."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fastemit
from fastemit.testing import Collector
from tests.support.redis_server import QUICK, redis, running
from tests.support.stores import ROOT, python_blocks
from tests.support.waiting import until


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


# -- what runs a worker ------------------------------------------------------------------------------------------------


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def command_lines() -> Iterator[list[str]]:
    """The arguments of each `fastemit redis-worker` of the page: by hand, in the unit, and in the container."""
    # A backslash at its end has a line go on with the next one, for systemd too.
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").replace("\\\n", "")
    for line in re.findall(r"^(?:    |ExecStart=/\S+/)fastemit redis-worker (.*)$", text, re.MULTILINE):
        yield shlex.split(line)
    for line in re.findall(r"`docker run .*? image (.*?)`", text):
        yield shlex.split(line)


@pytest.fixture(scope="module")
def usage() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fastemit", "redis-worker", "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def test_the_documented_command_lines_are_understood() -> None:
    from fastemit import cli

    lines = list(command_lines())
    assert len(lines) == 3
    for line in lines:
        args = cli._parser().parse_args(["redis-worker", *line])
        assert (args.command, args.collector) == ("redis-worker", "collector.example.com")


def test_every_option_that_the_page_names_is_there(usage: str) -> None:
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    # Those of pytest, of docker, and of a benchmark.
    theirs = {"--benchmark-only", "--stop-timeout", "--no-cache-dir", "--rounds"}
    assert theirs < named
    assert named - theirs <= set(re.findall(r"--[a-z-]+", usage))


def test_the_container_starts_the_worker_without_a_shell(usage: str) -> None:
    (file,) = blocks("scaling.md", "dockerfile")
    steps = [line.split(" ", 1) for line in file.splitlines() if line and not line.startswith("#")]
    assert [step for step, _ in steps] == ["FROM", "RUN", "ENTRYPOINT"]
    assert re.search(r'"fastemit\[redis\]"$', steps[1][1])
    program, command = json.loads(steps[2][1])
    assert usage.startswith(f"usage: {program} {command} ")


@pytest.mark.parametrize("page", ["scaling.md", "scaling-celery.md"])
def test_the_unit_is_one_and_systemd_where_there_is_one_understands_it(tmp_path: Path, page: str) -> None:
    (unit,) = blocks(page, "ini")
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read_string(unit)
    assert parsed.sections() == ["Unit", "Service", "Install"]
    assert parsed["Service"]["Restart"] == "always"
    if shutil.which("systemd-analyze") is None:
        return
    # It looks whether the program, the user and the directory are there.
    unit = re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit, flags=re.MULTILINE)
    unit = re.sub(r"^User=.*", "User=root", unit, flags=re.MULTILINE)
    unit = re.sub(r"^WorkingDirectory=.*", "WorkingDirectory=/", unit, flags=re.MULTILINE)
    file = tmp_path / "snowplow-worker.service"
    file.write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, timeout=30, check=False
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if file.name in line]
    assert (said, done.returncode) == ([], 0)
