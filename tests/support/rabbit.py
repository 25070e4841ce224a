"""A RabbitMQ of a test's own, with an Erlang port mapper of its own, which end with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environment import environment
from tests.support.ports import free_port

#: Debian's program on the path is for root and the user rabbitmq alone; this is what it runs.
_DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
#: Starting it takes some 10 s of CPU.
_PATIENCE = 120.0


def program() -> str | None:
    return str(_DEBIAN) if _DEBIAN.exists() else shutil.which("rabbitmq-server")


class RabbitServer:
    """A server that can be killed and started again with what it had."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mapper: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._mapper_port = free_port()
        (directory / "rabbit.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        self._environment = environment(
            HOME=str(directory),
            RABBITMQ_NODENAME=f"fastemit{self.port}@localhost",
            RABBITMQ_MNESIA_BASE=str(directory / "data"),
            RABBITMQ_LOG_BASE=str(directory / "log"),
            RABBITMQ_CONFIG_FILE=str(directory / "rabbit.conf"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(directory / "plugins"),
            RABBITMQ_PID_FILE=str(directory / "pid"),
            RABBITMQ_DIST_PORT=str(free_port()),
            # One scheduler: what it does here is little, and the cores are shared.
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1",
            ERL_EPMD_ADDRESS="127.0.0.1",
            ERL_EPMD_PORT=str(self._mapper_port),
        )

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def _output(self) -> Path:
        return self._directory / "output"

    def start(self) -> RabbitServer:
        with self._output.open("ab") as output:
            if self._mapper is None:
                # In the foreground: a server that finds none starts one that stays for ever.
                self._mapper = subprocess.Popen(["epmd"], env=self._environment, stdout=output, stderr=output)
            self._process = subprocess.Popen(
                [str(program())], env=self._environment, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._process.poll() is None, self._output.read_text()[-2000:]
            assert time.monotonic() < deadline, self._output.read_text()[-2000:]
            time.sleep(0.1)
        return self

    def _answers(self) -> bool:
        import amqp

        with contextlib.suppress(Exception), amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=5):
            return True
        return False

    def waiting(self, queue: str) -> int:
        """How many messages wait in a queue."""
        import amqp

        with amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=5) as connection:
            return int(connection.channel().queue_declare(queue, passive=True).message_count)

    def kill(self) -> None:
        """With `kill -9`: nothing is said to anybody."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        self.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()


@contextlib.contextmanager
def running(directory: Path) -> Iterator[RabbitServer]:
    if program() is None or shutil.which("epmd") is None:
        pytest.skip("there is no rabbitmq-server here")
    server = RabbitServer(directory)
    try:
        yield server.start()
    finally:
        server.close()
