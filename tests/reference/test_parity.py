"""What arrives, what callbacks get, what is kept: equal to the reference's, or a difference that is named here.

Both emitters meet a collector of their own, with the same script of answers. Retries are made by `flush` alone: the
reference's timer is cancelled after each failure, since its `flush` does nothing while it runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastemit import Emitter
from fastemit.testing import Collector
from tests.support.delivery import DEADLINE, Rig, rigged
from tests.support.reference import Reference, needs_reference_0_15, references, runner_with_0_15
from tests.support.slow import slow_but

METHODS = pytest.mark.parametrize("method", ["post", "get"])
#: Where fastemit differs on purpose: a 413 is split or dropped, a 414 dropped.
DIFFERENT = {413, 414}


def without_stm(events: list[dict[Any, Any]]) -> list[dict[Any, Any]]:
    for event in events:
        assert re.fullmatch(r"\d{13}", event["stm"])
    return [{name: value for name, value in event.items() if name != "stm"} for event in events]


class Side:
    """One emitter, its collector, and what its callbacks were told."""

    def __init__(self, emitter: Any, collector: Collector) -> None:
        self.emitter = emitter
        self.collector = collector
        self.told: list[Any] = []
        emitter.on_success = self._success
        emitter.on_failure = self._failure

    def _success(self, events: list[dict[Any, Any]]) -> None:
        self.told.append(("success", without_stm(events)))

    def _failure(self, sent_count: int, events: list[dict[Any, Any]]) -> None:
        self.told.append(("failure", sent_count, without_stm(events)))

    def flush(self, status: int) -> None:
        self.collector.respond(status)
        self.emitter.flush()
        if not isinstance(self.emitter, Emitter):
            self.emitter._cancel_retry_timer()

    def outcome(self, status: int | None) -> Any:
        """What can be seen from outside, and with which types."""
        if status is not None:
            self.flush(status)
        requests = [
            (request.method, request.path, request.headers.get("Content-Type"), without_stm(request.events))
            for request in self.collector.requests
        ]
        arrived = without_stm(self.collector.events)
        told, self.told = self.told, []
        self.collector.reset()
        if self.emitter.method == "post":
            # Names as in JSON; see `test_callbacks_get_names_that_are_no_strings_as_they_were`.
            told = json.loads(json.dumps(told))
        return requests, arrived, repr(told), self.emitter.event_store.size()


class Both:
    """fastemit and the reference, side by side."""

    def __init__(self, rig: Rig, make: Reference, theirs: Collector, method: str) -> None:
        emitter = rig.emitter(method=method, max_retry_delay_seconds=120)
        # No retry by itself in the middle of a test; the reference's are cancelled.
        emitter._delivery._schedule.backoff._chance = lambda: 60.0
        self.ours = Side(emitter, rig.collector)
        self.theirs = Side(make(method=method), theirs)

    def input(self, payload: dict[Any, Any]) -> None:
        self.ours.emitter.input(payload)
        self.theirs.emitter.input(dict(payload))

    def compare(self, status: int | None = None) -> None:
        assert self.ours.outcome(status) == self.theirs.outcome(status)


class Makers:
    """Makes a fresh pair, for each example, of emitters whose collectors stay."""

    def __init__(self, rig: Rig, make: Reference, theirs: Collector) -> None:
        self._rig = rig
        self._make = make
        self._theirs = theirs

    def both(self, method: str) -> Both:
        self._rig.collector.reset()
        self._theirs.reset()
        return Both(self._rig, self._make, self._theirs, method)


@pytest.fixture(scope="module")
def makers() -> Iterator[Makers]:
    with rigged() as rig, Collector() as theirs, references(theirs.url) as make:
        yield Makers(rig, make, theirs)


# -- one event, each status ------------------------------------------------------------------------------------------

STATUSES = [*range(200, 209), 226, 300, 301, 302, 303, 304, 307, 308, *range(400, 430), 431, 451, 499]
STATUSES += [500, 501, 502, 503, 504, 505, 507, 511, 520, 529, 599]


@METHODS
@pytest.mark.parametrize(
    "status",
    slow_but([200, 301, 400, 404, 429, 500, 503], [status for status in STATUSES if status not in DIFFERENT]),
)
def test_a_status_means_the_same(makers: Makers, method: str, status: int) -> None:
    both = makers.both(method)
    both.input({"e": "pv", "n": 1, "none": None})
    both.compare(status)
    both.input({"e": "pp", "n": 2})
    if method == "post":
        both.compare(200)
    else:
        # Of a pass of GET the reference judges all by the last, so both are good here.
        both.ours.collector.respond(200)
        both.compare(200)


@METHODS
@pytest.mark.parametrize("status", sorted(DIFFERENT))
def test_a_status_that_means_something_else(makers: Makers, method: str, status: int) -> None:
    both = makers.both(method)
    both.input({"e": "pv"})
    (*ours, left), (*theirs, kept) = both.ours.outcome(status), both.theirs.outcome(status)
    assert ours == theirs
    assert (left, kept) == (0, 1)


@METHODS
@pytest.mark.parametrize("codes", [{500: False, 401: True}, {404: False}, {400: True, 200: True}, {302: False}])
def test_custom_codes_mean_the_same(makers: Makers, method: str, codes: dict[int, bool]) -> None:
    for status in sorted({200, 302, 400, 401, 404, 500, *codes}):
        both = makers.both(method)
        both.ours.emitter.custom_retry_codes = codes
        both.theirs.emitter.custom_retry_codes = codes
        both.input({"e": "pv"})
        both.compare(status)


@METHODS
@pytest.mark.parametrize("status", [200, 400, 503])
def test_callbacks_get_names_that_are_no_strings_as_they_are_sent(makers: Makers, method: str, status: int) -> None:
    both = makers.both(method)
    both.input({1: "int", None: "none", 2.5: "float"})
    for side in (both.ours, both.theirs):
        side.flush(status)
    if method == "get":
        assert both.ours.told == both.theirs.told
    else:
        # An intended difference: only the JSON is kept of an event, and JSON has no other names than strings.
        assert all("'1'" in str(told) and "'null'" in str(told) and "'2.5'" in str(told) for told in both.ours.told)


# -- any payloads, any sequence of calls -----------------------------------------------------------------------------

TEXT = st.text(max_size=12)
CLEAN_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


class Word(str):
    """A `str` of another class."""


class Count(int):
    """An `int` of another class."""


def values(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    scalars = (
        text
        | text.map(Word)
        | st.integers()
        | st.integers(-(2**200), 2**200)
        | st.integers().map(Count)
        | st.floats()
        | st.booleans()
        | st.none()
        | st.binary(max_size=6)
        | st.dates()
        | st.datetimes()
        | st.decimals()
        | st.uuids()
    )
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=2), max_leaves=4
    )


def payloads(text: st.SearchStrategy[str], names: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, Any]]:
    return st.dictionaries((text | names).filter(lambda name: name not in ("stm", "n")), values(text), max_size=4)


POSTS = payloads(TEXT, st.integers() | st.none() | st.booleans() | st.floats(allow_nan=False) | TEXT.map(Word))
GETS = payloads(CLEAN_TEXT, st.integers() | st.none() | st.booleans() | st.binary(max_size=4))
#: Four failures in a row at the most, since a batch that was answered 5xx five times is split.
FLUSHES = st.sampled_from([200, 200, 201, 299, 302, 400, 401, 404, 410, 422, 429, 500, 503])
MANY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(st.lists(st.tuples(st.lists(POSTS, max_size=3), FLUSHES), min_size=1, max_size=4))
def test_any_sequence_of_posts_comes_out_the_same(
    makers: Makers, steps: list[tuple[list[dict[Any, Any]], int]]
) -> None:
    both = makers.both("post")
    number = 0
    for events, status in steps:
        for event in events:
            # So that no two are equal: the reference keeps one of those.
            both.input({**event, "n": number})
            number += 1
        if number and both.theirs.emitter.event_store.size():
            both.compare(status)


@MANY
@given(st.lists(st.tuples(GETS, FLUSHES), min_size=1, max_size=4))
def test_any_sequence_of_gets_comes_out_the_same(makers: Makers, steps: list[tuple[dict[Any, Any], int]]) -> None:
    both = makers.both("get")
    for number, (event, status) in enumerate(steps):
        both.input({**event, "n": number})
        both.compare(status)
        while both.theirs.emitter.event_store.size():
            # One at a time: of several the reference judges all by the last.
            both.compare(200)


@METHODS
def test_batch_size_sends_at_the_same_event(makers: Makers, method: str) -> None:
    both = makers.both(method)
    both.ours.emitter.batch_size = both.theirs.emitter.batch_size = 3
    for number in range(7):
        both.input({"n": number})
        assert both.ours.emitter.drain(DEADLINE) is True if number in (2, 5) else True
        assert both.ours.emitter.event_store.size() == both.theirs.emitter.event_store.size()
    both.compare()


# -- 0.15.0 ----------------------------------------------------------------------------------------------------------

FIXED: list[dict[Any, Any]] = [
    {"e": "pv", "url": "https://example.com/?a=1&b=é", "dtm": 1767225600000},
    {"none": None, "true": True, "float": 1.5, "huge": 2**70, "bytes": b"x", "empty": ""},
    {"list": [1, [2, "x"]], "dict": {"a": 1}, "tuple": ("a", None)},
    {"unicode": "\u2603 \U0001f600", "nul": "\0", "a b": "+%&=~"},
    {},
]
CODES = [200, 204, 302, 400, 401, 404, 410, 422, 429, 500, 503]

WITH_0_15 = """
import json
from snowplow_tracker import Emitter as Reference

told = []
def success(events):
    told.append(["success", [{{k: v for k, v in event.items() if k != "stm"}} for event in events]])
def failure(count, events):
    told.append(["failure", count, [{{k: v for k, v in event.items() if k != "stm"}} for event in events]])

for code, event in {cases!r}:
    emitter = Reference(URL, method={method!r}, batch_size=2, on_success=success, on_failure=failure)
    emitter.input(event)
    emitter.flush()
    emitter._cancel_retry_timer()
    told.append(emitter.event_store.size())
print(json.dumps(repr(told)))
the_end()
"""


@needs_reference_0_15
@METHODS
def test_a_fixed_set_comes_out_as_from_0_15(
    makers: Makers, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [(code, event) for code in CODES for event in FIXED]
    theirs = Collector()
    with theirs:
        for code, _ in cases:
            theirs.respond(code)
        run = runner_with_0_15(tmp_path, monkeypatch)
        ended = run(WITH_0_15.format(cases=cases, method=method), theirs.url)
        reference = [(request.method, request.path, without_stm(request.events)) for request in theirs.requests]
    assert ended.status == 0
    told: list[Any] = []
    requests: list[Any] = []
    for code, event in cases:
        both = makers.both(method)
        both.ours.emitter.input(event)
        both.ours.flush(code)
        requests += [
            (request.method, request.path, without_stm(request.events)) for request in both.ours.collector.requests
        ]
        told += [list(each) for each in both.ours.told]
        told.append(both.ours.emitter.event_store.size())
    assert requests == reference
    assert repr(told) == json.loads(ended.lines[-2])
