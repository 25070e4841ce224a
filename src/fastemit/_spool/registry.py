"""The directories that this process has locked, so that it does not open the lock of one of them again."""

from __future__ import annotations

import os
import threading


class Registry:
    """The directories of one process. A forked child has none."""

    def __init__(self) -> None:
        self.process = os.getpid()
        #: Held while a lock is tried, because two threads of one process would both get it.
        self.lock = threading.RLock()
        self.mine: set[tuple[int, int, str]] = set()


_registry = Registry()


def registry() -> Registry:
    """The registry of this process."""
    global _registry
    if _registry.process != os.getpid():
        _registry = Registry()
    return _registry
