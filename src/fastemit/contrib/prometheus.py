"""`EmitterCollector`: the counters of emitters as Prometheus metrics.

    from prometheus_client import REGISTRY
    from fastemit.contrib.prometheus import EmitterCollector

    REGISTRY.register(EmitterCollector(emitter))

Importing this module imports prometheus_client: `pip install "fastemit[prometheus]"`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Protocol

from fastemit.stats import EmitterStats

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "prometheus_client":
        raise
    raise ImportError(
        'fastemit.contrib.prometheus needs the package prometheus-client: pip install "fastemit[prometheus]"',
        name=error.name,
    ) from error

__all__ = ["EmitterCollector"]

DEFAULT_NAME = "default"

# Name, help, the field of EmitterStats.
_GAUGES = (
    ("fastemit_queued_events", "Events accepted and waiting, those kept after a failure included.", "queued_events"),
    ("fastemit_queued_bytes", "What the queued events take in request bodies, in bytes.", "queued_bytes"),
    ("fastemit_in_flight_events", "Events in a request whose outcome is not known yet.", "in_flight_events"),
    ("fastemit_retry_delay_seconds", "The backoff that runs; 0 while sending works.", "retry_delay"),
)
_COUNTERS = (
    ("fastemit_sent_events", "Events that were answered with a 2xx status.", "sent_events"),
    ("fastemit_sent_bytes", "What the sent events took in request bodies, in bytes.", "sent_bytes"),
    ("fastemit_requests", "Requests made, each attempt counted.", "requests"),
    ("fastemit_failed_requests", "Requests without an answer, or with one that is not 2xx.", "failed_requests"),
    ("fastemit_retried_events", "Events kept after a failed request, counted at each attempt.", "retried_events"),
)
_CAPACITY = "fastemit_buffer_capacity_events", "Most events that may be queued and in flight together."
_DROPPED = "fastemit_dropped_events", "Events dropped, by reason."
_STATUS = "fastemit_last_status", "HTTP status of the last request that was answered; absent before the first."


class Observed(Protocol):
    """What is asked of an emitter: any of fastemit's has it."""

    def stats(self) -> EmitterStats: ...


class EmitterCollector(Collector):
    """Tells Prometheus, at each scrape, what `stats()` of some emitters tells.

    Nothing is counted twice and nothing runs between scrapes. Every metric has the label `emitter`, so one collector
    serves several emitters; a registry takes only one. No emitter is kept alive: one that the program has let go of is
    left out from then on.

    The counters are those of this process. A forked child counts from 0, so each worker of a server that forks has to
    be scraped by itself; prometheus_client's multiprocess mode knows no collectors like this one.

    Args:
        emitters: an emitter, which is then called "default", or a mapping of names to emitters.

    Raises:
        TypeError: something else was given.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, emitters: Observed | Mapping[str, Observed]) -> None:
        self._emitters: dict[str, weakref.ref[Observed]] = {}
        named = emitters if isinstance(emitters, Mapping) else {DEFAULT_NAME: emitters}
        for name, emitter in named.items():
            self.add(name, emitter)

    def add(self, name: str, emitter: Observed) -> None:
        """Tell of another emitter, under this name, in place of one that has it already."""
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, not {type(name).__name__} {name!r}")
        if isinstance(emitter, type) or not callable(getattr(emitter, "stats", None)):
            raise TypeError(f"emitter must be an Emitter of fastemit, not {type(emitter).__name__} {emitter!r}")
        self._emitters[name] = weakref.ref(emitter)

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values, by which a registry refuses a second collector of the same kind."""
        return iter(_families().values())

    def collect(self) -> Iterator[Metric]:
        """The metrics of all emitters that are still there."""
        families = _families()
        # A copy, since another thread may add one.
        for name, reference in self._emitters.copy().items():
            emitter = reference()
            if emitter is not None:
                _fill(families, name, emitter)
        return iter(families.values())


def _families() -> dict[str, Metric]:
    families: dict[str, Metric] = {}
    for name, text, _ in _GAUGES:
        families[name] = GaugeMetricFamily(name, text, labels=["emitter"])
    for name, text in (_CAPACITY, _STATUS):
        families[name] = GaugeMetricFamily(name, text, labels=["emitter"])
    for name, text, _ in _COUNTERS:
        families[name] = CounterMetricFamily(name, text, labels=["emitter"])
    families[_DROPPED[0]] = CounterMetricFamily(*_DROPPED, labels=["emitter", "reason"])
    return families


def _fill(families: dict[str, Metric], name: str, emitter: Observed) -> None:
    stats = emitter.stats()
    label = {"emitter": name}
    for metric, _, field in _GAUGES:
        families[metric].add_sample(metric, label, getattr(stats, field))
    for metric, _, field in _COUNTERS:
        families[metric].add_sample(f"{metric}_total", label, getattr(stats, field))
    for reason, count in stats.dropped_events.items():
        families[_DROPPED[0]].add_sample(f"{_DROPPED[0]}_total", {**label, "reason": reason}, count)
    if stats.last_status is not None:
        families[_STATUS[0]].add_sample(_STATUS[0], label, stats.last_status)
    capacity = getattr(getattr(emitter, "event_store", None), "buffer_capacity", None)
    # A store of the user's need not have one.
    if isinstance(capacity, int):
        families[_CAPACITY[0]].add_sample(_CAPACITY[0], label, capacity)
