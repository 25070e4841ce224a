"""The server, and a place for the ratios at the end of the output."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from bench_support import Server

_lines = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_lines] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[_lines]:
        terminalreporter.section("ratios, medians of interleaved rounds")
        for line in config.stash[_lines]:
            terminalreporter.write_line(line)


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Adds a line to the end of the output."""
    return pytestconfig.stash[_lines].append


@pytest.fixture(scope="session")
def server_process() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def server(server_process: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The counting server, with its counts at 0; no proxy is asked on the way to it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server_process.fail(0)
    server_process.reset()
    return server_process


@pytest.fixture(autouse=True)
def quiet_reference() -> None:
    """The reference logs two INFO lines a request, which pytest would keep, all of them."""
    logging.getLogger("snowplow_tracker.emitters").setLevel(logging.WARNING)
