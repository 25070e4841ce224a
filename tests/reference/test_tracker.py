"""Through the real Tracker of snowplow-tracker 1.1.0 and of 0.15.0: several emitters, and `Tracker.flush`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import snowplow_tracker
from snowplow_tracker import PageView, StructuredEvent, Tracker

from fastemit import AsyncEmitter, Emitter
from fastemit.testing import Collector
from tests.support.delivery import DEADLINE, Rig, Running, within
from tests.support.emitters import Recorder, accounted
from tests.support.reference import needs_reference_0_15, runner_with_0_15
from tests.support.slow import slow
from tests.support.waiting import until

CLASSES = pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
METHODS = pytest.mark.parametrize("method", ["post", "get"])


def page(number: int = 0) -> PageView:
    return PageView(page_url=f"https://example.com/{number}", page_title="Häuser \u2603")


def pages(collector: Collector) -> list[int]:
    return [int(event["url"].rpartition("/")[2]) for event in collector.events]


@CLASSES
@METHODS
def test_events_of_the_tracker_arrive_and_are_good(rig: Rig, cls: type[Emitter], method: str) -> None:
    emitter = rig.emitter(cls, method=method)
    tracker = Tracker("ns", emitter, app_id="app")
    event_id = tracker.track(page())
    tracker.track(StructuredEvent("shop", "buy", value=2.5))
    tracker.flush()
    assert rig.collector.bad == []
    first, second = rig.collector.good
    assert (first["e"], first["eid"], first["tna"], first["aid"]) == ("pv", event_id, "ns", "app")
    assert (first["page"], second["e"], second["se_va"]) == ("Häuser \u2603", "se", "2.5")
    assert re.fullmatch(r"\d{13}", first["dtm"])


@CLASSES
@METHODS
def test_what_arrives_is_what_the_reference_s_emitter_sends(rig: Rig, cls: type[Emitter], method: Any) -> None:
    ours = rig.emitter(cls, method=method)
    theirs = snowplow_tracker.Emitter(rig.collector.url, method=method, batch_size=100)
    tracker = Tracker("ns", [theirs, ours])
    for number in range(3):
        tracker.track(page(number))
    theirs.flush()
    reference = [{**event, "stm": ""} for event in rig.collector.events]
    rig.collector.reset()
    assert ours.drain() is True
    assert [{**event, "stm": ""} for event in rig.collector.events] == reference


# -- Tracker.flush ---------------------------------------------------------------------------------------------------


@CLASSES
@METHODS
def test_flush_of_the_tracker_waits_until_all_is_sent(rig: Rig, cls: type[Emitter], method: str) -> None:
    rig.collector.respond(delay=0.05)
    tracker = Tracker("ns", rig.emitter(cls, method=method))
    for number in range(3):
        tracker.track(page(number))
    assert tracker.flush() is tracker
    assert pages(rig.collector) == [0, 1, 2]


def test_flush_true_of_the_tracker_does_not_wait_with_an_async_emitter(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    tracker = Tracker("ns", rig.async_emitter())
    tracker.track(page())
    with within(1):
        tracker.flush(True)
    rig.collector.wait_for_requests(1)
    rig.collector.release()
    rig.collector.wait_for(1)


def test_flush_true_of_the_tracker_waits_with_an_emitter(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    tracker = Tracker("ns", rig.emitter())
    tracker.track(page())
    flushing = Running(lambda: tracker.flush(True))
    assert flushing.goes_on()
    rig.collector.release()
    flushing.result()
    assert pages(rig.collector) == [0]


@CLASSES
def test_flush_of_the_tracker_ends_at_a_failure(rig: Rig, cls: type[Emitter]) -> None:
    rig.collector.respond(500, times=None)
    emitter = rig.emitter(cls, max_retry_delay_seconds=60)
    tracker = Tracker("ns", emitter)
    tracker.track(page())
    with within(2):
        tracker.flush()
    assert emitter.stats().queued_events == 1


# -- several emitters ------------------------------------------------------------------------------------------------


class Scratch:
    """An emitter that has `input` and nothing else."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def input(self, payload: dict[str, Any]) -> None:
        self.events.append(payload)


class Greedy(Scratch):
    """One that changes what it is given."""

    def input(self, payload: dict[str, Any]) -> None:
        super().input(payload)
        payload["greedy"] = "1"


def test_an_emitter_with_nothing_but_input_works_beside_ours(rig: Rig) -> None:
    scratch = Scratch()
    tracker = Tracker("ns", [scratch, rig.emitter(), rig.async_emitter()])  # type: ignore[list-item]
    tracker.track(page(1))
    tracker.flush()
    tracker.flush(True)
    assert [event["url"] for event in scratch.events] == ["https://example.com/1"]
    assert "stm" not in scratch.events[0]
    assert pages(rig.collector) == [1, 1]


@METHODS
def test_emitters_of_one_tracker_do_not_touch_each_other_s_events(rig: Rig, method: Any) -> None:
    told = Recorder()

    def spoil(events: list[dict[str, Any]]) -> None:
        told.success([dict(event) for event in events])
        for event in events:
            event.clear()

    before, after, scratch = rig.emitter(method=method, on_success=spoil), rig.emitter(method=method), Scratch()
    tracker = Tracker("ns", [before, scratch, Greedy(), after])  # type: ignore[list-item]
    tracker.track(page(1))
    before.flush()
    (first,) = rig.collector.events
    after.flush()
    _, last = rig.collector.events
    assert "greedy" not in first
    assert last.pop("greedy") == "1"
    assert {**last, "stm": first["stm"]} == first
    assert "stm" not in scratch.events[0]
    assert told.successes[0][0]["eid"] == first["eid"]


def test_one_that_fails_does_not_hold_up_another(rig: Rig) -> None:
    with Collector() as down:
        down.respond(500, times=None)
        failing = rig.emitter(endpoint=down.url, method="get")
        tracker = Tracker("ns", [failing, rig.emitter()])
        for number in range(3):
            tracker.track(page(number))
        tracker.flush()
        assert pages(rig.collector) == [0, 1, 2]
        assert failing.stats().queued_events == 3
        assert accounted(failing.stats()) == 3


def test_emitters_share_an_event_and_each_has_its_own_limit(rig: Rig) -> None:
    one, two = rig.emitter(batch_size=1), rig.emitter(batch_size=2)
    tracker = Tracker("ns", [one, two])
    tracker.track(page(0))
    until(lambda: one.stats().sent_events == 1)
    assert two.stats().queued_events == 1
    tracker.track(page(1))
    until(lambda: (one.stats().sent_events, two.stats().sent_events) == (2, 2))
    assert sorted(pages(rig.collector)) == [0, 0, 1, 1]


def test_our_emitters_are_what_the_tracker_asks_for(rig: Rig) -> None:
    for emitter in (rig.emitter(), rig.async_emitter()):
        for name in ("input", "flush", "async_flush", "sync_flush"):
            assert callable(getattr(emitter, name))
        assert emitter.input({}) is None
        assert emitter.sync_flush(DEADLINE) is None
        assert emitter.flush() is None
        assert emitter.async_flush() is None


# -- 0.15.0 ----------------------------------------------------------------------------------------------------------

WITH_0_15 = """
from snowplow_tracker import Tracker
import fastemit

class Scratch:
    def __init__(self):
        self.events = []
    def input(self, payload):
        self.events.append(payload)

scratch = Scratch()
ours = getattr(fastemit, {cls!r})(URL, method={method!r}, batch_size=100)
tracker = Tracker([scratch, ours], namespace="ns")
tracker.track_page_view("https://example.com/1")
tracker.track_struct_event("shop", "buy", value=2.5)
tracker.flush()
assert ours.stats().sent_events == 2, ours.stats()
tracker.track_page_view("https://example.com/2")
tracker.flush(True)
until(lambda: ours.stats().sent_events == 3)
assert len(scratch.events) == 3 and "stm" not in scratch.events[0]
one = Tracker(ours)
one.track_page_view("https://example.com/3")
ours.close()
"""


@needs_reference_0_15
@pytest.mark.parametrize("cls", [slow("Emitter"), "AsyncEmitter"])
@METHODS
def test_through_the_tracker_of_0_15(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: str, method: str
) -> None:
    run = runner_with_0_15(tmp_path, monkeypatch)
    assert run(WITH_0_15.format(cls=cls, method=method), rig.collector.url).well
    assert rig.collector.bad == []
    assert [event.get("url", event["e"]) for event in rig.collector.good] == [
        "https://example.com/1",
        "se",
        "https://example.com/2",
        "https://example.com/3",
    ]
    assert {event["tv"] for event in rig.collector.good} == {"py-0.15.0"}
