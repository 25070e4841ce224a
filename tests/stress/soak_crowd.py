"""The processes of the soak: some at a time, each for some seconds; one in five is killed, and none may hang."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: Seconds of load of a producer: the least, and how many more at the most.
SHORTEST, VARIES = 0.5, 8.0
#: Seconds for the processes of a group to write their stacks, and to be gone once they were killed.
LAST_WORDS = 5.0
#: Characters of what a process said that are told.
MOST_TOLD = 20_000


@dataclass
class Group:
    """A producer and the children that it forks, which are one process group.

    Attributes:
        name: the producer's; its children's are NAME-0, NAME-1 and so on.
        process: the producer; its number is the group's.
        began: when it was started, on the monotonic clock.
        load: seconds that it puts events in.
        dies: when it is to be killed, children excepted; infinity for never.
        late: when it hangs, should any of it still be there.
        over: the producer itself has ended.
    """

    name: str
    process: subprocess.Popen[bytes]
    began: float
    load: float
    dies: float
    late: float
    over: bool = False

    def signal(self, number: int) -> bool:
        """Send a signal to all; False if there is nobody."""
        # Where there are only zombies, macOS says that it is not permitted.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)
            return True
        return False

    def runs(self) -> bool:
        """Whether any of it runs: a zombie that nobody reaps does not."""
        if not self.signal(0):
            return False
        return not Path("/proc/self/stat").exists() or bool(self.members())

    def members(self) -> list[int]:
        """The processes of the group that run, by /proc; where there is none, empty."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                # The name of the program, in parentheses, may hold anything.
                state, _, group = entry.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state not in "ZX":
                    found.append(int(entry.parent.name))
        return found


class Crowd:
    """The producers.

    Args:
        chance: decides when they start, how long they live and who is killed.
        directory: where they report.
        url: where they send.
        script: the program that they run.
        producers: how many at a time.
        patience: seconds that one may take after its load for what it forked, for its close, and on a busy machine.
    """

    def __init__(
        self, chance: random.Random, directory: Path, url: str, script: Path, producers: int, patience: float
    ) -> None:
        self.killed: set[str] = set()
        self.hung: set[str] = set()
        self.failed: list[str] = []
        self.started = 0
        #: Seconds after its load that the slowest took to end.
        self.slowest = 0.0
        self._chance = chance
        self._directory = directory
        self._url = url
        self._script = script
        self._producers = producers
        self._patience = patience
        self._groups: list[Group] = []

    def tend(self) -> bool:
        """Look after those that run, and start others in place of those that ended. False once one has hung."""
        self._look()
        while not self.hung and sum(not group.over for group in self._groups) < self._producers:
            self._start()
        return not self.hung

    def wait(self) -> None:
        """Until all have ended, children of those that were killed as well, or were found to hang."""
        while self._groups:
            self._look()
            time.sleep(0.05)

    def kill(self) -> None:
        """Leave nothing behind, however the soak ends."""
        for group in list(self._groups):
            group.signal(signal.SIGKILL)

    def _start(self) -> None:
        name = f"p{self.started}"
        self.started += 1
        load = SHORTEST + self._chance.random() * VARIES
        setup = {
            "url": self._url,
            "directory": str(self._directory),
            "name": name,
            "seed": self._chance.randrange(2**32),
            "seconds": load,
        }
        # From 3.12 on a fork beside other threads warns; that is what this is about.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", str(self._script), json.dumps(setup)]
        with self._said(name).open("wb") as errors:
            process = subprocess.Popen(command, stderr=errors, start_new_session=True)
        now = time.monotonic()
        dies = now + load * self._chance.random() if self._chance.random() < 0.2 else float("inf")
        self._groups.append(Group(name, process, now, load, dies, now + load + self._patience))

    def _look(self) -> None:
        now = time.monotonic()
        for group in list(self._groups):
            process = group.process
            if now >= group.dies and process.poll() is None:
                process.kill()
                process.wait()
                self.killed.add(group.name)
            group.over = process.poll() is not None
            if group.over and not group.runs():
                self._groups.remove(group)
                self._ended(group)
            elif now >= group.late:
                self._hangs(group)
                self._groups.remove(group)

    def _ended(self, group: Group) -> None:
        """All of a group is gone: what did it say?"""
        status = group.process.returncode
        said = self._said(group.name).read_text(errors="replace")
        if said or (status != 0 and group.name not in self.killed):
            self.failed.append(f"{group.name} ended with status {status}, and said:\n{said[-MOST_TOLD:]}")
        elif group.name not in self.killed:
            self.slowest = max(self.slowest, time.monotonic() - group.began - group.load)

    def _hangs(self, group: Group) -> None:
        """Have the processes of a group write where they are, kill them, and tell."""
        seconds = time.monotonic() - group.began
        running = group.members()
        group.signal(signal.SIGUSR2)
        until = time.monotonic() + LAST_WORDS
        stacks = ""
        while time.monotonic() < until:
            time.sleep(0.2)
            before = stacks
            stacks, written = self._stacks(group)
            # Each has begun to write, and none goes on.
            if stacks == before and written >= max(len(running), 1):
                break
        group.signal(signal.SIGKILL)
        group.process.wait()
        until = time.monotonic() + LAST_WORDS
        while group.runs() and time.monotonic() < until:
            time.sleep(0.05)
        self.hung.add(group.name)
        who = group.name + (", killed earlier, has a forked child that" if group.name in self.killed else "")
        said = self._said(group.name).read_text(errors="replace")
        self.failed.append(
            f"{who} hung for {seconds - group.load:.1f} s after its {group.load:.1f} s of load, where it may take "
            f"{self._patience:g} s (processes {', '.join(map(str, running)) or 'unknown'}; killed now). Where it was:\n"
            + (stacks or "(it wrote no stacks: it had not begun, or is stuck in the kernel)\n")
            + (f"It said:\n{said[-MOST_TOLD:]}" if said else "")
        )

    def _stacks(self, group: Group) -> tuple[str, int]:
        """What the processes of a group have written, and how many have."""
        files = [self._directory / f"{group.name}.stacks", *sorted(self._directory.glob(f"{group.name}-*.stacks"))]
        told = [f"--- {path.stem}\n{path.read_text(errors='replace')}" for path in files if _has_text(path)]
        return "".join(told), len(told)

    def _said(self, name: str) -> Path:
        return self._directory / f"{name}.err"


def _has_text(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
