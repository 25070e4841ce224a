"""What is compared: fastemit and the reference in several configurations, and a loop by hand.

Each takes events, and then sends all of them when it is told to. `IMPLEMENTATIONS` is the list of all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
import requests
import snowplow_tracker
import urllib3
from bench_support import PAGE_VIEW

import fastemit

Payload = dict[str, Any]
STM = "1767225600000"
SCHEMA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
PREFIX = b'{"schema":"' + SCHEMA.encode() + b'","data":['
PATH = "/com.snowplowanalytics.snowplow/tp2"
#: Bytes of a body that the loop by hand fills: as fastemit does by default.
BODY_BYTES = 1_000_000
#: More than any round fills, so that no event is lost in what is measured.
PLENTY = 10_000_000


class Contender(Protocol):
    """Something that takes events, and then sends all of them when it is told to."""

    take: Callable[[Payload], object]

    def finish(self) -> None: ...


@dataclass(frozen=True)
class Wire:
    """The bytes of events in request bodies. A server that does not count events is checked by these."""

    envelope: int
    event: int
    separator: int

    def bytes(self, requests: int, events: int) -> int:
        return requests * self.envelope + events * self.event + (events - requests) * self.separator


@dataclass(frozen=True)
class Implementation:
    """One way to send events.

    Attributes:
        open: makes one that sends to a URL.
        events: how many it sends in a round of about half a second here.
        wire: the form of its requests.
        tuned: set up for speed by somebody who knows how, which the defaults are not.
    """

    open: Callable[[str], Contender]
    events: int
    wire: Wire
    tuned: bool = False


class Emitting:
    """Any emitter with the documented interface."""

    def __init__(self, emitter: Any, flush: Callable[[], object]) -> None:
        self.take = emitter.input
        self.finish = flush


def fastemit_of(cls: Any = fastemit.Emitter, **settings: Any) -> Callable[[str], Contender]:
    def open_(url: str) -> Contender:
        emitter = cls(url, **settings)

        def close() -> None:
            assert emitter.close(60) == 0
            assert sum(emitter.stats().dropped_events.values()) == 0

        return Emitting(emitter, close)

    return open_


def reference_of(
    cls: Any = snowplow_tracker.Emitter, session: bool = False, **settings: Any
) -> Callable[[str], Contender]:
    def open_(url: str) -> Contender:
        emitter = cls(url, session=requests.Session() if session else None, **settings)
        return Emitting(emitter, emitter.sync_flush)

    return open_


class LoopByHand:
    """The limit: one thread, no queue; ready-made strings by orjson into one bytearray, 1 MB at a time to urllib3.

    It is given the payload of strings that the others have to make.
    """

    def __init__(self, url: str) -> None:
        address = urllib3.util.parse_url(url)
        pools = {"http": urllib3.HTTPConnectionPool, "https": urllib3.HTTPSConnectionPool}
        self._pool: Any = pools[address.scheme or "http"](address.host, address.port)
        self._body = bytearray(PREFIX)
        self._payload = {**PAGE_VIEW, "stm": STM}

    def take(self, _: Payload) -> None:
        body = self._body
        body += orjson.dumps(self._payload)
        body += b","
        if len(body) > BODY_BYTES - 300:
            self._send()

    def _send(self) -> None:
        self._body[-1:] = b"]}"
        headers = {"Content-Type": "application/json; charset=utf-8"}
        response = self._pool.urlopen("POST", PATH, body=self._body, headers=headers, retries=False)
        assert response.status == 200
        self._body[:] = PREFIX

    def finish(self) -> None:
        if len(self._body) > len(PREFIX):
            self._send()


EVENT = {**PAGE_VIEW, "stm": STM}
COMPACT = Wire(len(PREFIX) + 2, len(orjson.dumps(EVENT)), 1)
SPACED = Wire(len(json.dumps({"schema": SCHEMA, "data": []})), len(json.dumps(EVENT)), 2)

IMPLEMENTATIONS: dict[str, Implementation] = {
    "fastemit": Implementation(fastemit_of(), 500_000, COMPACT),
    "fastemit AsyncEmitter": Implementation(fastemit_of(fastemit.AsyncEmitter, overflow="block"), 500_000, COMPACT),
    "fastemit, background=False": Implementation(
        fastemit_of(background=False, batch_size=3_000), 500_000, COMPACT, tuned=True
    ),
    "loop by hand": Implementation(LoopByHand, 500_000, COMPACT, tuned=True),
    "reference": Implementation(reference_of(), 5_000, SPACED),
    "reference, session": Implementation(reference_of(session=True), 7_500, SPACED),
    "reference, AsyncEmitter": Implementation(
        reference_of(snowplow_tracker.AsyncEmitter, buffer_capacity=PLENTY), 5_000, SPACED
    ),
    "reference, session, batch_size=500": Implementation(
        reference_of(session=True, batch_size=500), 50_000, SPACED, tuned=True
    ),
}
