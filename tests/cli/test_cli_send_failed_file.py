"""`fastemit send --failed FILE`: a file that nobody else can read, and nothing but a file of one's own."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from fastemit.testing import Collector
from tests.support.sending import Sent, event, lines

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no modes, links and FIFOs as here")


@pytest.fixture
def refused(tmp_path: Path, collector: Collector) -> Path:
    """A file of one event that the collector refuses."""
    collector.respond(400, times=None)
    path = tmp_path / "events"
    path.write_bytes(lines(1))
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("before", [None, 0o644])
def test_nobody_else_can_read_it(
    collector: Collector, refused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], before: int | None
) -> None:
    failed = tmp_path / "failed"
    if before is not None:
        failed.touch(before)
    mask = os.umask(0)
    try:
        assert Sent(capsys, collector.url, refused, "--failed", failed).status == 1
    finally:
        os.umask(mask)
    assert (mode(failed), json.loads(failed.read_bytes())) == (0o600, event(0))


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_is_not_followed(
    collector: Collector, refused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], dangling: bool
) -> None:
    other, link = tmp_path / "other", tmp_path / "failed"
    if not dangling:
        other.write_bytes(b"mine")
    link.symlink_to(other)
    sent = Sent(capsys, collector.url, refused, "--failed", link)
    assert (sent.status, collector.requests) == (1, [])
    assert sent.errors == f"fastemit: error: {link}: is a symbolic link, which is not followed\n"
    assert other.exists() is not dangling
    assert dangling or other.read_bytes() == b"mine"


@pytest.mark.parametrize("read", [False, True])
def test_a_fifo_is_not_opened(
    collector: Collector, refused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], read: bool
) -> None:
    fifo = tmp_path / "failed"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK) if read else None
    sent = Sent(capsys, collector.url, refused, "--failed", fifo)
    if reader is not None:
        os.close(reader)
    assert (sent.status, collector.requests) == (1, [])
    assert sent.errors == f"fastemit: error: {fifo}: is no regular file\n"


def test_a_fifo_that_comes_after_the_look_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastemit.cli._undelivered import FailedFile

    fifo = tmp_path / "failed"
    monkeypatch.setattr(os.path, "lexists", lambda _: bool(os.mkfifo(fifo)))
    told: list[BaseException] = []

    def make() -> None:
        try:
            FailedFile(str(fifo))
        except OSError as error:
            told.append(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    thread.join(10)
    assert len(told) == 1


def test_a_folder_is_not_opened(
    collector: Collector, refused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = Sent(capsys, collector.url, refused, "--failed", tmp_path)
    assert (sent.status, collector.requests) == (1, [])
    assert sent.errors == f"fastemit: error: {tmp_path}: is a directory\n"


def test_a_device_keeps_its_mode(collector: Collector, refused: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = mode(Path("/dev/null"))
    sent = Sent(capsys, collector.url, refused, "--failed", "/dev/null", "--json")
    assert (sent.status, sent.result["refused"], mode(Path("/dev/null"))) == (1, 1, before)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_written(
    collector: Collector, refused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = tmp_path / "failed"
    failed.touch()
    os.chown(failed, 12345, -1)
    sent = Sent(capsys, collector.url, refused, "--failed", failed)
    assert sent.errors == f"fastemit: error: {failed}: belongs to another user\n"
    assert (sent.status, failed.read_bytes(), failed.stat().st_uid) == (1, b"", 12345)
