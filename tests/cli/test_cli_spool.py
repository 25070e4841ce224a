"""`fastemit spool`: it shows, sends and exports what dead processes have left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastemit.cli import main
from fastemit.testing import Collector
from tests.support.delivery import Rig
from tests.support.spool import arrivals, homes, leave

ELSEWHERE = "http://127.0.0.1:9"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_a_table_says_whose_the_events_are(rig: Rig, spool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(ELSEWHERE, spool, "put(3)", batch_size=10)
    emitter = rig.emitter(spool=spool)
    emitter.input({"n": 1})
    assert main(["spool", str(spool)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["PROCESS", "ALIVE", "METHOD", "EVENTS", "BYTES", "OLDEST", "ENDPOINT"]
    cells = sorted(row.split() for row in rows)
    assert sorted((row[1], row[2], row[3]) for row in cells) == [("no", "post", "3"), ("yes", "post", "1")]
    assert any(row[-1].startswith(ELSEWHERE) for row in cells)


def test_json_says_the_same(spool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(ELSEWHERE, spool, "put(3)", batch_size=10, method="get")
    assert main(["spool", str(spool), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["alive"], found["method"], found["events"]) == (False, "get", 3)
    assert found["oldest"].startswith("20")
    assert found["bytes"] > 0


@pytest.mark.parametrize("method", ["post", "get"])
def test_send_sends_what_was_for_another_collector(
    collector: Collector, spool: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    leave(ELSEWHERE, spool, "put(30)", batch_size=100, method=method)
    assert main(["spool", str(spool), "--send", collector.url]) == 0
    assert capsys.readouterr().out == "30 events sent, 0 left\n"
    assert arrivals(collector) == dict.fromkeys(range(30), 1)
    assert homes(spool) == []


def test_send_gives_up_and_leaves_what_it_cannot_send(
    collector: Collector, spool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(ELSEWHERE, spool, "put(3)", batch_size=100)
    collector.respond(503, times=None)
    assert main(["spool", str(spool), "--send", collector.url, "--give-up-after", "0.2"]) == 1
    assert capsys.readouterr().out == "0 events sent, 3 left\n"
    assert len(homes(spool)) == 1


@pytest.mark.parametrize("method", ["post", "get"])
def test_export_moves_events_into_a_file_that_send_reads(
    collector: Collector, spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    leave(ELSEWHERE, spool, "put(300)", batch_size=1000, method=method)
    path = tmp_path / "left.ndjson"
    assert main(["spool", str(spool), "--export", str(path)]) == 0
    assert capsys.readouterr().out == f"300 events moved to {path}\n"
    assert homes(spool) == []
    assert main(["send", collector.url, str(path), "--quiet"]) == 0
    assert arrivals(collector) == dict.fromkeys(range(300), 1)


def test_export_writes_over_no_file(spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(ELSEWHERE, spool, "put(3)", batch_size=100)
    path = tmp_path / "mine"
    path.write_text("mine")
    assert main(["spool", str(spool), "--export", str(path)]) == 1
    assert "exists" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert len(homes(spool)) == 1


def test_what_is_no_directory_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spool", str(tmp_path / "nowhere")]) == 1
    assert "is no directory" in capsys.readouterr().err
