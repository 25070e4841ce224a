"""What the tests of `EmitterConfiguration` and `Snowplow` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests
import urllib3

from fastemit import InMemoryEventStore

#: A value of each setting of an emitter that is taken, and that is not the default.
TAKEN: dict[str, Any] = {
    "batch_size": 3,
    "on_success": print,
    "on_failure": repr,
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
