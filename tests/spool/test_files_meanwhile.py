"""A sender looks after the files of a spool while the collector works, and otherwise between two requests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from fastemit import Emitter
from fastemit._spool.estate import Estate
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
        if len(rig.collector.requests) in (3, 4):
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
