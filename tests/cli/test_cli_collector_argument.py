"""A file in the collector's place on the command line: the collector was forgotten, so nothing may seem to be well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastemit import cli
from fastemit.testing import Collector
from tests.support.environment import environment

EVENT = b'{"e":"pv","p":"web","tv":"test-1"}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "events.ndjson"
    path.write_bytes(EVENT)
    return path


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A run of the command without a terminal, whose standard input is empty."""
    return subprocess.run(
        [sys.executable, "-m", "fastemit", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(),
        timeout=30,
        check=False,
    )


def test_send_without_a_collector_is_a_usage_error_that_names_the_file(file: Path) -> None:
    done = run("send", file.name, cwd=file.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "fastemit: error: argument COLLECTOR: 'events.ndjson' is a file, where the address of the collector is "
        "expected; if a host has that name, write https://events.ndjson (see fastemit send --help)\n"
    )


@pytest.mark.parametrize("more", [["--dry-run"], ["--method", "get"], ["--quiet"], ["--json"], ["-"]])
def test_send_refuses_a_file_whatever_else_is_asked_for(
    file: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["send", str(file), *more]) == 2
    assert "is a file, where the address of the collector is expected (see" in capsys.readouterr().err


def test_send_refuses_a_file_that_stands_before_the_collector(
    file: Path, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["send", str(file), collector.url]) == 2
    assert "is a file" in capsys.readouterr().err
    assert collector.connections == 0


def test_redis_worker_refuses_a_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["redis-worker", "--collector", str(file)]) == 2
    assert "argument --collector: " in capsys.readouterr().err


def test_a_folder_with_the_name_of_the_host_is_no_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "collector.example.com").mkdir()
    monkeypatch.chdir(file.parent)
    assert cli.main(["send", "collector.example.com", str(file), "--dry-run"]) == 0
    assert capsys.readouterr().err == ""


def test_a_host_with_the_name_of_a_file_is_reached_by_its_scheme(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(file.parent)
    assert cli.main(["send", f"https://{file.name}", file.name, "--dry-run"]) == 0
    assert capsys.readouterr().err == ""
