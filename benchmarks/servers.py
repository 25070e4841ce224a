"""The server of a benchmark, in its own process. It must not be the bottleneck, and says what came."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class Counts:
    """What the server has counted since it was reset; `cpu_seconds` since it was started.

    `events` is -1 with a server that counts only bytes.
    """

    requests: int
    events: int
    failed_requests: int
    failed_events: int
    bytes: int
    connections: int
    cpu_seconds: float


class Server:
    """The counting server; a context manager.

    Args:
        tls: (certificate chain, key) as files in PEM, to speak TLS.
        looks: False to throw the bodies away and count only bytes, which takes less of a core.
    """

    name = "counting_server.py"

    def __init__(self, tls: tuple[str, str] | None = None, looks: bool = True) -> None:
        self._tls = tls or ()
        self._arguments = self._tls if looks else ("bytes",)

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("counting_server.py")), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        port, control = map(int, self._process.stdout.readline().split())
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        self._connection = http.client.HTTPConnection("127.0.0.1", control, timeout=10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.communicate(timeout=10)  # closes its standard input, which ends it

    def counts(self) -> Counts:
        return self._control("counts")

    def reset(self) -> Counts:
        return self._control("reset")

    def fail(self, requests: int) -> None:
        """Answer the next requests 500."""
        self._control(f"fail?{requests}")

    def weather(self, name: str) -> None:
        """Make it fine, slow, hanging or flapping; see `counting_server.py`."""
        self._control(f"weather?{name}")

    def _control(self, command: str) -> Counts:
        self._connection.request("GET", f"/-/{command}")
        return Counts(**json.loads(self._connection.getresponse().read()))


_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/errors warn;
events {{ worker_connections 512; }}
http {{
    log_format counts '$status $content_length $request_completion';
    access_log {folder}/log counts;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 200 'ok'; }}
    }}
}}
"""


class Nginx:
    """nginx, which counts no events: what came is told by the bytes that it logs; a context manager."""

    name = "nginx"

    @staticmethod
    def path() -> str | None:
        # Debian puts it into a directory that only root has on the path.
        return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

    def __enter__(self) -> Nginx:
        self._folder = tempfile.TemporaryDirectory(prefix="fastemit-nginx-")
        folder = Path(self._folder.name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        configuration = folder / "nginx.conf"
        configuration.write_text(_CONFIGURATION.format(folder=folder, port=port))
        self._log = folder / "log"
        path = self.path()
        assert path is not None
        self._process = subprocess.Popen(
            [path, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "errors")], stderr=subprocess.DEVNULL
        )
        self.url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (folder / "errors").read_text()
                time.sleep(0.01)
        self._from = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._folder.cleanup()

    def _lines(self) -> Iterable[list[str]]:
        with self._log.open() as log:
            log.seek(self._from)
            return [line.split() for line in log]

    def counts(self) -> Counts:
        # It writes its line after the answer.
        time.sleep(0.05)
        good = bad = size = 0
        for status, length, completed in self._lines():
            if (status, completed) == ("200", "OK"):
                # A GET has no body, and so no length.
                good, size = good + 1, size + (0 if length == "-" else int(length))
            elif length != "-":
                bad += 1
        return Counts(good, -1, bad, -1, size, -1, self._cpu_seconds())

    def reset(self) -> Counts:
        time.sleep(0.05)
        self._from = self._log.stat().st_size
        return self.counts()

    def _cpu_seconds(self) -> float:
        """Of the master and its worker."""
        ticks = 0
        for process in Path("/proc").glob("[0-9]*"):
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            if self._process.pid in (int(process.name), int(fields[1])):
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")
