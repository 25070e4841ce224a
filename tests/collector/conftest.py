"""Fixtures of the tests of the development collector."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastemit.testing import Collector
from tests.support.collector import Client


@pytest.fixture
def client(collector: Collector) -> Iterator[Client]:
    with Client(collector) as client:
        yield client
