"""Limits that no design could beat: what orjson and urllib3 take by themselves."""

from __future__ import annotations

import time

import orjson
import urllib3
from implementations import BODY_BYTES, EVENT, PATH, PREFIX


def loads_of_bodies(events: int) -> float:
    """CPU microseconds an event of `orjson.loads` of bodies as long as fastemit's."""
    event = orjson.dumps(EVENT)
    a_body = BODY_BYTES // (len(event) + 1)
    document = b"[" + b",".join([event] * a_body) + b"]"
    bodies = max(events // a_body, 1)
    started = time.process_time()
    for _ in range(bodies):
        loaded = orjson.loads(document)
    took = time.process_time() - started
    assert len(loaded) == a_body
    return took / (bodies * a_body) * 1e6


def ready_made_bodies(url: str, event: bytes, total: int) -> float:
    """Bytes a second of ready-made bodies of such events, sent one after the other over one urllib3 connection."""
    a_body = max((BODY_BYTES - len(PREFIX) - 2) // (len(event) + 1), 1)
    body = PREFIX + b",".join([event] * a_body) + b"]}"
    address = urllib3.util.parse_url(url)
    pool = urllib3.HTTPConnectionPool(address.host, address.port)
    headers = {"Content-Type": "application/json; charset=utf-8"}
    rounds = max(total // len(body), 1)
    started = time.perf_counter()
    for _ in range(rounds):
        response = pool.urlopen("POST", PATH, body=body, headers=headers, retries=False)
        assert response.status == 200
    took = time.perf_counter() - started
    pool.close()
    return rounds * len(body) / took
