"""Programs under a watchdog: what does not end in time is killed with all its children, and fails the test."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

import pytest

from tests.support.delivery import Ended, Rig, numbers, script_text
from tests.support.environment import environment
from tests.support.waiting import until

WATCHDOG = 40.0
#: Grace, in seconds, in which a hanging program writes down where it hangs.
_LAST_WORDS = 0.5


class Watched:
    """A program in a process group of its own. Its output goes to files, so that no reader waits for its children."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment() if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
            start_new_session=True,
        )
        self.ended_at = 0.0

    @staticmethod
    def _read(file: IO[bytes]) -> str:
        # Its place in the file is the program's too: after a seek the program would write over what it has written.
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("utf-8", "replace")

    @property
    def output(self) -> str:
        return self._read(self._output)

    @property
    def errors(self) -> str:
        return self._read(self._errors)

    def _signal_all(self, number: int) -> bool:
        """False when nobody of the group is left."""
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def until(self, condition: Callable[[], Any], timeout: float = WATCHDOG) -> None:
        """Wait for a condition while the program runs."""

        def met() -> bool:
            if condition():
                return True
            if self.process.poll() is not None:
                pytest.fail(f"it ended with {self.process.returncode}:\n{self.output}\n{self.errors}")
            return False

        try:
            until(met, timeout)
        except AssertionError:
            self.fail("what was waited for does not come")

    def wait(self, timeout: float = WATCHDOG) -> subprocess.CompletedProcess[str]:
        """The end of the program and of all its children."""
        try:
            status = self.process.wait(timeout)
            self.ended_at = time.time()
            until(lambda: not self._signal_all(0), timeout)
        except (subprocess.TimeoutExpired, AssertionError):
            self.fail("it does not end")
        return subprocess.CompletedProcess([], status, self.output, self.errors)

    def fail(self, why: str) -> None:
        self._signal_all(signal.SIGABRT)
        time.sleep(_LAST_WORDS)
        self._signal_all(signal.SIGKILL)
        self.process.wait()
        pytest.fail(f"{why}:\n{self.output}\n{self.errors}")

    def close(self) -> None:
        self._signal_all(signal.SIGKILL)
        self.process.wait()
        self._output.close()
        self._errors.close()


@contextlib.contextmanager
def watched(
    command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Watched]:
    program = Watched(command, cwd=cwd, env=env)
    try:
        yield program
    finally:
        program.close()


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, BinaryIO]]:
    """A pseudo-terminal of 24 lines of 100 characters: its master, and the end for a program."""
    import fcntl
    import pty
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    try:
        # A file, since it may be closed twice where a number may be another file's by then.
        with os.fdopen(slave, "wb", buffering=0) as end:
            yield master, end
    finally:
        os.close(master)


class WatchedScript:
    """Runs scripts that send to the collector of `rig`, as `Script` does, under the watchdog."""

    def __init__(self, rig: Rig, directory: Path) -> None:
        self.collector = rig.collector
        self._directory = directory

    def command(self, script: str, preamble: str = "", python: str = sys.executable) -> list[str]:
        path = self._directory / "script.py"
        path.write_text(script_text(script, preamble))
        # From 3.12 on a fork beside other threads warns; that is what several scripts are about.
        return [python, "-W", "ignore::DeprecationWarning", str(path), self.collector.url]

    def __call__(
        self,
        script: str,
        preamble: str = "",
        *,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        timeout: float = WATCHDOG,
    ) -> Ended:
        with watched(self.command(script, preamble, python), env=env) as program:
            done = program.wait(timeout)
            return Ended(done, program.ended_at)

    @property
    def arrived(self) -> list[int]:
        return sorted(numbers(self.collector.events))
