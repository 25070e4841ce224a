"""What `aclose` and `adrain` do beside waiting is done in a sender thread, so that the loop goes on."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import requests

from fastemit import Emitter
from fastemit._time import monotonic
from tests.support.delivery import DEADLINE, Rig, numbers, put, within
from tests.support.lost import Lost
from tests.support.spool import homes, leave
from tests.support.waiting import until

#: Seconds that the loop may stand still. What it stood still for before was half a second or more.
SHORT = 0.3


class NeverAnswers(requests.Session):
    """A session that nothing can cut off. Its request ends when `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def request(self, *_: Any, **__: Any) -> Any:
        self.gate.wait(DEADLINE)
        raise requests.ConnectionError("the gate was opened")


class SlowToTell(Lost):
    """An `on_lost` that takes its time."""

    def __call__(self, reason: str, events: list[dict[str, Any]]) -> None:
        threading.Event().wait(0.6)
        super().__call__(reason, events)


def longest_pause(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    """The result, and the most seconds that the loop did not come round."""
    beats = [monotonic()]

    async def heart() -> None:
        while True:
            await asyncio.sleep(0.001)
            beats.append(monotonic())

    async def program() -> Any:
        beating = asyncio.ensure_future(heart())
        await asyncio.sleep(0.01)
        try:
            result = await coroutine
            beats.append(monotonic())
            return result
        finally:
            beating.cancel()

    result = asyncio.run(asyncio.wait_for(program(), 2 * DEADLINE))
    return result, max(after - before for before, after in itertools.pairwise(beats))


@pytest.mark.parametrize("kept", ["in memory, told by on_lost", "in a spool"])
def test_a_request_that_cannot_be_cut_off_does_not_hold_up_the_loop(rig: Rig, tmp_path: Path, kept: str) -> None:
    session = NeverAnswers()
    settings: dict[str, Any] = {"spool": tmp_path / "spool"} if "spool" in kept else {"on_lost": Lost()}
    emitter = rig.emitter(Emitter, session=session, batch_size=5, **settings)
    put(emitter, 5)
    until(lambda: emitter.stats().in_flight_events > 0, DEADLINE)
    with within(DEADLINE / 2, at_least=0.1):
        left, pause = longest_pause(emitter.aclose(0.1))
    session.gate.set()
    assert left == 5
    assert pause < SHORT


def test_a_sender_tells_of_what_is_lost_and_aclose_waits_for_it(rig: Rig) -> None:
    rig.collector.respond(hang=True, times=None)
    lost = SlowToTell()
    emitter = rig.emitter(Emitter, on_lost=lost, batch_size=2)
    put(emitter, 5)
    until(lambda: emitter.stats().in_flight_events > 0, DEADLINE)
    left, pause = longest_pause(emitter.aclose(0.1))
    assert left == 5
    assert pause < SHORT
    until(lambda: len(lost.by_reason().get("left", [])) == 5, DEADLINE)
    assert threading.current_thread() not in lost.threads


def test_a_sender_looks_for_what_dead_processes_have_left(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastemit._spool.estate import Estate

    spool = tmp_path / "spool"
    assert leave(rig.collector.url, spool, "put(3)").stderr == ""
    assert len(homes(spool)) == 1
    looked_in: list[threading.Thread] = []
    look = Estate.look

    def slow_look(estate: Any) -> None:
        looked_in.append(threading.current_thread())
        threading.Event().wait(0.5)
        look(estate)

    monkeypatch.setattr(Estate, "look", slow_look)
    emitter = rig.emitter(Emitter, spool=spool)

    async def program() -> list[bool]:
        return list(await asyncio.gather(emitter.adrain(DEADLINE), emitter.adrain(DEADLINE)))

    done, pause = longest_pause(program())
    assert done == [True, True]
    assert pause < SHORT
    assert threading.current_thread() not in looked_in
    assert sorted(numbers(rig.collector.events)) == [0, 1, 2]


def test_aclose_of_an_emitter_without_events_leaves_the_spool_alone(rig: Rig, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    assert leave(rig.collector.url, spool, "put(3)").stderr == ""
    emitter = rig.emitter(Emitter, spool=spool)
    assert asyncio.run(emitter.aclose(DEADLINE)) == 0
    assert len(homes(spool)) == 1
    assert rig.collector.events == []


def test_without_background_the_call_itself_looks(rig: Rig, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    assert leave(rig.collector.url, spool, "put(3)").stderr == ""
    emitter = rig.emitter(Emitter, spool=spool, background=False)
    assert asyncio.run(emitter.adrain(DEADLINE)) is True
    assert sorted(numbers(rig.collector.events)) == [0, 1, 2]
