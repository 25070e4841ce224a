"""What the tests of `Tracker` share: events of every class, and one comparison with snowplow_tracker's own Tracker.

It imports neither pytest nor what 1.0.0 does not have, since it runs in a process with that version too.
"""

from __future__ import annotations

import copy
import decimal
import enum
import json
import math
import re
import time
import uuid
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from datetime import datetime
from typing import Any

import snowplow_tracker
from hypothesis import strategies as st
from snowplow_tracker import Event, PagePing, PageView, ScreenView, SelfDescribing, StructuredEvent, Subject

import fastemit

Document = snowplow_tracker.SelfDescribingJson


class Taken:
    """An emitter that keeps what it is given: the pairs in their order, with their types, as they were then."""

    def __init__(self) -> None:
        self.events: list[list[tuple[Any, Any]]] = []

    def input(self, payload: dict[Any, Any]) -> None:
        assert type(payload) is dict
        self.events.append(list(payload.items()))


class Word(str):
    __slots__ = ()


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


Point = namedtuple("Point", "x y")


class OwnJson(Document):  # type: ignore[misc]
    """A document of the user's, which says itself what it is."""

    def to_json(self) -> Any:
        return {"data": self.data, "schema": self.schema, "mine": True}


class OwnEvent(PageView):  # type: ignore[misc]
    """An event of the user's with an attribute more, and nothing overridden."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.more = 1


class OwnBuild(StructuredEvent):  # type: ignore[misc]
    """An event that adds to its payload when it is built."""

    def build_payload(self, *args: Any, **settings: Any) -> Any:
        payload = super().build_payload(*args, **settings)
        payload.add("mine", "yes")
        return payload


class OwnProperty(PageView):  # type: ignore[misc]
    """An event whose context is not what it was given."""

    @property
    def context(self) -> Any:
        return [Document("iglu:com.example/always/jsonschema/1-0-0", {})]

    @context.setter
    def context(self, value: Any) -> None:
        pass


class OwnSubject(Subject):  # type: ignore[misc]
    def combine_subject(self, subject: Any) -> Any:
        return {**super().combine_subject(subject), "combined": "yes"}


def encoder(value: Any) -> Any:
    """What users write: dates as text, sets as lists, and the same error as without for the rest."""
    if isinstance(value, (datetime, decimal.Decimal)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, enum.Enum):
        return {"name": value.name}
    raise TypeError(f"not {type(value).__name__}")


# -- values ------------------------------------------------------------------------------------------------------------

#: Surrogates too: they go into JSON that is not base64, and are an error in JSON that is.
texts = st.text(st.characters(), max_size=40) | st.sampled_from(
    ["", 'a "quoted" \\ path', "\x00\x1f\n\t\x7f", "é\u2028\U0001f600", "\ud800", "x" * 70]
)
numbers = (
    st.integers()
    | st.integers(-(2**63) - 2, 2**63 + 2)
    | st.floats()
    | st.sampled_from([-0.0, 1e16, 1e-7, 5e-324, math.inf, -math.inf, math.nan, 10**40])
)
plain = st.none() | st.booleans() | numbers | texts
odd = st.sampled_from(
    [Word("wörd"), Level.HIGH, Colour.RED, datetime(2026, 1, 2), decimal.Decimal("1.50"), {1, 2}, b"bytes", object]
)
keys = texts | st.integers(-3, 3) | st.none() | st.booleans() | st.floats(allow_nan=False) | st.just(Word("k"))
documents_data = st.recursive(
    plain | odd,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(texts, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(texts, inner, max_size=3).map(OrderedDict)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=12,
)
schemas = st.sampled_from(["iglu:com.example/a/jsonschema/1-0-0", "iglu:é/b", 'q"'])
#: Such as are taken again and again, so that most events are good ones.
common_data = st.dictionaries(st.sampled_from(["a", "order", "total"]), plain | st.lists(plain, max_size=3), max_size=3)
documents = st.sampled_from([Document] * 5 + [OwnJson]).flatmap(
    lambda cls: st.builds(cls, schemas, common_data | documents_data)
)
pairs = st.dictionaries(st.sampled_from(["p", "uid", "lang", "ua", "tz", "tna", "cd", "eid"]), plain | odd, max_size=5)


@st.composite
def subjects(draw: Callable[..., Any]) -> Any:
    subject = draw(st.sampled_from([Subject] * 4 + [OwnSubject]))()
    subject.standard_nv_pairs.update(draw(pairs))
    if draw(st.integers(0, 9)) == 0:
        subject.standard_nv_pairs = OrderedDict(subject.standard_nv_pairs)
    return subject


common = {
    "event_subject": st.none() | subjects(),
    "context": st.none() | st.lists(documents, max_size=3) | st.lists(documents, max_size=2).map(tuple),
    "true_timestamp": st.none() | numbers | st.sampled_from([True, "1", Level.HIGH]),
}
given_text = texts.filter(bool)
field = st.none() | texts | plain | odd


def event_of(cls: Any, **fields: Any) -> Any:
    return st.fixed_dictionaries(fields, optional=common).map(lambda settings: (cls, settings))


events = st.one_of(
    event_of(PageView, page_url=given_text, page_title=field, referrer=field),
    event_of(OwnEvent, page_url=given_text),
    event_of(OwnProperty, page_url=given_text),
    event_of(PagePing, page_url=given_text, min_x=field, max_y=field),
    event_of(StructuredEvent, category=given_text, action=given_text, label=field, value=field),
    event_of(OwnBuild, category=given_text, action=given_text),
    event_of(SelfDescribing, event_json=documents),
    event_of(ScreenView, id_=given_text, name=given_text, type=st.none() | texts),
    event_of(Event, dict_=pairs),
)
settings_of_trackers = st.fixed_dictionaries(
    {"namespace": texts},
    optional={
        "app_id": st.none() | texts,
        "subject": st.none() | subjects(),
        "encode_base64": st.booleans(),
        "json_encoder": st.none() | st.just(encoder),
    },
)
document = st.builds(Document, schemas, common_data)
deprecated = st.one_of(
    st.tuples(st.just("track_page_view"), st.fixed_dictionaries({"page_url": texts, "page_title": field})),
    st.tuples(st.just("track_page_ping"), st.fixed_dictionaries({"page_url": texts, "min_x": field})),
    st.tuples(st.just("track_struct_event"), st.fixed_dictionaries({"category": texts, "action": texts})),
    st.tuples(st.just("track_self_describing_event"), st.fixed_dictionaries({"event_json": document})),
    st.tuples(st.just("track_unstruct_event"), st.fixed_dictionaries({"event_json": document})),
    st.tuples(st.just("track_screen_view"), st.fixed_dictionaries({"name": field, "id_": field})),
    st.tuples(st.just("track_mobile_screen_view"), st.fixed_dictionaries({"name": texts, "id_": texts})),
    st.tuples(st.just("track_link_click"), st.fixed_dictionaries({"target_url": texts, "element_id": field})),
    st.tuples(st.just("track_add_to_cart"), st.fixed_dictionaries({"sku": texts, "quantity": numbers})),
    st.tuples(st.just("track_remove_from_cart"), st.fixed_dictionaries({"sku": texts, "quantity": numbers})),
    st.tuples(
        st.just("track_form_change"),
        st.fixed_dictionaries({"form_id": texts, "element_id": field, "node_name": texts, "value": field}),
    ),
    st.tuples(st.just("track_form_submit"), st.fixed_dictionaries({"form_id": texts})),
    st.tuples(st.just("track_site_search"), st.fixed_dictionaries({"terms": st.lists(texts, max_size=2)})),
    st.tuples(
        st.just("track_ecommerce_transaction"),
        st.fixed_dictionaries(
            {
                "order_id": texts,
                "total_value": numbers,
                "items": st.none() | st.lists(st.fixed_dictionaries({"sku": texts, "price": numbers}), max_size=2),
            },
            optional={"tstamp": common["true_timestamp"], "context": common["context"]},
        ),
    ),
)


# -- the comparison ----------------------------------------------------------------------------------------------------


def held(pairs: list[tuple[Any, Any]], since: float) -> list[tuple[Any, Any]]:
    """Pairs with the id and the time of creation held, which are seen to be what they have to be."""
    result = []
    for name, value in pairs:
        if name == "eid" and type(value) is str and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
            assert uuid.UUID(value).version == 4
            assert uuid.UUID(value).variant == uuid.RFC_4122
            value = "id"
        elif name == "dtm" and type(value) is int and abs(value / 1000 - since) < 60:
            value = "now"
        result.append((name, value))
    return result


def told(error: BaseException) -> tuple[type, str]:
    return type(error), re.sub(r"0x[0-9a-f]+", "0x", str(error))


def seen(cls: Any, settings: dict[str, Any], track: Callable[[Any], Any]) -> Any:
    """All that a tracker of `cls` lets be seen of what `track` does with it: payloads, what it returns, errors."""
    emitter, second, since = Taken(), Taken(), time.time()
    tracker = cls(emitters=[emitter, second], **copy.deepcopy(settings))
    outcome: Any
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = track(tracker)
        returned = "the tracker" if outcome is tracker else outcome
        if emitter.events and returned == dict(emitter.events[-1]).get("eid"):
            returned = "its id"
    except Exception as error:  # noqa: BLE001 - they are compared
        returned = told(error)
    assert emitter.events == second.events or repr(emitter.events) == repr(second.events)
    # `repr` tells 1 from True and 1.0, and one NaN is like another.
    return [repr(held(pairs, since)) for pairs in emitter.events], repr(returned)


def seen_of_event(cls: Any, settings: dict[str, Any], kind: Any, fields: dict[str, Any], times: int = 1) -> Any:
    """The same for an event, with what has become of the event itself."""
    made: list[Any] = []

    def track(tracker: Any) -> Any:
        made.append(kind(**copy.deepcopy(fields)))
        for _ in range(times - 1):
            tracker.track(made[0])
        return tracker.track(made[0])

    since = time.time()
    result = seen(cls, settings, track)
    return result, [repr(held(list(event.payload.nv_pairs.items()), since)) for event in made]


def both(see: Callable[[Any], Any]) -> tuple[Any, Any]:
    """What `see` sees of fastemit's Tracker, and of snowplow_tracker's."""
    return see(fastemit.Tracker), see(snowplow_tracker.Tracker)


def decoded(pairs: dict[str, Any], name: str) -> Any:
    return json.loads(pairs[name])
