"""`fastemit send` at its pace: the rate, slow input, and what a terminal is shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fastemit.testing import Collector
from tests.support.environment import environment
from tests.support.processes import terminal
from tests.support.sending import Sent, command, ids, lines, posix, sending

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


@posix
def test_a_terminal_gets_a_progress_bar_that_is_gone_at_the_end(collector: Collector, tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(lines(50) + b"nonsense\n")
    arguments = command(collector.url, path, "--rate", "100", "--json")
    status, output, shown = on_a_terminal(arguments, environment(TERM="xterm"))
    assert status == 1
    assert json.loads(output)["delivered"] == 50
    assert re.search(r"100%\|.*\d+ delivered, [\d,]+/s", shown)
    assert f"fastemit: warning: bad line: {path}:51: not JSON" in shown
    # The line is blank when it ends.
    last = re.split(r"\r|\x1b\[K", shown)[-2:]
    assert "".join(last).strip() == ""


@posix
def test_without_tqdm_a_terminal_gets_the_lines_that_stay(collector: Collector, tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(lines(50) + b"nonsense\n")
    program = "import sys; sys.modules['tqdm'] = None; from fastemit.cli import main; sys.exit(main())"
    arguments = [sys.executable, "-c", program, "send", collector.url, str(path), "--json"]
    status, output, shown = on_a_terminal(arguments, environment(TERM="xterm"))
    assert status == 1
    assert json.loads(output)["delivered"] == 50
    (line,) = shown.splitlines()
    assert line.startswith(f"fastemit: warning: bad line: {path}:51: not JSON")


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
