"""`fastemit bench`, briefly."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastemit import cli
from fastemit.cli import bench
from tests.support.delivery import within
from tests.support.environment import environment
from tests.support.processes import terminal

NAMES = ["fastemit.Emitter", "snowplow_tracker.Emitter", "the same, session and batch_size=500"]


def test_the_table_sets_fastemit_beside_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--seconds", "0.6"]) == 0
    output, errors = capsys.readouterr()
    head, *rows, foot = output.splitlines()
    assert head.split() == ["events/s", "CPU", "us/event", "fastemit", "is"]
    assert [row[:38].rstrip() for row in rows] == NAMES
    assert re.fullmatch(
        r"snowplow_tracker\.Emitter +[\d,]+ +[\d,.]+ +[\d,.]+ times as fast, at 1/[\d,.]+ of the CPU", rows[1]
    )
    assert re.fullmatch(
        r"Medians of 1 rounds of 0\.2 s, in turn, on \d+ cores; every event was counted by the server\.", foot
    )
    assert errors == ""


def test_the_result_for_machines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench, "_LEAST_ROUND", 0.2)
    assert cli.main(["bench", "--seconds", "1.3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["rounds"], result["seconds_a_round"]) == (2, 0.217)
    ours, theirs, tuned = result["emitters"]
    assert [each["name"] for each in result["emitters"]] == NAMES
    # Far below what is measured, by a factor of ten and more: this is no benchmark.
    assert ours["events_per_second"] > 10 * theirs["events_per_second"] > 0
    assert tuned["cpu_microseconds_per_event"] > ours["cpu_microseconds_per_event"] > 0


def test_without_the_reference_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "snowplow_tracker", None)
    assert cli.main(["bench", "--seconds", "0.1"]) == 0
    output, errors = capsys.readouterr()
    assert [line[:38].rstrip() for line in output.splitlines()[1:-1]] == NAMES[:1]
    assert 'pip install "fastemit[tracker]"' in errors
    assert errors.count("\n") == 1


def test_a_loss_is_no_result(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def forgetful(_: str) -> tuple[Any, Any]:
        return (lambda _: None), (lambda: None)

    monkeypatch.setattr(bench, "_contenders", lambda: [bench.Contender("forgetful", forgetful)])
    assert cli.main(["bench", "--seconds", "0.01"]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.search(
        r"^fastemit: error: forgetful: [\d,]+ events were given in, and 0 arrived\n\Z", errors, re.MULTILINE
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends a process there")
def test_ctrl_c_ends_it_without_a_traceback() -> None:
    command = [sys.executable, "-m", "fastemit", "bench", "--seconds", "1000"]
    with terminal() as (master, slave):
        with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=slave) as process:
            try:
                shown = b""
                while b"round 1: fastemit.Emitter" not in shown:
                    assert select.select([master], [], [], 20)[0], shown
                    shown += os.read(master, 4096)
                process.send_signal(signal.SIGINT)
                output, _ = process.communicate(timeout=20)
            finally:
                process.kill()
        shown += os.read(master, 65536)
    assert (process.returncode, output) == (130, b"")
    assert b"Traceback" not in shown


def test_ctrl_c_that_a_finalizer_swallowed_ends_it_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def swallowing(_: str) -> tuple[Any, Any]:
        def take(_: object) -> None:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

        return take, (lambda: None)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(bench, "_contenders", lambda: [bench.Contender("swallowing", swallowing)])
    with within(20):
        assert cli.main(["bench", "--seconds", "1000"]) == 130
    assert capsys.readouterr().out == ""
    assert signal.getsignal(signal.SIGINT) == before


# -- the server --------------------------------------------------------------------------------------------------------


@pytest.fixture
def sink() -> Iterator[bench.Sink]:
    with bench._sink() as sink:
        yield sink


def test_the_server_counts_each_event_once(sink: bench.Sink) -> None:
    import fastemit

    with fastemit.Emitter(sink.url) as emitter:
        for number in range(20_000):
            emitter.input({"e": "pv", "page": 'a "stm": that is none', "n": number, "x": "y" * 200})
    assert emitter.stats().requests > 1
    assert sink.count() == 20_000
    assert sink.count() == 0


def test_the_server_answers_a_request_that_comes_in_pieces(sink: bench.Sink) -> None:
    connection = http.client.HTTPConnection(sink.url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/com.snowplowanalytics.snowplow/tp2")
    connection.putheader("Content-Length", "24")
    connection.endheaders(b'{"stm":"1"}')
    connection.send(b', {"stm": "2"')
    assert connection.getresponse().status == 200
    connection.close()
    assert sink.count() == 2


def test_the_server_takes_no_module_of_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("copy", "json", "socket", "threading"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('this is not the module of Python')\n")
    monkeypatch.chdir(tmp_path)
    with bench._sink() as sink:
        assert sink.count() == 0


def test_the_server_ends_with_its_parent() -> None:
    command = [sys.executable, "-m", "fastemit.cli._sink"]
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        process.stdin.close()
        assert process.wait(20) == 0


# -- usage -------------------------------------------------------------------------------------------------------------


def test_a_usage_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--seconds", "none"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("fastemit: error: argument --seconds: 'none': a number greater than 0 is expected")
    assert errors.count("\n") == 1


def test_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--seconds", "--json", "--quiet", "snowplow_tracker.Emitter"):
        assert word in text
