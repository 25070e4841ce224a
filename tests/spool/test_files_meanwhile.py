"""A sender looks after the files of a spool while the collector works, and otherwise between two requests."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from fastemit import Emitter
from fastemit._filed_ring import Recovered
from fastemit._spool.estate import Estate
from fastemit._spool.home import Home
from fastemit._spool.spool import HURRIED_SPARES, SPARES, Spool
from tests.support.delivery import DEADLINE, Rig
from tests.support.emitters import accounted
from tests.support.spool import arrivals, homes, leave, segments
from tests.support.waiting import until

EVENTS = 900


@pytest.fixture
def spool(rig: Rig, tmp_path: Path) -> Path:
    """What a process has left: many more files than are in the buffer at the same time."""
    path = tmp_path / "spool"
    leave(rig.collector.url, path, f"put({EVENTS})", batch_size=EVENTS + 1, max_request_bytes=2000)
    assert len(segments(path)) > 20
    return path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each is called."""
    found: Counter[str] = Counter()

    def counted(name: str) -> None:
        original = getattr(Spool, name)

        def counting(self: Spool, *arguments: Any, **named: Any) -> Any:
            found[name] += 1
            return original(self, *arguments, **named)

        monkeypatch.setattr(Spool, name, counting)

    counted("tend")
    counted("tend_meanwhile")
    return found


def all_were_sent(rig: Rig, emitter: Emitter, spool: Path, more: int = 0) -> None:
    assert emitter.drain(DEADLINE)
    assert arrivals(rig.collector) == dict.fromkeys(range(EVENTS + more), 1)
    assert accounted(emitter.stats()) == EVENTS + more
    emitter.close()
    assert homes(spool) == []


def test_the_files_of_the_dead_are_read_while_the_collector_works(rig: Rig, spool: Path, calls: Counter[str]) -> None:
    all_were_sent(rig, rig.emitter(spool=spool), spool)
    made = len(rig.collector.requests)
    assert made > 20
    assert calls["tend_meanwhile"] == made
    # Once before the first request, and a few times at the end, when nothing is left to send.
    assert calls["tend"] < made / 2


@pytest.mark.parametrize("way", ["session", "pool_manager"])
def test_a_transport_that_does_nothing_meanwhile_loses_nothing(
    rig: Rig, spool: Path, calls: Counter[str], way: str
) -> None:
    of_the_user: Any = requests.Session() if way == "session" else urllib3.PoolManager()
    emitter = rig.emitter(spool=spool, max_request_bytes=2000, **{way: of_the_user})
    for number in range(EVENTS, 2 * EVENTS):
        emitter.input({"n": number})
    all_were_sent(rig, emitter, spool, more=EVENTS)
    assert calls["tend_meanwhile"] == 0


def test_a_fault_meanwhile_changes_no_answer(rig: Rig, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, faults = Estate.feed, []

    def feed(self: Estate, *arguments: Any) -> None:
        if len(rig.collector.requests) >= 3 and len(faults) < 3:
            faults.append(1)
            raise MemoryError
        original(self, *arguments)

    monkeypatch.setattr(Estate, "feed", feed)
    monkeypatch.setattr("fastemit._delivery.workers.AFTER_A_FAULT", 0.01)
    all_were_sent(rig, rig.emitter(spool=spool), spool)
    assert faults


def test_a_close_ends_the_taking_over(rig: Rig, spool: Path) -> None:
    """What is not in the buffer by then is left to the next process, also by a request that is under way."""
    rig.collector.respond(delay=0.05, times=None)
    emitter = rig.emitter(spool=spool, shutdown_timeout=DEADLINE)
    emitter._delivery.request_flush()
    until(lambda: len(rig.collector.requests) >= 3)
    emitter.close()
    assert emitter.stats().queued_events == 0
    assert len(rig.collector.events) < EVENTS
    rig.collector.respond(times=None)
    assert rig.emitter(spool=spool).drain(DEADLINE)
    assert arrivals(rig.collector) == dict.fromkeys(range(EVENTS), 1)


@pytest.mark.parametrize(("capacity", "most"), [(100_000, HURRIED_SPARES), (50, SPARES)])
def test_no_more_files_are_kept_ready_than_the_buffer_has_room_for(
    rig: Rig, tmp_path: Path, capacity: int, most: int
) -> None:
    rig.collector.respond(503, headers={"Retry-After": "60"}, times=None)
    emitter = rig.emitter(
        spool=tmp_path / "spool", buffer_capacity=capacity, max_request_bytes=2000, batch_size=capacity
    )
    for number in range(45):
        emitter.input({"n": number})
    # As though `input` had found no spare file.
    emitter._spool._life.hurried_until = float("inf")
    emitter._spool.tend()
    assert emitter._buffer.spares_wanted == most


class StoppedError(Exception):
    """What a signal handler raises."""


def raises_stopped(*_: object) -> None:
    raise StoppedError


def test_what_a_signal_handler_raises_meanwhile_reaches_the_program(
    rig: Rig, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitter = rig.emitter(spool=spool, background=False)
    original, raised = Spool._look_after_files, []

    def look_after(self: Spool, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        if len(rig.collector.requests) == 3 and not raised:
            raised.append(1)
            signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(Spool, "_look_after_files", look_after)
    before = signal.signal(signal.SIGUSR1, raises_stopped)
    try:
        with pytest.raises(StoppedError):
            emitter.drain(DEADLINE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert emitter.drain(DEADLINE)
    assert set(arrivals(rig.collector)) == set(range(EVENTS))


def test_a_file_whose_events_are_in_the_buffer_is_not_read_again(spool: Path) -> None:
    """CPython runs a signal handler as soon as the call that has put them there returns."""
    read: list[int] = []

    class Interrupted:
        """A buffer, and a signal that comes when it has taken the events of the first file."""

        capacity, unsettled_events = 10**6, 0

        def recover(self, number: int, _: object) -> Any:
            read.append(number)
            if len(read) == 1:
                raise KeyboardInterrupt
            return Recovered(1, 1, 0, [])

    (home,) = homes(spool)
    owner = Home.claim(str(spool), home)
    assert owner is not None
    assert owner.owner is not None
    who = owner.owner
    owner.let_go()
    notes: list[tuple[str, str]] = []
    estate = Estate(str(spool), who, lambda kind, text: notes.append((kind, text)))
    estate.look()
    names = list(estate.claims[0].waiting)
    numbers = itertools.count(1)
    with pytest.raises(KeyboardInterrupt):
        estate.feed(Interrupted(), lambda: next(numbers))  # type: ignore[arg-type]
    estate.feed(Interrupted(), lambda: next(numbers))  # type: ignore[arg-type]
    assert list(estate.claims[0].reading.values()) == names[: len(read)]
    estate.let_go()
