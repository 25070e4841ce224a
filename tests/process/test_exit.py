"""The end of the process, processes without threads, emitters that the program drops."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter
from tests.support.delivery import Rig, Script, numbers, put
from tests.support.slow import slow
from tests.support.waiting import until


@pytest.fixture
def run(rig: Rig, tmp_path: Path) -> Script:
    return Script(rig, tmp_path)


# -- what is queued is sent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ["Emitter", slow("AsyncEmitter")])
@pytest.mark.parametrize("settings", ["", "batch_size=1", "background=False"])
def test_events_that_are_queued_when_the_process_ends_are_delivered(run: Script, cls: str, settings: str) -> None:
    assert run(f"put({cls}(URL, {settings}))").well
    assert run.arrived == [0, 1, 2]


def test_sys_exit_delivers_and_keeps_its_status(run: Script) -> None:
    ended = run("put(Emitter(URL)); sys.exit(7)")
    assert (ended.status, ended.errors) == (7, "")
    assert run.arrived == [0, 1, 2]


def test_an_uncaught_exception_delivers_and_shows_nothing_but_itself(run: Script) -> None:
    ended = run("put(Emitter(URL)); raise LookupError('mine')")
    assert ended.status == 1
    assert ended.errors.startswith("Traceback")
    assert ended.errors.endswith("LookupError: mine\n")
    assert "fastemit" not in ended.errors
    assert run.arrived == [0, 1, 2]


def test_an_event_of_an_exit_handler_that_was_registered_after_the_import_is_delivered(run: Script) -> None:
    assert run("emitter = Emitter(URL); atexit.register(put, emitter)").well
    assert run.arrived == [0, 1, 2]


def test_events_of_a_thread_that_the_process_waits_for_are_delivered(run: Script) -> None:
    assert run("threading.Thread(target=put, args=(Emitter(URL),)).start()").well
    assert run.arrived == [0, 1, 2]


def test_daemon_threads_that_go_on_tracking_are_no_hindrance(run: Script) -> None:
    script = """
    emitter = Emitter(URL)
    put(emitter)
    def work():
        while True:
            put(emitter, 1, 3)
    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    """
    assert run(script).well
    assert run.arrived[:3] == [0, 1, 2]


def test_the_callbacks_of_the_last_events_run(run: Script) -> None:
    ended = run("put(Emitter(URL, on_success=lambda events: print(len(events), flush=True)))")
    assert ended.well
    assert ended.lines == ["3"]


def test_many_emitters_are_all_closed(run: Script) -> None:
    assert run("emitters = [Emitter(URL) for _ in range(20)]\nfor n, e in enumerate(emitters): put(e, 1, n)").well
    assert run.arrived == list(range(20))


def test_a_closed_emitter_and_one_without_events_end_quietly(run: Script) -> None:
    assert run("idle = Emitter(URL); closed = Emitter(URL); put(closed); closed.close()").well
    assert run.arrived == [0, 1, 2]


def test_a_live_emitter_that_was_busy_ends_quietly(run: Script) -> None:
    assert run(
        "emitter = AsyncEmitter(URL, batch_size=5, thread_count=4, flush_interval=0.01)\nput(emitter, 5000)"
    ).well
    assert run.arrived == list(range(5000))


# -- what cannot be sent is given up in time -------------------------------------------------------------------------

TROUBLE = ["down", "hanging", "failing", "dripping"]


def trouble(rig: Rig, kind: str) -> None:
    if kind == "down":
        rig.collector.close()
    elif kind == "hanging":
        rig.collector.respond(hang=True, times=None)
    elif kind == "failing":
        rig.collector.respond(503, headers={"Retry-After": "60"}, times=None)
    else:
        rig.collector.respond(drip=0.1, times=None)


@pytest.mark.parametrize("background", [True, slow(False)])
@pytest.mark.parametrize("kind", TROUBLE)
def test_the_process_ends_in_time_whatever_the_collector_does(
    rig: Rig, run: Script, kind: str, background: bool
) -> None:
    trouble(rig, kind)
    ended = run(f"put(Emitter(URL, background={background}, shutdown_timeout=0.2)); the_end()")
    assert ended.well
    assert ended.seconds < 0.7


def test_emitters_share_one_deadline_and_the_longest(rig: Rig, run: Script) -> None:
    trouble(rig, "hanging")
    ended = run("""
    emitters = [Emitter(URL, shutdown_timeout=timeout) for timeout in (0.1, 0.3, 0.2, 0.3, 0.3)]
    for emitter in emitters:
        put(emitter)
    the_end()
    """)
    assert ended.well
    assert 0.25 < ended.seconds < 0.8


def test_a_callback_that_never_returns_does_not_hold_up_the_end(run: Script) -> None:
    ended = run("""
    put(Emitter(URL, batch_size=1, shutdown_timeout=0.2, on_success=lambda _: threading.Event().wait()))
    the_end()
    """)
    assert ended.well
    assert ended.seconds < 0.7


def test_without_time_the_process_ends_at_once(rig: Rig, run: Script) -> None:
    trouble(rig, "hanging")
    ended = run("put(Emitter(URL, batch_size=1, shutdown_timeout=0)); the_end()")
    assert ended.well
    assert ended.seconds < 0.5


# -- no threads to be had --------------------------------------------------------------------------------------------

NO_THREADS = """
def refuse(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
"""


@pytest.mark.parametrize("settings", ["", "batch_size=2", "flush_interval=0.01"])
def test_a_process_that_can_start_no_thread_delivers(run: Script, settings: str) -> None:
    script = f"emitter = Emitter(URL, {settings})\nput(emitter)\nemitter.flush()\nput(emitter, 3, 3)"
    assert run(NO_THREADS + script).well
    assert run.arrived == [0, 1, 2, 3, 4, 5]


def test_a_process_that_can_start_no_thread_sends_where_the_limit_is_reached(run: Script) -> None:
    assert run(f"{NO_THREADS}\nput(Emitter(URL, batch_size=2)); the_end()").well
    assert [len(request.events) for request in run.collector.requests] == [2, 1]


def test_some_threads_are_better_than_none(run: Script) -> None:
    assert run("""
    start, started = threading.Thread.start, []
    def some(self):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)
    threading.Thread.start = some
    emitter = AsyncEmitter(URL, thread_count=4)
    put(emitter)
    assert emitter.drain()
    assert threading.active_count() == 3
    """).well
    assert run.arrived == [0, 1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit does not count threads")
def test_a_process_at_its_limit_of_threads_delivers(run: Script) -> None:
    assert run("""
    import resource
    # What is imported at the first request may be out of reach for the other user.
    put(Emitter(URL, background=False, batch_size=1), 1)
    emitter = Emitter(URL)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if os.getuid() == 0:
        os.setuid(65534)  # the limit does not hold for root
    put(emitter, 3, 1)
    assert threading.active_count() == 1
    """).well
    assert run.arrived == [0, 1, 2, 3]


# -- emitters that the program drops ---------------------------------------------------------------------------------


class Owner:
    """In a cycle with its emitter, as an object is whose method is the callback."""

    def __init__(self, rig: Rig, **settings: Any) -> None:
        self.events: list[Any] = []
        self.emitter = AsyncEmitter(
            rig.collector.url, batch_size=1000, on_success=self.called, on_failure=self.called, **settings
        )

    def called(self, *arguments: Any) -> None:
        self.events += arguments[-1]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_emitter_that_is_dropped_sends_what_is_queued(rig: Rig, threads: int) -> None:
    emitter = AsyncEmitter(rig.collector.url, batch_size=1000, thread_count=threads)
    put(emitter, 3)
    del emitter
    assert numbers(rig.collector.wait_for(3)) == [0, 1, 2]
    until(lambda: not rig.new_threads())


def test_an_emitter_in_a_cycle_that_is_dropped_sends_what_is_queued_and_calls_back(rig: Rig) -> None:
    owner = Owner(rig)
    events = owner.events
    put(owner.emitter, 3)
    del owner
    # A sender that is just starting still holds on to it, so the first collection may come too early.
    until(lambda: gc.collect() >= 0 and numbers(events) == [0, 1, 2])
    assert numbers(rig.collector.events) == [0, 1, 2]
    until(lambda: not rig.new_threads())


def test_an_emitter_that_is_dropped_in_a_backoff_retries(rig: Rig) -> None:
    rig.collector.respond(500, times=2)
    emitter = Emitter(rig.collector.url, max_retry_delay_seconds=0.05)
    put(emitter, 3)
    emitter.flush()
    del emitter
    assert numbers(rig.collector.wait_for(3)) == [0, 1, 2]
    until(lambda: not rig.new_threads())


@pytest.mark.parametrize("settings", ["", "background=False"])
def test_an_emitter_that_is_dropped_just_before_the_end_delivers(run: Script, settings: str) -> None:
    assert run(f"emitter = Emitter(URL, {settings})\nput(emitter)\ndel emitter\ngc.collect()").well
    assert run.arrived == [0, 1, 2]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_idle_emitter_that_is_dropped_is_collected_and_its_threads_end(rig: Rig, threads: int) -> None:
    emitter = AsyncEmitter(rig.collector.url, thread_count=threads)
    put(emitter, 3)
    emitter.sync_flush()
    until(lambda: len(rig.new_threads()) == threads)
    seen: list[Any] = [weakref.ref(emitter), weakref.ref(emitter._delivery), weakref.ref(emitter._buffer)]
    del emitter
    until(lambda: gc.collect() >= 0 and [ref() for ref in seen] == [None] * 3)
    until(lambda: not rig.new_threads())
    until(lambda: rig.collector.open_connections == 0)


def test_an_idle_emitter_in_a_cycle_is_collected_and_its_thread_ends(rig: Rig) -> None:
    owner = Owner(rig)
    put(owner.emitter, 3)
    owner.emitter.sync_flush()
    seen: list[Any] = [weakref.ref(owner), weakref.ref(owner.emitter)]
    del owner
    until(lambda: gc.collect() >= 0 and [ref() for ref in seen] == [None] * 2)
    until(lambda: not rig.new_threads())


def test_an_emitter_that_had_no_event_is_collected_at_once(rig: Rig) -> None:
    emitter = Emitter(rig.collector.url)
    seen = weakref.ref(emitter)
    del emitter
    gc.collect()
    assert seen() is None


def test_an_emitter_that_its_own_sender_drops_is_collected(rig: Rig) -> None:
    held: list[Any] = []
    dropped = threading.Event()

    def drop(_: Any) -> None:
        held.clear()
        gc.collect()
        dropped.set()

    held.append(Emitter(rig.collector.url, on_success=drop))
    put(held[0], 3)
    held[0].async_flush()
    assert dropped.wait(10)
    until(lambda: not rig.new_threads())
