"""What `fastemit.Tracker` keeps from event to event of trackers and subjects is forgotten when these change."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from typing import Any
from unittest import mock

import pytest
import snowplow_tracker
from snowplow_tracker import PageView, Subject

import fastemit
from tests.support.tracker import Taken, both, seen


def page_view() -> Any:
    return PageView("https://shop.example.com/tea")


def track_twice(change: Any) -> Any:
    """Both trackers track, are changed, and track again twice."""

    def track(tracker: Any) -> Any:
        tracker.track(page_view())
        change(tracker)
        tracker.track(page_view())
        return tracker.track(page_view())

    return both(lambda cls: seen(cls, {"namespace": "shop", "subject": Subject()}, track))


CHANGES = {
    "a name more": lambda tracker: tracker.standard_nv_pairs.update(more="yes"),
    "a name less": lambda tracker: tracker.standard_nv_pairs.pop("tv"),
    "another value": lambda tracker: tracker.standard_nv_pairs.update(tna="other"),
    "an empty value": lambda tracker: tracker.standard_nv_pairs.update(tna=""),
    "a value that is asked": lambda tracker: tracker.standard_nv_pairs.update(tna=[1]),
    "a name that is none": lambda tracker: tracker.standard_nv_pairs.update({5: "five"}),
    "more names than are kept": lambda tracker: tracker.standard_nv_pairs.update({f"n{i}": i for i in range(40)}),
    "an id": lambda tracker: tracker.standard_nv_pairs.update(eid="mine"),
    "no pairs": lambda tracker: tracker.standard_nv_pairs.clear(),
    "other pairs": lambda tracker: setattr(tracker, "standard_nv_pairs", {"tna": "new", "aid": None}),
    "pairs of another kind": lambda tracker: setattr(tracker, "standard_nv_pairs", OrderedDict(tna="new")),
    "the subject's pairs": lambda tracker: tracker.subject.set_user_id("visitor-19").set_color_depth(24),
    "the subject's time": lambda tracker: tracker.subject.standard_nv_pairs.update(dtm="then", eid="subject's"),
    "the subject's dict": lambda tracker: setattr(tracker.subject, "standard_nv_pairs", {"p": "web"}),
    "all of the subject": lambda tracker: setattr(tracker.subject, "__dict__", {"standard_nv_pairs": {"p": "tv"}}),
    "the subject has more": lambda tracker: setattr(tracker.subject, "more", 1),
    "another subject": lambda tracker: setattr(tracker, "subject", Subject().set_platform("mob")),
    "no subject": lambda tracker: setattr(tracker, "subject", None),
    "all that the tracker has": lambda tracker: setattr(tracker, "__dict__", dict(vars(tracker), subject=None)),
    "a dict of another kind": lambda tracker: setattr(tracker, "__dict__", OrderedDict(vars(tracker))),
    "an attribute more": lambda tracker: setattr(tracker, "mine", 1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_a_tracker_or_its_subject_counts_at_once(change: Any) -> None:
    ours, theirs = track_twice(change)
    assert ours == theirs


@pytest.mark.parametrize("part", ["event", "payload", "document"])
def test_an_event_may_keep_its_attributes_in_a_dict_of_another_kind(part: str) -> None:
    def track(tracker: Any) -> Any:
        document = snowplow_tracker.SelfDescribingJson("iglu:a/b", {})
        event = PageView("https://shop.example.com/tea", context=[document])
        it: Any = {"event": event, "payload": event.payload, "document": document}[part]
        it.__dict__ = OrderedDict(vars(it))
        return tracker.track(event)

    ours, theirs = both(lambda cls: seen(cls, {"namespace": "shop"}, track))
    assert ours == theirs
    assert theirs[1] == repr("its id")


@pytest.mark.parametrize("name", ["emitters", "subject", "encode_base64", "json_encoder", "standard_nv_pairs"])
@pytest.mark.parametrize("owner", [fastemit.Tracker, snowplow_tracker.Tracker])
def test_a_property_that_is_put_on_a_class_of_trackers_is_asked(owner: Any, name: str) -> None:
    emitter = Taken()
    tracker = fastemit.Tracker("shop", emitter)
    tracker.track(page_view())
    value = {"emitters": [emitter], "subject": Subject(), "standard_nv_pairs": {"tna": "asked"}}.get(name)
    with mock.patch.object(owner, name, mock.PropertyMock(return_value=value), create=True) as asked:
        tracker.track(page_view())
    assert asked.called


def test_many_trackers_in_turn_have_each_their_own_pairs() -> None:
    emitter = Taken()
    trackers = [fastemit.Tracker(f"shop {i}", emitter, Subject().set_user_id(f"user {i}")) for i in range(60)]
    for _ in range(3):
        for tracker in trackers:
            tracker.track(page_view())
    found = [(dict(event)["tna"], dict(event)["uid"]) for event in emitter.events]
    assert found == [(f"shop {i}", f"user {i}") for i in range(60)] * 3


@pytest.mark.parametrize("times", [0, 1])
@pytest.mark.parametrize("change", ["grow", "replace", "clear"])
def test_pairs_that_change_while_they_are_added_do_what_they_do_with_snowplow_tracker(change: str, times: int) -> None:
    class Last:
        """Changes the tracker's pairs when the last reference to it goes: one of them takes its place."""

        def __init__(self, tracker: Any) -> None:
            self.tracker = tracker

        def __del__(self) -> None:
            pairs = self.tracker.standard_nv_pairs
            if change == "clear":
                pairs.clear()
            elif change == "grow":
                pairs["grown"] = "x" * 40
            else:
                pairs["aid"] = "".join(["replaced", " now"])

    def track(tracker: Any) -> Any:
        for _ in range(times):
            tracker.track(page_view())
        event = page_view()
        event.payload.nv_pairs["tv"] = Last(tracker)
        return tracker.track(event)

    ours, theirs = both(lambda cls: seen(cls, {"namespace": "shop", "app_id": "web"}, track))
    assert ours == theirs


def test_once_json_is_as_it_was_page_views_are_made_without_code_of_snowplow_tracker() -> None:
    tracker = fastemit.Tracker("shop", Taken())
    with mock.patch.object(json, "dumps", return_value="{}"):
        tracker.track(snowplow_tracker.SelfDescribing(snowplow_tracker.SelfDescribingJson("iglu:a/b", {})))
        event = page_view()
        tracker.track(event)
    event, called = page_view(), []
    sys.setprofile(lambda frame, kind, _: called.append(frame.f_code.co_name) if kind == "call" else None)
    try:
        tracker.track(event)
    finally:
        sys.setprofile(None)
    assert called == ["input"]
