"""Workers of gunicorn that are recycled or killed: what they leave is sent by a neighbour while the server runs."""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.delivery import DEADLINE, Rig
from tests.support.environment import environment
from tests.support.hosts import needs_host
from tests.support.ports import answers, free_port
from tests.support.processes import watched
from tests.support.spool import arrivals, homes

APPLICATION = """
import os
from fastemit import Emitter
from fastemit._spool import spool

# A minute otherwise.
spool.LOOK_EVERY = 0.2
emitter = Emitter(
    os.environ["COLLECTOR"], spool=os.environ["SPOOL"], batch_size=5, shutdown_timeout=0.2, max_retry_delay_seconds=0.2
)

def application(environ, start_response):
    number = int(environ["PATH_INFO"].strip("/"))
    emitter.input({"n": number})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""
REQUESTS = 120


def request(port: int, number: int) -> int:
    """The process that has answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", f"/{number}")
        return int(connection.getresponse().read())
    finally:
        connection.close()


@needs_host("gunicorn")
@pytest.mark.parametrize("preload", [True, False])
def test_what_a_recycled_or_killed_worker_leaves_is_sent_by_a_neighbour(
    rig: Rig, tmp_path: Path, preload: bool
) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    spool = tmp_path / "spool"
    port = free_port()
    options = ["-w", "2", "-b", f"127.0.0.1:{port}", "--max-requests", "25", "--log-level", "warning"]
    options += ["--preload"] if preload else []
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn", *options, "app"]
    env = environment(COLLECTOR=rig.collector.url, SPOOL=str(spool))
    # Whoever ends now cannot send what it has.
    rig.collector.respond(503, times=None)
    workers = set()
    with watched(command, cwd=tmp_path, env=env) as server:
        server.until(lambda: answers(port))
        for number in range(REQUESTS):
            worker = request(port, number)
            if worker not in workers and len(workers) == 2:
                os.kill(worker, signal.SIGKILL)
            workers.add(worker)
        assert len(workers) >= 4
        assert len(homes(spool)) >= 2
        rig.collector.reset()
        numbers = itertools.count(REQUESTS)

        def all_have_come() -> bool:
            # An emitter looks from its first event on, and each worker may be recycled before it has seen all.
            request(port, next(numbers))
            return set(range(REQUESTS)) <= set(arrivals(rig.collector))

        server.until(all_have_come)
        server.process.send_signal(signal.SIGTERM)
        server.wait()
    # A worker has 0.2 s at its end, so the last requests may leave something for the next process.
    assert rig.emitter(spool=spool).drain(DEADLINE)
    arrived = arrivals(rig.collector)
    assert sorted(arrived) == list(range(next(numbers)))
    assert max(arrived.values()) <= 2
    assert homes(spool) == []
