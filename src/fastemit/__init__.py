"""fastemit: the Snowplow event emitter for high-volume Python services."""

from fastemit._version import __version__

__all__ = ["__version__"]
