"""`fastemit send`: real files and pipes into a real collector."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastemit import cli
from fastemit._delivery.passes import Courier
from fastemit.cli import _input
from fastemit.cli._sending import Sending
from fastemit.testing import Collector
from tests.support.delivery import eventually
from tests.support.processes import environment, terminal

posix = pytest.mark.skipif(sys.platform == "win32", reason="no signals, pseudo-terminals and FIFOs there")


def event(number: int) -> dict[str, str]:
    return {"e": "pv", "p": "web", "tv": "test-1", "tid": str(number)}


def lines(count: int, first: int = 0) -> bytes:
    return b"".join(json.dumps(event(number)).encode() + b"\n" for number in range(first, first + count))


def ids(collector: Collector) -> list[int]:
    return [int(event["tid"]) for event in collector.events]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "events.ndjson"
    path.write_bytes(lines(1_000))
    return path


class Sent:
    """What one run in this process returned and printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.status = cli.main(["send", *map(str, arguments)])
        self.output, self.errors = capsys.readouterr()

    @property
    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.output)
        return result


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fastemit", "send", *map(str, arguments)]


@contextmanager
def sending(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sends what it reads from `stdin`."""
    settings = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(command(*arguments), env=environment(), **settings) as process:
        killer = threading.Timer(40, process.kill)  # a read without an end would outlast the test's timeout
        killer.start()
        try:
            yield process
        finally:
            killer.cancel()
            process.kill()


def unread(process: subprocess.Popen[bytes]) -> int:
    """Bytes in its standard input that it has not read yet."""
    import fcntl
    import termios

    assert process.stdin is not None
    count: int = struct.unpack("i", fcntl.ioctl(process.stdin, termios.FIONREAD, b"\0" * 4))[0]
    return count


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_a_file_is_sent_in_order(collector: Collector, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sent = Sent(capsys, collector.url, file)
    assert sent.status == 0
    assert ids(collector) == list(range(1_000))
    assert len(collector.good) == 1_000
    assert re.fullmatch(
        r"1,000 events read, 1,000 delivered in \d+ requests?, [\d.]+ s \([\d,]+ events/s\)\n", sent.output
    )
    assert sent.errors == ""


def test_the_result_for_machines(collector: Collector, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sent = Sent(capsys, collector.url, file, "--json")
    result = sent.result
    assert result.pop("seconds") > 0
    assert result.pop("events_per_second") > 0
    assert result.pop("requests") == len(collector.requests)
    assert result == {
        "complete": True,
        "dry_run": False,
        "events": 1_000,
        "delivered": 1_000,
        "refused": 0,
        "undelivered": 0,
        "bad_lines": 0,
        "first_bad_lines": [],
        "errors": [],
        "stopped": None,
        "stopped_at": None,
        "failed_requests": 0,
        "last_error": None,
    }


def test_files_are_sent_one_after_the_other(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        (tmp_path / str(number)).write_bytes(lines(10, first=number * 10))
    assert Sent(capsys, collector.url, *(tmp_path / str(number) for number in range(3))).status == 0
    assert ids(collector) == list(range(30))


def test_files_may_stand_after_an_option(
    collector: Collector, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tmp_path / "more.ndjson"
    more.write_bytes(lines(5, first=len(file.read_bytes().splitlines())))
    sent = Sent(capsys, collector.url, "--rate", "100000", file, "--quiet", more)
    assert sent.status == 0
    assert sent.errors == ""
    assert ids(collector) == list(range(len(file.read_bytes().splitlines()) + 5))


def test_a_last_line_without_an_end_is_sent(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"\xef\xbb\xbf" + lines(2).replace(b"\n", b"\r\n") + b"\n  \n" + lines(1, first=2).rstrip())
    assert Sent(capsys, collector.url, path).status == 0
    assert ids(collector) == [0, 1, 2]


@pytest.mark.parametrize("method", ["post", "get"])
def test_values_are_sent_as_the_text_they_have_in_the_line(
    method: str, collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = b'{"i":7,"f":1.50,"t":true,"n":null,"s":"\xc3\xa9\\n","big":123456789012345678901234567890}'
    path = tmp_path / "events"
    path.write_bytes(values)
    assert Sent(capsys, collector.url, path, "--method", method).status == 0
    [arrived] = collector.events
    del arrived["stm"]
    assert arrived == {"i": "7", "f": "1.50", "t": "true", "s": "é\n", "big": "123456789012345678901234567890"}


def test_get_sends_one_request_an_event(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events"
    path.write_bytes(lines(20))
    assert Sent(capsys, collector.url, path, "--method", "get").status == 0
    assert ids(collector) == list(range(20))
    assert {request.method for request in collector.requests} == {"GET"}
    assert len(collector.requests) == 20


def test_headers_are_added(collector: Collector, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Sent(capsys, collector.url, file, "--header", "X-Source: replay").status == 0
    assert collector.requests[0].headers["X-Source"] == "replay"


# -- gzip --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 7, _input.CHUNK])
def test_gzip_is_read_whatever_the_name(
    chunk: int,
    collector: Collector,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastemit.cli._sending.CHUNK", chunk)
    path = tmp_path / "events.txt"
    # Two members, zeros behind each, and lines that go across.
    text = lines(50)
    path.write_bytes(gzip.compress(text[:1_001]) + b"\0\0" + gzip.compress(text[1_001:]) + b"\0")
    assert Sent(capsys, collector.url, path).status == 0
    assert ids(collector) == list(range(50))


def test_damaged_gzip_is_one_line_after_what_could_be_read(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = gzip.compress(lines(5_000))
    cut, damaged = tmp_path / "cut.gz", tmp_path / "damaged.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    damaged.write_bytes(whole[:-8] + b"\0" * 8)
    sent = Sent(capsys, collector.url, cut, damaged, "--json")
    assert sent.status == 1
    assert sent.errors.count("\n") == 2
    first, second = sent.result["errors"]
    cut_after = re.fullmatch(r".*/cut.gz: its gzip data ends too early \(after line (\d+)\)", first)
    damaged_after = re.fullmatch(r".*/damaged.gz: its gzip data is damaged \(.*\) \(after line (\d+)\)", second)
    assert cut_after is not None
    assert damaged_after is not None
    counts = int(cut_after[1]), int(damaged_after[1])
    assert 0 < counts[0] < counts[1] < 5_000
    assert ids(collector) == [*range(counts[0]), *range(counts[1])]


def test_a_line_across_many_reads_is_one_line() -> None:
    chunks = [b'{"a"', b':"1"}', b'\n{"b":"2"', b"}\n\n", b"tail"]
    assert list(_input.split_lines(chunks)) == [[b'{"a":"1"}'], [b'{"b":"2"}', b""], [b"tail"]]


# -- bad lines ---------------------------------------------------------------------------------------------------------

BAD = {
    b"nonsense": "not JSON: Expecting value, column 1",
    b'{"e":"pv"': "not JSON: Expecting ',' delimiter, column 10",
    b'{"e":"pv"} {}': "not JSON: Extra data, column 12",
    b'{"e":NaN}': "not JSON: NaN is no JSON value",
    b'{"e":"\xff"}': "not UTF-8: byte 7",
    b"[]": "an array, where an object is expected",
    b"7": "a number or string, where an object is expected",
    b"null": "null, where an object is expected",
    b"{}": "an object without a value",
    b'{"co":{"a":1}}': "the value of 'co' is an object, where a string is expected",
    b'{"co":[1]}': "the value of 'co' is an array, where a string is expected",
    b"[" * 100_000: "nested too deeply",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: repr(line[:20]))
def test_a_bad_line_is_told_with_its_number_and_the_rest_is_sent(
    line: bytes, collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events"
    path.write_bytes(lines(2) + line + b"\n" + lines(2, first=2))
    sent = Sent(capsys, collector.url, path)
    assert sent.status == 1
    assert ids(collector) == [0, 1, 2, 3]
    assert sent.errors == f"fastemit: bad line: {path}:3: {BAD[line]}\n"
    assert "4 events read, 4 delivered" in sent.output
    assert "1 bad line, " in sent.output


def test_a_line_that_is_too_long_is_bad_also_when_it_is_valid(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events"
    path.write_bytes(b'{"e":"' + b"x" * _input.LONGEST_LINE + b'"}\n' + lines(1))
    sent = Sent(capsys, collector.url, path, "--json")
    assert sent.result["first_bad_lines"] == [f"{path}:1: longer than 8,388,608 bytes"]
    assert ids(collector) == [0]


def test_a_lone_surrogate_is_sent_by_post_and_is_a_bad_line_with_get(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events"
    path.write_bytes(rb'{"page":"\ud800"}')
    assert Sent(capsys, collector.url, path).status == 0
    assert collector.events[0]["page"] == "\ud800"
    sent = Sent(capsys, collector.url, path, "--method", "get")
    assert sent.status == 1
    assert sent.errors == f"fastemit: bad line: {path}:1: lone surrogates cannot be sent by GET\n"


def test_reading_stops_at_a_bad_line_if_that_is_asked_for(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events"
    path.write_bytes(lines(2) + b"nonsense\n" + lines(2, first=2))
    sent = Sent(capsys, collector.url, path, path, "--on-bad-line", "stop", "--json")
    assert sent.status == 1
    assert ids(collector) == [0, 1]
    assert (sent.result["stopped"], sent.result["stopped_at"]) == ("bad line", f"{path}:3")


def test_of_many_bad_lines_ten_are_told(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"nonsense\n" * 500)
    sent = Sent(capsys, collector.url, path, "--json")
    assert sent.result["bad_lines"] == 500
    assert len(sent.result["first_bad_lines"]) == 10
    assert sent.errors.splitlines()[10:] == ["fastemit: further bad lines are only counted"]


# -- dry run -----------------------------------------------------------------------------------------------------------


def test_a_dry_run_sends_nothing_and_needs_no_collector(
    collector: Collector, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = Sent(capsys, collector.url, file, "--dry-run", "--failed", tmp_path / "failed")
    assert sent.status == 0
    assert sent.output.startswith("1,000 events read, nothing sent (dry run), ")
    assert collector.requests == []
    assert not (tmp_path / "failed").exists()


def test_a_dry_run_finds_bad_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "events"
    path.write_bytes(lines(2) + b'{"e":{}}\n{"e":null,"p":"web"}\n')
    sent = Sent(capsys, "collector.invalid", path, "--dry-run", "--json")
    assert sent.status == 1
    assert (sent.result["events"], sent.result["bad_lines"], sent.result["delivered"]) == (3, 1, 0)


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
        eventually(lambda: unread(process) == 0, 20)
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
        eventually(lambda: collector.requests, 20)
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
            eventually(lambda: collector.requests, 20)
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


# -- pace --------------------------------------------------------------------------------------------------------------


def test_the_rate_is_kept(collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "events"
    path.write_bytes(lines(100))
    sent = Sent(capsys, collector.url, path, "--rate", "200", "--json")
    assert sent.status == 0
    assert ids(collector) == list(range(100))
    assert sent.result["seconds"] >= 0.45


@posix
def test_lines_that_come_slowly_are_sent_while_the_pipe_is_open(collector: Collector) -> None:
    with sending(collector.url, "-") as process:
        assert process.stdin is not None
        for number in range(2):
            process.stdin.write(lines(1, first=number))
            process.stdin.flush()
            collector.wait_for(number + 1, 20)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == b""
    assert output.startswith(b"2 events read, 2 delivered in 2 requests, ")


def test_nothing_on_standard_input_is_no_error(collector: Collector) -> None:
    done = subprocess.run(
        command(collector.url, "--json"), input=b"", capture_output=True, env=environment(), timeout=30, check=True
    )
    assert json.loads(done.stdout)["events"] == 0


# -- progress ----------------------------------------------------------------------------------------------------------


@posix
def test_a_terminal_is_not_read_unless_that_is_asked_for(collector: Collector) -> None:
    with terminal() as (_, slave):
        done = subprocess.run(
            command(collector.url), stdin=slave, capture_output=True, env=environment(), timeout=30, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith(b"fastemit: error: FILE is missing, and standard input is a terminal")


def on_a_terminal(arguments: list[str], env: dict[str, str]) -> tuple[int, str, str]:
    """Exit status, standard output (a pipe) and what a terminal was sent by standard error."""
    with terminal() as (master, slave):
        with subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=slave) as process:
            slave.close()  # the child's is the only one now, so that its end is the end
            killer = threading.Timer(40, process.kill)
            killer.start()
            shown = b""
            try:
                while data := os.read(master, 65536):
                    shown += data
            except OSError:
                pass  # the end of a terminal, on Linux
            output, _ = process.communicate(timeout=20)
            killer.cancel()
        return process.returncode, output.decode(), shown.decode()


WITHOUT_TQDM = "import sys; sys.modules['tqdm'] = None; from fastemit.cli import main; sys.exit(main())"


@posix
@pytest.mark.parametrize("library", [True, False], ids=["tqdm", "without tqdm"])
def test_a_terminal_gets_a_progress_bar_that_is_gone_at_the_end(
    library: bool, collector: Collector, tmp_path: Path
) -> None:
    path = tmp_path / "events"
    path.write_bytes(lines(50) + b"nonsense\n")
    arguments = ["send", collector.url, str(path), "--rate", "100", "--json"]
    start = [sys.executable, "-m", "fastemit"] if library else [sys.executable, "-c", WITHOUT_TQDM]
    status, output, shown = on_a_terminal([*start, *arguments], environment(TERM="xterm"))
    assert status == 1
    assert json.loads(output)["delivered"] == 50
    assert re.search(r"100%\W.*\d+ delivered, [\d,]+/s", shown)
    assert ("|" in shown) is library
    assert f"fastemit: bad line: {path}:51: not JSON" in shown
    # The line is blank when it ends.
    last = re.split(r"\r|\x1b\[K", shown)[-2:]
    assert "".join(last).strip() == ""


@posix
def test_quiet_shows_nothing_on_a_terminal(collector: Collector, file: Path) -> None:
    shown = on_a_terminal(command(collector.url, file, "--quiet"), environment(TERM="xterm"))
    assert shown == (0, "", "")


def test_no_bar_goes_into_a_pipe(collector: Collector, file: Path) -> None:
    done = subprocess.run(
        command(collector.url, file, "--rate", "2500"), capture_output=True, env=environment(), timeout=30, check=True
    )
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1
    assert b"\r" not in done.stdout


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COLLECTOR (see fastemit send --help)"),
        (["http://x", "--loud", "file"], "unrecognized arguments: --loud file (see fastemit send --help)"),
        (["ftp://x"], "the scheme 'ftp' is neither http nor https"),
        (["http://user:secret@x:port"], "its host or port cannot be read"),
        (["http://x", "--rate", "0"], "argument --rate: '0': a number greater than 0 is expected"),
        (["http://x", "--rate", "nan"], "argument --rate: 'nan': a number greater than 0 is expected"),
        (["http://x", "--method", "put"], "argument --method: invalid choice: 'put'"),
        (["http://x", "--on-bad-line", "ask"], "argument --on-bad-line: invalid choice: 'ask'"),
        (["http://x", "--header", "secret"], "argument --header: NAME:VALUE is expected"),
        (["http://x", "--header", "a: b\nc"], "headers"),
    ],
)
def test_a_usage_error_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    sent = Sent(capsys, *arguments)
    assert sent.status == 2
    assert sent.output == ""
    assert sent.errors.startswith("fastemit: error: ")
    assert message in sent.errors
    assert "secret" not in sent.errors
    assert sent.errors.count("\n") == 1


@pytest.mark.parametrize("name", ["missing", "folder"])
def test_an_input_that_cannot_be_read_is_one_line_before_anything_is_sent(
    name: str, collector: Collector, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    sent = Sent(capsys, collector.url, file, tmp_path / name)
    assert sent.status == 1
    why = {"missing": "No such file or directory", "folder": "is a directory"}[name]
    assert sent.errors == f"fastemit: error: {tmp_path / name}: {why}\n"
    assert collector.requests == []


def test_the_file_that_is_read_is_not_written_to(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = file.read_bytes()
    sent = Sent(capsys, "http://127.0.0.1:9", file, "--failed", file)
    assert sent.status == 2
    assert sent.errors == f"fastemit: error: argument --failed: {file} is one of the files to send\n"
    assert file.read_bytes() == before


def test_a_failed_file_that_cannot_be_opened_is_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = Sent(capsys, "http://127.0.0.1:9", file, "--failed", tmp_path / "none" / "failed")
    assert sent.status == 1
    assert sent.errors == f"fastemit: error: {tmp_path / 'none' / 'failed'}: No such file or directory\n"


def test_authorities_that_cannot_be_read_are_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = Sent(capsys, "https://127.0.0.1:9", file, "--ca-certs", tmp_path / "none")
    assert sent.status == 2
    assert sent.errors.startswith("fastemit: error: ")
    assert sent.errors.count("\n") == 1


def test_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    sent = Sent(capsys, "--help")
    assert sent.status == 0
    text = sent.output
    options = "--method --rate --dry-run --failed --on-bad-line --timeout --give-up-after --drain-timeout --ca-certs"
    for word in [*options.split(), "--header", "--json", "--quiet", "gzip", "SIGTERM", "exit status", "examples"]:
        assert word in text
    assert all(len(line) <= 120 for line in text.splitlines())


def test_the_documentation_names_every_option_and_every_part_of_the_result(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    options = set(re.findall(r"--[a-z-]+", Sent(capsys, "--help").output)) - {"--help"}
    assert options == set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE))
    names = Sent(capsys, "http://localhost:9", file, "--dry-run", "--json").result
    assert [name for name in names if f"`{name}`" not in text] == []
