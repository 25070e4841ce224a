"""Settings of an emitter that are taken, and that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from fastemit import InMemoryEventStore

#: A value of each setting of an emitter that is taken, and that is not the default.
TAKEN: dict[str, Any] = {
    "batch_size": 3,
    "on_success": print,
    "on_failure": repr,
    "on_lost": ascii,
    "spool": Path(__file__).parent,
    "spool_sync": 1.5,
    "byte_limit": 1000,
    "request_timeout": (1.5, 2),
    "buffer_capacity": 50,
    "custom_retry_codes": {500: False},
    "event_store": InMemoryEventStore(buffer_capacity=7),
    "session": requests.Session(),
    "max_retry_delay_seconds": 7,
    "overflow": "drop_newest",
    "max_buffer_bytes": 1 << 20,
    "max_request_bytes": 4096,
    "shutdown_timeout": 0,
    "background": False,
    "flush_interval": 2.5,
    "headers": {"X-Key": "value"},
    "ca_certs": Path(__file__).parent,
    "pool_manager": urllib3.PoolManager(),
}

NAN, INF = float("nan"), float("inf")


def refused() -> Iterator[tuple[str, Any]]:
    """(setting, a value that `Emitter` refuses)."""
    value: Any
    for name in ("batch_size", "byte_limit", "buffer_capacity", "max_buffer_bytes", "max_request_bytes"):
        yield from ((name, value) for value in (True, "1", 1.5, [1], 0, -1, -(2**70)))
    for name in ("max_retry_delay_seconds", "flush_interval", "shutdown_timeout"):
        yield from ((name, value) for value in (True, "1", [1], -1, NAN, INF))
    yield from ((name, 0) for name in ("max_retry_delay_seconds", "flush_interval"))
    for name in ("on_success", "on_failure", "on_lost"):
        yield from ((name, value) for value in (1, "print", []))
    yield from (("request_timeout", value) for value in ("1", True, (1,), (1, 2, 3), (1, "2"), 0, NAN, {}))
    for value in ([], {"500": True}, {500: 1}, {True: True}, {99: True}, {600: False}):
        yield "custom_retry_codes", value
    yield from (("event_store", value) for value in ([], object(), InMemoryEventStore, "store"))
    yield from (("session", value) for value in (1, object(), requests.Session, "session"))
    yield from (("pool_manager", value) for value in (1, object(), urllib3.PoolManager))
    yield from (("overflow", value) for value in (1, "", "drop", "BLOCK", True))
    yield from (("background", value) for value in (0, 1, "yes"))
    for value in ([], {"X": 1}, {1: "x"}, {"X": "a\nb"}, {"": "x"}, {"Content-Type": "text/plain"}):
        yield "headers", value
    yield from (("ca_certs", value) for value in (1, b"/etc", "/does/not/exist"))


def message_of(refuse: Any) -> tuple[type[Exception], str]:
    with pytest.raises((TypeError, ValueError)) as error:
        refuse()
    return error.type, str(error.value)
