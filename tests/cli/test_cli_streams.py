"""Streams that are closed, broken or of another encoding, and one form for everything on standard error."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastemit.cli import main
from fastemit.testing import Collector
from tests.support.environment import environment
from tests.support.sending import lines, sending, unread
from tests.support.spool import leave
from tests.support.waiting import until

#: Nobody listens here.
DOWN = "http://127.0.0.1:9"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the shell of POSIX closes the streams")


def run(
    *arguments: object, redirect: str = "", cwd: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    command = f'exec "$@" {redirect}'
    return subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-m", "fastemit", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment(), **more},
        timeout=30,
        check=False,
    )


def test_a_closed_standard_output_is_no_error(file: Path) -> None:
    done = run("send", DOWN, file, "--dry-run", redirect=">&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_standard_error_leaves_standard_output_as_it_is(tmp_path: Path, file: Path) -> None:
    done = run("send", DOWN, tmp_path / "missing", redirect="2>&-")
    assert (done.returncode, done.stdout) == (1, "")
    done = run("send", DOWN, file, "--dry-run", redirect="2>&-")
    assert done.returncode == 0
    assert done.stdout.startswith("1,000 events read")


def test_send_ends_when_nobody_reads_its_warnings(tmp_path: Path) -> None:
    # More events than the emitter holds, so that the reader waits for room until the run gives up.
    (tmp_path / "many.ndjson").write_bytes(b'{"e":"pv"}\n' * 60_000)
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ["send", DOWN, str(tmp_path / "many.ndjson"), "--give-up-after", "0.3"]
    with subprocess.Popen(
        [sys.executable, "-m", "fastemit", *arguments], stdout=subprocess.PIPE, stderr=writing, env=environment()
    ) as process:
        os.close(writing)
        try:
            output, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 1
    assert b"stopped (gave up)" in output


def test_a_name_that_the_encoding_of_the_output_has_not_is_shown_with_escapes(tmp_path: Path) -> None:
    (tmp_path / "ž.ndjson").write_text("no event\n")
    done = run("send", DOWN, "ž.ndjson", "--dry-run", "--on-bad-line", "stop", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "stopped (bad line) after \\u017e.ndjson:1" in done.stdout


def test_no_warning_follows_the_error_that_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "few.ndjson").write_bytes(lines(10))
    done = run("send", DOWN, tmp_path / "few.ndjson", "--give-up-after", "1")
    first, *others = done.stderr.splitlines()
    assert first.startswith("fastemit: warning: request failed: ")
    assert len(others) == 1
    assert others[0].startswith("fastemit: error: gave up after 1 s without a delivery: ")


def test_what_was_read_and_had_no_room_is_no_warning_after_a_second_signal() -> None:
    line = b'{"e":"pv"}\n'
    written = 0
    with sending(DOWN, "-") as process:
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)

        def waits_for_room() -> bool:
            nonlocal written
            with contextlib.suppress(BlockingIOError):
                written += os.write(process.stdin.fileno(), line * 1_000)
            # The emitter holds 50,000 events.
            return written - unread(process) > 50_000 * len(line)

        until(waits_for_room, 20)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"not delivered" in output
    assert b"events dropped" not in errors


def test_spool_warns_in_the_form_of_all_commands(
    tmp_path: Path, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    spool = tmp_path / "spool"
    leave(DOWN, spool, "put(3)", batch_size=100)
    collector.respond(503, times=None)
    assert main(["spool", str(spool), "--send", collector.url, "--give-up-after", "0.2"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "0 events sent, 3 left\n"
    assert [line for line in shown.err.splitlines() if not line.startswith("fastemit: warning: ")] == []
    assert "fastemit: warning: request failed: status 503" in shown.err


@pytest.mark.parametrize(
    ("address", "credentials"), [("ftp://x", ""), ("http://hush/hush@x", ""), ("http://x", "hush"), ("x:port", "")]
)
def test_spool_checks_the_collector_although_there_is_nothing_to_send(
    address: str,
    credentials: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FASTEMIT_COLLECTOR_CREDENTIALS", credentials)
    assert main(["spool", str(tmp_path), "--send", address]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("fastemit: error: ")
    assert shown.err.count("\n") == 1
    assert "hush" not in shown.err


def test_an_error_of_a_file_names_the_file(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spool", str(tmp_path), "--export", str(file)]) == 1
    assert capsys.readouterr().err == f"fastemit: error: {file}: File exists\n"
