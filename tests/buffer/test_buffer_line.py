"""Lines of JSON that are queued without becoming a dict: what is taken is what a parser would have read."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastemit._buffer import EventBuffer
from fastemit.cli._payload import BadLineError, read_payload


def buffer(**settings: Any) -> EventBuffer:
    return EventBuffer(1_000, 1 << 24, 1_000_000, 1_000, **settings)


def taken(line: bytes) -> dict[str, Any] | None:
    """The event that a line is queued as, by a strict parser; None if the line is left to Python."""
    into = buffer()
    if into.append_line(line) is None:
        assert into.queued_events == 0
        return None
    batch = into.take()
    assert batch is not None
    event: dict[str, Any] = orjson.loads(bytes(batch.body()))["data"][0]
    assert event.pop("stm") == "0" * 13
    batch.sent()
    assert into.check() == 0
    return event


def read(line: bytes) -> dict[str, str] | None:
    try:
        payload = read_payload(line)
    except BadLineError:
        return None
    if payload is not None:
        payload.pop("stm", None)
    return payload


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ('{"e":"pv"}', {"e": "pv"}),
        (' { "e" : "pv" ,\t"p": "web" } \r', {"e": "pv", "p": "web"}),
        ('{"n":0,"i":-12,"f":1.50,"x":1E+3,"y":2e-2}', {"n": "0", "i": "-12", "f": "1.50", "x": "1E+3", "y": "2e-2"}),
        ('{"big":123456789012345678901234567890}', {"big": "123456789012345678901234567890"}),
        ('{"t":true,"f":false}', {"t": "true", "f": "false"}),
        ('{"stm":"1","e":"pv"}', {"e": "pv"}),
        ('{"e":"pv","stm":1}', {"e": "pv"}),
        (r'{"q":"a\"b\\c\/d\b\f\n\r\t\u00e9\u20AC"}', {"q": 'a"b\\c/d\b\f\n\r\té€'}),
        ('{"é":"漢字 \N{PARTY POPPER} \u007f"}', {"é": "漢字 \N{PARTY POPPER} \u007f"}),
        ('{"":""}', {"": ""}),
        (r'{"e":"\ud83c\udf89\uD83C\uDF89"}', {"e": "\N{PARTY POPPER}" * 2}),
        ('{"a":null,"e":"pv","b": null ,"c":"null","d":null}', {"e": "pv", "c": "null"}),
    ],
)
def test_a_simple_line_is_taken(line: str, event: dict[str, str]) -> None:
    assert taken(line.encode()) == event
    assert read(line.encode()) == event


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "{}",
        "[]",
        '"e"',
        '{"e"}',
        '{"e":}',
        '{"e":"pv"',
        '{"e":"pv',
        '{"e":"pv",}',
        '{,"e":"pv"}',
        '{"e":"pv"}}',
        '{"e":"pv"},{"e":"pv"}',
        '{"e":"pv"} {"e":"pv"}',
        '{"e":"pv" "p":"web"}',
        '{"e";"pv"}',
        "{'e':'pv'}",
        '{"e":01}',
        '{"e":+1}',
        '{"e":1.}',
        '{"e":.5}',
        '{"e":1e}',
        '{"e":-}',
        '{"e":NaN}',
        '{"e":tru}',
        '{"e":truex}',
        '{"e":{}}',
        '{"e":[]}',
        '{"e":null}',
        '{"e":"1","e":null}',
        '{"e":null,"e":"1"}',
        '{"e":"1","p":nul}',
        '{"e":"1","p":nulll}',
        '{"stm":"1","p":null}',
        '{"stm":"1"}',
        '{"e":"1","e":"2"}',
        r'{"s\u0074m":"1","e":"pv"}',
        r'{"e":"\udf89\ud83c"}',
        r'{"e":"\ud83c\ud83c"}',
        r'{"e":"\ud83c\n"}',
        r'{"e":"\ud83cudf89"}',
        r'{"e":"\ud800"}',
        r'{"e":"\x"}',
        r'{"e":"\u12"}',
        r'{"e":"\u12g4"}',
        '{"e":"\t"}',
        '{"e":"pv"}\0',
    ],
)
def test_any_other_line_is_left_alone(line: str) -> None:
    assert taken(line.encode()) is None


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x80",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5",
        b"\xe2\x82",
        b"\xc3",
    ],
)
def test_what_is_not_utf8_is_left_alone(wrong: bytes) -> None:
    assert taken(b'{"e":"' + wrong + b'"}') is None
    assert taken(b'{"e":"' + wrong) is None


def test_65_names_are_too_many_and_64_are_not() -> None:
    event = {f"n{number}": number for number in range(64)}
    assert taken(orjson.dumps(event)) == {name: str(number) for name, number in event.items()}
    assert taken(orjson.dumps({**event, "n64": 1})) is None


def test_a_long_line_is_left_alone() -> None:
    assert taken(b'{"e":"' + b"x" * 1_000_000 + b'"}') == {"e": "x" * 1_000_000}
    assert taken(b'{"e":"' + b"x" * 1_100_000 + b'"}') is None


def test_a_line_without_room_is_handed_back() -> None:
    into = EventBuffer(1, 1 << 20, 1_000_000, 10)
    line = b'{"e": 1}'
    assert isinstance(into.append_line(line), int)
    assert into.append_line(line) == b'{"e":"1"}'
    into.close()
    assert into.append_line(line) == b'{"e":"1"}'
    assert into.queued_events == 1


def test_a_buffer_of_query_strings_takes_no_line() -> None:
    assert buffer(query=True, keep=True).append_line(b'{"e":"pv"}') is None


members = st.dictionaries(
    st.text(max_size=9),
    st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.none()),
    max_size=6,
)


@st.composite
def lines(draw: Any) -> bytes:
    """JSON of all kinds, and a few bytes changed in half of it."""
    ascii_only = draw(st.booleans())
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), ("\t,", "\r: ")]))
    document = draw(st.one_of(members, st.lists(members, max_size=2)))
    line = bytearray(json.dumps(document, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "replace"))
    if draw(st.booleans()):
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.integers(0, len(line)))
            line[at : at + draw(st.integers(0, 2))] = draw(
                st.one_of(
                    st.binary(max_size=2), st.sampled_from([b'"', b"\\", b",", b":", b"{", b"}", b"1", b"e", b"\xc3"])
                )
            )
    return bytes(line)


@settings(max_examples=200, deadline=None)
@given(lines())
@example(b'{"a":1,"a":"x\\":"}')
def test_what_is_taken_is_what_a_parser_reads(line: bytes) -> None:
    event = taken(line)
    assert event is None or event == read(line)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
        st.text(st.characters(exclude_categories=["Cs"])),
        min_size=1,
    )
)
def test_what_orjson_writes_of_strings_is_taken(payload: dict[str, str]) -> None:
    line = orjson.dumps(payload)
    payload.pop("stm", None)
    escaped = any("\\" in orjson.dumps(name).decode() for name in payload)
    assert taken(line) == (None if escaped or not payload else payload)
