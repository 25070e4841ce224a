"""What becomes of a payload on its way to the collector; the measure is what the reference package delivers."""

from __future__ import annotations

import datetime
import decimal
import enum
import gc
import json
import math
import sys
import time
import uuid
import weakref
from collections import ChainMap, OrderedDict, UserDict
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pytest
import snowplow_tracker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastemit import Emitter
from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.emitters import QUICK
from tests.support.slow import slow

SCHEMA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"


class Shouting(str):
    """A `str` whose `str()` is another."""

    def __str__(self) -> str:
        return self.upper()


class Colour(enum.Enum):
    RED = "red"


class Text:
    def __init__(self, text: Any) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text  # type: ignore[no-any-return]


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


VALUES = [
    "plain",
    "",
    "žluťoučký 🐎 \u2028\ufeff",
    '"quoted" \\ / \b\f\n\r\t\x00\x1f\x7f',
    None,
    True,
    False,
    0,
    -1,
    2**63,
    2**64,
    -(2**200),
    10**4000,
    1.5,
    -0.0,
    1e300,
    5e-324,
    math.nan,
    math.inf,
    -math.inf,
    1 + 2j,
    b"bytes \xff",
    bytearray(b"x"),
    "\ud800",
    "before \udfff after",
    "\ud83d\udc0e",
    Shouting("subclass"),
    Text("object"),
    Text("\udc00"),
    Text(Shouting("object")),
    Colour.RED,
    [1, "two", None],
    (1, 2),
    {"nested": {"deep": [1, {"er": None}]}},
    frozenset({1}),
    range(3),
    decimal.Decimal("1.10"),
    datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc),
    uuid.UUID(int=7),
    len,
    Ellipsis,
]
KEYS = ["", "ž 🐎", "a\x00b", '"', 1, -7, 2**70, 1.5, math.nan, math.inf, True, False, None, Shouting("key"), "\ud800"]
PAYLOADS: list[dict[Any, Any]] = [
    {},
    {"stm": "the caller's"},
    {"stm": 1, "e": "pv"},
    {1: "number", "1": "string"},
    {None: 1, "null": 2, True: 3, "true": 4},
    {f"name{number}": number for number in range(1000)},
]


class Pair:
    """A fastemit emitter and the reference's, at the same collector."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.ours = Emitter(collector.url, batch_size=1000)
        self.theirs = snowplow_tracker.Emitter(collector.url, batch_size=1000)

    def sent(self, emitter: Any, payloads: list[dict[Any, Any]]) -> list[dict[str, str]]:
        """The events that arrive for `payloads`, without their `stm`."""
        self.collector.reset()
        for payload in payloads:
            emitter.input(payload)
        emitter.flush()
        (request,) = self.collector.requests
        # Pairs: in a JSON object a name may come twice.
        document = json.loads(request.body, object_pairs_hook=lambda pairs: pairs)
        assert [pair[0] for pair in document] == ["schema", "data"]
        assert document[0][1] == SCHEMA
        return [dict(pair for pair in event if pair[0] != "stm") for event in document[1][1]]

    def both(self, payloads: list[dict[Any, Any]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        theirs = self.sent(self.theirs, [dict(payload) for payload in payloads])
        return self.sent(self.ours, payloads), theirs


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Collector() as collector:
        pair = Pair(collector)
        yield pair
        pair.ours.close(1)


def named(value: object) -> str:
    return f"{type(value).__name__}-{repr(value)[:20]!a}"


@pytest.mark.parametrize("value", VALUES, ids=named)
def test_a_value_is_sent_as_str_makes_it(pair: Pair, value: Any) -> None:
    # There and back: JSON makes one character of a pair of surrogates.
    assert pair.sent(pair.ours, [{"value": value}]) == [{"value": json.loads(json.dumps(str(value)))}]


@pytest.mark.parametrize("value", VALUES, ids=named)
def test_a_value_arrives_as_from_the_reference(pair: Pair, value: Any) -> None:
    ours, theirs = pair.both([{"value": value}])
    assert ours == theirs


@pytest.mark.parametrize("key", KEYS, ids=named)
def test_a_name_arrives_as_from_the_reference(pair: Pair, key: Any) -> None:
    ours, theirs = pair.both([{key: "value", "e": "pv"}])
    assert ours == theirs


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: repr(payload)[:30])
def test_a_payload_arrives_as_from_the_reference(pair: Pair, payload: dict[Any, Any]) -> None:
    ours, theirs = pair.both([payload])
    assert ours == theirs


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
ANY_KEY = ANY_TEXT | st.integers() | st.floats() | st.booleans() | st.none()
ANY_VALUE = st.recursive(
    ANY_TEXT | st.integers() | st.floats() | st.booleans() | st.none() | st.binary(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(ANY_KEY, ANY_VALUE, max_size=6), min_size=1, max_size=20))
def test_random_payloads_arrive_as_from_the_reference(pair: Pair, payloads: list[dict[Any, Any]]) -> None:
    ours, theirs = pair.both(payloads)
    assert ours == theirs


@pytest.mark.parametrize("key", [b"bytes", (1, 2), frozenset(), object(), len], ids=named)
def test_a_name_that_the_reference_refuses_is_the_same_error_at_once(pair: Pair, key: Any) -> None:
    theirs = snowplow_tracker.Emitter(pair.collector.url, batch_size=1)
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever it is, ours has to be the same
        theirs.input({key: "value"})
    with pytest.raises(type(expected.value)):
        pair.ours.input({key: "value"})
    assert pair.sent(pair.ours, [{"e": "pv"}]) == [{"e": "pv"}]


@pytest.mark.parametrize(
    "payload",
    [None, 1, 1.5, True, "text", "", b"bytes", [], [("e", "pv")], ("e",), {"e"}, object(), dict, len],
    ids=named,
)
def test_no_mapping_is_a_type_error_and_the_next_event_arrives(pair: Pair, payload: Any) -> None:
    with pytest.raises(TypeError, match=rf"^payload must be a mapping .*, not {type(payload).__name__}$"):
        pair.ours.input(payload)
    assert pair.sent(pair.ours, [{"e": "pv"}]) == [{"e": "pv"}]


@pytest.mark.parametrize(
    "payload",
    [
        OrderedDict(e="pv", n=1),
        UserDict(e="pv", n=1),
        MappingProxyType({"e": "pv", "n": 1}),
        ChainMap({"e": "pv"}, {"n": 1}),
    ],
    ids=named,
)
def test_every_mapping_is_taken(pair: Pair, payload: Any) -> None:
    assert pair.sent(pair.ours, [payload]) == [{"e": "pv", "n": "1"}]


@pytest.mark.parametrize(
    "error", [ValueError("mine"), ZeroDivisionError(), KeyboardInterrupt(), MemoryError()], ids=named
)
def test_what_the_str_of_a_value_raises_passes_through_and_nothing_is_stored(pair: Pair, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        pair.ours.input({"e": "pv", "value": Raises(error)})
    assert raised.value is error
    assert pair.ours.stats().queued_events == 0
    assert pair.sent(pair.ours, [{"e": "pv"}]) == [{"e": "pv"}]


def test_an_integer_that_str_refuses_is_the_value_error_of_str(pair: Pair) -> None:
    with pytest.raises(ValueError, match="for integer string conversion"):
        pair.ours.input({"value": 10**5000})
    assert pair.sent(pair.ours, [{"e": "pv"}]) == [{"e": "pv"}]


def test_a_str_that_gives_no_string_is_a_type_error(pair: Pair) -> None:
    with pytest.raises(TypeError, match="__str__ returned non-string"):
        pair.ours.input({"value": Text(1)})
    assert pair.sent(pair.ours, [{"e": "pv"}]) == [{"e": "pv"}]


def test_a_str_that_tracks_an_event_itself_gets_both_through(pair: Pair) -> None:
    class Tracks:
        def __str__(self) -> str:
            pair.ours.input({"e": "inner"})
            return "outer"

    assert pair.sent(pair.ours, [{"e": Tracks()}]) == [{"e": "inner"}, {"e": "outer"}]


def test_a_str_that_changes_the_payload_does_not_change_the_event(pair: Pair) -> None:
    payload: dict[str, Any] = {"a": 1, "b": 2}

    class Changes:
        def __str__(self) -> str:
            payload.clear()
            payload.update({f"new{number}": number for number in range(100)})
            return "changed"

    payload["c"] = Changes()
    assert pair.sent(pair.ours, [payload]) == [{"a": "1", "b": "2", "c": "changed"}]


@pytest.mark.parametrize("character", ["x", slow("ž"), slow("\ud800"), "\n"], ids=ascii)
def test_a_string_of_ten_million_bytes_arrives(pair: Pair, character: str) -> None:
    text = character * 10_000_000
    # Not `==` in the assertion: pytest would show the difference.
    arrived = pair.sent(pair.ours, [{"value": text}, {"e": "pv"}][:1])
    assert [list(event) for event in arrived] == [["value"]]
    assert (arrived[0]["value"] == text) is True


def test_a_huge_event_leaves_its_neighbours_alone(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(batch_size=1000)
    for value in ("before", "x" * 3_000_000, "after"):
        emitter.input({"value": value})
    emitter.flush()
    assert [[len(event["value"]) for event in request.events] for request in collector.requests] == [
        [6],
        [3_000_000],
        [5],
    ]


def test_the_callers_dict_is_not_written_to(pair: Pair) -> None:
    payload = {"stm": "mine", "value": 1, "text": "x"}
    pair.sent(pair.ours, [payload])
    assert payload == {"stm": "mine", "value": 1, "text": "x"}


@pytest.mark.parametrize("value", ["text", 1])
def test_later_changes_to_the_dict_change_nothing(collector: Collector, make_emitter: MakeEmitter, value: Any) -> None:
    emitter = make_emitter(batch_size=1000)
    payload = {"value": value, "inner": [1]}
    emitter.input(payload)
    payload["inner"].append(2)
    payload["value"] = "changed"
    payload["new"] = "added"
    emitter.flush()
    assert [{**event, "stm": ""} for event in collector.events] == [{"value": str(value), "inner": "[1]", "stm": ""}]


def test_neither_the_dict_nor_its_values_are_kept(collector: Collector, make_emitter: MakeEmitter) -> None:
    class Payload(dict):  # type: ignore[type-arg]
        pass

    emitter = make_emitter(batch_size=1000)
    value = Text("x")
    payload = Payload(value=value, text="a string of some length")
    kept = weakref.ref(payload), weakref.ref(value)
    emitter.input(payload)
    del payload, value
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


def test_no_reference_to_a_plain_dicts_strings_is_kept(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(batch_size=1000)
    text = "".join(["not ", "interned"])
    before = sys.getrefcount(text)
    emitter.input({"value": text})
    assert sys.getrefcount(text) == before


# -- stm ---------------------------------------------------------------------------------------------------------------


def test_stm_is_the_time_of_sending_in_thirteen_digits(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(batch_size=1000)
    emitter.input({"e": "pv"})
    emitter.input({"e": "pv", "stm": "1"})
    before = time.time_ns() // 1_000_000
    emitter.flush()
    after = time.time_ns() // 1_000_000
    times = [event["stm"] for event in collector.events]
    assert [type(stm) for stm in times] == [str, str]
    assert [len(stm) for stm in times] == [13, 13]
    assert [before <= int(stm) <= after for stm in times] == [True, True]


@pytest.mark.parametrize("theirs", ["1", 1, None, "9" * 13, {"x": 1}, "\ud800"])
def test_an_stm_of_the_callers_is_replaced(collector: Collector, make_emitter: MakeEmitter, theirs: Any) -> None:
    emitter = make_emitter(batch_size=1000)
    before = time.time_ns() // 1_000_000
    emitter.input({"a": 1, "stm": theirs, "b": 2})
    emitter.flush()
    (event,) = collector.events
    (request,) = collector.requests
    assert request.body.count(b'"stm"') == 1
    assert before <= int(event.pop("stm")) <= time.time_ns() // 1_000_000
    assert event == {"a": "1", "b": "2"}


def test_stm_is_set_anew_on_each_attempt(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(500, times=2, delay=0.02)
    emitter = make_emitter(batch_size=1, max_retry_delay_seconds=QUICK)
    before = time.time_ns() // 1_000_000
    emitter.input({"e": "pv"})
    collector.wait_for(1)
    after = time.time_ns() // 1_000_000
    first, second, third = (int(request.events[0]["stm"]) for request in collector.requests)
    assert before <= first <= second - 20 <= third - 40 <= after - 40


def test_what_the_events_carried_is_the_same_on_each_attempt(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(500)
    emitter = make_emitter(batch_size=1, max_retry_delay_seconds=QUICK)
    emitter.input({"e": "pv", "value": "ž"})
    collector.wait_for(1)
    attempts = [[{**event, "stm": ""} for event in request.events] for request in collector.requests]
    assert attempts == [[{"e": "pv", "value": "ž", "stm": ""}]] * 2
