"""SPEC 10: events that CeleryEmitter hands to real Celery workers, over a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery_support import RedisServer, Worker, app_of, running
from delivery_support import put

from fastemit.celery import CeleryEmitter
from fastemit.testing import Collector

MakeEmitter = Callable[..., CeleryEmitter]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def worker(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A prefork worker for all tests that do it no harm."""
    with running(tmp_path_factory.mktemp("prefork"), server.url) as worker:
        yield worker


@pytest.fixture
def make(server: RedisServer, collector: Collector) -> Iterator[MakeEmitter]:
    made: list[CeleryEmitter] = []

    def make(endpoint: str | None = None, **settings: Any) -> CeleryEmitter:
        settings.setdefault("celery_app", app_of(server.url))
        emitter = CeleryEmitter(collector.url if endpoint is None else endpoint, **settings)
        made.append(emitter)
        return emitter

    yield make
    for emitter in made:
        emitter.close(0)


def test_a_worker_sends_what_an_emitter_hands_over(worker: Worker, make: MakeEmitter, collector: Collector) -> None:
    emitter = make()
    put(emitter, 25)
    emitter.flush()
    events = collector.wait_for(25)
    assert sorted(event["n"] for event in events) == [f"{number:06}" for number in range(25)]
