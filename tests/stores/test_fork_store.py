"""A fork in the middle of a request from an event store: the child knows nothing of the parent's events."""

from __future__ import annotations

import os

import pytest

from tests.support.buffer import run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

SCRIPT = """
import json, os
from fastemit import Emitter

class Store:
    def __init__(self):
        self.after_fork()
    def after_fork(self):
        self.events, self.cleaned = [], []
    def add_event(self, payload):
        self.events.append(payload)
        return True
    def get_events_batch(self):
        batch, self.events = self.events, []
        return batch
    def cleanup(self, batch, need_retry):
        self.cleaned += batch
        if need_retry:
            self.events += batch
    def size(self):
        return len(self.events)

class Forking(Emitter):
    child = None
    def http_post(self, data):
        if self.child is None:
            self.child = os.fork()
        return STATUS

store = Store()
if not OWN_AFTER_FORK:
    del Store.after_fork
emitter = Forking("http://127.0.0.1:9", event_store=store, batch_size=2, background=False, shutdown_timeout=0)
reader, writer = os.pipe()
for number in range(2):
    emitter.input({"n": number})
stats = emitter.stats()
told = [stats.sent_events, stats.queued_events, stats.in_flight_events, stats.retried_events,
        sum(stats.dropped_events.values()), emitter._buffer.unsettled_events, len(store.cleaned)]
if emitter.child == 0:
    os.write(writer, json.dumps(told).encode())
    os._exit(0)
os.waitpid(emitter.child, 0)
print(json.dumps([told, json.loads(os.read(reader, 1000))]))
os._exit(0)
"""


@pytest.mark.parametrize("own_after_fork", [True, False])
@pytest.mark.parametrize(
    ("status", "parent"),
    [(200, [2, 0, 0, 0, 0, 0, 2]), (400, [0, 0, 0, 0, 2, 0, 2]), (503, [0, 2, 0, 2, 0, 2, 2])],
)
def test_events_that_were_out_at_the_fork_are_the_parent_s(
    status: int, parent: list[int], own_after_fork: bool
) -> None:
    told = run_script(SCRIPT.replace("STATUS", str(status)).replace("OWN_AFTER_FORK", str(own_after_fork)))
    assert told[0] == parent
    # Without an `after_fork` the child has a store of its own, and `store` is a copy of the parent's.
    assert told[1] == [0] * 7
