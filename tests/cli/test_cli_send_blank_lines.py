"""`fastemit send` where lines hold nothing: they cost next to nothing, and lines are numbered as though they did."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest

from fastemit.cli import _input
from fastemit.testing import Collector
from tests.support.sending import Sent, ids, lines
from tests.support.slow import slow_but

MEGABYTES = 32
#: A file of events of that size takes some 0.3 s on a free core. Line by line 32 MB of newlines took 15 s.
SECONDS = 3.0


@pytest.mark.parametrize(
    ("blank", "packed"), slow_but([(b"\n", False)], [(b"\n", False), (b"\n", True), (b" \r\n", False)])
)
def test_a_file_of_blank_lines_is_read_in_no_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], blank: bytes, packed: bool
) -> None:
    data = blank * (MEGABYTES * 1024 * 1024 // len(blank))
    path = tmp_path / "blank"
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    began = time.process_time()
    sent = Sent(capsys, "http://127.0.0.1:9", path, "--dry-run", "--json")
    assert time.process_time() - began < SECONDS
    assert (sent.status, sent.result["events"], sent.result["bad_lines"]) == (0, 0, 0)


def test_events_among_blank_lines_arrive_and_bad_lines_have_their_numbers(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = lines(3).splitlines(keepends=True)
    parts = [
        b"\n" * 300_000, events[0], b"\n \r\n" * 100_000, events[1], b"  nonsense\n", b"\n" * 70_000, b" " + events[2],
        b"\n" * 30, b"no end",
    ]  # fmt: skip
    path = tmp_path / "events"
    path.write_bytes(b"".join(parts))
    sent = Sent(capsys, collector.url, path, "--json")
    assert ids(collector) == [0, 1, 2]
    numbers = [line.split(":")[-3] for line in sent.result["first_bad_lines"]]
    assert numbers == ["500003", "570035"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 4096])
def test_where_the_reads_end_changes_nothing(size: int) -> None:
    data = b"\n\n\na\n \t\n\n   b\n\r\n\r\nccc\n\n\n\n\n" + b"\n" * 50 + b"d" * 20 + b"\n\n\ne"
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    numbered, number = [], 0
    for each in _input.split_lines(chunks):
        if isinstance(each, int):
            number += each
            continue
        for line in each:
            number += 1
            if line.strip():
                numbered.append((number, line))
    expected = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    assert (numbered, number) == (expected, data.count(b"\n") + 1)
