"""What is documented runs: the examples of the reference's page, and every block and test name of our own pages."""

from __future__ import annotations

import ast
import gc
import re
from pathlib import Path
from typing import Any

import pytest

import fastemit
from fastemit.testing import Collector
from tests.support.stores import ROOT, python_blocks

pytestmark = pytest.mark.usefixtures("no_trackers")

HOST = "collector.example.com"
_TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")

IMPORTS = """
from snowplow_tracker import PageView, Subject, Tracker
from fastemit import AsyncEmitter, Emitter, EmitterConfiguration, Snowplow
"""

#: The examples of the page "Emitters" of 0.15, the import changed, with the corrections that docs/drop-in.md lists.
#: By name: the number of events that arrive, and the example. `finish` is what a program's end would do.
EXAMPLES: dict[str, tuple[int, str]] = {
    "the basic emitter": (
        1,
        """
e = Emitter("collector.example.com")
finish(e)
""",
    ),
    "callbacks": (
        3,
        """
# Since v0.9.0, the on_success callback receives the array of successfully sent events
def new_success(arr):
    for event_dict in arr:
        print(event_dict)

def failure(num, arr):
    print(str(num) + " events sent successfully!")
    print("These events were not sent successfully:")
    for event_dict in arr:
        print(event_dict)

e = Emitter("collector.example.com", batch_size=3, on_success=new_success, on_failure=failure)

t = Tracker("ns", e)

# This doesn't cause the emitter to send a request because the batch_size was set to 3, not 1
t.track(PageView(page_url="http://www.example.com"))
t.track(PageView(page_url="http://www.example.com/page1"))
nothing_yet()

# This does cause the emitter to try to send all 3 events
t.track(PageView(page_url="http://www.example.com/page2"))
""",
    ),
    "retry codes": (
        1,
        """
# by default 401 isn't retried, but 500 is
custom_retry_codes = {500: False, 401: True}
emitter_config = EmitterConfiguration(custom_retry_codes=custom_retry_codes)

Snowplow.create_tracker(
    namespace="ns",
    endpoint="collector.example.com",
    emitter_config=emitter_config,
)
e = Snowplow.get_tracker("ns").emitters[0]
assert e.custom_retry_codes == custom_retry_codes
finish(e)
""",
    ),
    "the capacity": (
        1,
        """
emitter_config = EmitterConfiguration(buffer_capacity=25_000)

Snowplow.create_tracker(
    namespace="ns",
    endpoint="collector.example.com",
    emitter_config=emitter_config,
)
e = Snowplow.get_tracker("ns").emitters[0]
assert e.event_store.buffer_capacity == 25_000
finish(e)
""",
    ),
    "threads": (
        1,
        """
e = AsyncEmitter("collector.example.com", thread_count=10)
finish(e)
""",
    ),
    "all parameters of AsyncEmitter": (
        1,
        """
e = AsyncEmitter("127.0.0.1",
            protocol = "http",
            port=PORT,
            method='post',
            batch_size=10,
            on_success=None,
            on_failure=None,
            thread_count=1,
            byte_limit=None,
            max_retry_delay_seconds = 60,
            buffer_capacity = 5000,
            event_store = None,
            session=None)
finish(e)
""",
    ),
    "manual flushing": (
        1,
        """
t = Tracker("ns", Emitter("collector.example.com"))
t.track(PageView(page_url="http://www.example.com"))
t.flush()
arrived(1)
""",
    ),
    "an asynchronous flush": (
        1,
        """
t = Tracker("ns", AsyncEmitter("collector.example.com"))
t.track(PageView(page_url="http://www.example.com"))
t.flush(True)
""",
    ),
    "several emitters": (
        3,
        """
e1 = AsyncEmitter("collector.example.com", method="get")
e2 = AsyncEmitter("collector.example.com", method="post")

t = Tracker("ns", [e1, e2])

e3 = Emitter("collector.example.com")

t.add_emitter(e3)
t.track(PageView(page_url="http://www.example.com"))
t.flush(True)
""",
    ),
    "a custom emitter": (
        1,
        """
class FromScratch:
    def input(self, payload):
        seen.append(payload["url"])

class Subclass(Emitter):
    def input(self, payload):
        super().input({**payload, "aid": "mine"})

seen = []
e = Subclass("collector.example.com")
t = Tracker("ns", [FromScratch(), e])
t.track(PageView(page_url="http://www.example.com"))
assert seen == ["http://www.example.com"]
e.close()
""",
    ),
    "the flush timer": (
        1,
        """
e1 = AsyncEmitter("collector.example.com", method="post")
e1.set_flush_timer(0.01)  # flush each 5 seconds
e1.input({"e": "pv"})
arrived(1)
e1.cancel_flush()
assert not e1.timer.is_active()
""",
    ),
}


def arrives(collector: Collector, source: str, count: int, **names: Any) -> None:
    """Run a piece of documentation against a collector, end what it made, and see so many events come in."""
    namespace: dict[str, Any] = {"__name__": "documented", **names}
    exec(compile(source.replace(HOST, collector.url), "documentation", "exec"), namespace)
    namespace.clear()
    names.clear()
    fastemit.Snowplow.reset()
    gc.collect()
    collector.wait_for(count)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_documentation_runs(collector: Collector, name: str) -> None:
    def nothing_yet() -> None:
        assert collector.requests == []

    def finish(emitter: fastemit.Emitter) -> None:
        emitter.input({"e": "pv", "p": "web", "tv": "py-1.1.0"})
        assert emitter.close() == 0

    count, source = EXAMPLES[name]
    arrives(
        collector,
        IMPORTS + source,
        count,
        finish=finish,
        nothing_yet=nothing_yet,
        arrived=collector.wait_for,
        PORT=collector.port,
    )
    assert len(collector.events) == count


BLOCKS = [(page, line, block) for page in ("docs/drop-in.md", "README.md") for line, block in python_blocks(page)]


@pytest.mark.parametrize(("page", "line", "block"), BLOCKS, ids=[f"{page}:{line}" for page, line, _ in BLOCKS])
def test_a_block_of_our_pages_runs(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, line: int, block: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sends = HOST in block and ("track(" in block or "input(" in block)
    with fastemit.Emitter(collector.url) as emitter:
        arrives(collector, block, int(sends), emitter=emitter)


def test_both_pages_have_blocks() -> None:
    assert len(BLOCKS) >= 6


# -- the table ---------------------------------------------------------------------------------------------------------


def table_rows() -> list[list[str]]:
    """The rows of the tables of what is documented, as cells."""
    text = (ROOT / "docs/drop-in.md").read_text(encoding="utf-8")
    part = text.partition("## What is documented, and what covers it")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return [row for row in rows if row[0].strip("-") and row[0] != "documented"]


def test_the_table_is_read() -> None:
    assert len(table_rows()) > 30


def test_each_row_names_a_test_or_says_that_it_is_not_there_yet() -> None:
    assert [row[0] for row in table_rows() if not _TEST.search(row[1]) and row[1] != "not yet"] == []


@pytest.mark.parametrize("page", ["docs/drop-in.md", "docs/guarantees.md", "docs/deploys.md"])
def test_each_test_that_a_page_names_is_there(page: str) -> None:
    named = set(_TEST.findall((ROOT / page).read_text(encoding="utf-8")))
    assert named
    there = set()
    for name in {file for file, _ in named}:
        # No two files of tests have the same name, so a page need not say the folder.
        paths = list((ROOT / "tests").rglob(name))
        tree = ast.parse(paths[0].read_text(encoding="utf-8")) if len(paths) == 1 else ast.Module([], [])
        there |= {(name, node.name) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert named - there == set()


@pytest.mark.parametrize(
    "parameter", ["endpoint", "protocol", "port", "method", "batch_size", "on_success", "on_failure"]
)
def test_the_parameters_are_in_the_table(parameter: str) -> None:
    assert any(f"`{parameter}`" in row[0] for row in table_rows())
