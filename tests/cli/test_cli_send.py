"""`fastemit send`: real files and pipes into a real collector."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from fastemit.cli import _input
from fastemit.testing import Collector
from tests.support.sending import Sent, ids, lines

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
    assert list(_input.split_lines(chunks)) == [[b'{"a":"1"}'], [b'{"b":"2"}'], 1, [b"tail"]]


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
    assert sent.errors == f"fastemit: warning: bad line: {path}:3: {BAD[line]}\n"
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
    assert sent.errors == f"fastemit: warning: bad line: {path}:1: lone surrogates cannot be sent by GET\n"


def test_reading_stops_at_a_bad_line_if_that_is_asked_for(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events"
    path.write_bytes(lines(2) + b"nonsense\n" + lines(2, first=2))
    sent = Sent(capsys, collector.url, path, path, "--on-bad-line", "stop", "--json")
    assert sent.status == 1
    assert ids(collector) == [0, 1]
    assert (sent.result["stopped"], sent.result["stopped_at"]) == ("bad line", f"{path}:3")


def test_ten_of_many_bad_lines_are_told(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"nonsense\n" * 500)
    sent = Sent(capsys, collector.url, path, "--json")
    assert sent.result["bad_lines"] == 500
    assert len(sent.result["first_bad_lines"]) == 10
    assert sent.errors.splitlines()[10:] == ["fastemit: warning: further bad lines are only counted"]


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
