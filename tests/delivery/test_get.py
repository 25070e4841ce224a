"""GET: query strings as the reference's requests makes them, one request for each event."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest
import snowplow_tracker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastemit import Emitter
from fastemit.testing import Collector
from tests.support.delivery import DEADLINE, Rig, numbers, put, rigged
from tests.support.emitters import QUICK, Recorder, accounted
from tests.support.waiting import until

BACKGROUND = pytest.mark.parametrize("background", [True, False])


def sent(rig: Rig) -> list[int]:
    """The numbers of all requests in the order of arrival, accepted or not."""
    return [int(request.events[0]["n"]) for request in rig.collector.requests]


# -- the request target ----------------------------------------------------------------------------------------------


class Pair:
    """A fastemit emitter and the reference's, both with GET, at the same collector."""

    def __init__(self, collector: Collector, emitter: Emitter) -> None:
        self._collector = collector
        self._ours = emitter
        self._theirs = snowplow_tracker.Emitter(collector.url, method="get")

    def _target(self) -> str:
        (request,) = self._collector.requests
        self._collector.reset()
        assert (request.method, request.body) == ("GET", b"")
        return re.sub(r"(?<=[?&]stm=)\d{13}\Z", "STM", request.target)

    def targets(self, ours: dict[Any, Any], theirs: dict[Any, Any]) -> tuple[str, str]:
        """What both send for an event, the digits of `stm` at its end apart."""
        self._theirs.input(theirs)
        reference = self._target()
        self._ours.input(ours)
        assert self._ours.drain(DEADLINE) is True
        return self._target(), reference


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with rigged() as rig:
        yield Pair(rig.collector, rig.emitter(method="get"))


PAYLOADS: dict[str, dict[Any, Any]] = {
    "empty": {},
    "strings": {"e": "pv", "page": "Green tea, all sorts", "url": "https://example.com/?a=1&b=%20#x"},
    "reserved": {"a": "+%&=~", "b": "!*'();:@/?#[],$", "c": "-._~", "+%&=~ ": "name", "d": '"<>\\^`{|}'},
    "spaces": {"a b": " c d ", "tab": "\t", "line": "\r\n", "nul": "\0"},
    "unicode": {"name": "Zoë \u2603 \U0001f600", "ключ": "значение", "no-break": "\xa0"},
    "encoded already": {"a": "%41%7e%zz%", "b": "%E2%98%83"},
    "empty strings": {"": "", "a": "", "b": [""], "c": ["", ""]},
    "none": {"a": None, "b": [None], "c": [None, 1, None], "d": "None"},
    "numbers": {"a": 1, "b": -1, "c": 2**80, "d": 1.5, "e": 1e100, "f": float("nan"), "g": float("-inf"), "h": 1j},
    "booleans": {"a": True, "b": False},
    "bytes": {"a": b"\x00\xff +", b"b": "name", "c": [b"x", "y"], "d": bytearray(b"ab")},
    "lists": {"a": [1, "two", 3.0], "b": [], "c": ("x", "y"), "d": range(3)},
    "nested lists": {"a": [[1, 2], [3, [4, 5]]], "b": [(1, "x")], "c": [[]], "d": [["a b"], None]},
    "dicts": {"a": {"x": 1, "y z": 2}, "b": [{"x": 1}], "c": {}},
    "sets": {"a": {1}, "b": frozenset("x"), "c": {"k": 1}.keys()},
    "names": {1: "int", 2.5: "float", None: "none", False: "false", ("a", 1): "tuple", b"\xff": "bytes"},
    "objects": {"a": object, "b": Ellipsis, "c": ValueError("a b")},
}


@pytest.mark.parametrize("kind", PAYLOADS)
def test_the_target_is_that_of_the_reference(pair: Pair, kind: str) -> None:
    ours, theirs = pair.targets(PAYLOADS[kind], dict(PAYLOADS[kind]))
    assert ours == theirs


def test_a_generator_is_read_once_as_by_the_reference(pair: Pair) -> None:
    ours, theirs = pair.targets({"a": iter("xyz"), "b": map(str, [1, 2])}, {"a": iter("xyz"), "b": map(str, [1, 2])})
    assert ours == theirs == "/i?a=x&a=y&a=z&b=1&b=2&stm=STM"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.text("+%&=~ /?#Aé", max_size=8)
SCALARS = TEXT | st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=8) | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXT, inner, max_size=2)
        | TEXT.map(lambda text: {text})
    ),
    max_leaves=6,
)
NAMES = (TEXT | st.integers() | st.none() | st.binary(max_size=4)).filter(lambda name: name != "stm")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_the_target_of_any_payload_is_that_of_the_reference(pair: Pair, payload: dict[Any, Any]) -> None:
    ours, theirs = pair.targets(payload, dict(payload))
    assert ours == theirs


@pytest.mark.parametrize("payload", [{"a": "\ud800"}, {"\udfff": "a"}, {"a": ["x", "\ud83d"]}])
@BACKGROUND
def test_a_lone_surrogate_is_refused_by_input(rig: Rig, payload: dict[str, Any], background: bool) -> None:
    emitter = rig.emitter(method="get", background=background)
    with pytest.raises(UnicodeEncodeError):
        emitter.input(payload)
    assert accounted(emitter.stats()) == 0
    put(emitter)
    assert emitter.drain() is True
    assert sent(rig) == [0]


@pytest.mark.parametrize("payload", [None, "a=b", 3, [("a", "b")]])
def test_what_is_no_mapping_is_refused_by_input(rig: Rig, payload: Any) -> None:
    emitter = rig.emitter(method="get")
    with pytest.raises(TypeError, match="payload must be a mapping"):
        emitter.input(payload)
    assert accounted(emitter.stats()) == 0


def test_stm_is_last_set_anew_at_each_attempt_and_takes_the_place_of_the_caller_s(rig: Rig) -> None:
    rig.collector.respond(500)
    emitter = rig.emitter(method="get", batch_size=1, max_retry_delay_seconds=QUICK)
    emitter.input({"stm": "mine", "a": "1"})
    requests = rig.collector.wait_for_requests(2)
    queries = [re.fullmatch(r"a=1&stm=(\d{13})", request.query) for request in requests]
    first, second = [int(match[1]) for match in queries if match is not None]
    assert first < second


@pytest.mark.parametrize(("endpoint", "path"), [("", "/i"), ("/pre/fix/", "/pre/fix/i"), ("/a%20b", "/a%20b/i")])
def test_the_path_follows_the_prefix(rig: Rig, endpoint: str, path: str) -> None:
    emitter = rig.emitter(endpoint=rig.collector.url + endpoint, method="get")
    emitter.input({"a": "1"})
    assert emitter.drain() is True
    (request,) = rig.collector.requests
    assert request.path == path
    assert emitter.endpoint == rig.collector.url + path


def test_user_and_password_are_sent_and_not_in_the_target(rig: Rig) -> None:
    emitter = rig.emitter(endpoint=rig.collector.url.replace("//", "//jo:se%40cret@"), method="get")
    emitter.input({"a": "1"})
    assert emitter.drain() is True
    (request,) = rig.collector.requests
    assert base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")) == b"jo:se@cret"
    assert request.target.startswith("/i?a=1&stm=")
    assert "cret" not in emitter.endpoint


# -- one request for each event --------------------------------------------------------------------------------------


def test_a_get_goes_out_for_each_event_as_it_comes_by_default(rig: Rig) -> None:
    emitter = Emitter(rig.collector.url, method="get")
    assert emitter.batch_size == 1
    for number in range(3):
        put(emitter, first=number)
        rig.collector.wait_for(number + 1)
    assert emitter.close() == 0
    assert rig.requests() == [[0], [1], [2]]


def test_all_requests_go_over_one_connection(rig: Rig) -> None:
    emitter = rig.emitter(method="get")
    put(emitter, 250)
    assert emitter.drain() is True
    assert numbers(rig.collector.events) == list(range(250))
    assert rig.collector.connections == 1


def statuses(rig: Rig, *codes: int) -> None:
    for code in codes:
        rig.collector.respond(code)


@BACKGROUND
def test_each_event_is_judged_by_its_own_status(rig: Rig, background: bool) -> None:
    statuses(rig, 200, 400, 204, 414, 413)
    told = Recorder()
    emitter = rig.emitter(method="get", background=background, on_success=told.success, on_failure=told.failure)
    put(emitter, 6)
    assert emitter.drain() is True
    assert [numbers(events) for events in told.successes] == [[0, 2, 5]]
    assert [(count, numbers(events)) for count, events in told.failures] == [(3, [1, 3, 4])]
    stats = emitter.stats()
    assert (stats.sent_events, stats.dropped_events["rejected"], stats.requests) == (3, 3, 6)
    assert accounted(stats) == 6


@BACKGROUND
def test_a_pass_stops_at_the_first_event_that_is_kept(rig: Rig, background: bool) -> None:
    statuses(rig, 200, 400, 503)
    told = Recorder()
    emitter = rig.emitter(method="get", background=background, on_success=told.success, on_failure=told.failure)
    put(emitter, 5)
    assert emitter.drain() is False
    assert sent(rig) == [0, 1, 2]
    assert [numbers(events) for events in told.successes] == [[0]]
    assert [(count, numbers(events)) for count, events in told.failures] == [(1, [1, 2])]
    stats = emitter.stats()
    assert (stats.queued_events, stats.retried_events, stats.in_flight_events) == (3, 1, 0)
    assert emitter.retry_delay > 0


def test_kept_events_go_before_newer_ones_in_order(rig: Rig) -> None:
    emitter = rig.emitter(method="get")
    put(emitter, 3)
    rig.shut_the_gate(emitter)
    put(emitter, 2, first=3)
    assert emitter.drain() is True
    assert sent(rig) == [0, 0, 1, 2, 3, 4]


@BACKGROUND
def test_a_pass_takes_up_to_a_hundred(rig: Rig, background: bool) -> None:
    told = Recorder()
    emitter = rig.emitter(method="get", background=background, on_success=told.success)
    put(emitter, 230)
    assert emitter.drain() is True
    assert [len(events) for events in told.successes] == [100, 100, 30]
    assert numbers([event for events in told.successes for event in events]) == list(range(230))


def test_an_event_that_is_always_answered_500_does_not_hold_up_the_rest(rig: Rig) -> None:
    rig.collector.respond(lambda request: 500 if request.events[0]["n"] == "000000" else 200, times=None)
    emitter = rig.emitter(method="get", batch_size=1, max_retry_delay_seconds=QUICK)
    put(emitter, 3)
    until(lambda: sorted(numbers(rig.collector.events)) == [1, 2])
    assert sent(rig)[:5] == [0] * 5


def test_a_custom_code_rules_each_event(rig: Rig) -> None:
    statuses(rig, 500, 413)
    emitter = rig.emitter(method="get", custom_retry_codes={500: False, 413: True})
    put(emitter, 2)
    assert emitter.drain() is False
    assert (emitter.stats().dropped_events["rejected"], emitter.stats().queued_events) == (1, 1)


# -- callbacks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 503])
@BACKGROUND
def test_callbacks_get_the_values_as_they_were_given_and_stm(rig: Rig, status: int, background: bool) -> None:
    statuses(rig, status)
    told: list[Any] = []
    emitter = rig.emitter(
        method="get", background=background, on_success=told.extend, on_failure=lambda _, events: told.extend(events)
    )
    payload = {"n": 1, "none": None, "list": [1, [2]], "bytes": b"x", "float": 1.5, "true": True, 7: "int", "stm": "x"}
    emitter.input(payload)
    emitter.drain()
    (event,) = told
    stm = event.pop("stm")
    assert event == {name: value for name, value in payload.items() if name != "stm"}
    assert [type(value) for value in event.values()] == [int, type(None), list, bytes, float, bool, str]
    assert re.fullmatch(r"\d{13}", stm)


def test_the_caller_s_dict_is_not_touched_and_its_later_changes_change_nothing(rig: Rig) -> None:
    told = Recorder()
    emitter = rig.emitter(method="get", on_success=told.success)
    payload: dict[str, Any] = {"a": "1", "list": [1, 2]}
    emitter.input(payload)
    payload["a"] = "2"
    payload["b"] = "3"
    payload["list"].append(3)
    assert emitter.drain() is True
    assert rig.collector.requests[0].query.startswith("a=1&list=1&list=2&stm=")
    assert payload == {"a": "2", "b": "3", "list": [1, 2, 3]}
    ((event,),) = told.successes
    assert event["a"] == "1"
    assert "b" not in event
