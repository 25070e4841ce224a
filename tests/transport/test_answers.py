"""The small reader of answers says what http.client says, or leaves the answer to it."""

from __future__ import annotations

import contextlib
import http.client
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastemit._transport.answers import Answer, read_plain
from tests.transport.test_one_answer_each import TRAPS


class Wire:
    """What http.client wants of a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._data))  # type: ignore[arg-type]


def http_client_reads(data: bytes) -> http.client.HTTPResponse | None:
    """The answer as Python's own client has it; None where it refuses."""
    wire: Any = Wire(data)
    response = http.client.HTTPResponse(wire, method="POST")
    with contextlib.suppress(http.client.HTTPException, ValueError):
        response.begin()
        return response
    return None


def agree(data: bytes) -> None:
    """Whether the small reader says the same as http.client, or nothing."""
    plain = read_plain(data)
    if plain is None:
        return
    answer = http_client_reads(data)
    assert answer is not None
    assert (plain.status, plain.length, plain.keeps) == (answer.status, answer.length, not answer.will_close)
    for ours, theirs in [(plain.retry_after, "Retry-After"), (plain.location, "Location")]:
        value = answer.headers.get(theirs)
        assert ours == (None if value is None else value.strip(" \t"))
    # Where the body begins, and ends.
    try:
        body = answer.read()
    except http.client.IncompleteRead as cut:
        body = cut.partial
    assert body == data[plain.size - plain.length : plain.size]


USUAL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_the_usual_answer_is_read() -> None:
    assert read_plain(USUAL) == Answer(200, None, None, True, len(USUAL), 2)


def test_what_is_asked_for_is_found_in_any_case_and_place() -> None:
    data = b"HTTP/1.1 503 \r\nA: b\r\ncontent-LENGTH:7\t\r\nretry-after: 5 \r\nLOCATION:/x\r\nConnection: Close\r\n\r\n"
    assert read_plain(data) == Answer(503, "5", "/x", False, len(data) + 7, 7)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200",
        b"HTTP/1.1 599 " + b"x" * 10_000,
        b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(b"X-%d: y" % number for number in range(500)),
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 15_000,
        b"HTTP/1.1 200 OK\r\nX:\r\nY: :::",
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nServer: nginx",
    ],
)
def test_other_headers_are_passed_over(head: bytes) -> None:
    plain = read_plain(head + b"\r\nContent-Length: 2\r\n\r\nok")
    assert plain is not None
    assert plain.length == 2


#: Not plain, each for a reason of its own.
UNUSUAL = {
    "nothing": b"",
    "no end": USUAL[:-4],
    "no length": b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n",
    "1.0": USUAL.replace(b"1.1", b"1.0"),
    "1.2": USUAL.replace(b"1.1", b"1.2"),
    "2": USUAL.replace(b"1.1", b"2"),
    "small letters": USUAL.replace(b"HTTP", b"http"),
    "two spaces": USUAL.replace(b" 200", b"  200"),
    "a tab": USUAL.replace(b" 200", b"\t200"),
    "four digits": USUAL.replace(b"200", b"2000"),
    "two digits": USUAL.replace(b"200", b"20"),
    "a plus": USUAL.replace(b"200", b"+20"),
    "zeros": USUAL.replace(b"200", b"020"),
    "interim": USUAL.replace(b"200", b"103"),
    "switching": USUAL.replace(b"200", b"101"),
    "no content": USUAL.replace(b"200", b"204"),
    "not modified": USUAL.replace(b"200", b"304"),
    "a space before it": b" " + USUAL,
    "a line before it": b"\r\n" + USUAL,
    "Latin": USUAL.replace(b"OK", b"\xe9"),
    "chunks": USUAL.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked"),
    "chunks too": USUAL.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "another coding": USUAL.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: identity\r\n\r\n"),
    "the same length twice": USUAL.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n"),
    "two connections": USUAL.replace(b"\r\n\r\n", b"\r\nConnection: x\r\nConnection: close\r\n\r\n"),
    "a line without a colon": USUAL.replace(b"\r\n\r\n", b"\r\nhello\r\n\r\n"),
    "a header without a name": USUAL.replace(b"\r\n\r\n", b"\r\n: x\r\n\r\n"),
    "line feeds": USUAL.replace(b"\r\n", b"\n"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_what_is_unusual_is_left_to_http_client(kind: str) -> None:
    assert read_plain(UNUSUAL[kind]) is None


@pytest.mark.parametrize("where", [b"200", b"OK", b"Con", b": 2", b"2\r"])
def test_a_byte_that_does_not_print_is_left_to_http_client(where: bytes) -> None:
    for byte in range(256):
        if not (32 <= byte < 127 or byte == 9):
            assert read_plain(USUAL.replace(where, where[:1] + bytes([byte]) + where[1:])) is None


@pytest.mark.parametrize("kind", TRAPS)
def test_both_readers_say_the_same_about_an_answer_that_sets_a_trap(kind: str) -> None:
    agree(TRAPS[kind])


# -- by chance ---------------------------------------------------------------------------------------------------------

ODD_BYTES = st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b"\x0b", b"\x0c", b"\x1c", b"\x85", b" ", b"\t", b":"])
NAMES = st.sampled_from(
    [b"Connection", b"Retry-After", b"Location", b"X", b"Y", b"content-length", b"Transfer-Encoding"]
)
VALUES = st.sampled_from(
    [b"close", b"keep-alive", b"Keep-Alive, CLOSE", b"120", b"Wed, 21 Oct 2026 07:28:00 GMT", b"/x", b""]
)
ODD_VALUES = st.binary(max_size=8) | st.sampled_from(
    [b"+2", b"-1", b"0x2", b"2, 2", b"2,5", b"1_0", b"chunked", b"\xb2"]
)
LENGTHS = st.sampled_from([b"2", b"0", b"02", b"8", b"70000"]) | ODD_VALUES
CODES = st.integers(200, 599).map(lambda code: b"%d" % code)
FIRST = st.sampled_from([b" OK", b"", b" ", b" Not  so\tgood"])
ODD_FIRST = st.sampled_from(
    b"""HTTP/1.0 200 OK|HTTP/1.2 200 OK|HTTP/2 200|ICY 200|HTTP/1.1 0200|HTTP/1.1 2 0|HTTP/1.1 99|HTTP/1.1 204 No|
    HTTP/1.1 304 No|HTTP/1.1 100 Go on|HTTP/1.1  200 OK| HTTP/1.1 200 OK|""".split(b"|")
)
SPACES = st.sampled_from([b" ", b" ", b"", b"  ", b"\t"])


@st.composite
def heads(draw: Any) -> bytes:
    """An answer that is odd in few places or none."""
    odd = draw(st.integers(0, 3))
    first = draw(ODD_FIRST) if odd == 1 else b"HTTP/1.1 " + draw(CODES) + draw(FIRST)
    names = draw(st.lists(NAMES, max_size=4, unique=odd != 2))
    values = ODD_VALUES | VALUES if odd == 2 else VALUES
    lines = [name + b":" + draw(SPACES) + draw(values) + draw(SPACES) for name in names]
    lines.insert(draw(st.integers(0, len(lines))), b"Content-Length: " + draw(LENGTHS))
    data: bytes = b"\r\n".join([first, *lines, b"", b""]) + draw(st.binary(max_size=8))
    for _ in range(draw(st.integers(1, 2)) if odd == 3 else 0):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(ODD_BYTES) + data[at + draw(st.integers(0, 2)) :]
    return data


@settings(max_examples=600, deadline=None)
@given(heads())
def test_both_readers_say_the_same_about_any_answer(data: bytes) -> None:
    agree(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(USUAL)), st.integers(0, 4))
def test_both_readers_say_the_same_about_an_answer_that_was_changed_at_one_place(
    piece: bytes, at: int, cut: int
) -> None:
    agree(USUAL[:at] + piece + USUAL[at + cut :])


def test_the_chance_reaches_both_kinds() -> None:
    """Else the two tests above would say nothing."""
    found: set[bool] = set()

    @settings(max_examples=300, deadline=None, database=None)
    @given(heads())
    def look(data: bytes) -> None:
        found.add(read_plain(data) is None)

    look()
    assert found == {True, False}
