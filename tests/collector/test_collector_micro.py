"""The paths of Snowplow Micro, and which events and bodies the development collector calls bad."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastemit.testing import Collector
from tests.support.collector import EVENT, TP2, Client, envelope, event


def micro(client: Client, path: str, **filters: Any) -> Any:
    if filters:
        status, body = client.request("POST", f"/micro/{path}", json.dumps(filters))
    else:
        status, body = client.request("GET", f"/micro/{path}")
    assert status == 200
    return json.loads(body)


def test_micro_counts_good_and_bad(collector: Collector, client: Client) -> None:
    client.post(EVENT, {"e": "pv"}, EVENT)
    client.request("POST", TP2, b"{")
    assert micro(client, "all") == {"total": 4, "good": 2, "bad": 2}
    assert micro(client, "reset") == {"total": 0, "good": 0, "bad": 0}
    assert micro(client, "all") == {"total": 0, "good": 0, "bad": 0}
    assert collector.events == []


def test_micro_good_shows_events_the_latest_first(client: Client) -> None:
    described = {"schema": "iglu:com.acme/thing/jsonschema/1-0-0", "data": {}}
    ue = {
        **EVENT,
        "e": "ue",
        "ue_pr": json.dumps({"schema": "x", "data": described}),
        "co": json.dumps({"schema": "y", "data": [described]}),
    }
    client.post(EVENT, ue)
    first, second = micro(client, "good")
    assert first["event"] == first["rawEvent"]["parameters"] == ue
    assert first["eventType"] == "ue"
    assert first["schema"] == described["schema"]
    assert first["contexts"] == [described["schema"]]
    assert first["rawEvent"]["api"] == {"vendor": "com.snowplowanalytics.snowplow", "version": "tp2"}
    assert (second["eventType"], second["schema"], second["contexts"]) == ("pv", None, [])


def test_micro_filters(client: Client) -> None:
    base64 = "eyJzY2hlbWEiOiJ4IiwiZGF0YSI6eyJzY2hlbWEiOiJpZ2x1OmEvYi9jLzEtMC0wIiwiZGF0YSI6e319fQ"
    client.post(event(1), {**event(2), "e": "ue", "ue_px": base64}, event(3))
    ids = lambda **filters: [entry["event"]["eid"] for entry in micro(client, "good", **filters)]  # noqa: E731
    assert ids(event_type="pv") == ["3", "1"]
    assert ids(schema="iglu:a/b/c/1-0-0") == ["2"]
    assert ids(contexts=["iglu:none"]) == []
    assert ids(limit=1) == ["3"]
    client.post({})
    assert len(micro(client, "bad", version="tp2")) == 1
    assert micro(client, "bad", version="tp1") == []
    assert client.request("POST", "/micro/good", b"[]")[0] == 400


def test_micro_bad_says_what_is_wrong(collector: Collector, client: Client) -> None:
    client.post({"e": "pv", "p": "srv"})
    (bad,) = micro(client, "bad")
    assert bad["errors"] == ["required property 'tv' is missing"]
    assert bad["rawEvent"]["parameters"] == {"e": "pv", "p": "srv"}
    assert bad["collectorPayload"]["body"] == envelope({"e": "pv", "p": "srv"}).decode()


def test_micro_paths_are_beside_the_script(collector: Collector, client: Client) -> None:
    collector.respond(500, times=None)
    assert client.request("GET", "/health") == (200, b"ok")
    assert micro(client, "all") == {"total": 0, "good": 0, "bad": 0}
    assert client.request("GET", "/micro/else")[0] == 404
    assert client.request("DELETE", "/micro/all")[0] == 405
    assert collector.requests == []
    assert client.post(EVENT) == 500


@pytest.mark.parametrize(
    ("item", "errors"),
    [
        ({}, [f"required property {name!r} is missing" for name in ("tv", "p", "e")]),
        ({**EVENT, "se_va": 1}, ["property 'se_va': string expected, integer found"]),
        ({**EVENT, "se_va": 1.5}, ["property 'se_va': string expected, number found"]),
        ({**EVENT, "uid": None}, ["property 'uid': string expected, null found"]),
        ({**EVENT, "uid": True}, ["property 'uid': string expected, boolean found"]),
        ({**EVENT, "co": {}}, ["property 'co': string expected, object found"]),
        ({**EVENT, "color": "red"}, ["property 'color' is not defined in payload_data 1-0-4"]),
        ([], ["object expected, array found"]),
    ],
)
def test_a_bad_event_is_told_from_a_good_one(
    collector: Collector, client: Client, item: Any, errors: list[str]
) -> None:
    assert client.post(EVENT, item) == 200
    (bad,) = collector.bad
    assert (bad.event, bad.errors) == (item, errors)
    assert collector.good == [EVENT]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is not JSON: Expecting value"),
        (b"{", "the body is not JSON: Expecting property name enclosed in double quotes"),
        (b"\xff", "the body is not JSON: UnicodeDecodeError"),
        (envelope({**EVENT, "uid": float("nan")}), "the body is not JSON: ValueError"),
        (b"[" * 100_000, "the body is not JSON: nested more than 100 levels deep"),
        (b"[]", "the body is not a self-describing JSON: an object with schema and data is expected"),
        (
            b'{"data": [{}]}',
            "the body is not a self-describing JSON: an object with schema and data is expected",
        ),
        (
            envelope(EVENT).replace(b"1-0-4", b"2-0-0"),
            "the schema of the body is not payload_data 1-0-0 to 1-0-4",
        ),
        (envelope(), "data: at least 1 item expected, 0 found"),
        (envelope(EVENT).replace(b"[", b"").replace(b"]", b""), "data: array expected, object found"),
    ],
)
def test_a_bad_body_is_one_bad_entry(collector: Collector, client: Client, body: bytes, error: str) -> None:
    assert client.request("POST", TP2, body)[0] == 200
    (bad,) = collector.bad
    assert (bad.event, bad.errors) == (None, [error])
    assert collector.good == collector.events == []


@pytest.mark.parametrize(
    ("query", "error"),
    [("", "the query string is empty: no event in it"), ("?e=%FF", "the query string is not UTF-8")],
)
def test_a_bad_query_is_one_bad_entry(collector: Collector, client: Client, query: str, error: str) -> None:
    assert client.request("GET", "/i" + query)[0] == 200
    assert [bad.errors for bad in collector.bad] == [[error]]


# -- JSON that is nested too deeply ----------------------------------------------------------------------------------


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("path", ["all", "good", "bad", "reset"])
@pytest.mark.parametrize("body", ["[" * 200_000, nested(990), '{"limit":' * 5000], ids=["open", "closed", "objects"])
def test_deep_filters_are_refused_with_an_answer(client: Client, path: str, body: str) -> None:
    assert client.request("POST", f"/micro/{path}", body)[0] == 400
    assert client.post(EVENT) == 200


@pytest.mark.parametrize("depth", [200, 960, 966, 972, 978, 984, 5_000, 100_000])
def test_an_event_that_is_nested_to_any_depth_is_shown_as_bad(client: Client, depth: int) -> None:
    body = envelope({**EVENT, "uid": "X"}).replace(b'"X"', nested(depth).encode())
    assert client.request("POST", TP2, body)[0] == 200
    (bad,) = micro(client, "bad")
    assert bad["errors"] == ["the body is not JSON: nested more than 100 levels deep"]


def test_a_value_that_is_nested_as_deep_as_may_be_is_shown(client: Client) -> None:
    # The envelope, its list of events and the event are three of the hundred levels.
    body = envelope({**EVENT, "uid": "X"}).replace(b'"X"', nested(97).encode())
    assert client.request("POST", TP2, body)[0] == 200
    assert micro(client, "bad")[0]["errors"] == ["property 'uid': string expected, array found"]


@pytest.mark.parametrize("depth", [200, 960, 966, 972, 978, 984, 100_000])
@pytest.mark.parametrize("name", ["ue_pr", "co"])
def test_a_self_describing_json_that_is_nested_to_any_depth_hides_no_event(
    client: Client, name: str, depth: int
) -> None:
    deep = '{"schema":"x","data":{"schema":' + nested(depth) + "}}"
    assert client.post({**EVENT, name: deep}) == 200
    (good,) = micro(client, "good")
    assert (good["schema"], good["contexts"]) == (None, [])
