"""What a worker does with a batch, seen without a broker: parts, destinations, connections."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastemit._buffer import EventBuffer
from fastemit._transport.endpoint import parse_endpoint
from fastemit.celery.worker import Destination, Part, Relay
from fastemit.testing import Collector
from tests.support.delivery import answering, numbers

EVENTS = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=4), min_size=2, max_size=9)
ADDRESS = {"scheme": "http", "host": "h", "port": None, "path": "/i", "username": None, "password": None}
NOW = 1_700_000_000_000


def body_of(events: list[dict[str, Any]]) -> bytes:
    """As an emitter writes it."""
    buffer = EventBuffer(len(events), 1 << 20, 1 << 20, 1)
    for event in events:
        assert buffer.append(event) in (0, 1)
    batch = buffer.take()
    assert batch is not None
    batch.stamp(NOW)
    body = bytes(batch.body())
    batch.sent()
    return body


def part_of(count: int) -> Part:
    return Part(body_of([{"n": number} for number in range(count)]))


def destination(url: str, **settings: Any) -> Destination:
    return Destination(parse_endpoint(url), "post", **settings)


# -- parts -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(events=EVENTS)
def test_halves_hold_the_same_events_in_the_same_order(events: list[dict[str, str]]) -> None:
    part = Part(body_of(events), 3)
    first, second = part.halves()
    whole, one, other = (json.loads(each.body) for each in (part, first, second))
    assert one["data"] + other["data"] == whole["data"]
    assert one["schema"] == other["schema"] == whole["schema"]
    assert (len(first), len(second)) == (len(one["data"]), len(other["data"]))
    assert abs(len(first) - len(second)) <= 1
    assert first.server_errors == second.server_errors == 3


@settings(deadline=None, max_examples=100)
@given(events=EVENTS)
def test_a_new_stamp_changes_the_stamps_and_nothing_else(events: list[dict[str, str]]) -> None:
    part = Part(body_of(events))
    before, after = json.loads(part.body)["data"], json.loads(part.stamped(False, NOW + 5))["data"]
    assert {event.pop("stm") for event in after} == {str(NOW + 5)}
    assert {event.pop("stm") for event in before} == {str(NOW)}
    assert after == before


@pytest.mark.parametrize(
    ("query", "stamped"),
    [
        ("e=pv&stm=1700000000000", "e=pv&stm=1700000000005"),
        ("stm=1700000000000", "stm=1700000000005"),
        ("xstm=1700000000000", "xstm=1700000000000"),
        ("stm=1700000000000&e=pv", "stm=1700000000000&e=pv"),
    ],
)
def test_the_stamp_of_a_query_is_its_last_field(query: str, stamped: str) -> None:
    assert Part(query.encode()).stamped(True, NOW + 5) == stamped.encode()


def test_what_no_emitter_has_written_is_one_part() -> None:
    part = Part(b'{"anything": 1}')
    assert len(part) == 1
    assert part.stamped(False, NOW) == b'{"anything": 1}'


# -- destinations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "to",
    [
        destination("http://collector.example.com"),
        destination(
            "https://ann:secret@[::1]:8443/prefix",
            timeout=(1.5, 20),
            headers={"X-Team": "tea"},
            ca_certs="/somewhere",
            max_delay=0.5,
            retry_codes={404: False, 400: True},
            max_bytes=2048,
        ),
    ],
)
def test_a_destination_is_the_same_after_json(to: Destination) -> None:
    assert Destination.read(json.loads(json.dumps(to.written()))) == to


def test_what_a_newer_version_adds_to_a_destination_is_left_out() -> None:
    to = destination("http://collector.example.com")
    written = {**to.written(), "new": 1}
    written["endpoint"]["new"] = 1
    assert Destination.read(written) == to


@pytest.mark.parametrize(
    "change",
    [
        {"method": "put"},
        {"method": None},
        {"endpoint": None},
        {"endpoint": {}},
        {"endpoint": {**ADDRESS, "scheme": "ftp"}},
        {"endpoint": {**ADDRESS, "host": ""}},
        {"endpoint": {**ADDRESS, "host": 5}},
        {"endpoint": {**ADDRESS, "port": "80"}},
        {"endpoint": {**ADDRESS, "path": "no slash"}},
        {"endpoint": {**ADDRESS, "password": 5}},
        {"ca_certs": 5},
        {"timeout": "soon"},
        {"timeout": [1]},
        {"headers": {"bad name": "x"}},
        {"max_delay": 0},
        {"retry_codes": {"often": True}},
        {"retry_codes": {"404": 1}},
        {"max_bytes": "many"},
    ],
)
def test_what_is_no_destination_is_refused(change: dict[str, Any]) -> None:
    written = {**destination("http://collector.example.com").written(), **change}
    with pytest.raises((KeyError, TypeError, ValueError)):
        Destination.read(written)


def test_an_address_of_strings_is_a_destination() -> None:
    written = {**destination("http://collector.example.com").written(), "endpoint": ADDRESS}
    assert Destination.read(written).endpoint.url == "http://h/i"


def test_a_destination_does_not_show_its_secrets() -> None:
    to = destination("https://ann:swordfish@collector.example.com", headers={"X-Key": "marmalade"})
    assert "swordfish" not in repr(to)
    assert "marmalade" not in repr(to)


# -- sending ---------------------------------------------------------------------------------------------------------


def test_what_is_left_is_told_with_the_time_that_was_asked_for(collector: Collector) -> None:
    collector.respond(503, headers={"Retry-After": "7"})
    left = Relay().carry(part_of(3), destination(collector.url))
    assert left is not None
    assert [len(part) for part in left.parts] == [3]
    assert (left.why, left.asked) == ("status 503", 7.0)


def test_authorities_that_the_worker_does_not_have_keep_the_events(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "fastemit")
    left = Relay().carry(part_of(3), destination("https://127.0.0.1:1", ca_certs="/nowhere/at/all.pem"))
    assert left is not None
    assert "ca_certs" in left.why
    assert "request failed" in caplog.text


def test_the_fifth_server_error_halves_a_batch(collector: Collector) -> None:
    collector.respond(500, times=None)
    relay, part = Relay(), part_of(4)
    sizes = []
    for _ in range(5):
        left = relay.carry(part, destination(collector.url))
        assert left is not None
        part = left.parts[0]
        sizes.append([len(each) for each in left.parts])
    assert sizes == [[4], [4], [4], [4], [2, 2]]


def test_connections_of_many_destinations_are_not_all_kept(collector: Collector) -> None:
    relay = Relay()
    for number in range(40):
        assert relay.carry(part_of(1), destination(f"{collector.url}/{number}")) is None
    assert len(relay._transports) == 32
    assert relay.carry(part_of(1), destination(f"{collector.url}/39")) is None
    # The last one's connection was used again.
    assert collector.requests[-1].connection == 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_forked_child_uses_no_connection_of_its_parent(collector: Collector) -> None:
    relay = Relay()
    assert relay.carry(part_of(1), destination(collector.url)) is None
    child = os.fork()
    if child == 0:
        os._exit(0 if relay.carry(part_of(1), destination(collector.url)) is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert relay.carry(part_of(1), destination(collector.url)) is None
    assert [request.connection for request in collector.requests] == [1, 2, 1]


def test_an_answer_that_never_ends_does_not_hold_a_worker() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nshort") as server:
        assert Relay().carry(part_of(2), destination(server.url, timeout=(1.0, 0.2))) is None
    (request,) = server.requests
    assert numbers(json.loads(request.partition(b"\r\n\r\n")[2])["data"]) == [0, 1]
