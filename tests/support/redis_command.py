"""`fastemit redis-worker` in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.support.environment import environment


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fastemit", "redis-worker", *arguments]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=30, check=False, env=environment(**variables)
    )


class Started:
    """The command in a process of its own, for the time of a `with`; `out` and `err` are what it said, at the end."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**variables)
        )
        self.out = self.err = ""

    def line_of_errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ends()

    def ends(self) -> int:
        self.out, self.err = self.process.communicate(timeout=30)
        return self.process.returncode

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
