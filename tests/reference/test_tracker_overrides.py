"""Whoever replaces a function that snowplow_tracker's Tracker calls has theirs called by `fastemit.Tracker` too.

Each test does the same with both, and they have to agree; and the replaced function has to be seen in what they do.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import snowplow_tracker
from snowplow_tracker import Event, PagePing, PageView, ScreenView, SelfDescribing, StructuredEvent, Subject
from snowplow_tracker.payload import Payload

from fastemit import Tracker
from tests.support.processes import environment, watched
from tests.support.tracker import Document, Taken, both, held, seen

SCHEMA = "iglu:com.example/a/jsonschema/1-0-0"
FIXED = uuid.UUID("3f2504e0-4f89-41d3-9a0c-0305e82c3301")


def full_event() -> Any:
    return SelfDescribing(
        Document(SCHEMA, {"a": 1}), context=[Document(SCHEMA, {"b": 2})], event_subject=Subject(), true_timestamp=5
    )


def tracked(cls: Any, event: Callable[[], Any] = full_event, **settings: Any) -> Any:
    """The pairs, as they are given to the emitter: ids and times are the patch's."""
    emitter = Taken()
    cls("ns", emitter, **settings).track(event())
    return emitter.events


class Called(Exception):
    """Raised by what replaces a function, so that nothing can come of it but this."""


def called(*args: Any, **settings: Any) -> Any:
    raise Called


#: Each is looked up by snowplow_tracker's code when an event with everything is tracked.
LOOKED_UP = [
    "snowplow_tracker.tracker.Tracker.complete_payload",
    "snowplow_tracker.tracker.Tracker.get_uuid",
    "snowplow_tracker.tracker.Tracker.get_timestamp",
    "snowplow_tracker.tracker.Tracker",
    "snowplow_tracker.tracker.uuid",
    "snowplow_tracker.tracker.time",
    "uuid.uuid4",
    "uuid.UUID",
    "os.urandom",
    "time.time",
    "snowplow_tracker.events.event.Event.build_payload",
    "snowplow_tracker.events.event.Event.context",
    "snowplow_tracker.events.event.Event.event_subject",
    "snowplow_tracker.events.event.SelfDescribingJson",
    "snowplow_tracker.events.event.CONTEXT_SCHEMA",
    "snowplow_tracker.events.self_describing.SelfDescribing.build_payload",
    "snowplow_tracker.events.self_describing.SelfDescribing.event_json",
    "snowplow_tracker.events.self_describing.SelfDescribingJson",
    "snowplow_tracker.events.self_describing.UNSTRUCT_EVENT_SCHEMA",
    "snowplow_tracker.payload.Payload.add",
    "snowplow_tracker.payload.Payload.add_dict",
    "snowplow_tracker.payload.Payload.add_json",
    "snowplow_tracker.payload.json",
    "snowplow_tracker.payload.base64",
    "snowplow_tracker.self_describing_json.SelfDescribingJson.to_json",
    "snowplow_tracker.self_describing_json.SelfDescribingJson.schema",
    "snowplow_tracker.self_describing_json.SelfDescribingJson.__init__",
    "snowplow_tracker.self_describing_json.non_empty_string",
    "snowplow_tracker.subject.Subject.combine_subject",
    "json.dumps",
    "json.JSONEncoder",
    "json.encoder.JSONEncoder.__init__",
    "json.encoder.JSONEncoder.encode",
    "json.encoder.JSONEncoder.iterencode",
    "json.encoder.c_make_encoder",
    "base64.urlsafe_b64encode",
    "base64.b64encode",
]


class Absent:
    """What fails whatever is done with it."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        raise Called

    def __getattr__(self, name: str) -> Any:
        raise Called

    def __get__(self, owner: Any, cls: Any = None) -> Any:
        return self if owner is None else called

    def __str__(self) -> str:
        raise Called

    __len__ = __bool__ = __iter__ = __add__ = __call__


def outcome_with(cls: Any, target: str) -> str:
    event, tracker = full_event(), cls("ns", Taken())
    with mock.patch(target, Absent()):
        try:
            tracker.track(event)
        except Exception as error:  # noqa: BLE001 - what comes of it is compared
            return f"{type(error).__name__}: {error}"
    return "nothing"


@pytest.mark.parametrize("target", LOOKED_UP)
def test_a_function_that_is_patched_is_called(target: str) -> None:
    ours, theirs = both(lambda cls: outcome_with(cls, target))
    assert ours == theirs != "nothing"


@pytest.mark.parametrize("target", LOOKED_UP)
def test_after_a_patch_all_is_as_before(target: str) -> None:
    with mock.patch(target, Absent()):
        pass
    ours, theirs = both(lambda cls: seen(cls, {"namespace": "ns"}, lambda made: made.track(full_event())))
    assert ours == theirs


@pytest.mark.parametrize(
    "kind",
    [lambda: PageView("u"), lambda: StructuredEvent("a", "b"), lambda: PagePing("u"), lambda: ScreenView("i", "n")],
)
def test_a_patch_of_build_payload_is_called_for_each_class(kind: Any) -> None:
    def track(cls: Any) -> Any:
        event = kind()
        with mock.patch.object(type(event), "build_payload", called), pytest.raises(Called):
            cls("ns", Taken()).track(event)
        return True

    assert both(track) == (True, True)


@pytest.mark.parametrize("name", ["context", "event_subject", "true_timestamp", "payload"])
def test_a_property_that_is_put_on_a_class_of_events_is_asked(name: str) -> None:
    def track(cls: Any) -> Any:
        event = PageView("u")
        with mock.patch.object(PageView, name, property(called), create=True), pytest.raises(Called):
            cls("ns", Taken()).track(event)
        return True

    assert both(track) == (True, True)


def test_a_held_id_and_clock_are_in_the_payload() -> None:
    with mock.patch("uuid.uuid4", return_value=FIXED), mock.patch("time.time", return_value=1767225600.1239):
        ours, theirs = both(tracked)
    assert ours == theirs
    assert (dict(ours[0])["eid"], dict(ours[0])["dtm"]) == (str(FIXED), 1767225600123)


@pytest.mark.parametrize("name", ["get_uuid", "get_timestamp"])
def test_the_function_of_the_class_that_the_user_knows_may_be_patched(name: str) -> None:
    def track(cls: Any) -> Any:
        with mock.patch.object(cls, name, return_value=7):
            return dict(tracked(cls)[0])["eid" if name == "get_uuid" else "dtm"]

    assert both(track) == (7, 7)


@pytest.mark.parametrize("name", ["get_uuid", "get_timestamp"])
def test_a_patch_of_snowplow_tracker_s_class_reaches_ours(name: str) -> None:
    with mock.patch.object(snowplow_tracker.Tracker, name, return_value=7):
        ours, theirs = both(lambda cls: dict(tracked(cls)[0])["eid" if name == "get_uuid" else "dtm"])
        assert getattr(Tracker, name)() == 7
    assert (ours, theirs) == (7, 7)


@pytest.mark.parametrize("target", ["uuid.uuid4", "snowplow_tracker.tracker.uuid"])
def test_get_uuid_itself_calls_what_is_patched(target: str) -> None:
    held = FIXED if target == "uuid.uuid4" else mock.Mock(uuid4=lambda: FIXED)
    with mock.patch(target, **({"return_value": held} if held is FIXED else {"new": held})):
        assert Tracker.get_uuid() == snowplow_tracker.Tracker.get_uuid() == str(FIXED)


@pytest.mark.parametrize("name", ["track", "complete_payload"])
def test_a_patch_of_snowplow_tracker_s_method_reaches_ours(name: str) -> None:
    def track(cls: Any) -> Any:
        with mock.patch.object(snowplow_tracker.Tracker, name, autospec=True, side_effect=called) as patched:
            tracker, event = cls("ns", Taken()), PageView("u")
            with pytest.raises(Called):
                tracker.track(event)
            return patched.call_count

    assert both(track) == (1, 1)


def test_the_class_that_snowplow_tracker_s_module_has_may_be_ours() -> None:
    with mock.patch("snowplow_tracker.tracker.Tracker", Tracker):
        assert len(Tracker.get_uuid()) == 36
        assert [name for name, _ in held(tracked(Tracker)[0], time.time())][-4:] == ["eid", "dtm", "tv", "tna"]


def sub(base: Any, **methods: Any) -> Any:
    return type("Mine", (base,), methods)


def test_a_subclass_that_completes_payloads_itself_is_asked() -> None:
    def track(cls: Any) -> Any:
        def complete_payload(self: Any, event: Any) -> Any:
            payload = mine.__mro__[1].complete_payload(self, event)
            payload.add("more", "yes")
            return payload

        mine = sub(cls, complete_payload=complete_payload)
        return dict(tracked(mine)[0])["more"]

    assert both(track) == ("yes", "yes")


def test_a_subclass_that_tracks_itself_is_asked_by_the_old_methods() -> None:
    def track(cls: Any) -> Any:
        events: list[Any] = []
        mine = sub(cls, track=lambda self, event: events.append(type(event)))
        with pytest.warns(DeprecationWarning, match="track_page_view will be removed"):
            mine("ns", Taken()).track_page_view("u")
        return events

    assert both(track) == ([PageView], [PageView])


@pytest.mark.parametrize("name", ["get_uuid", "get_timestamp"])
def test_a_subclass_s_get_uuid_is_called_where_snowplow_tracker_calls_it(name: str) -> None:
    # By the name of the class, so not for the payload; `track_mobile_screen_view` calls it on the object.
    def track(cls: Any) -> Any:
        mine, emitter = sub(cls, **{name: staticmethod(lambda tstamp=None: "mine")}), Taken()
        with pytest.warns(DeprecationWarning, match="track_mobile_screen_view will be removed"):
            mine("ns", emitter, encode_base64=False).track_mobile_screen_view("name")
        pairs = dict(held(emitter.events[0], time.time()))
        return pairs["eid"], pairs["dtm"], '"id": "mine"' in pairs["ue_pr"]

    assert both(track) == (("id", "now", name == "get_uuid"),) * 2


def test_a_class_between_ours_and_snowplow_tracker_s_is_asked() -> None:
    class Between(snowplow_tracker.Tracker):  # type: ignore[misc]
        def complete_payload(self, event: Any) -> Any:
            payload = super().complete_payload(event)
            payload.add("between", "yes")
            return payload

    class Mine(Tracker, Between):
        pass

    assert dict(tracked(Mine)[0])["between"] == "yes"


def test_what_is_set_on_one_tracker_is_called() -> None:
    def track(cls: Any) -> Any:
        tracker, other, payload = cls("ns", Taken()), Taken(), Payload({"mine": 1})
        tracker.add_emitter(other)
        tracker.complete_payload = lambda event: payload
        return tracker.track(PageView("u")), other.events

    assert both(track) == ((None, [[("mine", 1)]]),) * 2


def test_what_is_set_on_one_event_is_called() -> None:
    def track(cls: Any) -> Any:
        event, emitter = PageView("u"), Taken()
        event.build_payload = lambda **settings: Payload({"given": sorted(settings)})
        cls("ns", emitter).track(event)
        return emitter.events[0][0]

    assert both(track) == (("given", ["encode_base64", "json_encoder", "subject"]),) * 2


@pytest.mark.parametrize("name", ["add", "add_dict", "add_json"])
def test_what_is_set_on_one_payload_is_called(name: str) -> None:
    def track(cls: Any) -> Any:
        event = full_event()
        setattr(event.payload, name, called)
        with pytest.raises(Called):
            cls("ns", Taken()).track(event)
        return True

    assert both(track) == (True, True)


def test_what_is_set_on_one_document_or_subject_is_called() -> None:
    def track(cls: Any) -> Any:
        document, subject, emitter = Document(SCHEMA, {}), Subject(), Taken()
        document.to_json = lambda: "document"
        subject.combine_subject = lambda other: {"combined": other is not None}
        event = SelfDescribing(document, context=[document], event_subject=subject)
        cls("ns", emitter, encode_base64=False).track(event)
        return [value for name, value in emitter.events[0] if name in ("ue_pr", "co", "combined")]

    ours, theirs = both(track)
    assert ours == theirs
    assert ours[0].endswith('"data": "document"}')


class OtherPayload(Payload):  # type: ignore[misc]
    def add(self, name: str, value: Any) -> None:
        super().add(name.upper(), value)


def test_a_payload_of_a_class_of_the_user_s_adds_in_its_own_way() -> None:
    def track(cls: Any) -> Any:
        event, emitter = Event(), Taken()
        event.payload = OtherPayload()
        cls("ns", emitter).track(event)
        return [name for name, _ in emitter.events[0]]

    assert both(track) == (["P", "EID", "DTM", "TV", "TNA"],) * 2


def test_an_encoder_that_is_patched_onto_json_is_asked() -> None:
    def track(cls: Any) -> Any:
        with mock.patch("json.JSONEncoder.default", return_value="default"):
            return tracked(cls, lambda: SelfDescribing(Document(SCHEMA, {"a": object()})), encode_base64=False)

    ours, theirs = both(track)
    assert '"a": "default"' in dict(ours[0])["ue_pr"]
    assert dict(ours[0])["ue_pr"] == dict(theirs[0])["ue_pr"]


def test_schemas_are_read_anew_when_they_change() -> None:
    with mock.patch("snowplow_tracker.events.event.CONTEXT_SCHEMA", "iglu:other"):
        ours, theirs = both(lambda cls: dict(tracked(cls, encode_base64=False)[0])["co"])
    assert ours == theirs
    assert ours.startswith('{"schema": "iglu:other"')


def test_a_patch_that_was_there_before_the_import_is_called_then_and_not_after(tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
import sys
from unittest import mock
import snowplow_tracker
from snowplow_tracker import PageView

class Taken:
    def input(self, payload):
        self.payload = payload

with mock.patch("snowplow_tracker.payload.Payload.add", lambda self, name, value: None):
    from fastemit import Tracker
    emitter = Taken()
    Tracker("ns", emitter).track(PageView("u"))
    assert emitter.payload == {}, emitter.payload
Tracker("ns", emitter).track(PageView("u"))
assert list(emitter.payload) == ["e", "url", "p", "eid", "dtm", "tv", "tna"], emitter.payload
"""
    )
    with watched([sys.executable, str(script)], env=environment()) as program:
        done = program.wait()
    assert (done.returncode, done.stderr) == (0, "")
