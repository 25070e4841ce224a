"""What the tests of CeleryEmitter share: a Redis for them, real Celery workers, apps to publish with."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastemit.testing import Collector
from tests.support import redis_server
from tests.support.delivery import RawServer, numbers
from tests.support.environment import environment
from tests.support.waiting import until

if sys.platform == "win32":
    pytest.skip("Celery has no prefork pool on Windows, and Redis no server", allow_module_level=True)
Celery: Any = pytest.importorskip("celery").Celery

from fastemit.celery import CeleryEmitter  # noqa: E402 - not where there is no Celery

#: Seconds for what processes do that have to be started first, on a machine that does other things as well.
PATIENCE = 40.0
MakeEmitter = Callable[..., CeleryEmitter]
#: Settings of an emitter whose retries a test waits for.
QUICK = {"max_retry_delay_seconds": 0.05}


def patiently(condition: Callable[[], Any]) -> None:
    """Wait until `condition` holds, for as long as a worker may take to start."""
    until(condition, PATIENCE)


class RedisServer(redis_server.RedisServer):
    """A Redis whose 16 databases are brokers that do not meet."""

    def database(self, number: int) -> str:
        """The broker's address for one of them."""
        return f"{self.url[:-1]}{number}"


class Relayed:
    """Something between a client and a port, which can forget the connections that it has."""

    def __init__(self, port: int) -> None:
        self._forgotten = 0
        self._server = RawServer(lambda sock, number: self._relay(sock, number, port))
        self.port = self._server.port

    def __enter__(self) -> Relayed:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def forget(self) -> None:
        """Close each connection that is there, but only when something comes on it."""
        self._forgotten = self._server.connections

    def _relay(self, sock: socket.socket, number: int, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as other:
            while not self._server.over.is_set():
                for ready in select.select([sock, other], [], [], 0.1)[0]:
                    data = ready.recv(65536)
                    if not data or (ready is sock and number <= self._forgotten):
                        return
                    (other if ready is sock else sock).sendall(data)


def messages(client: Any) -> list[dict[str, Any]]:
    """What waits in the broker, taken out."""
    taken = client.lpop("celery", 1000) or []
    return [json.loads(message) for message in taken]


class Worker:
    """A Celery worker in a process of its own, with a `snowplow_celery_config.py` in its directory."""

    def __init__(
        self, directory: Path, broker: str = "", pool: str = "prefork", app: str = "fastemit.celery",
        visibility_timeout: float = 60.0, concurrency: int = 2, more: str = "", configuration: str | None = None,
        loglevel: str = "info", name: str = "celery",
    ) -> None:  # fmt: skip
        if pool == "gevent":
            pytest.importorskip("gevent")
        self.broker = broker
        if configuration is None:
            # The others: how often a worker looks for what others have left. With gevent, kombu does so only when its
            # wait for a message takes longer than the 2 s of Celery's loop.
            options = {
                "visibility_timeout": visibility_timeout,
                "unacked_restore_interval": 1,
                "unacked_restore_throttle": 1,
                **({"polling_interval": 3} if pool == "gevent" else {}),
            }
            configuration = f"broker_url = {broker!r}\nbroker_transport_options = {options!r}\n{more}"
        directory.mkdir(exist_ok=True)
        (directory / "snowplow_celery_config.py").write_text(configuration)
        self._directory = directory
        self._log = directory / f"worker-{time.monotonic_ns()}.log"
        self._command = [
            sys.executable, "-m", "celery", "-A", app, "worker", "--pool", pool, "--concurrency", str(concurrency),
            "--hostname", f"{name}@%h",
            "--loglevel", loglevel, "--without-gossip", "--without-mingle", "--without-heartbeat",
        ]  # fmt: skip
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def supervise(self) -> bool:
        """What a supervisor does: start it again when it has ended. Celery 5.7's may when its Redis goes away."""
        if self.process.poll() is not None:
            self.process = self._start()
        return True

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self) -> Worker:
        def ready() -> bool:
            assert self.process.poll() is None, self.log
            return " ready." in self.log

        patiently(ready)
        return self

    def children(self) -> list[int]:
        """Process ids of its pool."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(number) for number in found.stdout.split()]

    def kill(self) -> None:
        """Kill all of it, with nothing said."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Stop it as a user does, and see that it ends."""
        self.process.terminate()
        try:
            self.process.wait(10)
        finally:
            self.kill()


@contextlib.contextmanager
def running(*args: Any, **settings: Any) -> Iterator[Worker]:
    worker = Worker(*args, **settings)
    try:
        yield worker.wait_until_ready()
    finally:
        worker.kill()


def app_of(broker: str, **settings: Any) -> Any:
    """An app of the user's own."""
    app = Celery("theirs", broker=broker, set_as_current=False)
    app.conf.update(settings)
    return app


@contextlib.contextmanager
def emitters(broker: str, url: str) -> Iterator[MakeEmitter]:
    """Makes emitters that publish to this broker for the collector at `url`, and are closed at the end."""
    made: list[CeleryEmitter] = []

    def make(endpoint: str = url, **settings: Any) -> CeleryEmitter:
        settings.setdefault("celery_app", app_of(broker))
        emitter = CeleryEmitter(endpoint, **settings)
        made.append(emitter)
        return emitter

    yield make
    for emitter in made:
        emitter.close(0)


def arrived(collector: Collector) -> list[int]:
    """The numbers of the events that a collector has, in order of number."""
    return sorted(numbers(collector.events))


def requested(collector: Collector) -> list[list[int]]:
    """The numbers of the events of each request."""
    return [numbers(request.events) for request in collector.requests]
