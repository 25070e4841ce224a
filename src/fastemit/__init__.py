"""fastemit: the Snowplow event emitter for high-volume Python services.

    from fastemit import Emitter, Tracker

in place of `from snowplow_tracker import Emitter, Tracker` is the only line that changes. You may also use only one of
the two.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastemit._version import __version__

__all__ = [
    "AsyncEmitter",
    "Emitter",
    "EmitterConfiguration",
    "EmitterStats",
    "EventStore",
    "InMemoryEventStore",
    "__version__",
    "logger",
]

if TYPE_CHECKING:
    from fastemit import emitter_configuration as emitter_configuration
    from fastemit import emitters as emitters
    from fastemit import event_store as event_store
    from fastemit import stats as stats
    from fastemit import typing as typing
    from fastemit.celery import CeleryEmitter as CeleryEmitter
    from fastemit.emitter_configuration import EmitterConfiguration
    from fastemit.emitters import AsyncEmitter, Emitter
    from fastemit.event_store import EventStore, InMemoryEventStore
    from fastemit.redis import RedisEmitter as RedisEmitter
    from fastemit.redis import RedisWorker as RedisWorker
    from fastemit.snowplow import Snowplow as Snowplow
    from fastemit.stats import EmitterStats, logger
    from fastemit.tracker import Tracker as Tracker
else:
    # All names are imported when they are first used, so that pytest and the command line import only this file.
    _HOMES = {
        "AsyncEmitter": "fastemit.emitters",
        "Emitter": "fastemit.emitters",
        "EmitterConfiguration": "fastemit.emitter_configuration",
        "EmitterStats": "fastemit.stats",
        "EventStore": "fastemit.event_store",
        "InMemoryEventStore": "fastemit.event_store",
        "logger": "fastemit.stats",
    }
    _MODULES = {"emitter_configuration", "emitters", "event_store", "stats", "typing"}
    # These need an extra: name, module, what the extra installs. They are not in `__all__`, so that a star import needs
    # no extra.
    _NEED_AN_EXTRA = {
        "CeleryEmitter": ("fastemit.celery", "celery"),
        "RedisEmitter": ("fastemit.redis", "redis"),
        "RedisWorker": ("fastemit.redis", "redis"),
        "Snowplow": ("fastemit.snowplow", "snowplow_tracker"),
        "Tracker": ("fastemit.tracker", "snowplow_tracker"),
    }

    # Type checkers must not see this, because they would take every name for one that exists.
    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name in _HOMES:
            home = _HOMES[name]
        elif name in _NEED_AN_EXTRA:
            home = _NEED_AN_EXTRA[name][0]
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        from importlib.util import find_spec

        # help() reads every name that is listed here, and an ImportError would stop it.
        extra = {name for name, (_, needed) in _NEED_AN_EXTRA.items() if find_spec(needed)}
        return sorted({*globals(), *_HOMES, *_MODULES, *extra})
