"""`Tracker` gives its emitters what snowplow_tracker's gives them: the same pairs, in order, to the byte, or its error.

The last test runs the others with snowplow_tracker 1.0.0, in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import snowplow_tracker
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from snowplow_tracker import PageView, ScreenView, SelfDescribing, StructuredEvent, Subject

from fastemit import Tracker
from fastemit.tracker import KNOWN_VERSIONS
from tests.support.processes import environment
from tests.support.reference import REFERENCE_1_0, needs_reference_1_0
from tests.support.tracker import (
    Document,
    OwnJson,
    Taken,
    both,
    deprecated,
    documents_data,
    encoder,
    events,
    seen,
    seen_of_event,
    settings_of_trackers,
)

many = settings(
    max_examples=120,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SCHEMA = "iglu:com.example/a/jsonschema/1-0-0"


def test_the_installed_version_is_one_whose_payloads_are_built_here() -> None:
    assert snowplow_tracker.__version__ in KNOWN_VERSIONS
    assert any(base.__name__ == "PayloadMaker" and base.__module__ == "fastemit._payload" for base in Tracker.__mro__)


@many
@given(settings_of_trackers, events)
def test_an_event_has_the_same_payload_or_the_same_error(tracker: dict[str, Any], event: Any) -> None:
    ours, theirs = both(lambda cls: seen_of_event(cls, tracker, *event))
    assert ours == theirs


@settings(many, max_examples=60)
@given(settings_of_trackers, events)
def test_an_event_that_is_tracked_again_too(tracker: dict[str, Any], event: Any) -> None:
    ours, theirs = both(lambda cls: seen_of_event(cls, tracker, *event, times=2))
    assert ours == theirs


@many
@given(documents_data, st.booleans(), st.none() | st.just(encoder))
def test_whatever_json_takes_is_written_alike(data: Any, encode_base64: bool, json_encoder: Any) -> None:
    tracker = {"namespace": "ns", "encode_base64": encode_base64, "json_encoder": json_encoder}
    ours, theirs = both(lambda cls: seen_of_event(cls, tracker, SelfDescribing, {"event_json": Document(SCHEMA, data)}))
    assert ours == theirs


@settings(many, max_examples=80)
@given(settings_of_trackers, deprecated)
def test_the_old_methods_do_the_same(tracker: dict[str, Any], call: Any) -> None:
    ours, theirs = both(lambda cls: seen(cls, tracker, lambda made: getattr(made, call[0])(**call[1])))
    assert ours == theirs


def circle() -> Any:
    inner: list[Any] = [1]
    inner.append({"again": inner})
    return inner


def deep() -> Any:
    data: Any = 0
    for _ in range(100_000):
        data = [data]
    return data


WRONG = {
    "circle": circle(),
    "deep": deep(),
    "no JSON": object(),
    "name": {"a": {object(): 1}},
    "surrogate": {"a": "\ud800"},
    "infinite": 1e400,
    "long": 10**5000,
}


@pytest.mark.parametrize("json_encoder", [None, encoder, lambda value: value, lambda value: [value], 1])
@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_the_data_has_the_same_error(data: Any, json_encoder: Any) -> None:
    def track(cls: Any) -> Any:
        return seen(
            cls,
            {"namespace": "ns", "json_encoder": json_encoder},
            lambda made: made.track(SelfDescribing(Document(SCHEMA, data))),
        )

    ours, theirs = both(track)
    assert ours == theirs


def test_the_encoder_is_asked_as_often_and_in_the_same_order() -> None:
    def calls(cls: Any) -> list[Any]:
        asked: list[Any] = []

        def json_encoder(value: Any) -> Any:
            asked.append(sorted(value))
            return list(asked[-1])

        data = {"a": {1, 2}, "b": [{3}, {"c": {4}}], "d": ({5},)}
        event = SelfDescribing(Document(SCHEMA, data), context=[Document(SCHEMA, {6})])
        cls("ns", Taken(), json_encoder=json_encoder).track(event)
        return asked

    ours, theirs = both(calls)
    assert ours == theirs == [[1, 2], [3], [4], [5], [6]]


def test_an_encoder_that_changes_what_is_written_is_no_danger() -> None:
    def track(cls: Any) -> Any:
        data: dict[str, Any] = {"a": object(), "b": [object(), 1, 2]}

        def json_encoder(value: Any) -> Any:
            data["b"].clear()
            return "x"

        return seen(
            cls,
            {"namespace": "ns", "encode_base64": False, "json_encoder": json_encoder},
            lambda made: made.track(SelfDescribing(Document(SCHEMA, data))),
        )

    ours, theirs = both(track)
    assert ours == theirs


class Unequal:
    def __eq__(self, other: object) -> bool:
        raise ArithmeticError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class Blank:
    """Equal to the empty string, so that it is left out."""

    def __eq__(self, other: object) -> bool:
        return other == ""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Blank"


@pytest.mark.parametrize("value", [Unequal(), Blank(), [], {}, b"", 0, False, 0.0, "", None])
def test_a_value_is_left_out_by_the_same_rule(value: Any) -> None:
    def track(cls: Any) -> Any:
        subject = Subject()
        subject.standard_nv_pairs["odd"] = value
        return seen(cls, {"namespace": value}, lambda made: made.set_subject(subject).track(PageView("url")))

    ours, theirs = both(track)
    assert ours == theirs


@pytest.mark.parametrize("event", [None, 1, "pv", PageView, object()])
def test_what_is_no_event_has_the_same_error(event: Any) -> None:
    ours, theirs = both(lambda cls: seen(cls, {"namespace": "ns"}, lambda made: made.track(event)))
    assert ours == theirs


@pytest.mark.parametrize("missing", ["payload", "_context", "_event_subject", "_true_timestamp", "_event_json"])
def test_an_event_without_one_of_its_attributes_has_the_same_error(missing: str) -> None:
    def track(made: Any) -> Any:
        event = SelfDescribing(Document(SCHEMA, {}), context=[Document(SCHEMA, {})])
        delattr(event, missing)
        return made.track(event)

    ours, theirs = both(lambda cls: seen(cls, {"namespace": "ns"}, track))
    assert ours == theirs


@pytest.mark.parametrize("attribute", ["emitters", "subject", "standard_nv_pairs", "json_encoder", "encode_base64"])
def test_a_tracker_without_one_of_its_attributes_has_the_same_error(attribute: str) -> None:
    def track(made: Any) -> Any:
        delattr(made, attribute)
        return made.track(SelfDescribing(Document(SCHEMA, {})))

    ours, theirs = both(lambda cls: seen(cls, {"namespace": "ns"}, track))
    assert theirs[1].startswith("(<class 'AttributeError'>")
    assert (ours[0], ours[1]) == theirs


@pytest.mark.parametrize("context", [[None], [1], [OwnJson(SCHEMA, {}), None], "text", 5])
def test_a_context_that_is_none_has_the_same_error(context: Any) -> None:
    ours, theirs = both(
        lambda cls: seen(cls, {"namespace": "ns"}, lambda made: made.track(PageView("url", context=context)))
    )
    assert ours == theirs


@pytest.mark.parametrize("url", ["", None, 1, b"url"])
def test_what_an_event_refuses_the_old_methods_refuse(url: Any) -> None:
    ours, theirs = both(lambda cls: seen(cls, {"namespace": "ns"}, lambda made: made.track_page_view(url)))
    assert ours == theirs


@pytest.mark.parametrize("emitters", [[], None, ()])
def test_the_constructor_is_snowplow_tracker_s(emitters: Any) -> None:
    def make(cls: Any) -> Any:
        try:
            return repr(cls("ns", emitters).emitters)
        except ValueError as error:
            return str(error)

    ours, theirs = both(make)
    assert ours == theirs


def test_an_emitter_that_raises_keeps_the_event_from_those_after_it() -> None:
    class Broken:
        def input(self, payload: Any) -> None:
            raise OSError("full")

    def track(cls: Any) -> Any:
        first, last = Taken(), Taken()
        with pytest.raises(OSError, match=r"^full$"):
            cls("ns", [first, Broken(), last]).track(PageView("url"))
        return len(first.events), len(last.events)

    assert both(track) == ((1, 0), (1, 0))


def test_every_emitter_is_given_the_same_dict_and_what_one_changes_the_next_sees() -> None:
    class Changing:
        def input(self, payload: Any) -> None:
            payload["eid"] = "mine"
            payload["more"] = 1

    def track(cls: Any) -> Any:
        last = Taken()
        return cls("ns", [Changing(), last]).track(PageView("url")), dict(last.events[0])["more"]

    assert both(track) == (("mine", 1), ("mine", 1))


def test_a_payload_without_an_id_gives_none() -> None:
    class Without:
        def input(self, payload: Any) -> None:
            del payload["eid"]

    assert both(lambda cls: cls("ns", Without()).track(PageView("url"))) == (None, None)


def test_complete_payload_gives_the_payload_of_the_event() -> None:
    event = StructuredEvent("a", "b")
    made = Tracker("ns", Taken()).complete_payload(event)
    assert made is event.payload
    assert list(made.nv_pairs) == ["e", "se_ca", "se_ac", "p", "eid", "dtm", "tv", "tna"]


@pytest.mark.parametrize(
    "event",
    [
        lambda: PageView("url", "title", event_subject=Subject().set_lang("de"), true_timestamp=1),
        lambda: StructuredEvent("a", "b", value=1.5),
        lambda: SelfDescribing(Document(SCHEMA, {"a": [1, 2.5, None]}), context=[Document(SCHEMA, {})]),
        lambda: ScreenView("id", "name"),
    ],
)
def test_no_code_of_snowplow_tracker_and_json_runs_for_an_event_as_most_are(event: Any) -> None:
    tracker, made = Tracker("ns", Taken()), event()
    called: list[str] = []

    def profile(frame: Any, what: str, argument: Any) -> None:
        name = frame.f_globals.get("__name__", "")
        if what == "call" and name.startswith(("snowplow_tracker", "json", "uuid", "base64")):
            called.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        tracker.track(made)
    finally:
        sys.setprofile(None)
    assert {name for name in called if type(made) is not ScreenView} == set()


@pytest.mark.slow
@needs_reference_1_0
@pytest.mark.timeout(180)
@pytest.mark.skipif("reference-1.0" in str(snowplow_tracker.__file__), reason="this is that process")
def test_all_of_this_holds_with_snowplow_tracker_1_0_0() -> None:
    path = environment()["PYTHONPATH"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:benchmark", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, __file__],
        env=environment(PYTHONPATH=os.pathsep.join([str(REFERENCE_1_0), path])),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "1 deselected" in done.stdout or "1 skipped" in done.stdout
