"""`fastemit.contrib.prometheus` in a registry of the real prometheus_client, read as Prometheus reads it."""

from __future__ import annotations

import gc
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from fastemit import Emitter
from fastemit.contrib.prometheus import EmitterCollector
from fastemit.testing import Collector
from tests.support.delivery import Running
from tests.support.environment import output_of
from tests.support.waiting import until

MakeEmitter = Callable[..., Any]
EVENT = {"e": "pv", "p": "srv", "tv": "test-1"}


def samples(text: str) -> dict[tuple[str, ...], float]:
    """What Prometheus reads: name and label values, and the value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def registered(collector: EmitterCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def scraped(collector: EmitterCollector) -> dict[tuple[str, ...], float]:
    return samples(generate_latest(registered(collector)).decode())


def test_it_is_told_over_http(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter()
    emitter.input(EVENT)
    assert emitter.drain(10)
    server, thread = start_http_server(0, "127.0.0.1", registered(EmitterCollector(emitter)))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            told = samples(answer.read().decode())
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert told == scraped(EmitterCollector(emitter))
    assert told["fastemit_sent_events_total", "default"] == 1


def test_what_was_sent_is_told(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter()
    for _ in range(3):
        emitter.input(EVENT)
    assert emitter.drain(10)
    told = scraped(EmitterCollector(emitter))
    stats = emitter.stats()
    assert told["fastemit_sent_events_total", "default"] == 3
    assert told["fastemit_sent_bytes_total", "default"] == stats.sent_bytes > 0
    assert told["fastemit_requests_total", "default"] == 1
    assert told["fastemit_failed_requests_total", "default"] == 0
    assert told["fastemit_last_status", "default"] == 200
    assert told["fastemit_queued_events", "default"] == 0


def test_what_waits_and_what_is_kept_is_told(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(500, times=None)
    emitter = make_emitter(buffer_capacity=7)
    for _ in range(4):
        emitter.input(EVENT)
    assert not emitter.drain(10)
    told = scraped(EmitterCollector(emitter))
    assert told["fastemit_queued_events", "default"] == 4
    assert told["fastemit_queued_bytes", "default"] == emitter.stats().queued_bytes > 0
    assert told["fastemit_buffer_capacity_events", "default"] == 7
    assert told["fastemit_retried_events_total", "default"] == 4
    assert told["fastemit_failed_requests_total", "default"] == 1
    assert told["fastemit_retry_delay_seconds", "default"] > 0
    assert told["fastemit_last_status", "default"] == 500


def test_what_is_in_flight_is_told(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(hang=True)
    emitter = make_emitter(batch_size=2)
    emitter.input(EVENT)
    emitter.input(EVENT)
    collector.wait_for_requests(1)
    assert scraped(EmitterCollector(emitter))["fastemit_in_flight_events", "default"] == 2
    collector.release()


@pytest.mark.parametrize("reason", ["overflow", "rejected", "oversize", "closed"])
def test_what_was_dropped_is_told_by_reason(collector: Collector, make_emitter: MakeEmitter, reason: str) -> None:
    emitter = make_emitter(overflow="drop_newest", buffer_capacity=2, batch_size=2, max_buffer_bytes=4096)
    if reason == "overflow":
        collector.respond(hang=True)
        for _ in range(3):
            emitter.input(EVENT)
    elif reason == "rejected":
        collector.respond(400)
        emitter.input(EVENT)
        emitter.flush()
    elif reason == "oversize":
        emitter.input({**EVENT, "ue_pr": "x" * 5000})
    else:
        emitter.close()
        emitter.input(EVENT)
    told = scraped(EmitterCollector(emitter))
    dropped = {key[2]: value for key, value in told.items() if key[0] == "fastemit_dropped_events_total"}
    assert dropped == {"overflow": 0, "rejected": 0, "oversize": 0, "closed": 0, reason: 1}
    collector.release()


def test_there_is_no_status_before_the_first_answer(make_emitter: MakeEmitter) -> None:
    told = scraped(EmitterCollector(make_emitter()))
    assert ("fastemit_last_status", "default") not in told
    assert told["fastemit_requests_total", "default"] == 0


def test_several_emitters_have_their_names(make_emitter: MakeEmitter) -> None:
    shop, audit = make_emitter(), make_emitter()
    collector = EmitterCollector({"shop": shop})
    collector.add("audit", audit)
    audit.input(EVENT)
    audit.flush()
    told = scraped(collector)
    assert told["fastemit_sent_events_total", "shop"] == 0
    assert told["fastemit_sent_events_total", "audit"] == 1


def test_an_emitter_that_the_program_lets_go_of_is_collected_and_left_out(collector: Collector) -> None:
    emitter = Emitter(collector.url)
    emitters = EmitterCollector(emitter)
    assert ("fastemit_queued_events", "default") in scraped(emitters)
    del emitter
    gc.collect()
    assert ("fastemit_queued_events", "default") not in scraped(emitters)


def test_registering_a_second_one_is_refused_without_a_look_at_the_emitters(make_emitter: MakeEmitter) -> None:
    emitter = make_emitter()
    registry = CollectorRegistry(auto_describe=True)
    registry.register(EmitterCollector(emitter))
    with pytest.raises(ValueError, match="fastemit_queued_events"):
        registry.register(EmitterCollector(emitter))


def test_a_store_without_a_capacity_is_told_without_it(make_emitter: MakeEmitter) -> None:
    class Store:
        def add_event(self, payload: Any) -> bool:
            return False

        def get_events_batch(self) -> list[Any]:
            return []

        def cleanup(self, batch: Any, need_retry: bool) -> None: ...

        def size(self) -> int:
            return 0

    told = scraped(EmitterCollector(make_emitter(event_store=Store())))
    assert ("fastemit_buffer_capacity_events", "default") not in told
    assert told["fastemit_queued_events", "default"] == 0


@pytest.mark.parametrize("wrong", [None, "shop", Emitter, ["x"], {"shop": 3}])
def test_what_is_no_emitter_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="emitter must be an Emitter of fastemit"):
        EmitterCollector(wrong)


def test_a_name_that_is_no_string_is_a_type_error(make_emitter: MakeEmitter) -> None:
    with pytest.raises(TypeError, match="name must be a string, not int 3"):
        EmitterCollector({3: make_emitter()})  # type: ignore[dict-item]


def test_emitters_may_be_added_during_a_scrape(make_emitter: MakeEmitter) -> None:
    emitter = make_emitter()
    collector = EmitterCollector(emitter)
    at_it = Running(lambda: [collector.add(f"{n}", emitter) for n in range(500)])
    until(lambda: sum(name == "fastemit_requests_total" for name, *_ in scraped(collector)) == 501)
    at_it.result()


def test_without_prometheus_client_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["prometheus_client"] = None
try:
    import fastemit.contrib.prometheus
except ImportError as error:
    print(error)
"""
    assert output_of(program) == (
        'fastemit.contrib.prometheus needs the package prometheus-client: pip install "fastemit[prometheus]"'
    )
