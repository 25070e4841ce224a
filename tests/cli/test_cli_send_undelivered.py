"""`fastemit send` where events are not delivered: what is written, when it gives up, and what a signal does."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fastemit._delivery.passes import Courier
from fastemit.cli._sending import Sending
from fastemit.testing import Collector
from tests.support.sending import Sent, event, ids, lines, posix, sending, unread
from tests.support.waiting import until

# -- what is not delivered ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["post", "get"])
def test_what_was_refused_is_written_and_can_be_sent_again(
    method: str, collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, failed = tmp_path / "events", tmp_path / "failed"
    path.write_bytes(lines(30) + b'{"tid":"30","page":"\\n\xc3\xa9","value":1.5}\n')
    collector.respond(400, times=1 if method == "post" else 12)
    sent = Sent(capsys, collector.url, path, "--method", method, "--failed", failed, "--json")
    assert sent.status == 1
    refused = sent.result["refused"]
    assert refused == 12 or method == "post"
    assert refused > 0
    assert sent.result["delivered"] == 31 - refused
    written = [json.loads(line) for line in failed.read_bytes().splitlines()]
    assert [int(event["tid"]) for event in written] == list(range(refused))
    assert all("stm" not in event for event in written)
    collector.reset()
    assert Sent(capsys, collector.url, failed, "--method", method).status == 0
    assert ids(collector) == list(range(refused))


def test_failed_events_are_added_to_those_of_an_earlier_run(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, failed = tmp_path / "events", tmp_path / "failed"
    path.write_bytes(lines(1))
    for _ in range(2):
        collector.respond(400, times=1)
        assert Sent(capsys, collector.url, path, "--failed", failed).status == 1
    assert [json.loads(line) for line in failed.read_bytes().splitlines()] == [event(0)] * 2


def test_what_fails_for_a_while_is_retried_and_not_written(
    collector: Collector, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.respond(500, times=1)
    sent = Sent(capsys, collector.url, file, "--failed", tmp_path / "failed", "--json")
    assert sent.status == 0
    assert sorted(set(ids(collector))) == list(range(1_000))
    assert sent.result["failed_requests"] == 1
    assert (tmp_path / "failed").read_bytes() == b""
    assert sent.errors.startswith("fastemit: warning: request failed: status 500 (")


def test_it_gives_up_when_nothing_gets_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, failed = tmp_path / "events", tmp_path / "failed"
    path.write_bytes(lines(60_000))  # more than are held, so that the reader waits for room
    sent = Sent(capsys, "http://127.0.0.1:9", path, "--give-up-after", "0.5", "--failed", failed, "--json")
    assert sent.status == 1
    result = sent.result
    assert result["stopped"] == "gave up"
    assert (result["delivered"], result["refused"]) == (0, 0)
    assert 50_000 <= result["undelivered"] <= 50_001
    assert re.search(r"^fastemit: error: gave up after 0\.5 s without a delivery: .+$", sent.errors, re.MULTILINE)
    assert "which are lost" not in sent.errors  # they are in the file
    written = [int(json.loads(line)["tid"]) for line in failed.read_bytes().splitlines()]
    assert sorted(written) == list(range(result["undelivered"]))
    assert result["stopped_at"] == f"{path}:{result['undelivered']}"


@posix
def test_it_gives_up_also_while_it_waits_for_input(tmp_path: Path) -> None:
    with sending("http://127.0.0.1:9", "--give-up-after", "0.5", "--failed", tmp_path / "failed") as process:
        assert process.stdin is not None
        process.stdin.write(lines(3))
        process.stdin.flush()
        assert process.wait(20) == 1
    assert (tmp_path / "failed").read_bytes().count(b"\n") == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_under_the_failed_events_is_told(
    collector: Collector, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.respond(400, times=1)
    sent = Sent(capsys, collector.url, file, "--failed", "/dev/full")
    assert sent.status == 1
    assert "the events that were not delivered could not be written: No space left on device\n" in sent.errors


# -- signals -----------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_sends_what_was_read_and_reports(
    number: signal.Signals, status: int, collector: Collector, tmp_path: Path
) -> None:
    # 3 events are less than a batch, and flushed after a second: so they are queued when the signal comes.
    with sending(collector.url, "--json", "--failed", tmp_path / "failed") as process:
        assert process.stdin is not None
        process.stdin.write(lines(3))
        process.stdin.flush()
        collector.wait_for(3, 20)  # it runs, and waits for more
        process.stdin.write(lines(3, first=3))
        process.stdin.flush()
        until(lambda: unread(process) == 0, 20)
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    result = json.loads(output)
    assert process.returncode == status
    assert errors == b""
    assert result["stopped"] == number.name
    assert result["events"] == result["delivered"] == len(collector.events)
    assert result["stopped_at"] == f"standard input:{result['delivered']}"
    assert (tmp_path / "failed").read_bytes() == b""


@posix
def test_a_signal_while_the_collector_fails_waits_for_the_drain_timeout(collector: Collector, tmp_path: Path) -> None:
    path, failed = tmp_path / "events", tmp_path / "failed"
    path.write_bytes(lines(60_000))
    collector.respond(503, times=None)
    with sending(collector.url, path, "--json", "--failed", failed, "--drain-timeout", "0.5") as process:
        until(lambda: collector.requests, 20)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    result = json.loads(output)
    assert process.returncode == 130
    assert result["delivered"] == 0
    assert result["undelivered"] == result["events"] > 0
    written = [int(json.loads(line)["tid"]) for line in failed.read_bytes().splitlines()]
    assert sorted(written) == list(range(result["events"]))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_is_taken_for_a_request_and_not_in_it_is_written_too(
    collector: Collector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    moment: str,
) -> None:
    taken = threading.Event()
    request, start_closing = Courier._request, Sending._start_closing

    def late(courier: Courier, *arguments: Any) -> Any:
        outcome = request(courier, *arguments) if moment == "after" else None
        taken.set()
        time.sleep(0.3)
        return outcome or request(courier, *arguments)

    def closing(sending: Sending, *arguments: Any) -> None:
        assert taken.wait(10)
        start_closing(sending, *arguments)

    monkeypatch.setattr(Courier, "_request", late)
    monkeypatch.setattr(Sending, "_start_closing", closing)
    collector.respond(503, times=None)
    path, failed = tmp_path / "events", tmp_path / "failed"
    path.write_bytes(lines(100) + b"no line\n")
    sent = Sent(
        capsys, collector.url, path, "--json", "--failed", failed, "--drain-timeout", 0.01, "--on-bad-line", "stop"
    )
    assert (sent.result["events"], sent.result["undelivered"]) == (100, 100)
    written = [int(json.loads(line)["tid"]) for line in failed.read_bytes().splitlines()]
    assert sorted(written) == list(range(100))


@posix
def test_a_second_signal_waits_for_no_answer(tmp_path: Path) -> None:
    failed = tmp_path / "failed"
    with Collector() as collector:
        collector.respond(hang=True)
        with sending(collector.url, "--json", "--failed", failed, "--drain-timeout", "30") as process:
            assert process.stdin is not None
            process.stdin.write(lines(12))
            process.stdin.flush()
            until(lambda: collector.requests, 20)
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            output, _ = process.communicate(timeout=20)
            assert time.monotonic() - started < 10
    result = json.loads(output)
    assert process.returncode == 130
    assert result["undelivered"] == 12
    # What was in flight may or may not have arrived; it is among them.
    assert sorted(int(json.loads(line)["tid"]) for line in failed.read_bytes().splitlines()) == list(range(12))


@posix
def test_the_signal_handlers_are_put_back(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert Sent(capsys, "http://localhost:9", file, "--dry-run").status == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
