"""The pages of docs/ say what is so: their blocks run, and no parameter, log line or metric is missing."""

from __future__ import annotations

import ast
import inspect
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

import fastemit
from fastemit._batch import DROPPED_FOR
from fastemit._transport.http import DEFAULT_TIMEOUT
from fastemit.contrib.prometheus import EmitterCollector
from fastemit.testing import Collector
from tests.support.environment import environment
from tests.support.pages import HOST, ROOT, Block, block, blocks, command, write_files
from tests.support.processes import watched

MakeEmitter = Callable[..., Any]
PAGES = ["index", "quick-start", "migrate", "testing", "monitoring", "troubleshooting"]
SOURCE = Path(fastemit.__file__).parent


def text_of(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


# -- blocks ----------------------------------------------------------------------------------------------------------

#: Those with a title are files, and run with their commands below.
SNIPPETS = [b for page in PAGES for b in blocks(f"docs/{page}.md") if b.language == "python" and not b.title]
#: What the page shows as it was before.
BEFORE = re.compile(r"from snowplow_tracker import .*\bEmitter\b")


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[f"{b.page}:{b.line}" for b in SNIPPETS])
def test_a_snippet_runs(snippet: Block, tmp_path: Path, collector: Collector) -> None:
    program = tmp_path / "snippet.py"
    # Some show what to do with an emitter that is there.
    there = f"import fastemit\nemitter = fastemit.Emitter({collector.url!r})\n"
    program.write_text(there + snippet.text.replace(HOST, collector.url), encoding="utf-8")
    with watched([sys.executable, "-W", "ignore", str(program)], cwd=tmp_path) as running:
        done = running.wait()
    assert (done.returncode, done.stderr.replace("INFO:snowplow_tracker", "")) == (0, "")
    tracks = re.search(r"tracker\.track\(|emitter\.input\(", snippet.text) and HOST in snippet.text
    assert len(collector.events) == int(bool(tracks))


def test_snippets_are_found() -> None:
    assert {b.page for b in SNIPPETS} == {f"docs/{page}.md" for page in PAGES}


def test_the_quick_start_works_as_written(tmp_path: Path, collector: Collector) -> None:
    write_files("docs/quick-start.md", tmp_path, collector.url, collector.port)
    program = tmp_path / "first.py"
    program.write_text(program.read_text().replace("http://localhost:9090", collector.url))
    with watched(command("docs/quick-start.md", "Run", 0), cwd=tmp_path, env=environment()) as running:
        assert running.wait().stdout == "True 2\n"
    assert [event["e"] for event in collector.good] == ["pv", "se"]
    assert "prints `True 2`" in text_of("quick-start.md")


def test_the_fixtures_for_pytest_work_as_written(tmp_path: Path) -> None:
    write_files("docs/testing.md", tmp_path, "unused", 0)
    line = [sys.executable, "-m", *command("docs/testing.md", "Run", 0)]
    line[2] = "pytest"
    done = subprocess.run(
        [*line, "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=40,
    )
    # Three of the fixtures, and five of the mocks.
    assert "8 passed" in done.stdout, done.stdout + done.stderr


def test_the_metrics_are_served_as_written(tmp_path: Path, collector: Collector) -> None:
    write_files("docs/monitoring.md", tmp_path, collector.url, 0)
    program = tmp_path / "metrics.py"
    asks = "\nimport urllib.request\nwith urllib.request.urlopen(address) as answer: print(answer.read().decode())\n"
    serve = "server, _ = start_http_server(0)\naddress = f'http://127.0.0.1:{server.server_port}/metrics'"
    program.write_text(program.read_text().replace("start_http_server(9100)", serve) + asks)
    with watched([sys.executable, "metrics.py"], cwd=tmp_path, env=environment()) as running:
        assert 'fastemit_sent_events_total{emitter="default"} 1.0' in running.wait().stdout


def test_the_metrics_are_told_to_opentelemetry(collector: Collector, tmp_path: Path) -> None:
    write_files("docs/monitoring.md", tmp_path, collector.url, 0)
    with watched([sys.executable, "telemetry.py"], cwd=tmp_path, env=environment()) as running:
        assert '"name": "fastemit.sent_events"' in running.wait().stdout


# -- parameters ------------------------------------------------------------------------------------------------------

PARAMETERS = {
    **inspect.signature(fastemit.AsyncEmitter).parameters,
    **inspect.signature(fastemit.Emitter).parameters,
}
#: What a parameter that is left out comes to, where the signature says None.
EFFECTIVE = {
    "batch_size": lambda emitter: emitter.batch_size,
    "buffer_capacity": lambda emitter: emitter.event_store.buffer_capacity,
    "max_buffer_bytes": lambda emitter: emitter._buffer.max_bytes,
    "request_timeout": lambda _: DEFAULT_TIMEOUT,
}


def described_parameters() -> dict[str, str]:
    """What the page has under the heading of each parameter."""
    parts = re.split(r"^### (\w+)$", text_of("parameters.md"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_parameter_is_described_and_no_other() -> None:
    assert set(described_parameters()) == set(PARAMETERS)


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name != "endpoint"])
def test_the_default_of_a_parameter_is_told(name: str, make_emitter: MakeEmitter) -> None:
    told = re.match(r"\s*Default: `([^`]+)`", described_parameters()[name])
    assert told is not None
    default = EFFECTIVE[name](make_emitter()) if name in EFFECTIVE else PARAMETERS[name].default
    assert ast.literal_eval(told[1]) == default


def test_what_differs_with_the_async_emitter_is_told() -> None:
    signature = inspect.signature(fastemit.AsyncEmitter)
    differs = [n for n, p in inspect.signature(fastemit.Emitter).parameters.items() if signature.parameters[n] != p]
    assert differs == ["overflow"]
    assert repr(signature.parameters["overflow"].default) in described_parameters()["overflow"].splitlines()[2]


# -- log lines -------------------------------------------------------------------------------------------------------

LEVELS = {"WARNING", "ERROR", "CRITICAL"}


def words_of(node: ast.expr, module: str) -> str:
    """The text of a log line, what is put in at run time as three dots."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    else:
        assert isinstance(node, ast.JoinedStr), f"{module}:{node.lineno}: a log line that cannot be read here"
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "%s" for part in node.values)
    return re.sub(r"%[sdgr]", "...", text)


#: How a function that logs is called, in the end.
LOGGING = {"say", "log", "add", "note", "warning", "error", "critical", "exception"}


def log_lines() -> Iterator[str]:
    """The text of every WARNING and ERROR of the package."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            # Most are not, and to write out the rest of a name takes long.
            if getattr(node.func, "attr", None) not in LOGGING and getattr(node.func, "id", None) not in LOGGING:
                continue
            called = ast.unparse(node.func)
            if called.rpartition(".")[2] == "say" or re.fullmatch(r".*logger\.log", called):
                level = ast.unparse(node.args[0]).rpartition(".")[2]
                if level in LEVELS:
                    yield words_of(node.args[1], file.name)
            elif re.fullmatch(r"(.*[._])?log\.(add|note)|.*logger\.(warning|error|critical|exception)", called):
                yield words_of(node.args[0], file.name)


#: The form of all lines that are held back; the page says it at its top.
THROTTLED = "......: ..."
FOUND = set(log_lines())
LINES = sorted(FOUND - {THROTTLED})
ENTRIES = re.findall(r"^### `(.+)`$", text_of("troubleshooting.md"), re.MULTILINE)


def is_about(entry: str, line: str) -> bool:
    pattern = ".+".join(map(re.escape, line.split("...")))
    return entry == line or re.fullmatch(pattern, entry) is not None


def test_the_lines_of_the_source_are_found() -> None:
    assert {"request failed", "events dropped (...)", "Event buffer is full, dropping event."} <= set(LINES)
    assert THROTTLED in FOUND


@pytest.mark.parametrize("line", LINES)
def test_each_warning_and_error_has_an_entry(line: str) -> None:
    assert [entry for entry in ENTRIES if is_about(entry, line)] != []


@pytest.mark.parametrize("reason", list(DROPPED_FOR))
def test_each_reason_for_a_drop_has_an_entry(reason: str) -> None:
    assert f"events dropped ({reason})" in ENTRIES


@pytest.mark.parametrize("entry", ENTRIES)
def test_each_entry_is_about_a_line_that_is_there(entry: str) -> None:
    assert [line for line in LINES if is_about(entry, line)] != []


def test_a_line_looks_as_the_page_shows_it(
    collector: Collector, make_emitter: MakeEmitter, caplog: pytest.LogCaptureFixture
) -> None:
    collector.respond(503)
    emitter = make_emitter()
    collector.respond(503)
    with caplog.at_level(logging.WARNING, "fastemit"):
        emitter.input({"e": "pv"})
        emitter.flush()
        emitter.flush()
        emitter._report.log.flush()
    (example,) = [b.text for b in blocks("docs/troubleshooting.md") if b.language == "text"]
    shown = re.escape(example.strip().partition(":fastemit:")[2])
    assert re.fullmatch(re.sub(r"\d+", r"\\d+", shown.replace("events", "event")), caplog.messages[1])


# -- metrics ---------------------------------------------------------------------------------------------------------


def metrics(make_emitter: MakeEmitter) -> set[str]:
    emitter = make_emitter()
    emitter.input({"e": "pv"})
    emitter.flush()
    registry = CollectorRegistry()
    registry.register(EmitterCollector(emitter))
    return set(re.findall(r"^(fastemit_\w+)\{", generate_latest(registry).decode(), re.MULTILINE))


def test_each_metric_is_in_the_table_and_no_other(make_emitter: MakeEmitter) -> None:
    assert set(re.findall(r"^\| `(fastemit_\w+)` \|", text_of("monitoring.md"), re.MULTILINE)) == metrics(make_emitter)


def test_the_alerts_are_about_metrics_that_are_there(make_emitter: MakeEmitter) -> None:
    rules = yaml.safe_load(block("docs/monitoring.md", "alerts.yml").text)["groups"][0]["rules"]
    assert len(rules) == 4
    named = {name for rule in rules for name in re.findall(r"fastemit_\w+", rule["expr"])}
    assert named - metrics(make_emitter) == set()
