"""`fastemit.Snowplow` and `snowplow_tracker.Snowplow` in one program: they know the same trackers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import snowplow_tracker
from snowplow_tracker import PageView

import fastemit
from fastemit.testing import Collector

CLASSES = {"ours": fastemit.Snowplow, "theirs": snowplow_tracker.Snowplow}
#: Each of the two as the one that acts, and the other as the one that is asked.
BOTH_WAYS = pytest.mark.parametrize(
    ("acting", "asked"),
    [(CLASSES["ours"], CLASSES["theirs"]), (CLASSES["theirs"], CLASSES["ours"])],
    ids=["ours-then-theirs", "theirs-then-ours"],
)


@pytest.fixture(autouse=True)
def _forget_trackers() -> Iterator[None]:
    yield
    fastemit.Snowplow.reset()
    snowplow_tracker.Snowplow.reset()


@BOTH_WAYS
def test_a_tracker_that_one_made_is_found_by_the_other(acting: Any, asked: Any) -> None:
    tracker = acting.create_tracker("shop", "example.com")
    assert asked.get_tracker("shop") is tracker


@BOTH_WAYS
def test_a_tracker_that_was_added_to_one_is_found_by_the_other(acting: Any, asked: Any) -> None:
    tracker = snowplow_tracker.Tracker("mine", fastemit.Emitter("example.com"))
    acting.add_tracker(tracker)
    assert asked.get_tracker("mine") is tracker


@BOTH_WAYS
def test_a_namespace_that_one_has_given_is_taken_for_the_other(acting: Any, asked: Any) -> None:
    first = acting.create_tracker("shop", "example.com")
    with pytest.raises(TypeError, match=r"^Tracker with this namespace already exists"):
        asked.create_tracker("shop", "example.org")
    assert [each.get_tracker("shop") for each in (acting, asked)] == [first, first]


@BOTH_WAYS
def test_what_one_removes_is_gone_from_the_other(acting: Any, asked: Any) -> None:
    first, second = asked.create_tracker("a", "example.com"), asked.create_tracker("b", "example.com")
    acting.remove_tracker(first)
    acting.remove_tracker_by_namespace("b")
    assert [asked.get_tracker(name) for name in ("a", "b")] == [None, None]
    # And the namespaces are free again.
    assert asked.add_tracker(second) is second


@BOTH_WAYS
def test_a_reset_of_one_is_a_reset_of_both_and_they_go_on_together(acting: Any, asked: Any) -> None:
    asked.create_tracker("shop", "example.com")
    acting.reset()
    assert asked.get_tracker("shop") is None
    # The reference's `reset` puts another dict in the place of its registry.
    again = asked.create_tracker("shop", "example.com")
    assert acting.get_tracker("shop") is again


def test_a_library_that_asks_snowplow_tracker_sends_by_our_emitter(collector: Collector) -> None:
    fastemit.Snowplow.create_tracker("shop", collector.url)
    tracker = snowplow_tracker.Snowplow.get_tracker("shop")
    assert tracker is not None
    tracker.track(PageView(page_url="https://example.com/1"))
    tracker.flush()
    assert [event["url"] for event in collector.events] == ["https://example.com/1"]
    assert collector.requests[0].headers["User-Agent"].startswith("fastemit/")
    assert isinstance(tracker.emitters[0], fastemit.Emitter)
    tracker.emitters[0].close(0)


def test_without_the_registry_of_snowplow_tracker_ours_works_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a later version might be.
    monkeypatch.delattr(snowplow_tracker.Snowplow, "_trackers")
    tracker = fastemit.Snowplow.create_tracker("shop", "example.com")
    assert fastemit.Snowplow.get_tracker("shop") is tracker
    with pytest.raises(TypeError, match="'shop'"):
        fastemit.Snowplow.add_tracker(tracker)
    fastemit.Snowplow.reset()
    assert fastemit.Snowplow.get_tracker("shop") is None
