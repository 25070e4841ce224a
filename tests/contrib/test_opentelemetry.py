"""`fastemit.contrib.opentelemetry` with the real SDK, read as an exporter reads it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader, Sum
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fastemit import Emitter
from fastemit.contrib.opentelemetry import EmitterInstruments
from fastemit.contrib.prometheus import EmitterCollector
from fastemit.testing import Collector
from tests.support.environment import output_of

MakeEmitter = Callable[..., Any]
EVENT = {"e": "pv", "p": "srv", "tv": "test-1"}
Told = dict[tuple[str, ...], Any]


def instruments(emitters: Any, *readers: MetricReader) -> EmitterInstruments:
    return EmitterInstruments(emitters, MeterProvider(metric_readers=readers, shutdown_on_exit=False))


def metrics(reader: InMemoryMetricReader) -> dict[str, Any]:
    """What an exporter gets, by name."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def told(reader: InMemoryMetricReader) -> Told:
    """The numbers, by name, emitter and reason."""
    return {
        tuple(filter(None, (name, point.attributes["emitter"], point.attributes.get("reason")))): point.value
        for name, metric in metrics(reader).items()
        for point in metric.data.data_points
    }


def test_what_was_sent_is_told(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter()
    reader = InMemoryMetricReader()
    instruments(emitter, reader)
    for _ in range(3):
        emitter.input(EVENT)
    assert emitter.drain(10)
    stats = emitter.stats()
    told_now = told(reader)
    assert told_now["fastemit.sent_events", "default"] == 3
    assert told_now["fastemit.sent_bytes", "default"] == stats.sent_bytes > 0
    assert told_now["fastemit.requests", "default"] == 1
    assert told_now["fastemit.failed_requests", "default"] == 0
    assert told_now["fastemit.queued_events", "default"] == 0
    assert told_now["fastemit.last_status", "default"] == 200


def test_what_is_kept_and_what_is_dropped_is_told(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(500, times=None)
    emitter = make_emitter(buffer_capacity=4, overflow="drop_newest")
    reader = InMemoryMetricReader()
    instruments(emitter, reader)
    for _ in range(6):
        emitter.input(EVENT)
    assert not emitter.drain(10)
    told_now = told(reader)
    assert told_now["fastemit.queued_events", "default"] == 4
    assert told_now["fastemit.buffer_capacity_events", "default"] == 4
    assert told_now["fastemit.dropped_events", "default", "overflow"] == 2
    assert told_now["fastemit.dropped_events", "default", "rejected"] == 0
    assert told_now["fastemit.retry_delay", "default"] > 0


def test_an_emitter_without_an_answer_has_no_last_status(make_emitter: MakeEmitter) -> None:
    reader = InMemoryMetricReader()
    instruments(make_emitter(), reader)
    assert ("fastemit.last_status", "default") not in told(reader)


def test_kinds_and_units_are_those_of_the_conventions(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter()
    emitter.input(EVENT)
    assert emitter.drain(10)
    reader = InMemoryMetricReader()
    instruments(emitter, reader)
    found = metrics(reader)

    def kind(name: str) -> str:
        data = found[name].data
        return ("counter" if data.is_monotonic else "up-down counter") if isinstance(data, Sum) else "gauge"

    assert {name: (kind(name), found[name].unit) for name in found} == {
        "fastemit.queued_events": ("up-down counter", "{event}"),
        "fastemit.queued_bytes": ("up-down counter", "By"),
        "fastemit.in_flight_events": ("up-down counter", "{event}"),
        "fastemit.buffer_capacity_events": ("up-down counter", "{event}"),
        "fastemit.retry_delay": ("gauge", "s"),
        "fastemit.last_status": ("gauge", ""),
        "fastemit.sent_events": ("counter", "{event}"),
        "fastemit.sent_bytes": ("counter", "By"),
        "fastemit.requests": ("counter", "{request}"),
        "fastemit.failed_requests": ("counter", "{request}"),
        "fastemit.retried_events": ("counter", "{event}"),
        "fastemit.recovered_events": ("counter", "{event}"),
        "fastemit.dropped_events": ("counter", "{event}"),
    }
    assert all(metric.description for metric in found.values())


@pytest.mark.parametrize(
    ("endpoint", "server"),
    [
        ("collector.example.com", ("collector.example.com", 443)),
        ("http://user:secret@collector.example.com/prefix", ("collector.example.com", 80)),
        ("http://[::1]:9090", ("::1", 9090)),
    ],
)
def test_the_collector_is_named_without_credentials(endpoint: str, server: tuple[str, int]) -> None:
    reader = InMemoryMetricReader()
    with Emitter(endpoint) as emitter:
        instruments({"shop": emitter}, reader)
        (point,) = metrics(reader)["fastemit.requests"].data.data_points
    assert dict(point.attributes) == {
        "emitter": "shop",
        "server.address": server[0],
        "server.port": server[1],
    }


def test_all_of_one_collection_is_of_one_moment(collector: Collector, make_emitter: MakeEmitter) -> None:
    class Busy:
        """Each look finds another event sent."""

        emitter = make_emitter()
        looks = 0

        def stats(self) -> Any:
            self.looks += 1
            self.emitter.input(EVENT)
            assert self.emitter.drain(10)
            return self.emitter.stats()

    busy = Busy()
    reader = InMemoryMetricReader()
    instruments(busy, reader)
    for collection in (1, 2, 3):
        told_now = told(reader)
        assert told_now["fastemit.sent_events", "default"] == told_now["fastemit.requests", "default"] == collection
    assert busy.looks == 3


def test_two_readers_are_told_what_is_true_when_they_ask(collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter()
    one, other = InMemoryMetricReader(), InMemoryMetricReader()
    instruments(emitter, one, other)
    for count, reader in enumerate((one, other, other, one), 1):
        emitter.input(EVENT)
        assert emitter.drain(10)
        assert told(reader)["fastemit.sent_events", "default"] == count


def test_an_emitter_added_later_is_told_of(make_emitter: MakeEmitter) -> None:
    reader = InMemoryMetricReader()
    first, second = make_emitter(), make_emitter()
    made = instruments({"shop": first}, reader)
    made.add("audit", second)
    assert {name for metric, name, *_ in told(reader) if metric == "fastemit.requests"} == {"shop", "audit"}


def test_no_emitter_is_kept_alive(collector: Collector) -> None:
    emitter = Emitter(collector.url)
    reader = InMemoryMetricReader()
    instruments(emitter, reader)
    assert told(reader)
    emitter.close()
    gone = weakref.ref(emitter)
    del emitter
    gc.collect()
    assert gone() is None
    assert told(reader) == {}


def test_an_exporter_to_prometheus_makes_the_metrics_of_our_collector(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    def names(text: str) -> set[str]:
        families = text_string_to_metric_families(text)
        return {s.name for family in families for s in family.samples if s.name.startswith("fastemit_")}

    emitter = make_emitter()
    emitter.input(EVENT)
    assert emitter.drain(10)
    reader = PrometheusMetricReader()
    try:
        instruments(emitter, reader)
        by_opentelemetry = names(generate_latest(REGISTRY).decode())
    finally:
        reader.shutdown()
    registry = CollectorRegistry()
    registry.register(EmitterCollector(emitter))
    assert by_opentelemetry == names(generate_latest(registry).decode())


@pytest.mark.parametrize("wrong", [None, "shop", Emitter, ["x"], {"shop": 3}])
def test_what_is_no_emitter_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="emitter must be an Emitter of fastemit"):
        instruments(wrong)


def test_what_is_no_provider_is_a_type_error(make_emitter: MakeEmitter) -> None:
    with pytest.raises(TypeError, match="meter_provider must be a MeterProvider of opentelemetry or None, not str 'x'"):
        EmitterInstruments(make_emitter(), "x")  # type: ignore[arg-type]


def test_the_global_provider_is_the_default(make_emitter: MakeEmitter) -> None:
    program = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from fastemit import Emitter
from fastemit.contrib.opentelemetry import EmitterInstruments

reader = InMemoryMetricReader()
emitter = Emitter("collector.example.com")
EmitterInstruments(emitter)
metrics.set_meter_provider(MeterProvider([reader]))  # it may come later
names = [m.name for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics]
print("fastemit.requests" in names)
"""
    assert output_of(program) == "True"


def test_without_opentelemetry_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["opentelemetry.metrics"] = None
try:
    import fastemit.contrib.opentelemetry
except ImportError as error:
    print(error)
"""
    assert 'pip install "fastemit[opentelemetry]"' in output_of(program)
