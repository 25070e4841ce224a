"""Processes that fork, exec or are killed beside each other: each event is sent by one of them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastemit import Emitter
from fastemit.testing import Collector
from tests.support.buffer import SANITIZED
from tests.support.delivery import DEADLINE, Rig
from tests.support.environment import environment
from tests.support.slow import slow_but
from tests.support.spool import PATIENCE, Producer, arrivals, homes, nothing_lost
from tests.support.waiting import until


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are killed at the end."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for each in processes:
        each.kill()
        each.communicate()


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *arguments]
    return subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


#: The child of a process says its number, and waits for the end of its standard input.
LEAVES_A_CHILD = """
import os, sys
from fastemit import Emitter
emitter = Emitter(sys.argv[1], spool=sys.argv[2], batch_size=1000)
for number in range(3):
    emitter.input({"n": number})
pid = os.fork()
if pid:
    print(pid, flush=True)
    os.kill(os.getpid(), 9)
sys.stdin.read()
emitter.input({"n": 3})
emitter.close()
"""


def test_a_killed_parent_s_events_are_sent_while_its_child_lives(
    rig: Rig, spool: Path, started: list[subprocess.Popen[str]]
) -> None:
    parent = start(LEAVES_A_CHILD, rig.collector.url, str(spool))
    started.append(parent)
    child = int(line_of(parent))
    parent.wait(PATIENCE)
    emitter = rig.emitter(spool=spool)
    assert emitter.drain(DEADLINE)
    os.kill(child, 0)
    assert arrivals(rig.collector) == {0: 1, 1: 1, 2: 1}
    assert parent.stdin is not None
    parent.stdin.close()
    parent.stdin = None
    until(lambda: arrivals(rig.collector)[3] == 1, PATIENCE)


EXECS = """
import os, sys
from fastemit import Emitter
emitter = Emitter(sys.argv[1], spool=sys.argv[2], batch_size=1000)
for number in range(3):
    emitter.input({"n": number})
os.execv(sys.executable, [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"])
"""


def test_a_process_that_has_become_another_program_is_no_emitter_any_more(
    rig: Rig, spool: Path, started: list[subprocess.Popen[str]]
) -> None:
    process = start(EXECS, rig.collector.url, str(spool))
    started.append(process)
    assert line_of(process) == "1"
    emitter = rig.emitter(spool=spool)
    assert emitter.drain(DEADLINE)
    assert process.poll() is None
    assert arrivals(rig.collector) == {0: 1, 1: 1, 2: 1}


def the_next_sends_it(collector: Collector, spool: Path, accepted: list[int]) -> None:
    """Till nothing is left; the child of a process that was killed may have its lock for a moment longer than that."""
    deadline = time.monotonic() + PATIENCE
    while homes(spool):
        emitter = Emitter(collector.url, spool=spool, max_retry_delay_seconds=0.02)
        assert emitter.drain(PATIENCE, retry=True)
        assert emitter.close() == 0
        assert time.monotonic() < deadline, "something is left"
    assert set(accepted) <= set(arrivals(collector))


@pytest.mark.parametrize("down", [False, True])
def test_a_process_and_its_child_that_are_killed_right_after_the_fork_lose_nothing(
    collector: Collector, spool: Path, tmp_path: Path, down: bool
) -> None:
    if down:
        collector.respond(503, times=None)
    producer = Producer(collector.url, spool, tmp_path / "books", forks_at=200)
    until(lambda: any(number >= 5_000_000 for number in producer.accepted()), PATIENCE)
    accepted = producer.kill_after(1)
    assert any(number < 5_000_000 for number in accepted)
    collector.reset() if down else None
    the_next_sends_it(collector, spool, accepted)
    nothing_lost(collector, accepted)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", slow_but([9], [9, 300]))
def test_processes_that_are_killed_while_others_take_over_lose_nothing(
    collector: Collector, spool: Path, tmp_path: Path, kills: int
) -> None:
    """Three at a time, which look for what the dead have left all the time; some fork, some meet an outage."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    kills = min(kills, 30) if SANITIZED else kills
    accepted: list[int] = []
    running: list[Producer] = []
    for turn in range(kills + 2):
        first = turn * 10**8
        forks_at = first + 20 if chance.random() < 0.3 else -1
        running.append(
            Producer(
                collector.url, spool, tmp_path / f"books-{turn}", first=first, threads=chance.choice([1, 4]),
                forks_at=forks_at, pause=0.0005, look_every=0.02, max_retry_delay_seconds=0.05,
                max_request_bytes=20_000,
            )
        )  # fmt: skip
        if chance.random() < 0.3:
            collector.respond(503, times=2)
        if len(running) == 3:
            accepted += running.pop(chance.randrange(3)).kill_after(chance.randrange(1, 400))
    for producer in running:
        accepted += producer.kill_after(1)
    the_next_sends_it(collector, spool, accepted)
    nothing_lost(collector, accepted, kills=kills + 2)
    # Of each that is killed no more comes twice than it and those that took over had in flight.
    doubled = sum(times - 1 for times in arrivals(collector).values())
    assert doubled <= 200 * 2 * (kills + 2)


def test_a_process_that_takes_over_leaves_alone_what_was_stopped_and_lives(
    rig: Rig, spool: Path, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """As long as a debugger, a laptop's lid or the freezer of a container may stop it."""
    script = LEAVES_A_CHILD.partition("pid = os.fork()")[0] + "print(1, flush=True)\nsys.stdin.read()\n"
    process = start(script, rig.collector.url, str(spool))
    started.append(process)
    assert line_of(process) == "1"
    process.send_signal(signal.SIGSTOP)
    emitter = rig.emitter(spool=spool)
    emitter.input({"n": 7})
    assert emitter.drain(DEADLINE)
    assert arrivals(rig.collector) == {7: 1}
    process.send_signal(signal.SIGCONT)
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    until(lambda: arrivals(rig.collector) == {0: 1, 1: 1, 2: 1, 7: 1}, PATIENCE)
