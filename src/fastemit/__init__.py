"""fastemit: the Snowplow event emitter for high-volume Python services.

    from fastemit import Emitter, Tracker

in place of `from snowplow_tracker import Emitter, Tracker` is the line that changes. Either works without the other.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fastemit import _native as _native
from fastemit._version import __version__
from fastemit.emitter_configuration import EmitterConfiguration
from fastemit.emitters import AsyncEmitter, Emitter
from fastemit.event_store import EventStore, InMemoryEventStore
from fastemit.stats import EmitterStats, logger

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
    from fastemit.celery import CeleryEmitter as CeleryEmitter
    from fastemit.redis import RedisEmitter as RedisEmitter
    from fastemit.redis import RedisWorker as RedisWorker
    from fastemit.snowplow import Snowplow as Snowplow
    from fastemit.tracker import Tracker as Tracker
else:
    # Imported on first use, because they need an extra: name, module, what the extra installs. Not in `__all__`, so
    # that a star import needs none.
    _NEED_AN_EXTRA = {
        "CeleryEmitter": ("fastemit.celery", "celery"),
        "RedisEmitter": ("fastemit.redis", "redis"),
        "RedisWorker": ("fastemit.redis", "redis"),
        "Snowplow": ("fastemit.snowplow", "snowplow_tracker"),
        "Tracker": ("fastemit.tracker", "snowplow_tracker"),
    }

    # Out of sight of type checkers, which would take it to mean that every name is there.
    def __getattr__(name: str) -> Any:
        if name not in _NEED_AN_EXTRA:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_NEED_AN_EXTRA[name][0]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        # help() gets every name that is listed, and stops at an ImportError.
        return sorted({*globals(), *(name for name, (_, needed) in _NEED_AN_EXTRA.items() if find_spec(needed))})
