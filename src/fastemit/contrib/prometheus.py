"""`EmitterCollector`: the counters of emitters as Prometheus metrics.

    from prometheus_client import REGISTRY
    from fastemit.contrib.prometheus import EmitterCollector

    REGISTRY.register(EmitterCollector(emitter))

Importing this module imports prometheus_client: `pip install "fastemit[prometheus]"`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastemit.contrib import _watched
from fastemit.contrib._watched import METRICS, Look, Observed, Watched

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


class EmitterCollector(Collector):
    """Gives Prometheus the numbers of `stats()` of some emitters at each scrape.

    Nothing runs between scrapes. Every metric has the label `emitter`, so one collector serves several emitters; a
    registry takes only one collector. Emitters are not kept alive. One that the program has let go of is left out from
    then on.

    The counters are those of this process, and a forked child counts from 0. So each worker of a server that forks
    must be scraped by itself. The multiprocess mode of prometheus_client does not know collectors like this one.

    Args:
        emitters: an emitter, which is then called "default", or a mapping of names to emitters.

    Raises:
        TypeError: something else was given.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, emitters: Observed | Mapping[str, Observed]) -> None:
        self._watched = Watched(emitters)

    def add(self, name: str, emitter: Observed) -> None:
        """Add another emitter under this name. It replaces the one that has the name, if there is one."""
        self._watched.add(name, emitter)

    def describe(self) -> Iterator[Metric]:
        """The metrics without values. By these a registry refuses a second collector of the same kind."""
        return self._families([])

    def collect(self) -> Iterator[Metric]:
        """The metrics of all emitters that still exist."""
        return self._families(self._watched.look())

    def _families(self, looks: list[Look]) -> Iterator[Metric]:
        for metric in METRICS:
            family = _family(metric)
            suffix = "_total" if metric.kind == "counter" else ""
            for look in looks:
                for labels, value in look.values(metric):
                    family.add_sample(family.name + suffix, {"emitter": look.name, **labels}, value)
            yield family


def _family(metric: _watched.Metric) -> Metric:
    """A metric without samples. By the rules of Prometheus the unit is at the end of the name."""
    name = f"fastemit_{metric.name}{'_seconds' if metric.unit == 's' else ''}"
    labels = ["emitter", "reason"] if metric.name == "dropped_events" else ["emitter"]
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return make(name, metric.text, labels=labels)
