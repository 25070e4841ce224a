"""A CeleryEmitter with a spool: what a killed producer could not publish is published by the next one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fastemit.testing import Collector
from tests.support.celery_workers import PATIENCE, MakeEmitter, RedisServer, Worker, app_of, arrived
from tests.support.environment import environment
from tests.support.spool import homes
from tests.support.waiting import until

#: Its broker is down.
PRODUCER = """
import os, sys
from celery import Celery
from fastemit import CeleryEmitter

app = Celery("theirs", broker="redis://127.0.0.1:1/0", set_as_current=False)
emitter = CeleryEmitter(sys.argv[1], celery_app=app, spool=sys.argv[2], batch_size=10, overflow="drop_newest")
for number in range(50):
    emitter.input({"n": f"{number:06}"})
os.kill(os.getpid(), 9)
"""


def test_the_next_producer_publishes_what_a_killed_one_left_and_the_worker_sends_it(
    server: RedisServer, worker: Worker, make: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    command = [sys.executable, "-c", PRODUCER, collector.url, str(spool)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (-9, "")
    assert len(homes(spool)) == 1
    emitter = make(celery_app=app_of(server.url), spool=spool)
    emitter.input({"n": "000050"})
    emitter.flush()
    assert emitter.stats().recovered_events == 50
    until(lambda: len(arrived(collector)) == 51, PATIENCE)
    assert arrived(collector) == list(range(51))
    assert emitter.close() == 0
    assert homes(spool) == []
