"""The writer of plain dictionaries gives what orjson gives of the same, byte for byte."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastemit._buffer import EventBuffer
from tests.support.buffer import make_buffer

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
#: What the writer takes, and what makes it give up and leave the event to orjson.
VALUES = st.one_of(TEXT, st.integers(), st.none(), st.booleans(), st.floats())


def written(payload: dict[str, Any], max_bytes: int = 1_000_000) -> bytes:
    """The one event in the body, as it lies there."""
    buffer = make_buffer(max_bytes=max_bytes)
    assert isinstance(buffer.append(payload), int)
    batch = buffer.take()
    assert batch is not None
    body = bytes(batch.body())
    batch.sent()
    assert buffer.check() == 0
    return body[body.index(b'"data":[') + 8 : -2]


def expected(payload: dict[str, Any]) -> bytes:
    return orjson.dumps({name: str(value) for name, value in payload.items()} | {"stm": "0" * 13})


@settings(max_examples=200)
@given(st.dictionaries(TEXT.filter(lambda name: name != "stm"), VALUES, max_size=8))
@example({"e": "x" * 100_000})
def test_a_plain_event_is_written_as_orjson_writes_it(payload: dict[str, Any]) -> None:
    assert written(payload) == expected(payload)


@pytest.mark.parametrize("length", range(20))
def test_a_special_character_is_found_wherever_it_stands(length: int) -> None:
    for special in map(chr, (*range(0x20), 0x22, 0x5C, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000)):
        for at in range(length + 1):
            payload = {"e": "a" * at + special + "b" * (length - at)}
            assert written(payload) == expected(payload)


@pytest.mark.parametrize("number", [0, -1, 9, 10, 2**31, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**30])
def test_an_int_is_written_as_str_writes_it(number: int) -> None:
    assert written({"n": number}) == expected({"n": number})


FLOATS = [
    *(0.0, -0.0, 12.5, -12.25, 0.1, 100.0, 0.001, 0.0012, 0.00099, 1e-4, 1e-5, 99999.99995, 123456.7891),
    *(0.1 + 0.2, 1 / 3, 1e10, 9999999999.9999, 9999999999.99999, 1e15, 1e16, 1e22, 5e-324, 1.7976931348623157e308),
    *(-2.5e-9, 2**53 + 0.0, float("nan"), float("inf"), -float("inf")),
]


@pytest.mark.parametrize("number", FLOATS)
def test_a_float_is_written_as_str_writes_it(number: float) -> None:
    assert written({"n": number}) == expected({"n": number})


@settings(max_examples=500)
@given(st.integers(-(10**16), 10**16), st.integers(0, 8))
def test_a_float_of_few_digits_is_written_as_str_writes_it(digits: int, places: int) -> None:
    for number in (digits / 10**places, math.nextafter(digits / 10**places, math.inf)):
        assert written({"n": number}) == expected({"n": number})


@pytest.mark.parametrize("size", [1_048_200, 1_048_250, 1_048_576])
@pytest.mark.parametrize("character", ["a", '"', "\x01", "é", "\u20ac"])
def test_an_event_that_just_fits_the_writer_or_just_does_not_is_the_same(size: int, character: str) -> None:
    length = size // len(orjson.dumps(character)[1:-1])
    for payload in ({"e": character * more, "f": 1} for more in range(length - 5, length + 5)):
        assert written(payload, max_bytes=1 << 24) == expected(payload)


def test_a_plain_event_that_is_refused_can_be_put_in_later() -> None:
    buffer = EventBuffer(1, 1 << 20, 1_000_000, 1)
    assert buffer.append({"e": "first"}) == 1
    refused = buffer.append({"e": "second", "n": 2})
    assert refused == b'{"e":"second","n":"2"}'
    batch = buffer.take()
    assert batch is not None
    batch.sent()
    assert buffer.append_encoded(refused) == 1
    assert buffer.snapshot() == [{"e": "second", "n": "2", "stm": "0" * 13}]
