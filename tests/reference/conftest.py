"""Fixtures of the tests of `Snowplow`."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from snowplow_tracker import Tracker

from fastemit import Snowplow
from fastemit.testing import Collector
from tests.support.snowplow import Create, emitter_of


@pytest.fixture
def create(collector: Collector) -> Iterator[Create]:
    """`Snowplow.create_tracker`, to `collector` if nothing else is said; the emitters are closed after the test."""
    made: list[weakref.ref[Any]] = []

    def create_tracker(namespace: str = "shop", endpoint: str | None = None, **arguments: Any) -> Tracker:
        tracker = Snowplow.create_tracker(namespace, collector.url if endpoint is None else endpoint, **arguments)
        made.append(weakref.ref(emitter_of(tracker)))
        return tracker

    yield create_tracker
    for reference in made:
        if (emitter := reference()) is not None:
            emitter.close(0)
