"""Files that a power loss, a disk, a person or a newer version has left: told, and nothing sent that is no event."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastemit._buffer import EventBuffer
from fastemit._filed_ring import Recovered
from fastemit._files import SegmentFileError, file_size, format_file, read_header
from tests.support.buffer import drain, must_take, numbers, put
from tests.support.forged_files import COUNT_AT, HEADER_BYTES, JSON_TAIL, PREFIX_LEN, QUERY_TAIL, Forged, json_events

EVENTS = [{"n": str(number), "text": 'x"\\é' * (number % 5)} for number in range(40)]


def reader(query: bool = False) -> EventBuffer:
    return EventBuffer(1000, 1_000_000, 100_000, 10, query=query, files=True)


def recovered(memory: bytearray) -> tuple[Recovered, list[dict[str, str]]]:
    buffer = reader()
    answer = buffer.recover(1, memory)
    assert buffer.check() == 0
    return answer, drain(buffer)


def written() -> bytearray:
    """A file with EVENTS in it, of which the first three are settled and the next three in flight."""
    buffer = reader()
    memory = bytearray(file_size(buffer.file_bytes))
    format_file(memory, 1, 1_700_000_000_000, buffer.file_bytes)
    buffer.lend(1, memory)
    put(buffer, *EVENTS)
    must_take(buffer, 1, 3).sent()
    must_take(buffer, 1, 3).body().release()
    copy = bytearray(memory)
    del buffer
    return copy


WRITTEN = written()
LEFT = [json.dumps(event, sort_keys=True) for event in EVENTS[3:]]
DATA = HEADER_BYTES + 8 * (read_header(WRITTEN).capacity // 64)
USED = DATA + PREFIX_LEN + 5000


def test_what_was_written_is_read() -> None:
    answer, events = recovered(bytearray(WRITTEN))
    assert (answer.events, answer.left, answer.damaged) == (37, 0, [])
    assert [json.dumps({**event, "stm": None}, sort_keys=True) for event in events] == [
        json.dumps({**event, "stm": None}, sort_keys=True) for event in EVENTS[3:]
    ]


changes = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 8 * USED - 1), st.just(0)),
    st.tuples(st.just("zero"), st.integers(0, USED), st.integers(1, 8192)),
    st.tuples(st.just("fill"), st.integers(0, USED), st.integers(1, 300)),
    st.tuples(st.just("truncate"), st.integers(0, len(WRITTEN)), st.just(0)),
    st.tuples(st.just("move"), st.integers(HEADER_BYTES, USED), st.integers(1, 2000)),
    st.tuples(st.just("end"), st.integers(0, 60), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("count"), st.integers(0, 2**64 - 1), st.just(0)),
)


def change(memory: bytearray, how: str, at: int, size: int) -> None:
    if how == "flip" and at // 8 < len(memory):
        memory[at // 8] ^= 1 << at % 8
    elif how == "zero":
        memory[at : at + size] = bytes(len(memory[at : at + size]))
    elif how == "fill":
        memory[at : at + size] = bytes((at + i * 7) % 256 for i in range(len(memory[at : at + size])))
    elif how == "truncate":
        del memory[at:]
    elif how == "move":
        piece = memory[at : at + size]
        to = HEADER_BYTES + (at * 31) % (USED - HEADER_BYTES)
        memory[to : to + len(piece)] = piece[: len(memory[to : to + len(piece)])]
    elif how == "end" and len(memory) > HEADER_BYTES + 4 * at + 4:
        memory[HEADER_BYTES + 4 * at : HEADER_BYTES + 4 * at + 4] = struct.pack("=I", size)
    elif how == "count" and len(memory) > COUNT_AT + 8:
        memory[COUNT_AT : COUNT_AT + 8] = struct.pack("=Q", at)


@settings(max_examples=400, deadline=None)
@given(st.lists(changes, min_size=1, max_size=5))
def test_a_file_that_was_changed_in_any_way_gives_events_that_were_in_it_or_none(
    harm: list[tuple[str, int, int]],
) -> None:
    memory = bytearray(WRITTEN)
    for how, at, size in harm:
        change(memory, how, at, size)
    try:
        answer, events = recovered(memory)
    except SegmentFileError:
        return
    assert answer.events == len(events)
    found = [json.dumps({name: event[name] for name in event if name != "stm"}, sort_keys=True) for event in events]
    known = [json.dumps(event, sort_keys=True) for event in EVENTS]
    assert set(found) <= set(known)
    assert len(set(found)) == len(found)
    for lost, start, end in answer.damaged:
        assert lost > 0
        assert DATA <= start <= end <= len(memory)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 8 * USED - 1) | st.integers(8 * COUNT_AT, 8 * COUNT_AT + 63))
def test_a_bit_that_flips_loses_what_it_is_in_and_says_so(bit: int) -> None:
    memory = bytearray(WRITTEN)
    change(memory, "flip", bit, 0)
    try:
        answer, _ = recovered(memory)
    except SegmentFileError:
        assert bit < 8 * HEADER_BYTES
        return
    damaged = sum(events for events, _, _ in answer.damaged)
    # A settled mark that is none any more is damage too; an end is that of two events.
    assert 37 - 2 <= answer.events <= 37
    assert answer.events + damaged >= 37


@pytest.mark.parametrize("count", [0, 2, 5, 39])
def test_events_that_an_older_first_page_does_not_count_are_found(count: int) -> None:
    memory = bytearray(WRITTEN)
    memory[COUNT_AT : COUNT_AT + 8] = struct.pack("=Q", count)
    answer, events = recovered(memory)
    assert (answer.events, answer.damaged) == (37, [])
    assert numbers([{"n": event["n"]} for event in events]) == list(range(3, 40))
    assert read_header(memory).events == 40


def test_pages_that_were_never_written_are_damage_and_nothing_settled() -> None:
    memory = bytearray(WRITTEN)
    checks = HEADER_BYTES + 4 * (read_header(WRITTEN).capacity // 64)
    memory[checks : checks + 4 * 40] = bytes(4 * 40)
    answer, events = recovered(memory)
    assert events == []
    assert [lost for lost, _, _ in answer.damaged] == [40]


def test_pages_of_an_earlier_use_of_the_file_are_damage() -> None:
    """As when the header of a new use reached the disk, and what was written behind it did not."""
    old = bytearray(WRITTEN)
    new = bytearray(WRITTEN)
    format_file(new, 2, 1_700_000_000_001, read_header(WRITTEN).capacity)
    new[HEADER_BYTES:] = old[HEADER_BYTES:]
    new[COUNT_AT : COUNT_AT + 8] = struct.pack("=Q", 40)
    answer, events = recovered(new)
    assert events == []
    assert sum(lost for lost, _, _ in answer.damaged) == 40


REASONS: dict[str, Any] = {
    "foreign": Forged(magic=b"SQLite f"),
    "newer": Forged(version=2),
    "byte order": Forged(byte_order=0x04030201),
    "other kind": Forged(kind=2),
    "damaged": Forged(kind=3),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_file_that_is_no_such_file_is_told_for_what_it_is(reason: str) -> None:
    with pytest.raises(SegmentFileError) as raised:
        reader().recover(1, REASONS[reason].made())
    assert raised.value.reason == reason
    assert str(raised.value).startswith("the file cannot be read: ")


@pytest.mark.parametrize(
    "lie",
    [
        Forged(byte_order=7),
        Forged(version=0),
        Forged(entries=2**32 - 1),
        Forged(entries=0),
        Forged(data_offset=2**63),
        Forged(count=65),
        Forged(count=2**64 - 1),
        Forged(settled=0),
    ],
    ids=repr,
)
def test_a_header_that_contradicts_itself_is_damage(lie: Forged) -> None:
    with pytest.raises(SegmentFileError) as raised:
        reader().recover(1, lie.made())
    assert raised.value.reason == "damaged"


@pytest.mark.parametrize("length", [0, 1, 8, 4095, 4096, 4100, file_size(4096) - 1])
def test_a_short_file_is_truncated(length: int) -> None:
    with pytest.raises(SegmentFileError) as raised:
        reader().recover(1, Forged(json_events(b'{"a":"1"')).made()[:length] or bytearray(1))
    assert raised.value.reason == "truncated"


def test_a_file_of_zeros_is_blank() -> None:
    with pytest.raises(SegmentFileError) as raised:
        read_header(bytearray(file_size(4096)))
    assert raised.value.reason == "blank"


def test_a_forged_file_with_what_append_writes_is_read() -> None:
    """So what the tests below forge is refused for the one thing that is wrong with it."""
    texts = [b"{", b'{"a":"1"', b'{"\xc3\xa9":"\\u00e9\\n"', b'{"a":"1","b":""']
    events = json_events(*texts)
    events[0] = (b"{", JSON_TAIL[1:])
    answer, found = recovered(Forged(events).made())
    assert answer.damaged == []
    assert found == [{**json.loads(text + b"}"), "stm": "0" * 13} for text in texts]


NO_EVENTS = [
    b'{"a":"1"}, {"b":"2"',
    b'{"a":"1"}]}{"data":[{"b":"2"',
    b'{"a":"1',
    b'{"a":"\x01"',
    b'{"a":"\xff"',
    b'{"a":"\xc3"',
    b'{"a":"\\x"',
    b'{"a":"1",',
    b'{"a"',
    b'{"a":}',
    b'["a"',
    b' {"a":"1"',
    b'"a"',
    b"1",
    b'{"a":' + b"[" * 2000,
    b"",
]


@pytest.mark.parametrize("text", NO_EVENTS, ids=repr)
def test_what_is_no_event_is_not_sent_although_its_check_fits(text: bytes) -> None:
    answer, events = recovered(Forged(json_events(b'{"a":"1"', text, b'{"c":"3"')).made())
    assert [{name: event[name] for name in event if name != "stm"} for event in events] == [{"a": "1"}, {"c": "3"}]
    assert [lost for lost, _, _ in answer.damaged] == [1]


#: Pieces that a text of an event is made of, and others that have no place in it.
pieces = st.sampled_from(
    [
        b'"',
        b":",
        b",",
        b'":"',
        b'","',
        b'"a":"b"',
        b"x" * 7,
        b"x" * 30,
        b"\\",
        b'\\"',
        b"\\\\",
        b"\xc3\xa9",
        b"\x1f",
        b"{",
        b" ",
    ]
)


@settings(max_examples=2000, deadline=None)
@given(st.lists(pieces, max_size=12), st.integers(0, 130))
def test_what_is_sent_is_what_a_parser_reads_as_an_object(parts: list[bytes], shift: int) -> None:
    """`shift` moves the pieces over the borders of the blocks that are looked at in one step."""
    text = b'{"%b":"' % (b"n" * shift) + b"".join(parts)
    answer, events = recovered(Forged(json_events(text)).made())
    try:
        wanted = [json.loads(text + b"}")]
    except ValueError:
        wanted = []
    assert [{name: event[name] for name in event if name != "stm"} for event in events] == wanted
    assert len(answer.damaged) == 1 - len(wanted)


@pytest.mark.parametrize("text", [b'{"a":1', b'{"a":null,"b":[{}]', b'{"a" : "1"', b'{"a":"\\ud800"'], ids=repr)
def test_events_of_unusual_shape_are_sent_if_they_are_json_objects(text: bytes) -> None:
    answer, events = recovered(Forged(json_events(text)).made())
    assert answer.damaged == []
    assert events == [{**json.loads(text + b"}"), "stm": "0" * 13}]


@pytest.mark.parametrize(
    "tail",
    [
        b',"stm":"000000000000x"},',
        b',"stm":"0000000000000"};',
        b',"xtm":"0000000000000"},',
        b',"stm":"0000000000000"] ',
    ],
    ids=repr,
)
def test_an_event_with_another_tail_is_not_sent(tail: bytes) -> None:
    answer, events = recovered(Forged([(b'{"a":"1"', tail)]).made())
    assert events == []
    assert [lost for lost, _, _ in answer.damaged] == [1]


@pytest.mark.parametrize("text", [b"e=pv&a=%C3%A9+b", b"", b"a=b"], ids=repr)
def test_a_query_string_is_read(text: bytes) -> None:
    tail = QUERY_TAIL if text else QUERY_TAIL[1:]
    answer = reader(query=True).recover(1, Forged([(text, tail)], kind=2).made())
    assert (answer.events, answer.damaged) == (1, [])


@pytest.mark.parametrize("text", [b"a=b c", b"a=b\r\nHost: x", b"a=b#c", b"a=\xc3\xa9", b"a=\0"], ids=repr)
def test_what_is_no_query_string_is_not_sent(text: bytes) -> None:
    answer = reader(query=True).recover(1, Forged([(text, QUERY_TAIL)], kind=2).made())
    assert (answer.events, len(answer.damaged)) == (0, 1)


def test_events_that_lie_over_each_other_are_sent_once() -> None:
    """Or a small file could stand for any number of bytes."""
    first = (b'{"a":"' + b"x" * 100 + b'"', JSON_TAIL)
    forged = Forged([first] * 3)
    whole = PREFIX_LEN + len(first[0]) + len(JSON_TAIL)
    memory = forged.made()
    for index in (1, 3):
        # Entries 1 and 3 end where the file begins, so that 2 and 4 begin there, and are event 0 once more.
        forged._enter(memory, HEADER_BYTES + 4 * index, PREFIX_LEN)
        forged._enter(memory, HEADER_BYTES + 4 * (index + 1), whole)
    places = forged.capacity // 64
    check = memory[HEADER_BYTES + 4 * places : HEADER_BYTES + 4 * places + 4]
    for index in (2, 4):
        memory[HEADER_BYTES + 4 * (places + index) : HEADER_BYTES + 4 * (places + index) + 4] = check
    memory[COUNT_AT : COUNT_AT + 8] = struct.pack("=Q", 5)
    answer, events = recovered(memory)
    assert len(events) == 1
    assert sum(lost for lost, _, _ in answer.damaged) == 4


def test_a_reader_allocates_no_more_than_the_file_is_large() -> None:
    memory = bytearray(WRITTEN)
    memory[HEADER_BYTES : HEADER_BYTES + 4 * 40] = struct.pack("=40I", *([2**32 - 1] * 40))
    buffer = reader()
    tracemalloc.start()
    try:
        buffer.recover(1, memory)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(memory)


def test_what_has_no_room_is_left_in_its_file_for_later() -> None:
    memory = bytearray(WRITTEN)
    buffer = EventBuffer(10, 1_000_000, 100_000, 10, files=True)
    seen = []
    left = 37
    while left:
        answer = buffer.recover(1, memory)
        assert (answer.events, answer.left) == (min(left, 10), max(left - 10, 0))
        left -= answer.events
        seen += numbers([{"n": event["n"]} for event in drain(buffer)])
        assert buffer.finished() == [1]
    assert seen == list(range(3, 40))


def test_a_file_that_is_lent_must_be_empty_and_its_number_free() -> None:
    buffer = reader()
    with pytest.raises(ValueError, match="must be empty"):
        buffer.lend(1, bytearray(WRITTEN))
    memory = bytearray(file_size(buffer.file_bytes))
    format_file(memory, 1, 0, buffer.file_bytes)
    buffer.lend(1, memory)
    with pytest.raises(ValueError, match="number 1 is that of a file which the buffer has already"):
        buffer.lend(1, bytearray(memory))
    with pytest.raises(ValueError, match="files=True"):
        EventBuffer(1, 1, 1024, 1).lend(1, memory)
