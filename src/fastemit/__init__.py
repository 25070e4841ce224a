"""fastemit: the Snowplow event emitter for high-volume Python services.

    from fastemit import Emitter

in place of `from snowplow_tracker import Emitter` is the one line that changes.
"""

from fastemit._version import __version__
from fastemit.emitters import AsyncEmitter, Emitter
from fastemit.event_store import InMemoryEventStore
from fastemit.stats import EmitterStats, logger

__all__ = ["AsyncEmitter", "Emitter", "EmitterStats", "InMemoryEventStore", "__version__", "logger"]
