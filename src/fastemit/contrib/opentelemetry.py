"""`EmitterInstruments`: the counters of emitters as OpenTelemetry metrics.

    from fastemit.contrib.opentelemetry import EmitterInstruments

    EmitterInstruments(emitter)

Importing this module imports opentelemetry: `pip install "fastemit[opentelemetry]"`. That is only the API. The program
chooses the SDK that reads the instruments, and where it sends them.

The semantic conventions for the metrics of an SDK (https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics) name
only spans, log records and data points. Their rules for kinds, units and attributes are kept here: a total is a
counter, a level of a queue is an up-down counter, and the unit is the thing that is counted, in braces. The server is
named by `server.address` and `server.port`. The names are those of `fastemit.contrib.prometheus`, so that an exporter
to Prometheus makes the same metrics of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from fastemit._time import monotonic
from fastemit._version import __version__
from fastemit.contrib._watched import METRICS, Look, Metric, Observed, Watched

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "opentelemetry":
        raise
    raise ImportError(
        'fastemit.contrib.opentelemetry needs the package opentelemetry-api: pip install "fastemit[opentelemetry]"',
        name=error.name,
    ) from error

__all__ = ["EmitterInstruments"]

_OLDEST_LOOK = 1.0  # seconds
_PORTS = {"http": 80, "https": 443}


class EmitterInstruments:
    """Gives OpenTelemetry the numbers of `stats()` of some emitters at each collection.

    Nothing runs between collections. All instruments of one collection show the same moment. Every metric has the
    attribute `emitter`. If the emitter has a collector's address, it also has `server.address` and `server.port`.
    Emitters are not kept alive. One that the program has let go of is left out from then on.

    The instruments stay with the meter, so make only one of these in a process, and use `add` for more emitters. The
    counters are those of this process, and start at 0 in a forked child.

    Args:
        emitters: an emitter, which is then called "default", or a mapping of names to emitters.
        meter_provider: the provider that the instruments are made with; None for the global one.

    Raises:
        TypeError: something else was given.

    Thread safety: every method may be called from any thread.
    """

    def __init__(
        self, emitters: Observed | Mapping[str, Observed], meter_provider: MeterProvider | None = None
    ) -> None:
        if meter_provider is not None and not callable(getattr(meter_provider, "get_meter", None)):
            raise TypeError(
                f"meter_provider must be a MeterProvider of opentelemetry or None, "
                f"not {type(meter_provider).__name__} {meter_provider!r}"
            )
        self._watched = Watched(emitters)
        self._lock = threading.Lock()
        self._looks: list[Look] = []
        self._looked_at = 0.0
        self._told: set[str] | None = None  # the metrics that were read from these looks; None before the first look
        meter = get_meter("fastemit", __version__, meter_provider)
        for metric in METRICS:
            make = {
                "counter": meter.create_observable_counter,
                "level": meter.create_observable_up_down_counter,
                "gauge": meter.create_observable_gauge,
            }[metric.kind]
            make(f"fastemit.{metric.name}", [self._observer(metric)], metric.unit, metric.text)

    def add(self, name: str, emitter: Observed) -> None:
        """Add another emitter under this name. It replaces the one that has the name, if there is one."""
        self._watched.add(name, emitter)

    def _observer(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value, {"emitter": look.name, **_server(look.endpoint), **labels})
                for look in self._looks_for(metric)
                for labels, value in look.values(metric)
            ]

        return observe

    def _looks_for(self, metric: Metric) -> list[Look]:
        """The counters of the emitters, at the same moment for all metrics of a collection.

        An SDK reads one instrument after the other, and does not say where a collection begins. It reads each of them
        once, so a metric that is read again begins a new collection.
        """
        with self._lock:
            now = monotonic()
            if self._told is None or metric.name in self._told or now - self._looked_at > _OLDEST_LOOK:
                self._looks = self._watched.look()
                self._looked_at = now
                self._told = set()
            self._told.add(metric.name)
            return self._looks


def _server(endpoint: str | None) -> dict[str, str | int]:
    address = urlsplit(endpoint or "")
    if not address.hostname:
        return {}
    return {"server.address": address.hostname, "server.port": address.port or _PORTS.get(address.scheme, 0)}
