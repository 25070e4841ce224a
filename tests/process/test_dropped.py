"""Emitters that the program makes and drops, such as one for each web request: few threads send what they leave."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastemit import Emitter
from fastemit._delivery import leftovers
from fastemit._process import lifecycle
from fastemit._time import monotonic
from tests.support.delivery import Rig, numbers, put, senders
from tests.support.processes import WatchedScript
from tests.support.waiting import until

GIVEN_UP = "events of dropped emitters given up"


@pytest.fixture
def run(rig: Rig, tmp_path: Path) -> WatchedScript:
    return WatchedScript(rig, tmp_path)


def drop(rig: Rig, count: int, **settings: Any) -> None:
    """Make so many emitters, one after another, with an event each."""
    for number in range(count):
        put(Emitter(rig.collector.url, **{"max_retry_delay_seconds": 0.05, **settings}), 1, number)


def crew(before: set[threading.Thread]) -> int:
    return len(set(senders()) - before)


# A process that is root has no limit of threads, and nobody's is shared by all that run as nobody.
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of threads is a user's there")
@pytest.mark.slow
def test_a_thousand_of_them_leave_a_process_with_a_low_limit_of_threads_able_to_start_some(
    rig: Rig, run: WatchedScript
) -> None:
    rig.collector.close()
    done = run("""
    import resource
    Emitter(URL).close()  # imports what is to be read as another user
    if os.getuid() == 0:
        user = 200_000 + os.getpid() % 100_000
        os.setgid(user)
        os.setuid(user)
    here = len(os.listdir("/proc/self/task"))
    resource.setrlimit(resource.RLIMIT_NPROC, (here + 50, here + 50))
    failed = most = 0
    for number in range(1000):
        put(Emitter(URL, shutdown_timeout=0.2), 1, number)
        try:
            threading.Thread(target=int).start()
        except RuntimeError:
            failed += 1
        most = max(most, threading.active_count())
    print(failed)
    print(most)
    """)
    assert done.well
    failed, most = map(int, done.lines)
    assert failed == 0
    assert most < 50


def test_what_they_leave_while_the_collector_is_down_arrives_when_it_is_back(rig: Rig) -> None:
    before = set(senders())
    rig.collector.close()
    drop(rig, 100)
    until(lambda: crew(before) <= leftovers.MOST_THREADS)
    rig.collector.start()
    assert sorted(numbers(rig.collector.wait_for(100))) == list(range(100))
    until(lambda: not rig.new_threads())


def test_what_they_leave_arrives_at_once_while_the_collector_is_well(rig: Rig) -> None:
    drop(rig, 50)
    assert sorted(numbers(rig.collector.wait_for(50, timeout=5))) == list(range(50))
    until(lambda: not rig.new_threads())
    until(lambda: rig.collector.open_connections == 0)


def test_the_first_of_more_than_are_kept_are_given_up_and_told_of(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leftovers, "MOST_EMITTERS", 5)
    monkeypatch.setattr(leftovers, "_pool", leftovers._Pool())
    rig.collector.close()
    before = len(lifecycle._open)
    adopted = set(lifecycle._orphans)  # by other tests of this process
    drop(rig, 20)
    # Each is there from the moment it is made.
    until(lambda: len(lifecycle._open) == before + 5)
    assert GIVEN_UP in caplog.text
    rig.collector.start()
    rig.collector.wait_for(5)
    until(lambda: not rig.new_threads())
    arrived = numbers(rig.collector.events)
    assert len(arrived) == len(set(arrived)) == 5
    # About in the order in which they were dropped: that is, in which their senders saw it.
    assert min(arrived) > 5
    assert set(lifecycle._orphans) <= adopted


def test_the_first_of_those_that_hold_more_bytes_than_are_kept_are_given_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "MOST_BYTES", 10)
    monkeypatch.setattr(leftovers, "_pool", leftovers._Pool())
    rig.collector.close()
    before = len(lifecycle._open)
    drop(rig, 20)
    # The newest is kept, however large it is.
    until(lambda: len(lifecycle._open) == before + 1)
    rig.collector.start()
    rig.collector.wait_for(1)
    until(lambda: not rig.new_threads())
    assert len(rig.collector.events) == 1


def test_what_cannot_be_sent_for_long_is_given_up_and_told_of(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE", 0.2)
    rig.collector.close()
    adopted = set(lifecycle._orphans)
    drop(rig, 3)
    until(lambda: not rig.new_threads())
    assert GIVEN_UP in caplog.text
    assert set(lifecycle._orphans) <= adopted


def test_those_without_a_thread_are_kept_within_the_same_bound(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leftovers, "MOST_EMITTERS", 5)
    monkeypatch.setattr(leftovers, "_pool", leftovers._Pool())
    adopted = set(lifecycle._orphans)  # by other tests of this process, whose collectors are gone
    drop(rig, 20, background=False)
    assert GIVEN_UP in caplog.text
    # As the end of the process has them do.
    for key in set(lifecycle._orphans) - adopted:
        delivery = lifecycle._orphans[key]
        delivery.begin_close(monotonic() + 5)
        delivery.finish_close(monotonic() + 5)
    assert sorted(numbers(rig.collector.wait_for(5))) == [15, 16, 17, 18, 19]
    assert set(lifecycle._orphans) <= adopted


def test_one_whose_request_hangs_does_not_hold_up_what_the_others_leave(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    drop(rig, 1)
    rig.collector.wait_for_requests(1)
    for number in range(1, 7):
        put(Emitter(rig.collector.url), 1, number)
    # One of the shared threads is taken; the others share what comes.
    until(lambda: len(numbers(rig.collector.events)) >= 4)
    rig.collector.release()
    assert sorted(numbers(rig.collector.wait_for(7))) == list(range(7))
    until(lambda: not rig.new_threads())


class Slow:
    """Takes long to be finalized: it closes a connection, say, or waits for a thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __del__(self) -> None:
        time.sleep(self._seconds)


def test_one_that_is_collected_beside_a_slow_finalizer_loses_nothing(rig: Rig) -> None:
    class Holder:
        pass

    holder: Any = Holder()
    holder.me = holder
    holder.slow = Slow(1.5)
    # Its sender wakes while the collection goes on.
    holder.emitter = Emitter(rig.collector.url, flush_interval=0.2, on_success=lambda _, holder=holder: None)
    put(holder.emitter)
    holder.emitter.flush()
    put(holder.emitter, 4, 1)
    gc.disable()
    try:
        del holder
        gc.collect()
    finally:
        gc.enable()
    assert sorted(numbers(rig.collector.wait_for(5))) == [0, 1, 2, 3, 4]
    until(lambda: not rig.new_threads())


def test_a_closed_one_that_is_dropped_leaves_no_thread_for_long(rig: Rig) -> None:
    rig.collector.close()
    before = set(senders())
    for number in range(50):
        emitter = Emitter(rig.collector.url, batch_size=2)
        put(emitter, 1, number)
        emitter.close(0)
    del emitter
    until(lambda: crew(before) == 0, timeout=0.5)


@pytest.fixture(autouse=True)
def _lines(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.WARNING, "fastemit"):
        yield
