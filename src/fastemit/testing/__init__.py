"""A development collector for tests and for trying things out.

    from fastemit.testing import Collector

    with Collector() as collector:
        emitter = Emitter(collector.url)
        ...
        events = collector.wait_for(3)

`Collector` is a real HTTP server on a free loopback port. It keeps what it receives, answers as you tell it to, and
judges events as Snowplow Micro does. It needs only the standard library.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastemit.testing._collector import Collector
    from fastemit.testing._journal import BadEvent, Totals
    from fastemit.testing._request import Headers, Request

__all__ = ["BadEvent", "Collector", "Headers", "Request", "Totals"]

if not TYPE_CHECKING:
    # Imported on first use, because pytest imports this package in every run to find the plugin.
    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from fastemit.testing import _collector, _journal, _request

        globals().update(
            BadEvent=_journal.BadEvent,
            Collector=_collector.Collector,
            Headers=_request.Headers,
            Request=_request.Request,
            Totals=_journal.Totals,
        )
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
