"""The endpoints of Snowplow Micro, as JSON made from what the journal holds."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any
from urllib.parse import parse_qsl

from fastemit.testing._answer import Answer, render
from fastemit.testing._guard import Guard
from fastemit.testing._journal import BadEvent, Journal
from fastemit.testing._payload import parse_json
from fastemit.testing._request import Request


def is_micro(path: str) -> bool:
    """Whether a path is one of Micro's. `respond` does not change their answers, and nothing counts them."""
    return path.startswith("/micro/") or path in ("/micro", "/health")


def answer_micro(journal: Journal, guard: Guard, request: Request) -> bytes:
    """The answer to a request for one of Micro's paths."""
    status, content_type, body = _content(journal, guard, request)
    answer = Answer(status, headers=(("Content-Type", content_type),), body=body)
    return render(answer, status, request.method, keep=request.keeps_connection)


def _content(journal: Journal, guard: Guard, request: Request) -> tuple[int, str, bytes]:
    if request.method not in ("GET", "POST", "HEAD"):
        return 405, "text/plain", b"GET or POST is expected"
    if request.path == "/health":
        return 200, "text/plain", b"ok"
    if not journal.keeps_bodies:
        return 501, "text/plain", b"this collector keeps no bodies"
    try:
        filters = _filters(request)
    except ValueError as error:
        return 400, "text/plain", str(error).encode()
    result: Any
    if request.path == "/micro/all":
        result = _summary(journal)
    elif request.path == "/micro/good":
        result = _select([_good(request, event) for request, event in journal.verdict().good], filters, _GOOD_FILTERS)
    elif request.path == "/micro/bad":
        result = _select([_bad(bad) for bad in journal.verdict().bad], filters, _BAD_FILTERS)
    elif request.path == "/micro/reset":
        if request.method == "HEAD":
            return 405, "text/plain", b"POST or GET is expected"
        if not guard.may_reset(request):
            return 403, "text/plain", b"a page of another origin may not reset the collector; a program may, by POST"
        journal.reset()
        result = _summary(journal)
    else:
        return 404, "text/plain", b"/micro/all, /micro/good, /micro/bad, /micro/reset or /health is expected"
    return 200, "application/json", json.dumps(result).encode()


def _summary(journal: Journal) -> dict[str, int]:
    _, good, bad, forgotten = journal.totals()
    summary = {"total": good + bad, "good": good, "bad": bad}
    # Micro has no such entry, so it is there only when there is something to tell.
    return {**summary, "forgotten": forgotten} if forgotten else summary


def _filters(request: Request) -> dict[str, Any]:
    if request.method != "POST" or not request.body:
        return {}
    filters = parse_json(request.body)
    if not isinstance(filters, dict):
        raise ValueError("the filters are not a JSON object")  # noqa: TRY004  the client's mistake, not a caller's
    limit = filters.get("limit", 0)
    if not isinstance(limit, int) or limit < 0:
        raise ValueError("limit: a number, 0 or more, is expected")
    return filters


_GOOD_FILTERS = {
    "event_type": lambda entry, wanted: entry["eventType"] == wanted,
    "schema": lambda entry, wanted: entry["schema"] == wanted,
    "contexts": lambda entry, wanted: isinstance(wanted, list) and all(c in entry["contexts"] for c in wanted),
}
_BAD_FILTERS = {
    "vendor": lambda entry, wanted: entry["collectorPayload"]["api"]["vendor"] == wanted,
    "version": lambda entry, wanted: entry["collectorPayload"]["api"]["version"] == wanted,
}


def _select(entries: list[dict[str, Any]], filters: dict[str, Any], known: dict[str, Any]) -> list[dict[str, Any]]:
    for name, matches in known.items():
        if name in filters:
            entries = [entry for entry in entries if matches(entry, filters[name])]
    entries.reverse()  # Micro lists the most recent first, and `limit` takes from there
    return entries[: filters["limit"]] if "limit" in filters else entries


def _good(request: Request, event: dict[str, Any]) -> dict[str, Any]:
    described = _self_describing(event, "ue_pr", "ue_px")
    contexts = _self_describing(event, "co", "cx")
    listed = contexts if isinstance(contexts, list) else []
    return {
        "rawEvent": {**_origin(request), "parameters": event},
        "eventType": event["e"],
        "schema": described.get("schema") if isinstance(described, dict) else None,
        "contexts": [c["schema"] for c in listed if isinstance(c, dict) and isinstance(c.get("schema"), str)],
        # Micro has the enriched event here; nothing is enriched in this collector.
        "event": event,
    }


def _bad(bad: BadEvent) -> dict[str, Any]:
    request = bad.request
    return {
        "collectorPayload": {
            **_origin(request),
            "querystring": [{"name": n, "value": v} for n, v in parse_qsl(request.query, keep_blank_values=True)],
            "body": request.body.decode("utf-8", "replace") if request.method == "POST" else None,
        },
        "rawEvent": None if bad.event is None else {**_origin(request), "parameters": bad.event},
        "errors": bad.errors,
    }


def _origin(request: Request) -> dict[str, Any]:
    return {
        "api": {
            "vendor": "com.snowplowanalytics.snowplow",
            "version": "tp1" if request.method == "GET" else "tp2",
        },
        "contentType": request.headers.get("Content-Type"),
        "source": {
            "name": "fastemit-collector",
            "encoding": "UTF-8",
            "hostname": request.headers.get("Host"),
        },
        "context": {
            "useragent": request.headers.get("User-Agent"),
            "headers": [f"{name}: {value}" for name, value in request.headers.pairs],
        },
    }


def _self_describing(event: dict[str, Any], plain: str, encoded: str) -> Any:
    """The data inside the self-describing JSON of a parameter; None when there is none that can be read."""
    text = event.get(plain)
    try:
        if text is None and encoded in event:
            value = event[encoded]
            text = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
        envelope = None if text is None else parse_json(text)
    except (ValueError, binascii.Error):
        return None
    return envelope.get("data") if isinstance(envelope, dict) else None
