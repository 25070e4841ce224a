"""The metrics of emitters for monitoring systems, and the emitters by name."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, Protocol

from fastemit.stats import EmitterStats

DEFAULT_NAME = "default"


class Metric(NamedTuple):
    """One number of `EmitterStats`, with its name, text, kind and unit for every monitoring system."""

    name: str  # without the prefix "fastemit", and without a suffix for its kind or unit
    text: str
    kind: Literal["counter", "level", "gauge"]  # levels can be added up over processes, gauges cannot
    unit: str  # in the case-sensitive form of UCUM


METRICS = (
    Metric("queued_events", "Events accepted and waiting, those kept after a failure included.", "level", "{event}"),
    Metric("queued_bytes", "What the queued events take in request bodies, in bytes.", "level", "By"),
    Metric("in_flight_events", "Events in a request whose outcome is not known yet.", "level", "{event}"),
    Metric("buffer_capacity_events", "Most events that may be queued and in flight together.", "level", "{event}"),
    Metric("retry_delay", "The backoff that runs; 0 while sending works.", "gauge", "s"),
    Metric("last_status", "HTTP status of the last request that was answered; absent before the first.", "gauge", ""),
    Metric("sent_events", "Events that were answered with a 2xx status.", "counter", "{event}"),
    Metric("sent_bytes", "What the sent events took in request bodies, in bytes.", "counter", "By"),
    Metric("requests", "Requests made, each attempt counted.", "counter", "{request}"),
    Metric("failed_requests", "Requests without an answer, or with one that is not 2xx.", "counter", "{request}"),
    Metric("retried_events", "Events kept after a failed request, counted at each attempt.", "counter", "{event}"),
    Metric("recovered_events", "Events of dead processes, taken over from a spool.", "counter", "{event}"),
    Metric("dropped_events", "Events dropped, by reason.", "counter", "{event}"),
)


class Observed(Protocol):
    """An emitter, as far as monitoring needs it. All emitters of fastemit have this method."""

    def stats(self) -> EmitterStats: ...


class Look(NamedTuple):
    """One emitter as it was at one moment. It does not keep the emitter alive."""

    name: str
    stats: EmitterStats
    capacity: int | None  # None for a user's store that does not tell it
    endpoint: str | None  # the collector's URI; None for an emitter without a collector

    def values(self, metric: Metric) -> Iterator[tuple[dict[str, str], float]]:
        """The numbers of this metric, each with its labels besides the emitter's name."""
        if metric.name == "dropped_events":
            for reason, count in self.stats.dropped_events.items():
                yield {"reason": reason}, count
            return
        value = self.capacity if metric.name == "buffer_capacity_events" else getattr(self.stats, metric.name)
        if value is not None:
            yield {}, value


class Watched:
    """Emitters by name. It keeps none of them alive. One that the program has let go of is left out from then on.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, emitters: Observed | Mapping[str, Observed]) -> None:
        self._emitters: dict[str, weakref.ref[Observed]] = {}
        named = emitters if isinstance(emitters, Mapping) else {DEFAULT_NAME: emitters}
        for name, emitter in named.items():
            self.add(name, emitter)

    def add(self, name: str, emitter: Observed) -> None:
        """Watch another emitter under this name. It replaces the one that has the name, if there is one."""
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, not {type(name).__name__} {name!r}")
        if isinstance(emitter, type) or not callable(getattr(emitter, "stats", None)):
            raise TypeError(f"emitter must be an Emitter of fastemit, not {type(emitter).__name__} {emitter!r}")
        self._emitters[name] = weakref.ref(emitter)

    def look(self) -> list[Look]:
        """All emitters that still exist, with their counters of now."""
        looks = []
        # A copy, because another thread may add an emitter.
        for name, reference in self._emitters.copy().items():
            emitter = reference()
            if emitter is not None:
                capacity = getattr(getattr(emitter, "event_store", None), "buffer_capacity", None)
                endpoint = getattr(emitter, "endpoint", None)
                looks.append(
                    Look(
                        name,
                        emitter.stats(),
                        capacity if isinstance(capacity, int) else None,
                        endpoint if isinstance(endpoint, str) else None,
                    )
                )
        return looks
