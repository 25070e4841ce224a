"""Strings of every kind, length and mixture are written byte for byte as orjson writes them."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.buffer.test_buffer_flat import expected, written
from tests.support.buffer import drain, make_buffer

#: One for each way in which CPython stores a string, and for each number of bytes that a character takes.
PLAIN = {"ascii": "a", "latin-1": "é", "two bytes": "ж", "three bytes": "漢", "four bytes": "😀"}
#: The edges of what is escaped, and of each number of bytes.
SPECIAL = [
    *map(chr, range(0x20)),
    *' !"#[\\]~\x7f\x80\xff\u0100\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff',
]
LENGTHS = range(1, 70)


def assert_written(payload: dict[str, Any]) -> None:
    assert written(payload) == expected(payload)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_special_character_is_written_right_at_each_place(kind: str) -> None:
    plain = PLAIN[kind]
    for special, length in itertools.product(SPECIAL, LENGTHS):
        texts = [plain * at + special + plain * (length - at - 1) for at in range(length)]
        assert_written({f"value {at}": text for at, text in enumerate(texts)})
        assert_written({text + "=": "as a name" for text in texts})


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("special", ['"', "\x01", "\n", "é", "ж", "漢", "😀"])
def test_specials_at_regular_distances_are_written_right(kind: str, special: str) -> None:
    distances = (1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 64, 65, 80)
    lengths = (*LENGTHS, 79, 80, 81, 95, 96, 97, 143, 144, 145, 1000)
    for every, length in itertools.product(distances, lengths):
        text = ((PLAIN[kind] * (every - 1) + special) * (length // every + 1))[:length]
        assert_written({"a": text, text: "b"})


@pytest.mark.parametrize("kind", PLAIN)
def test_a_lone_surrogate_is_noticed_at_each_place(kind: str) -> None:
    for length in LENGTHS:
        for at in range(length):
            text = PLAIN[kind] * at + "\udc00" + PLAIN[kind] * (length - at - 1)
            event = orjson.loads(written({"a": text}).replace(b"\\udc00", b"<here>"))
            assert event == {"a": text.replace("\udc00", "<here>"), "stm": "0" * 13}


@st.composite
def mixed(draw: Any) -> str:
    """Runs of one kind of character or another, of lengths around what is copied in one step."""
    runs = draw(
        st.lists(
            st.tuples(st.sampled_from([*PLAIN.values(), *SPECIAL]), st.integers(1, 64) | st.sampled_from([8, 16, 64])),
            min_size=1,
            max_size=8,
        )
    )
    return "".join(character * count for character, count in runs)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(mixed() | st.text(st.characters(codec="utf-8"), max_size=64), mixed(), max_size=4))
def test_any_mixture_is_written_right(payload: dict[str, str]) -> None:
    payload.pop("stm", None)
    assert_written(payload)


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=-(2**64), max_value=2**64) | st.integers(0, 20).map(lambda power: 10**power))
@example(2**63 - 1)
@example(-(2**63))
def test_any_int_is_written_as_str_writes_it(number: int) -> None:
    assert_written({"a": number, "b": number - 1, "c": -number})


@pytest.mark.parametrize("character", ["a", "\x01", "é", "漢", "😀"])
def test_an_event_that_ends_where_a_segment_does_is_written_right(character: str) -> None:
    """It is written into the segment itself, with whatever room there is left."""
    for left in range(1, 60):
        buffer = make_buffer()
        first = {"e": "x" * (900 - left)}
        second = {"e": character * 12, "n": character * 7}
        assert isinstance(buffer.append(first), int)
        assert isinstance(buffer.append(second), int)
        assert buffer.check() == 0
        assert drain(buffer) == [event | {"stm": "0" * 13} for event in (first, second)]
