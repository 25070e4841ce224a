"""The end of a process with many emitters: a few of them send at a time, within one deadline, and none is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastemit._process import lifecycle
from fastemit._time import monotonic
from tests.support.delivery import Rig, silent, within
from tests.support.processes import WatchedScript
from tests.support.slow import slow


@pytest.fixture
def run(rig: Rig, tmp_path: Path) -> WatchedScript:
    return WatchedScript(rig, tmp_path)


@pytest.mark.parametrize("count", [200, slow(1000)])
def test_what_many_live_emitters_have_arrives(run: WatchedScript, count: int) -> None:
    assert run(f"""
    emitters = [Emitter(URL, shutdown_timeout=20) for _ in range({count})]
    for number, emitter in enumerate(emitters):
        put(emitter, 3, 3 * number)
    """).well
    assert run.arrived == list(range(3 * count))


def test_those_that_hang_do_not_hold_up_the_others(run: WatchedScript) -> None:
    with silent() as server:
        ended = run(f"""
        hanging = [Emitter("{server.url}", shutdown_timeout=1) for _ in range(30)]
        for emitter in hanging:
            put(emitter, 1, 1000)
        well = [Emitter(URL, shutdown_timeout=1) for _ in range(30)]
        for number, emitter in enumerate(well):
            put(emitter, 1, number)
        """)
    assert ended.well
    assert run.arrived == list(range(30))


class Emitter:
    """Sends when it is told to, and is done after so many looks; None: never."""

    shutdown_timeout = 5.0

    def __init__(self, together: list[int], looks: int | None) -> None:
        self._together = together
        self._looks = looks
        self.begun = False

    def begin_end(self, deadline: float) -> None:
        self.begun = True
        self._together[0] += 1
        self._together[1] = max(self._together)

    @property
    def sending(self) -> bool:
        if self._looks is None:
            return True
        self._looks -= 1
        if self._looks == 0:
            self._together[0] -= 1
        return self._looks > 0


def test_sixteen_send_at_a_time() -> None:
    together = [0, 0]
    emitters = [Emitter(together, looks=3) for _ in range(100)]
    lifecycle._begin_in_turn(emitters, monotonic() + 5)  # type: ignore[arg-type]
    assert all(emitter.begun for emitter in emitters)
    assert together[1] == lifecycle.AT_ONCE


def test_more_begin_beside_those_that_hang() -> None:
    emitters = [Emitter([0, 0], looks=None) for _ in range(100)]
    with within(1.5):
        lifecycle._begin_in_turn(emitters, monotonic() + 5)  # type: ignore[arg-type]
    assert all(emitter.begun for emitter in emitters)


def test_all_have_begun_when_the_time_is_up() -> None:
    emitters = [Emitter([0, 0], looks=None) for _ in range(1000)]
    with within(0.5):
        lifecycle._begin_in_turn(emitters, monotonic() + 0.05)  # type: ignore[arg-type]
    assert all(emitter.begun for emitter in emitters)
