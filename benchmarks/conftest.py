"""Starts the servers, and writes the ratios: at the end of the output, and for `make bench` into a file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from bench_support import SMOKE
from figures import Figure, surroundings
from servers import Nginx, Server

_lines = pytest.StashKey[list[str]]()
_figures = pytest.StashKey[list[Figure]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_lines] = []
    config.stash[_figures] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash[_lines] + [str(figure) for figure in config.stash[_figures]]
    if lines:
        terminalreporter.section("ratios, medians of interleaved rounds")
        for line in lines:
            terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    where = os.environ.get("FASTEMIT_BENCH_RESULTS")
    figures = session.config.stash[_figures]
    if where and figures:
        results = {**surroundings(), "smoke": SMOKE, "figures": [figure.as_dict() for figure in figures]}
        Path(where).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Adds a line to the end of the output."""
    return pytestconfig.stash[_lines].append


@pytest.fixture
def record(pytestconfig: pytest.Config) -> Callable[..., Figure]:
    """Adds a `Figure` to the end of the output and to the results; fails when it is past its guard."""

    def record(*arguments: Any, **settings: Any) -> Figure:
        figure = Figure(*arguments, **settings)
        pytestconfig.stash[_figures].append(figure)
        figure.check()
        return figure

    return record


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use no proxy on the way to the servers here."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="session")
def server_process() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def server(server_process: Server) -> Server:
    """The counting server, with its counts at 0."""
    server_process.fail(0)
    server_process.reset()
    return server_process


@pytest.fixture(scope="session")
def quick_server(server_process: Server) -> Iterator[Server | Nginx]:
    """nginx if it is on the path, else the counting server."""
    if Nginx.path() is None:
        yield server_process
    else:
        with Nginx() as nginx:
            yield nginx


@pytest.fixture
def byte_server(request: pytest.FixtureRequest) -> Iterator[Server | Nginx]:
    """nginx if it is on the path, else a server that throws the bodies away as nginx does."""
    if Nginx.path() is None:
        with Server(looks=False) as server:
            yield server
    else:
        yield request.getfixturevalue("quick_server")


@pytest.fixture(autouse=True)
def quiet_reference() -> None:
    """Drop the two INFO lines that the reference logs for each request, because pytest would keep all of them."""
    logging.getLogger("snowplow_tracker.emitters").setLevel(logging.WARNING)


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key, trusted = (tmp_path / name for name in ("chain.pem", "key.pem", "authority.pem"))
    for number, part in enumerate(certificate.cert_chain_pems):
        part.write_to_path(chain, append=number > 0)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(trusted)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with Server((str(chain), str(key))) as server:
        yield server
