"""The whole public interface as a user writes it: `mypy --strict` and `pyright` have nothing to say.

Read by type checkers, and not run. snowplow_tracker does not declare what it re-exports, so that under --strict its
names come from their modules.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3
from snowplow_tracker.event_store import EventStore as ReferenceStore
from snowplow_tracker.events.page_view import PageView
from snowplow_tracker.subject import Subject
from snowplow_tracker.tracker import Tracker
from snowplow_tracker.typing import EmitterProtocol as ReferenceProtocol
from typing_extensions import assert_type

import fastemit
from fastemit import AsyncEmitter, Emitter, EmitterStats, EventStore, InMemoryEventStore
from fastemit.typing import (
    EmitterProtocol,
    FailureCallback,
    HttpProtocol,
    Method,
    Overflow,
    Payload,
    PayloadDict,
    PayloadDictList,
    RequestTimeout,
    SuccessCallback,
)

# -- callbacks -----------------------------------------------------------------------------------------------------


def sent(events: PayloadDictList) -> None:
    print([event["eid"] for event in events])


def count_sent(events: list[dict[str, Any]]) -> int:
    return len(events)


def not_sent(sent_count: int, events: PayloadDictList) -> None:
    print(sent_count, events)


class Audit:
    def sent(self, events: PayloadDictList) -> None: ...

    def __call__(self, sent_count: int, events: PayloadDictList) -> None: ...


on_success: SuccessCallback = sent

on_failure: FailureCallback = not_sent

# -- emitters ------------------------------------------------------------------------------------------------------


def positional() -> tuple[Emitter, AsyncEmitter]:
    store = InMemoryEventStore()
    emitter = Emitter(
        "example.com", "http", 80, "get", 10, sent, not_sent, 9, (3, 4.5), 60, 100, {500: False}, store, None
    )
    other = AsyncEmitter(
        "example.com", "http", 80, "post", 10, sent, not_sent, 4, 9, 1.5, 60, 100, {500: False}, store, None
    )
    return emitter, other


def every_argument(protocol: HttpProtocol, method: Method, overflow: Overflow, timeout: RequestTimeout) -> Emitter:
    return AsyncEmitter(
        "collector.example.com",
        protocol=protocol,
        port="8080",
        method=method,
        batch_size=None,
        on_success=Audit().sent,
        on_failure=Audit(),
        thread_count=2,
        byte_limit=None,
        request_timeout=timeout,
        max_retry_delay_seconds=0.5,
        buffer_capacity=None,
        custom_retry_codes=None,
        event_store=None,
        session=None,
        overflow=overflow,
        max_buffer_bytes=1 << 20,
        max_request_bytes=1 << 16,
        shutdown_timeout=1,
        background=False,
        flush_interval=None,
        headers={"X-Key": "value"},
        ca_certs=Path("authorities.pem"),
        pool_manager=urllib3.PoolManager(),
    )


def calls(emitter: Emitter, payload: Payload, events: PayloadDictList) -> None:
    emitter.input({"e": "pv", "count": 1, "flag": None})
    emitter.input(payload)
    emitter.input(collections.OrderedDict(e="pv"))
    emitter.flush()
    emitter.sync_flush()
    emitter.sync_flush(timeout=1.5)
    emitter.async_flush()
    emitter.set_flush_timer(5)
    emitter.cancel_flush_timer()
    emitter.cancel_flush()
    emitter.send_events(events)
    emitter.attach_sent_timestamp(events)
    assert_type(emitter.drain(), bool)
    assert_type(emitter.drain(timeout=1), bool)
    assert_type(emitter.drain(10, retry=True), bool)
    assert_type(emitter.drain(retry=True), bool)
    assert_type(emitter.close(), int)
    assert_type(emitter.close(timeout=0.5), int)
    assert_type(emitter.reached_limit(), bool)
    assert_type(emitter.http_post("{}"), int)
    assert_type(emitter.http_get({"e": "pv"}), int)
    assert_type(emitter.timer.is_active(), bool)
    assert_type(emitter.retry_timer.is_active(), bool)
    assert_type(Emitter.as_collector_uri("example.com", "http", 8080, "get"), str)
    assert_type(Emitter.is_good_status_code(204), bool)


def attributes(emitter: Emitter) -> None:
    assert_type(emitter.endpoint, str)
    assert_type(emitter.method, Method)
    assert_type(emitter.batch_size, int)
    assert_type(emitter.byte_limit, int | None)
    assert_type(emitter.bytes_queued, int | None)
    assert_type(emitter.request_timeout, RequestTimeout | None)
    assert_type(emitter.on_success, SuccessCallback | None)
    assert_type(emitter.on_failure, FailureCallback | None)
    assert_type(emitter.max_retry_delay_seconds, float)
    assert_type(emitter.retry_delay, float)
    assert_type(emitter.custom_retry_codes, dict[int, bool])
    size: int = emitter.event_store.size()
    queued: PayloadDictList = emitter.event_store.event_buffer
    print(size, queued)
    emitter.on_success = count_sent
    emitter.on_failure = None
    emitter.batch_size = 20
    emitter.byte_limit = None
    emitter.request_timeout = 2
    emitter.request_timeout = (1, 2.5)
    emitter.request_timeout = (None, 2.5)
    emitter.max_retry_delay_seconds = 30
    emitter.custom_retry_codes[500] = False
    emitter.custom_retry_codes = {500: False}


def counters(emitter: Emitter) -> int:
    stats = emitter.stats()
    assert_type(stats, EmitterStats)
    assert_type(stats.retry_delay, float)
    assert_type(stats.last_status, int | None)
    assert_type(stats.last_error, str | None)
    dropped = sum(stats.dropped_events.values())
    requests = stats.requests + stats.failed_requests + stats.retried_events
    return stats.queued_events + stats.in_flight_events + stats.sent_events + dropped + requests


def with_statement() -> None:
    with Emitter("example.com") as emitter:
        emitter.input({"e": "pv"})
    with AsyncEmitter("example.com") as other:
        other.flush()


class Recording(Emitter):
    """Every hook that a subclass may override."""

    def input(self, payload: Mapping[str, Any]) -> None:
        super().input({**payload, "aid": "shop"})

    def flush(self) -> None:
        super().flush()

    def sync_flush(self, timeout: float | None = None) -> None:
        super().sync_flush(timeout)

    def async_flush(self) -> None:
        super().async_flush()

    def reached_limit(self) -> bool:
        return super().reached_limit()

    def send_events(self, evts: PayloadDictList) -> None:
        super().send_events(evts)

    def http_post(self, data: str) -> int:
        return super().http_post(data)

    def http_get(self, payload: PayloadDict) -> int:
        return super().http_get(payload)


class RecordingAsync(AsyncEmitter):
    def __init__(self, endpoint: str, *, name: str) -> None:
        super().__init__(endpoint, thread_count=2)
        self.name = name


# -- trackers ------------------------------------------------------------------------------------------------------


class FromScratch:
    """An emitter that is none of ours."""

    def input(self, payload: PayloadDict) -> None: ...

    def flush(self) -> None: ...

    def async_flush(self) -> None: ...

    def sync_flush(self) -> None: ...


def trackers(emitter: Emitter, other: AsyncEmitter) -> None:
    tracker = Tracker(namespace="shop", emitters=emitter)
    tracker.track(PageView(page_url="https://example.com", page_title="Home"))
    tracker.flush()
    Tracker("shop", [emitter, other, Recording("example.com"), FromScratch()])
    quick = fastemit.Tracker("shop", [emitter, FromScratch()], Subject(), "web", False, json_encoder=str)
    assert_type(quick.track(PageView(page_url="https://example.com")), str | None)
    assert_type(quick.get_uuid(), str)
    any_tracker: Tracker = quick
    any_tracker.flush()
    theirs: list[ReferenceProtocol] = [emitter, other, FromScratch()]
    ours: list[EmitterProtocol] = [emitter, other, FromScratch()]
    Tracker("shop", theirs)
    print(ours)


# -- stores --------------------------------------------------------------------------------------------------------


class DequeStore:
    """A store by structure."""

    def __init__(self) -> None:
        self.events: collections.deque[PayloadDict] = collections.deque()

    def add_event(self, payload: PayloadDict) -> bool:
        self.events.append(payload)
        return True

    def get_events_batch(self) -> PayloadDictList:
        return [self.events.popleft() for _ in range(len(self.events))]

    def cleanup(self, batch: PayloadDictList, need_retry: bool) -> None:
        if need_retry:
            self.events.extendleft(reversed(batch))

    def size(self) -> int:
        return len(self.events)


class DeclaredStore(EventStore):
    """A store by inheritance."""

    def add_event(self, payload: PayloadDict) -> bool:
        return False

    def get_events_batch(self) -> PayloadDictList:
        return []

    def cleanup(self, batch: PayloadDictList, need_retry: bool) -> None: ...

    def size(self) -> int:
        return 0


def stores(theirs: ReferenceStore, unknown: object) -> None:
    Emitter("example.com", event_store=DequeStore())
    Emitter("example.com", event_store=DeclaredStore())
    Emitter("example.com", event_store=theirs)
    Emitter("example.com", event_store=InMemoryEventStore(logger=logging.getLogger("shop"), buffer_capacity=5))
    if isinstance(unknown, EventStore):
        AsyncEmitter("example.com", event_store=unknown)
    store = InMemoryEventStore(buffer_capacity=100)
    assert_type(store.add_event({"e": "pv"}), bool)
    batch = store.get_events_batch()
    assert_type(batch, PayloadDictList)
    store.cleanup(batch, need_retry=False)
    assert_type(store.size(), int)
    assert_type(store.event_buffer, PayloadDictList)
    assert_type(store.buffer_capacity, int)
