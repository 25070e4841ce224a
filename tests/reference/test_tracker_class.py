"""`fastemit.Tracker` as a class: what is accepted in place of snowplow_tracker's, copied, collected, and set."""

from __future__ import annotations

import copy
import pickle
import weakref
from typing import Any

import pytest
import snowplow_tracker
from snowplow_tracker import PageView, SelfDescribing, Subject

import fastemit
from fastemit import Tracker
from tests.support.tracker import Document, Taken, both

SCHEMA = "iglu:com.example/a/jsonschema/1-0-0"


def full_event() -> Any:
    return SelfDescribing(
        Document(SCHEMA, {"a": 1}), context=[Document(SCHEMA, {"b": 2})], event_subject=Subject(), true_timestamp=5
    )


def test_it_is_a_tracker_of_snowplow_tracker() -> None:
    assert issubclass(Tracker, snowplow_tracker.Tracker)
    assert snowplow_tracker.Snowplow.add_tracker(Tracker("overrides", Taken())) is not None
    snowplow_tracker.Snowplow.remove_tracker_by_namespace("overrides")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_it_can_be_copied_and_pickled_as_snowplow_tracker_s(copied: Any) -> None:
    tracker = copied(Tracker("ns", Taken(), app_id="a"))
    tracker.track(PageView("u"))
    assert dict(tracker.emitters[0].events[0])["aid"] == "a"


def test_it_can_be_referred_to_weakly_and_is_collected() -> None:
    reference = weakref.ref(Tracker("ns", Taken()))
    assert reference() is None


def test_attributes_may_be_set_at_any_time() -> None:
    def track(cls: Any) -> Any:
        tracker, emitter = cls("ns", Taken()), Taken()
        tracker.emitters = (emitter,)
        tracker.subject = None
        tracker.standard_nv_pairs = {"tv": "mine"}
        tracker.encode_base64 = False
        tracker.track(full_event())
        return [name for name, _ in emitter.events[0]]

    ours, theirs = both(track)
    assert ours == theirs == ["e", "ue_pr", "co", "ttm", "p", "eid", "dtm", "tv"]


def test_the_module_is_where_snowplow_tracker_has_it() -> None:
    assert fastemit.tracker.Tracker is Tracker
