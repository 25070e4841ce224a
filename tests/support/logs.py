"""A handler of the log that sees whether a lock of the emitter's is held while a line is written."""

from __future__ import annotations

import logging
import threading
from typing import Any


class NoLock:
    """A lock of a logging handler, as each version of Python uses it, that locks nothing."""

    def acquire(self) -> None:
        pass

    def release(self) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Asking(logging.Handler):
    """At each line, another thread asks for all that a lock of the emitter's could keep from it."""

    def __init__(self) -> None:
        super().__init__()
        self.emitter: Any = None
        self.lines: list[str] = []
        self.locked: list[str] = []

    def createLock(self) -> None:
        # One of the handler's own would have two threads wait for each other.
        self.lock: Any = NoLock()

    def emit(self, record: logging.LogRecord) -> None:
        if threading.current_thread().name == "asking":
            return
        self.lines.append(record.getMessage())

        def ask() -> None:
            self.emitter.stats()
            self.emitter.async_flush()
            self.emitter.set_flush_timer(100)
            self.emitter.cancel_flush_timer()

        asking = threading.Thread(target=ask, name="asking", daemon=True)
        asking.start()
        asking.join(5.0)
        if asking.is_alive():
            self.locked.append(self.lines[-1])
