"""What a fork, also in the middle of a request, and the end of the process do with the events of a user's store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.buffer import run_script
from tests.support.delivery import Script, rigged
from tests.support.slow import slow

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


_STORES = """
from tests.support.stores import ListStore

class Told(ListStore):
    def after_fork(self):
        self.events = []

class TheSame(ListStore):
    def after_fork(self):
        pass

def in_child(function):
    child = os.fork()
    if not child:
        try:
            function()
            os._exit(0)
        finally:
            # Only after an error.
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], list[int]]]:
    """Runs a script; the numbers of the events that arrived."""
    with rigged() as rig:
        script = Script(rig, tmp_path)

        def run(text: str) -> list[int]:
            assert script(_STORES + text).well
            return script.arrived

        yield run


@needs_fork
def test_a_forked_child_does_not_touch_the_store(run: Callable[[str], list[int]]) -> None:
    assert run("""
store = ListStore()
emitter = Emitter(URL, event_store=store, batch_size=100)
put(emitter)
def child():
    put(emitter, 2, 10)
    assert emitter.close() == 0
    assert len(store.events) == 3
    assert emitter.stats().sent_events == 2
in_child(child)
""") == [0, 1, 2, 10, 11]


@needs_fork
def test_a_forked_child_uses_a_store_that_is_told(run: Callable[[str], list[int]]) -> None:
    assert run("""
store = Told()
emitter = Emitter(URL, event_store=store, batch_size=100)
put(emitter)
def child():
    put(emitter, 2, 10)
    assert len(store.events) == 2
    assert emitter.close() == 0
    assert emitter.stats().sent_events == 2
in_child(child)
""") == [0, 1, 2, 10, 11]


def test_the_end_of_the_process_sends_what_a_store_holds(run: Callable[[str], list[int]]) -> None:
    assert run("put(Emitter(URL, event_store=ListStore(), batch_size=100))") == [0, 1, 2]


@needs_fork
def test_a_forked_child_does_not_count_what_its_store_holds_already(run: Callable[[str], list[int]]) -> None:
    assert run("""
store = TheSame()
emitter = Emitter(URL, event_store=store, batch_size=100)
put(emitter)
def child():
    put(emitter, 2, 10)
    assert emitter.close() == 0
    assert emitter.stats().sent_events == 2
in_child(child)
""") == [0, 0, 1, 1, 2, 2, 10, 11]


@needs_fork
def test_a_forked_child_does_without_a_store_whose_after_fork_raises(run: Callable[[str], list[int]]) -> None:
    assert run("""
class Raising(ListStore):
    def after_fork(self):
        raise OSError("no store today")
emitter = Emitter(URL, event_store=Raising(), batch_size=100)
put(emitter)
def child():
    put(emitter, 2, 10)
    assert emitter.close() == 0
    assert emitter.stats().sent_events == 2
in_child(child)
""") == [0, 1, 2, 10, 11]


# Forks in the middle of a request.
_IN_FLIGHT = """
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


@needs_fork
@pytest.mark.parametrize("own_after_fork", [True, slow(False)])
@pytest.mark.parametrize(
    ("status", "parent"),
    [(200, [2, 0, 0, 0, 0, 0, 2]), (400, [0, 0, 0, 0, 2, 0, 2]), (503, [0, 2, 0, 2, 0, 2, 2])],
)
def test_events_that_were_out_at_the_fork_are_the_parent_s(
    status: int, parent: list[int], own_after_fork: bool
) -> None:
    told = run_script(_IN_FLIGHT.replace("STATUS", str(status)).replace("OWN_AFTER_FORK", str(own_after_fork)))
    assert told[0] == parent
    # Without an `after_fork` the child has a store of its own, and `store` is a copy of the parent's.
    assert told[1] == [0] * 7
