"""`fastemit send` and its arguments: each error is one line, and help and documentation are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastemit.testing import Collector
from tests.support.sending import Sent

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
