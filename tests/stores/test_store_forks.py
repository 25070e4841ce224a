"""What a fork and the end of the process do with the events of a user's store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.delivery import Script, rigged

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
