"""The command line, in processes of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3

from fastemit import cli
from fastemit._version import __version__
from tests.support.environment import environment, output_of

ENVELOPE = {
    "schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4",
    "data": [{"e": "pv", "p": "srv", "tv": "py-1.1.0"}, {"e": "pv"}],
}


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A collector process, and the URL that it printed."""
    command = [sys.executable, "-m", "fastemit", "collector", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        killer = threading.Timer(30, process.kill)  # a readline without an end would outlast the test's timeout
        killer.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("collector listening on http://127.0.0.1:")
            yield process, line.split()[-1]
        finally:
            killer.cancel()
            process.kill()


def send(url: str) -> None:
    with urllib3.PoolManager() as pool:  # takes no proxy from the environment
        path = "/com.snowplowanalytics.snowplow/tp2"
        assert pool.request("POST", url + path, body=json.dumps(ENVELOPE)).status == 200


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends a process there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_collector_with_a_summary(number: signal.Signals) -> None:
    with running("--quiet") as (process, url):
        send(url)
        process.send_signal(number)
        output, errors = process.communicate(timeout=10)
    assert output == "collector stopped after 1 request, 2 events: 1 good, 1 bad\n"
    assert errors == ""
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends a process there")
def test_counts_are_printed_while_events_arrive() -> None:
    with running() as (process, url):
        send(url)
        assert process.stdout is not None
        assert process.stdout.readline() == "2 events: 1 good, 1 bad\n"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
    assert output == "collector stopped after 1 request, 2 events: 1 good, 1 bad\n"


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["collector", "--port", str(port)]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"fastemit: error: cannot listen on 127.0.0.1:{port}: ")
    assert errors.count("\n") == 1


def test_an_unknown_host_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["collector", "--port", "0", "--host", "256.0.0.1"]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("fastemit: error: cannot listen on 256.0.0.1:0: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["collector", "--port", "70000"], "argument --port: '70000': a port from 0 to 65535 is expected"),
        (["collector", "--port", "http"], "argument --port: 'http': a port from 0 to 65535 is expected"),
        (["collector", "--port", "-1"], "argument --port: "),
        (["collector", "--host", ""], "argument --host: a name or an address is expected"),
        (["collector", "file"], "unrecognized arguments: file (see fastemit collector --help)"),
        (["collector", "--max-bytes", "0"], "argument --max-bytes: '0': a whole number, 1 or more, is expected"),
        (["collector", "--allow-host", "a:1"], "argument --allow-host: 'a:1': a name without a port is expected"),
        (["collector", "--loud"], "unrecognized arguments: --loud (see fastemit collector --help)"),
    ],
)
def test_a_usage_error_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("fastemit: error: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert capsys.readouterr().out.startswith("usage: fastemit ")


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert cli.main([option]) == 0
    assert capsys.readouterr().out == f"fastemit {__version__}\n"


def test_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("collector", "send", "redis-worker", "bench"):
        assert re.search(rf"^ +{word}\s+\w", text, re.MULTILINE)
    assert cli.main(["collector", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--host", "--port", "--quiet", "default: 9090", "/micro/good", "SIGTERM"):
        assert word in text


def test_the_signal_handlers_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGTERM])
    timer.start()
    assert cli.main(["collector", "--port", "0", "--quiet"]) == 0
    timer.join()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGPIPE semantics there")
def test_a_reader_that_left_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fastemit", "--help"]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    os.close(writer)
    assert result.stderr == ""


def test_the_command_line_loads_no_emitter() -> None:
    program = "import sys, fastemit.cli; print(*(m for m in sys.modules if m.startswith('fastemit')))"
    package = {"fastemit", "fastemit._version"}
    loaded_by_cli = {
        name for name in output_of(program).split() if name.startswith(("fastemit.cli", "fastemit.testing"))
    }
    assert loaded_by_cli == {
        "fastemit.cli",
        "fastemit.cli._arguments",
        "fastemit.cli._completion",
        "fastemit.cli.bench",
        "fastemit.cli.collector",
        "fastemit.cli.redis_worker",
        "fastemit.cli.send",
        "fastemit.cli.spool",
    }
    assert package <= set(output_of(program).split())


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends a process there")
def test_the_collector_says_what_it_has_forgotten_and_takes_the_names_it_is_told() -> None:
    with running("--quiet", "--max-bytes", "3000", "--allow-host", "shop.test") as (process, url):
        with urllib3.PoolManager() as pool:
            for _ in range(5):
                answer = pool.request("GET", url + "/i?e=pv&p=srv&tv=1", headers={"Host": "shop.test"})
                assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
    assert output == "collector stopped after 5 requests, 5 events: 5 good, 0 bad (the oldest 3 are forgotten)\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends a process there")
def test_ctrl_c_while_an_import_makes_a_dataclass_gives_130_too(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text("""
import sys
from fastemit import cli
def run(_):
    # As dataclasses do, and named tuples.
    exec("import signal; signal.raise_signal(signal.SIGINT)")
cli.bench.run = run
sys.exit(cli.main(["bench"]))
""")
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment(), timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
