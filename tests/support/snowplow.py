"""What the tests of `Snowplow` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import snowplow_tracker
from snowplow_tracker import PageView, Tracker

from fastemit import Snowplow
from fastemit.testing import Collector

Create = Callable[..., Tracker]

BOTH = pytest.mark.parametrize("registry", [Snowplow, snowplow_tracker.Snowplow], ids=["ours", "reference"])


def emitter_of(tracker: Tracker) -> Any:
    (emitter,) = tracker.emitters
    return emitter


def page(number: int = 0) -> PageView:
    return PageView(page_url=f"https://example.com/{number}")


def urls(collector: Collector) -> list[str]:
    return [event["url"] for event in collector.events]
