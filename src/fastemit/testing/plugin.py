"""Fixtures for pytest. They are available wherever fastemit is installed:

    def test_a_purchase_is_tracked(snowplow_collector, snowplow_emitter):
        Tracker("test", snowplow_emitter).track(StructuredEvent(category="shop", action="buy"))
        snowplow_emitter.flush()
        assert [event["se_ac"] for event in snowplow_collector.events] == ["buy"]

pytest imports this module in every run. The module imports the rest of fastemit only when a test asks for one of the
fixtures, and changes nothing for other tests. `-p no:fastemit` switches it off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastemit import Emitter
    from fastemit.testing import Collector

# Seconds. A short time, because a test may have told the collector not to answer.
_SHUTDOWN_TIMEOUT = 1.0


@pytest.fixture(scope="session")
def _snowplow_server() -> Iterator[Collector]:
    from fastemit.testing import Collector

    with Collector() as collector:
        yield collector


@pytest.fixture
def snowplow_collector(_snowplow_server: Collector) -> Iterator[Collector]:
    """A running and empty `fastemit.testing.Collector`: `url`, `events`, `bad`, `wait_for`, `respond`.

    There is one collector for the whole run, or one for each worker of xdist. After each test it forgets what it
    received and how it was told to answer. If the test has closed it, it is started again.
    """
    # Also before a test, because an emitter that an earlier test left open may have sent something since.
    _snowplow_server.reset()
    yield _snowplow_server
    _snowplow_server.reset()
    _snowplow_server.start()


@pytest.fixture
def snowplow_emitter(snowplow_collector: Collector) -> Iterator[Emitter]:
    """A `fastemit.Emitter` that sends to `snowplow_collector`. It is closed after the test, within a second."""
    from fastemit import Emitter

    emitter = Emitter(snowplow_collector.url, shutdown_timeout=_SHUTDOWN_TIMEOUT)
    yield emitter
    # Answers that are held back would make the close wait.
    snowplow_collector.release()
    emitter.close()
