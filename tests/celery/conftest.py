"""Redis servers, workers and emitters for the tests of CeleryEmitter."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import pytest

from fastemit.testing import Collector
from tests.support.celery_workers import MakeEmitter, RedisServer, Worker, emitters, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for all of these tests."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def worker_of(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Worker]]:
    """A worker with a pool of this kind, for all tests that do it no harm."""
    databases = {"prefork": 0, "threads": 14, "gevent": 15}
    with contextlib.ExitStack() as stack:

        @functools.cache
        def worker_of(pool: str) -> Worker:
            directory = tmp_path_factory.mktemp(pool)
            return stack.enter_context(running(directory, server.database(databases[pool]), pool))

        yield worker_of


@pytest.fixture
def worker(worker_of: Callable[[str], Worker]) -> Worker:
    """A prefork worker at `server.url`, for all tests that do it no harm."""
    return worker_of("prefork")


@pytest.fixture
def make(server: RedisServer, collector: Collector) -> Iterator[MakeEmitter]:
    with emitters(server.url, collector.url) as make:
        yield make


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that goes on, for tests in which something else fails; each uses a database of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of the test's own, to do anything to."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def make_down(collector: Collector) -> Iterator[MakeEmitter]:
    """Makes emitters whose broker is down, unless they are given an app."""
    with emitters("redis://127.0.0.1:1/0", collector.url) as make:
        yield make
