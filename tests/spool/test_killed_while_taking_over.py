"""A process that takes over is killed at one line of `_spool/` after the other: the next one sends what is left."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import fastemit._spool
from fastemit import Emitter
from fastemit._spool import home as homes_of_processes
from fastemit.testing import Collector
from tests.support.crashes import END, IN, Books, Teller, start
from tests.support.delivery import DEADLINE
from tests.support.slow import slow_but
from tests.support.spool import homes, leave

ROOM = os.path.dirname(fastemit._spool.__file__)
#: Events that dead processes have left, in two directories.
LEFT = 60


def dies_at(step: int) -> Any:
    """A tracer that kills this process at the line of `_spool/` that is the `step`th to run."""
    at = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal at
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        if event == "line":
            at += 1
            if at == step:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def live(url: str, spool: Path, step: int, teller: Teller) -> None:
    sys.settrace(dies_at(step))
    emitter = Emitter(url, spool=spool, background=False, max_request_bytes=2000, batch_size=1000)
    for number in (1000, 1001):
        emitter.input({"n": number})
        teller.tell(IN, number)
        emitter.drain(DEADLINE)
    emitter.close()
    sys.settrace(None)


def template(collector: Collector, folder: Path) -> Path:
    """What two processes have left: the first with a damaged event, a file without anything, and a blank one."""
    spool = folder / "template"
    spool.mkdir()
    for first in (0, LEFT // 2):
        script = f"put({LEFT // 2}, first={first})"
        apart = folder / f"apart-{first}"
        leave(collector.url, apart, script, background=False, batch_size=10**6, max_request_bytes=2000)
        (home,) = apart.iterdir()
        home.rename(spool / home.name)
    for path in spool.glob("*/*.seg"):
        data = path.read_bytes()
        if b'"n":"5"' in data:
            path.write_bytes(data.replace(b'"n":"5"', b'"n":"X"'))
            path.with_name("00000090.seg").write_bytes(b"")
            path.with_name("00000091.seg").write_bytes(bytes(len(data)))
    return spool


def one_death(collector: Collector, spool: Path, step: int) -> bool:
    """Whether the process came to its end before that line."""
    collector.reset()
    pid, reader = start(lambda teller: live(collector.url, spool, step, teller))
    books = Books()
    while books.read(reader):
        pass
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    ended = bool(books.told[END])
    assert ended or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL)
    requests = len(collector.requests)
    emitter = Emitter(collector.url, spool=spool, background=False)
    assert emitter.drain(DEADLINE)
    assert emitter.close() == 0
    sent = [[int(event["n"]) for event in request.events] for request in collector.requests]
    before = {number for request in sent[:requests] for number in request}
    after = [number for request in sent[requests:] for number in request]
    due = (set(range(LEFT)) - {5}) | books.told[IN]
    assert due - before - set(after) == set(), "lost"
    # Not marked is what was answered last, at the most.
    in_flight = set(sent[requests - 1]) if requests else set()
    assert before & set(after) <= in_flight, "doubled"
    assert len(after) == len(set(after))
    assert [path.name for path in spool.iterdir()] == ["damaged"]
    (kept,) = (spool / "damaged").iterdir()
    assert b'"n":"X"' in kept.read_bytes()
    return ended


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stride", slow_but([197], [197, 7]))
def test_a_death_at_any_line_of_taking_over_loses_nothing_and_leaves_nothing_behind(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    # What was not finished is removed at once.
    monkeypatch.setattr(homes_of_processes, "_STALE", -1.0)
    left = template(collector, tmp_path)
    assert len(homes(left)) == 2
    step = 1
    while True:
        spool = tmp_path / str(step)
        shutil.copytree(left, spool)
        if one_death(collector, spool, step):
            break
        shutil.rmtree(spool)
        step += stride
    assert step > 1000
