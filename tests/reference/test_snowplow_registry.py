"""The registry of `Snowplow`, alone and beside snowplow-tracker's in one program: they know the same trackers."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
import snowplow_tracker
from snowplow_tracker import PageView, Tracker

import fastemit
from fastemit import Emitter, Snowplow
from fastemit.testing import Collector
from tests.support.emitters import join, threads_of
from tests.support.snowplow import BOTH, Create, page, urls
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("no_trackers")

CLASSES = {"ours": fastemit.Snowplow, "theirs": snowplow_tracker.Snowplow}

#: Each of the two as the one that acts, and the other as the one that is asked.
BOTH_WAYS = pytest.mark.parametrize(
    ("acting", "asked"),
    [(CLASSES["ours"], CLASSES["theirs"]), (CLASSES["theirs"], CLASSES["ours"])],
    ids=["ours-then-theirs", "theirs-then-ours"],
)


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


# -- the registry ----------------------------------------------------------------------------------------------------


@BOTH
def test_trackers_are_found_by_namespace(registry: Any) -> None:
    first, second = registry.create_tracker("a", "example.com"), registry.create_tracker("b", "example.com")
    assert [registry.get_tracker(name) for name in ("a", "b", "c")] == [first, second, None]


@BOTH
def test_a_users_tracker_can_be_added(registry: Any) -> None:
    tracker = Tracker("mine", fastemit.Emitter("example.com"))
    assert registry.add_tracker(tracker) is tracker
    assert registry.get_tracker("mine") is tracker


@BOTH
@pytest.mark.parametrize("value", [None, "shop", 1, Tracker])
def test_what_is_no_tracker_is_not_added(registry: Any, value: Any) -> None:
    assert registry.add_tracker(value) is None


@BOTH
def test_a_removed_tracker_is_not_found_and_its_namespace_free(registry: Any) -> None:
    first = registry.create_tracker("shop", "example.com")
    registry.remove_tracker(first)
    assert registry.get_tracker("shop") is None
    second = registry.create_tracker("shop", "example.com")
    assert registry.get_tracker("shop") is second is not first


@BOTH
def test_a_tracker_is_removed_by_namespace(registry: Any) -> None:
    kept = registry.create_tracker("a", "example.com")
    registry.create_tracker("b", "example.com")
    registry.remove_tracker_by_namespace("b")
    assert [registry.get_tracker(name) for name in ("a", "b")] == [kept, None]


@BOTH
def test_removing_what_is_not_there_changes_nothing(registry: Any) -> None:
    kept = registry.create_tracker("a", "example.com")
    registry.remove_tracker_by_namespace("b")
    registry.remove_tracker(Tracker("b", fastemit.Emitter("example.com")))
    assert registry.get_tracker("a") is kept


@BOTH
def test_reset_forgets_all(registry: Any) -> None:
    for name in ("a", "b"):
        registry.create_tracker(name, "example.com")
    registry.reset()
    assert [registry.get_tracker(name) for name in ("a", "b")] == [None, None]


def test_a_removed_tracker_still_sends(create: Create, collector: Collector) -> None:
    tracker = create()
    Snowplow.remove_tracker(tracker)
    tracker.track(page(1))
    tracker.flush()
    assert urls(collector) == ["https://example.com/1"]


def test_what_is_queued_at_reset_is_sent(create: Create, collector: Collector) -> None:
    create().track(page(1))
    Snowplow.reset()
    gc.collect()
    collector.wait_for(1)
    assert urls(collector) == ["https://example.com/1"]


def test_one_of_several_threads_gets_a_namespace() -> None:
    together = threading.Barrier(8)
    won: list[Tracker] = []
    lost: list[TypeError] = []

    def take(number: int) -> None:
        tracker = Tracker("shop", Emitter("http://127.0.0.1:1"))
        together.wait()
        try:
            won.append(Snowplow.add_tracker(tracker))
        except TypeError as error:
            lost.append(error)

    join(threads_of(8, take))
    assert (len(won), len(lost)) == (1, 7)
    assert Snowplow.get_tracker("shop") is won[0]


def test_threads_may_add_and_remove_side_by_side() -> None:
    def use(number: int) -> None:
        for turn in range(50):
            tracker = Snowplow.create_tracker(f"{number}", "http://127.0.0.1:1")
            assert Snowplow.get_tracker(f"{number}") is tracker
            if turn % 2:
                Snowplow.remove_tracker(tracker)
            else:
                Snowplow.remove_tracker_by_namespace(f"{number}")
        done.append(number)

    done: list[int] = []
    join(threads_of(4, use))
    until(lambda: sorted(done) == [0, 1, 2, 3])
