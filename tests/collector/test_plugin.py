"""The fixtures that pytest finds wherever fastemit is installed, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import environment

EVENT = '{"e": "pv", "p": "srv", "tv": "test-1", "url": url}'


#: What the first of two tests does to the collector that both have.
DONE_TO_IT = ["respond(500, times=None)", "respond(hang=True, times=None)", "respond(delay=30, times=None)", "close()"]


def run(directory: Path, tests: str, *arguments: str) -> str:
    """What pytest prints of a file of tests."""
    (directory / "test_them.py").write_text(tests, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:benchmark", *arguments],
        cwd=directory,
        env=environment(PYTEST_ADDOPTS=""),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_an_event_arrives_in_the_collector_of_its_test(tmp_path: Path) -> None:
    tests = f"""
import pytest

@pytest.mark.parametrize("url", ["https://one", "https://two"])
def test_it(snowplow_collector, snowplow_emitter, url):
    assert snowplow_collector.events == []
    snowplow_emitter.input({EVENT})
    snowplow_emitter.flush()
    assert [event["url"] for event in snowplow_collector.events] == [url]
    assert snowplow_collector.bad == []
"""
    assert " 2 passed" in run(tmp_path, tests)


def test_what_one_test_does_to_the_collector_is_gone_in_the_next(tmp_path: Path) -> None:
    tests = "".join(
        f"""
def test_one_{number}(snowplow_collector, snowplow_emitter):
    url = "https://one"
    snowplow_collector.{what}
    for _ in range(10):
        snowplow_emitter.input({EVENT})

def test_two_{number}(snowplow_collector, snowplow_emitter):
    url = "https://two"
    snowplow_emitter.input({EVENT})
    assert snowplow_emitter.drain(5)
    assert [event["url"] for event in snowplow_collector.events] == [url]
"""
        for number, what in enumerate(DONE_TO_IT)
    )
    assert f" {2 * len(DONE_TO_IT)} passed" in run(tmp_path, tests)


@pytest.mark.slow
def test_each_worker_of_xdist_has_a_collector(tmp_path: Path) -> None:
    tests = f"""
import pytest

@pytest.mark.parametrize("url", [f"https://{{n}}" for n in range(40)])
def test_it(snowplow_collector, snowplow_emitter, url):
    snowplow_emitter.input({EVENT})
    snowplow_emitter.flush()
    assert [event["url"] for event in snowplow_collector.events] == [url]
"""
    assert " 40 passed" in run(tmp_path, tests, "-n", "2")


def test_a_test_that_asks_for_no_fixture_gets_nothing(tmp_path: Path) -> None:
    tests = """
import sys, threading

def test_it():
    ours = sorted(name for name in sys.modules if name.startswith("fastemit"))
    assert ours == ["fastemit", "fastemit._version", "fastemit.testing", "fastemit.testing.plugin"]
    assert not {"orjson", "snowplow_tracker"} & set(sys.modules)
    assert threading.active_count() == 1
"""
    assert " 1 passed" in run(tmp_path, tests)


def test_it_makes_no_warning_where_warnings_are_errors(tmp_path: Path) -> None:
    assert " 1 passed" in run(tmp_path, "def test_it(snowplow_emitter): pass", "-W", "error")


def test_the_fixtures_say_what_they_are(tmp_path: Path) -> None:
    told = run(tmp_path, "", "--fixtures")
    assert "snowplow_collector -- " in told
    assert "snowplow_emitter -- " in told
    assert "_snowplow_server" not in told


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    told = run(tmp_path, "def test_it(snowplow_emitter): pass", "-p", "no:fastemit")
    assert "fixture 'snowplow_emitter' not found" in told
