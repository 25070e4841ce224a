"""The rest of what `accepted.py` says: configuration, the registry of trackers, and the development collector."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import urllib3
from snowplow_tracker.emitter_configuration import EmitterConfiguration as ReferenceConfiguration
from snowplow_tracker.subject import Subject
from snowplow_tracker.tracker import Tracker
from snowplow_tracker.tracker_configuration import TrackerConfiguration
from typing_extensions import assert_type

import fastemit
import fastemit.emitter_configuration
import fastemit.emitters
import fastemit.event_store
import fastemit.snowplow
import fastemit.typing
from fastemit import Emitter, EmitterConfiguration, EventStore, Snowplow, logger
from fastemit.testing import BadEvent, Collector, Headers, Request
from fastemit.typing import FailureCallback, Overflow

from .accepted import Audit, DeclaredStore, DequeStore, count_sent, not_sent, sent

# -- configuration and Snowplow --------------------------------------------------------------------------------------


def configuration() -> EmitterConfiguration:
    EmitterConfiguration(10, sent, not_sent, 9, (3, 4.5), 100, {500: False}, DequeStore(), None)
    config = EmitterConfiguration(
        batch_size=10,
        on_success=count_sent,
        on_failure=Audit(),
        byte_limit=None,
        request_timeout=3,
        buffer_capacity=100,
        custom_retry_codes={500: False},
        event_store=DeclaredStore(),
        session=None,
        max_retry_delay_seconds=30,
        overflow="drop_oldest",
        max_buffer_bytes=1 << 20,
        max_request_bytes=1 << 16,
        shutdown_timeout=1.5,
        background=True,
        flush_interval=5,
        headers={"X-Key": "value"},
        ca_certs="authorities.pem",
        pool_manager=urllib3.PoolManager(),
    )
    assert_type(config.batch_size, int | None)
    assert_type(config.custom_retry_codes, dict[int, bool])
    assert_type(config.event_store, EventStore | None)
    assert_type(config.on_failure, FailureCallback | None)
    assert_type(config.overflow, Overflow | None)
    config.batch_size = None
    config.request_timeout = (1, 2)
    config.custom_retry_codes = None
    config.custom_retry_codes[502] = False
    config.event_store = DequeStore()
    config.overflow = "block"
    config.ca_certs = Path("authorities.pem")
    config.on_success = sent
    assert_type(config.set_retry_code(503), bool)
    assert_type(config.set_retry_code(status_code=503, retry=False), bool)
    Emitter("example.com", **config.emitter_arguments())
    return config


def registry(config: EmitterConfiguration, theirs: ReferenceConfiguration) -> None:
    assert_type(Snowplow.create_tracker("a", "example.com"), fastemit.Tracker)
    Snowplow.create_tracker("b", "example.com", "get", "shop", Subject(), TrackerConfiguration(), config)
    Snowplow.create_tracker(
        namespace="c",
        endpoint="example.com",
        method="post",
        app_id=None,
        subject=None,
        tracker_config=None,
        emitter_config=theirs,
    )
    assert_type(Snowplow.add_tracker(Tracker("d", Emitter("example.com"))), Tracker)
    tracker = Snowplow.get_tracker("d")
    assert_type(tracker, Tracker | None)
    if tracker is not None:
        Snowplow.remove_tracker(tracker)
    Snowplow.remove_tracker_by_namespace("c")
    Snowplow.reset()


def modules() -> None:
    """`snowplow_tracker.X` is `fastemit.X`."""
    assert_type(fastemit.Snowplow, type[fastemit.snowplow.Snowplow])
    assert_type(fastemit.EmitterConfiguration(), fastemit.emitter_configuration.EmitterConfiguration)
    assert_type(fastemit.event_store.InMemoryEventStore(), fastemit.InMemoryEventStore)
    protocol: fastemit.typing.HttpProtocol = "https"
    print(fastemit.emitters.Emitter("example.com", protocol), fastemit.__version__.upper())
    logger.setLevel(logging.DEBUG)


# -- the development collector ---------------------------------------------------------------------------------------


def alternately(request: Request) -> int:
    return 200 if request.connection % 2 else 503


def development() -> None:
    with Collector() as collector, Emitter(collector.url) as emitter:
        collector.respond(503, times=2, headers={"Retry-After": "1"}, delay=0.1)
        collector.respond(alternately, times=None)
        emitter.input({"e": "pv"})
        assert_type(collector.wait_for(1, timeout=5), list[dict[str, Any]])
        assert_type(collector.events, list[dict[str, Any]])
        assert_type(collector.good, list[dict[str, Any]])
        assert_type(collector.bad, list[BadEvent])
        request = collector.wait_for_requests(1)[0]
        assert_type(request, Request)
        assert_type(request.headers, Headers)
        assert_type(request.headers["Content-Type"], str)
        assert_type(request.status, int | None)
        collector.release()
        collector.drop_connections()
        collector.reset()
    print(Collector(host="127.0.0.1", port=0, keep_bodies=False).port)
    print(Collector(max_bytes=None, idle_timeout=None, allowed_hosts=("shop.test",)).totals.forgotten)
