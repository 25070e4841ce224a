"""The lines of docs/deploys.md, run: what each way to end a process does with the events that it holds."""

from __future__ import annotations

import inspect
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from fastemit import Emitter
from fastemit.testing import Collector
from tests.support.environment import environment
from tests.support.hosts import needs_host
from tests.support.pages import ROOT, block, command, write_files
from tests.support.ports import free_port
from tests.support.processes import Watched, watched

PAGE = "docs/deploys.md"
ENVIRONMENT = environment(PYTHONUNBUFFERED="1", PYTHONWARNINGS="ignore")

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="there is no SIGTERM on Windows that a program can hear"
)


@contextmanager
def service(directory: Path, port: int) -> Iterator[Watched]:
    """The service of the page, which has answered three requests."""
    with watched(command(PAGE, "Run", port), cwd=directory, env=ENVIRONMENT) as server:
        # Not that somebody listens there: it may be another program.
        server.until(lambda: "Uvicorn running on" in server.errors)
        for number in range(3):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/product/{number}", timeout=20).close()
        yield server


def write(directory: Path, collector: Collector, program: str, *changes: tuple[str, str]) -> int:
    """Write the programs of the page, with changes to one of them; the port that its server is to take."""
    port = free_port()
    write_files(PAGE, directory, collector.url, port)
    text = (directory / program).read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (directory / program).write_text(text, encoding="utf-8")
    return port


def viewed(collector: Collector) -> list[int]:
    return sorted(int(event["url"].rpartition("/")[2]) for event in collector.good)


# -- uvicorn -----------------------------------------------------------------------------------------------------------

#: So that nothing leaves before the end.
NO_INTERVAL = ("        flush_interval=1,\n", "")


@needs_host("fastapi")
@needs_host("uvicorn")
def test_uvicorn_sends_what_is_left_at_sigterm(tmp_path: Path, collector: Collector) -> None:
    port = write(tmp_path, collector, "app.py", NO_INTERVAL)
    with service(tmp_path, port) as server:
        assert collector.events == []
        server.process.send_signal(signal.SIGTERM)
        server.wait()
    assert viewed(collector) == [0, 1, 2]
    assert not (tmp_path / "lost.ndjson").exists()


@needs_host("fastapi")
@needs_host("uvicorn")
def test_an_emitter_that_nobody_closes_loses_what_is_in_memory_under_uvicorn(
    tmp_path: Path, collector: Collector
) -> None:
    opened = ("    async with Emitter(", "    emitter = app.state.emitter = Emitter(")
    closed = (
        '    ) as emitter:\n        app.state.tracker = Tracker("shop", emitters=emitter)\n        yield',
        '    )\n    app.state.tracker = Tracker("shop", emitters=emitter)\n    yield',
    )
    port = write(tmp_path, collector, "app.py", NO_INTERVAL, opened, closed)
    with service(tmp_path, port) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.wait().returncode == -signal.SIGTERM
    assert collector.events == []


@needs_host("fastapi")
@needs_host("uvicorn")
@pytest.mark.slow
def test_what_a_collector_that_is_down_leaves_is_in_the_file_and_can_be_sent(
    tmp_path: Path, collector: Collector
) -> None:
    collector.respond(503, times=None)
    port = write(tmp_path, collector, "app.py", ("shutdown_timeout=5", "shutdown_timeout=0.5"))
    with service(tmp_path, port) as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait()
    collector.respond(200, times=None)
    assert collector.good == []
    send = [
        word.replace("http://collector.example.com", collector.url) for word in command(PAGE, "Send what was left", 0)
    ]
    with watched(send, cwd=tmp_path, env=ENVIRONMENT) as sending:
        done = sending.wait()
    assert done.returncode == 0, done.stderr + (tmp_path / "lost.ndjson").read_text("utf-8")
    assert viewed(collector) == [0, 1, 2]


# -- a plain program ---------------------------------------------------------------------------------------------------


@contextmanager
def job(directory: Path) -> Iterator[Watched]:
    with watched(command(PAGE, "Run the job", 0), cwd=directory, env=ENVIRONMENT) as program:
        program.until(lambda: "ready" in program.output)
        yield program


def test_a_job_sends_what_is_left_at_sigterm(tmp_path: Path, collector: Collector) -> None:
    write(tmp_path, collector, "job.py")
    with job(tmp_path) as program:
        assert collector.events == []
        program.process.send_signal(signal.SIGTERM)
        assert program.wait().returncode == 143
    assert len(collector.events) == 5


def test_a_job_without_the_handler_loses_what_is_in_memory(tmp_path: Path, collector: Collector) -> None:
    write(tmp_path, collector, "job.py", ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))", "pass"))
    with job(tmp_path) as program:
        program.process.send_signal(signal.SIGTERM)
        assert program.wait().returncode == -signal.SIGTERM
    assert collector.events == []


@pytest.mark.parametrize(("settings", "arrive"), [("", 0), (", flush_interval=0.05", 5)])
def test_a_kill_loses_what_is_in_memory_and_nothing_that_an_interval_has_sent(
    tmp_path: Path, collector: Collector, settings: str, arrive: int
) -> None:
    write(tmp_path, collector, "job.py", (f'Emitter("{collector.url}"', f'Emitter("{collector.url}"{settings}'))
    with job(tmp_path) as program:
        collector.wait_for(arrive)
        program.process.send_signal(signal.SIGKILL)
        assert program.wait().returncode == -signal.SIGKILL
    assert len(collector.events) == arrive


def test_with_a_spool_the_next_process_sends_what_a_killed_one_left(tmp_path: Path, collector: Collector) -> None:
    settings = f'Emitter("{collector.url}", spool="events"'
    write(tmp_path, collector, "job.py", (f'Emitter("{collector.url}"', settings))
    with job(tmp_path) as program:
        program.process.send_signal(signal.SIGKILL)
        assert program.wait().returncode == -signal.SIGKILL
    assert collector.events == []
    with job(tmp_path) as program:
        program.process.send_signal(signal.SIGTERM)
        assert program.wait().returncode == 143
    assert [event["page"] for event in collector.events] == [*"01234"] * 2


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_times_of_the_deployment_leave_room_for_the_end() -> None:
    pod = yaml.safe_load(block(PAGE, "deployment.yml").text)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (graceful,) = re.findall(r"--timeout-graceful-shutdown=(\d+)", " ".join(container["command"]))
    asleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    (ours,) = re.findall(r"shutdown_timeout=(\d+)", block(PAGE, "app.py").text)
    assert float(ours) == inspect.signature(Emitter).parameters["shutdown_timeout"].default
    assert asleep + int(graceful) + int(ours) < pod["terminationGracePeriodSeconds"]
    assert f"--timeout-graceful-shutdown {graceful} " in block(PAGE, "Run").text


@pytest.mark.parametrize("word", ["deploy", "rolling", "kubernetes", "oom", "crash", "sigterm", "sigkill"])
def test_the_search_has_the_words_that_people_look_for(word: str) -> None:
    assert re.search(rf"\b{word}", (ROOT / PAGE).read_text("utf-8"), re.IGNORECASE)
