"""What the tests of `fastemit send` share: lines of events, a run in this process, and one in a process of its own."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fastemit import cli
from fastemit.testing import Collector
from tests.support.environment import environment

posix = pytest.mark.skipif(sys.platform == "win32", reason="no signals, pseudo-terminals and FIFOs there")


def event(number: int) -> dict[str, str]:
    return {"e": "pv", "p": "web", "tv": "test-1", "tid": str(number)}


def lines(count: int, first: int = 0) -> bytes:
    return b"".join(json.dumps(event(number)).encode() + b"\n" for number in range(first, first + count))


def ids(collector: Collector) -> list[int]:
    return [int(event["tid"]) for event in collector.events]


class Sent:
    """What one run in this process returned and printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.status = cli.main(["send", *map(str, arguments)])
        self.output, self.errors = capsys.readouterr()

    @property
    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.output)
        return result


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fastemit", "send", *map(str, arguments)]


@contextmanager
def sending(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sends what it reads from `stdin`."""
    settings = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(command(*arguments), env=environment(), **settings) as process:
        killer = threading.Timer(40, process.kill)  # a read without an end would outlast the test's timeout
        killer.start()
        try:
            yield process
        finally:
            killer.cancel()
            process.kill()


def unread(process: subprocess.Popen[bytes]) -> int:
    """Bytes in its standard input that it has not read yet."""
    import fcntl
    import termios

    assert process.stdin is not None
    count: int = struct.unpack("i", fcntl.ioctl(process.stdin, termios.FIONREAD, b"\0" * 4))[0]
    return count
