"""`EventBuffer.encode`: what the reference sends, for whatever payload."""

from __future__ import annotations

import enum
import json
from collections import ChainMap, OrderedDict, UserDict
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastemit._buffer import EventBuffer
from tests.support.buffer import drain, make_buffer, put


class Word(str):
    """A str of a user's own."""


class Shout(str):
    """One whose `str()` is another."""

    def __str__(self) -> str:
        return self.upper()


class Colour(str, enum.Enum):
    RED = "red"


class Renamed(dict[str, Any]):
    """A dict that answers with something else than it holds."""

    def __getitem__(self, key: str) -> Any:
        return f"answered {super().__getitem__(key)}"


class Duck:
    """A mapping by its methods alone, as `dict()` takes it."""

    def keys(self) -> Iterator[str]:
        return iter(["e", "n"])

    def __getitem__(self, key: str) -> Any:
        return {"e": "pv", "n": 1}[key]


class Calls:
    """A value whose `str()` calls something first."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def __str__(self) -> str:
        self.function()
        return "called"


def as_reference(payload: Mapping[Any, Any]) -> Any:
    """What the reference's emitter stores and `requests` then sends."""
    return json.loads(json.dumps({name: str(payload[name]) for name in payload}))


def decoded(payload: Any) -> Any:
    return json.loads(EventBuffer.encode(payload))


VALUES = [
    "",
    "text",
    'quote " backslash \\ slash /',
    "\x00\x1f\x7f\b\f\n\r\t",
    "Größe 大きさ \U0001f600",
    None,
    True,
    False,
    0,
    -1,
    2**63,
    -(2**64),
    10**200,
    1.5,
    1e300,
    float("inf"),
    Decimal("1.10"),
    b"bytes",
    bytearray(b"bytes"),
    (1, 2),
    ["a", {"b": None}],
    {"nested": {"deep": [1, 2.5]}},
    {1},
    object,
    Word("word"),
    Shout("shout"),
    Colour.RED,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{value!s:.8}")
def test_a_value_is_sent_as_str_of_it(value: Any) -> None:
    assert decoded({"k": value, "other": "text"}) == {"k": str(value), "other": "text"}


def test_nan_is_sent_as_its_name() -> None:
    assert decoded({"k": float("nan")}) == {"k": "nan"}


def test_an_empty_payload_is_an_empty_object() -> None:
    assert EventBuffer.encode({}) == b"{}"


def test_plain_strings_are_compact_utf8() -> None:
    assert EventBuffer.encode({"e": "pv", "page": "Größe"}) == '{"e":"pv","page":"Größe"}'.encode()


def test_ten_megabytes_are_one_event() -> None:
    text = "é" * 5_000_000
    assert decoded({"k": text}) == {"k": text}


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d and \ude00", "é\udcff"])
def test_a_lone_surrogate_is_sent_escaped(text: str) -> None:
    encoded = EventBuffer.encode({"k": text, text: "v"})
    assert encoded.isascii()
    assert json.loads(encoded) == {"k": text, text: "v"}


def test_a_lone_surrogate_is_decoded_again() -> None:
    buffer = make_buffer()
    put(buffer, {"k": "\ud800", "n": 1})
    assert buffer.snapshot() == [{"k": "\ud800", "n": "1", "stm": "0" * 13}]
    batch = buffer.take()
    assert batch is not None
    assert batch.decode() == [{"k": "\ud800", "n": "1", "stm": "0" * 13}]


@pytest.mark.parametrize("key", [1, -5, 10**30, 1.5, True, False, None, Word("word"), Colour.RED, float("inf")])
@pytest.mark.parametrize("value", ["text", 7])
def test_a_key_that_json_takes_is_sent_as_json_writes_it(key: Any, value: Any) -> None:
    payload = {key: value}
    assert decoded(payload) == as_reference(payload)


@pytest.mark.parametrize("key", [(1, 2), b"bytes", frozenset(), object()], ids=lambda key: type(key).__name__)
@pytest.mark.parametrize("value", ["text", 7])
def test_a_key_that_json_refuses_stores_nothing(key: Any, value: Any) -> None:
    buffer = make_buffer()
    with pytest.raises(TypeError, match=f"keys must be .*not {type(key).__name__}"):
        buffer.append({"good": "1", key: value})
    assert buffer.queued_events == 0


@pytest.mark.parametrize("payload", [{"stm": "1"}, {"stm": 1, "e": "pv"}, {"e": "pv", "stm": "1", "z": None}])
@pytest.mark.parametrize("form", [dict, OrderedDict, UserDict, MappingProxyType, ChainMap])
def test_the_callers_stm_is_left_out(payload: dict[str, Any], form: Callable[[Any], Any]) -> None:
    before = dict(payload)
    assert decoded(form(payload)) == {name: str(payload[name]) for name in payload if name != "stm"}
    assert payload == before


@pytest.mark.parametrize("form", [dict, OrderedDict, UserDict, MappingProxyType, ChainMap])
@pytest.mark.parametrize("payload", [{}, {"e": "pv"}, {"e": "pv", "n": 5, "x": None}])
def test_any_mapping_is_a_payload(form: Callable[[Any], Any], payload: dict[str, Any]) -> None:
    assert decoded(form(payload)) == as_reference(payload)


def test_a_dict_subclass_is_asked_for_its_items() -> None:
    assert decoded(Renamed(e="pv")) == {"e": "answered pv"}


def test_what_has_keys_and_items_is_a_mapping() -> None:
    duck: Any = Duck()
    assert decoded(duck) == {"e": "pv", "n": "1"}


@pytest.mark.parametrize("payload", [None, 5, "abc", b"ab", [("a", "b")], {"a"}, dict, UserDict, Colour])
def test_what_is_no_mapping_is_refused_by_the_name_of_its_type(payload: Any) -> None:
    buffer = make_buffer()
    with pytest.raises(TypeError, match=rf"must be a mapping .*not {type(payload).__name__}$"):
        buffer.append(payload)
    assert buffer.queued_events == 0


def test_the_callers_dict_is_not_written_to() -> None:
    value = [1]
    payload = {"e": "pv", "n": 1, "stm": "123", "list": value}
    before = dict(payload)
    put(make_buffer(), payload)
    assert payload == before
    assert payload["list"] is value


def test_later_changes_of_the_dict_do_not_reach_the_event() -> None:
    buffer = make_buffer()
    payload = {"e": "pv"}
    put(buffer, payload)
    payload["e"] = "changed"
    assert drain(buffer) == [{"e": "pv", "stm": "0" * 13}]


@pytest.mark.parametrize(
    "change",
    [dict.clear, lambda payload: payload.update({str(i): "new" for i in range(1000)}), dict.popitem],
    ids=["clear", "grow", "shrink"],
)
def test_a_str_that_changes_the_dict_does_not_change_the_event(
    change: Callable[[dict[str, Any]], Any],
) -> None:
    payload: dict[str, Any] = {"a": "1"}
    payload["b"] = Calls(lambda: change(payload))
    payload["c"] = 3
    assert decoded(payload) == {"a": "1", "b": "called", "c": "3"}


def test_a_str_may_append_to_the_same_buffer() -> None:
    buffer = make_buffer()
    put(buffer, {"outer": Calls(lambda: put(buffer, {"inner": 1}))})
    assert [sorted(event) for event in drain(buffer)] == [["inner", "stm"], ["outer", "stm"]]


def test_a_str_that_raises_stores_nothing() -> None:
    def fail() -> None:
        raise LookupError("no text")

    buffer = make_buffer()
    put(buffer, {"n": 1})
    with pytest.raises(LookupError, match="no text"):
        buffer.append({"a": 1, "b": Calls(fail), "c": 2})
    assert drain(buffer) == [{"n": "1", "stm": "0" * 13}]
    assert buffer.next_seq == 1


def test_a_str_that_returns_no_str_stores_nothing() -> None:
    class Wrong:
        def __str__(self) -> Any:
            return 5

    buffer = make_buffer()
    with pytest.raises(TypeError, match="__str__ returned non-string"):
        buffer.append({"a": Wrong()})
    assert buffer.queued_events == 0


keys = st.text(st.characters(), max_size=8).filter(lambda key: key != "stm")
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=8)
texts = st.text(st.characters(), max_size=30)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(payload=st.dictionaries(keys | st.integers() | st.booleans() | st.none(), values, max_size=6))
def test_any_payload_arrives_as_from_the_reference(payload: dict[Any, Any]) -> None:
    assert decoded(payload) == as_reference(payload)


@settings(max_examples=150, deadline=None)
@given(payload=st.dictionaries(keys, texts, max_size=6))
def test_any_payload_of_strings_arrives_as_from_the_reference(payload: dict[str, str]) -> None:
    buffer = make_buffer()
    put(buffer, payload)
    assert drain(buffer) == [{**as_reference(payload), "stm": "0" * 13}]
