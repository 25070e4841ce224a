"""What the tests of the spool share: producers that are killed, and the books of what they had accepted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastemit.testing import Collector
from tests.support.environment import environment
from tests.support.waiting import until

#: Seconds for a process that has to be started first.
PATIENCE = 30.0

#: Gives events in, from so many threads, and notes the number of each once `input` has returned.
PRODUCER = """
import os, sys, threading, time
from fastemit import Emitter

url, spool, books, first, threads, forks_at, pause = sys.argv[1:8]
emitter = Emitter(url, spool=spool, **eval(sys.argv[8]))
notes = os.open(books, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def produce(thread):
    number = int(first) + thread * 10_000_000
    while True:
        if number == int(forks_at) and os.fork() == 0:
            number += 5_000_000
        emitter.input({"n": number, "x": "y" * 100})
        os.write(notes, b"%d\\n" % number)
        number += 1
        if float(pause):
            time.sleep(float(pause))

for thread in range(1, int(threads)):
    threading.Thread(target=produce, args=(thread,), daemon=True).start()
produce(0)
"""


class Producer:
    """A process that gives events to an emitter with a spool, until it is killed.

    Args:
        url: of the collector.
        spool: the directory.
        books: a file for the numbers of the events that `input` has returned from.
        first: number of the first event.
        threads: that produce.
        forks_at: number of the event before which it forks; the child goes on with numbers that are 5,000,000 larger.
        pause: seconds between two events of a thread.
        look_every: seconds between two looks for what dead processes have left.
        settings: of the emitter.
    """

    def __init__(
        self, url: str, spool: Path, books: Path, first: int = 0, threads: int = 1, forks_at: int = -1,
        pause: float = 0.0, look_every: float = 60.0, **settings: Any,
    ) -> None:  # fmt: skip
        self._books = books
        script = f"from fastemit._spool import spool\nspool.LOOK_EVERY = {look_every}\n{PRODUCER}"
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, url, str(spool), str(books)]
        command += [str(first), str(threads), str(forks_at), str(pause), repr(settings)]
        self.process = subprocess.Popen(command, env=environment(), start_new_session=True)

    def accepted(self) -> list[int]:
        """Numbers of the events that were accepted so far."""
        lines = self._books.read_bytes().split(b"\n") if self._books.exists() else []
        return [int(line) for line in lines[:-1]]

    def kill_after(self, events: int) -> list[int]:
        """Kill it once it has accepted so many; the numbers of all that it had accepted."""
        until(lambda: len(self.accepted()) >= events or self.process.poll() is not None, PATIENCE)
        assert self.process.poll() is None
        # A child of it, too.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        return self.accepted()


def arrivals(collector: Collector) -> Counter[int]:
    """How often the event of each number has arrived."""
    return Counter(int(event["n"]) for event in collector.events)


def nothing_lost(collector: Collector, accepted: Iterable[int], kills: int = 1) -> None:
    """All that was accepted has arrived, and nothing more often than a request may be sent again."""
    arrived = arrivals(collector)
    assert sorted(set(accepted) - set(arrived)) == []
    assert max(arrived.values(), default=0) <= 1 + kills


def homes(spool: Path) -> list[str]:
    """The directories of processes. One that is not yet made whole has no event, and is removed after a minute."""
    if not spool.exists():
        return []
    return sorted(each.name for each in spool.iterdir() if each.name != "damaged" and not each.name.startswith("."))


def segments(spool: Path) -> list[Path]:
    return sorted(spool.glob("*/*.seg"))


def leave(
    url: str, spool: Path, script: str = "put(3)", patience: float = PATIENCE, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Have a process accept events, and end without its exit handlers."""
    text = f"""
import os, sys, threading, time
from fastemit import AsyncEmitter, Emitter, RedisEmitter
def emitter(**more):
    return Emitter({url!r}, spool={str(spool)!r}, **{{**{settings!r}, **more}})
e = emitter()
def put(count, first=0):
    for number in range(first, first + count):
        e.input({{"n": number}})
{script}
sys.stdout.flush()
os._exit(0)
"""
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", text],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )


def is_root() -> bool:
    return os.geteuid() == 0
