"""RedisWorker and RedisEmitter in a program that gevent has patched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fastemit.testing import Collector
from tests.support.environment import environment
from tests.support.hosts import needs_host
from tests.support.redis_server import RedisServer

pytestmark = needs_host("gevent")

PROGRAM = """
from gevent import monkey
monkey.patch_all()
import json, sys, time
import gevent
import redis
from fastemit import Emitter, RedisEmitter, RedisWorker

port, url = int(sys.argv[1]), sys.argv[2]
beats = []

def beat():
    while True:
        beats.append(time.monotonic())
        gevent.sleep(0.005)

gevent.spawn(beat)
worker = RedisWorker(Emitter(url), redis.Redis(port=port), poll_interval=0.02)
running = gevent.spawn(worker.run)
with RedisEmitter(redis.Redis(port=port), batch_size=10) as emitter:
    for number in range(200):
        emitter.input({"e": "pv", "n": number})
        if number % 10 == 0:
            gevent.sleep(0.001)
deadline = time.monotonic() + 30
while worker.stats().sent_events < 200 and time.monotonic() < deadline:
    gevent.sleep(0.005)
# The collector takes its time: both go on resting and beating meanwhile.
before = len(beats)
emitter = RedisEmitter(redis.Redis(port=port))
emitter.input({"e": "pv", "n": 200})
while worker.stats().sent_events < 201 and time.monotonic() < deadline:
    gevent.sleep(0.005)
meanwhile = len(beats) - before
worker.request_shutdown()
running.join(20)
print(json.dumps({"sent": worker.stats().sent_events, "beats": meanwhile, "ended": running.dead}))
"""


def test_a_worker_is_a_greenlet_among_others(server: RedisServer, collector: Collector, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    collector.respond(delay=0.3, times=None)
    done = subprocess.run(
        [sys.executable, str(program), str(server.port), collector.url],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["sent"], told["ended"]) == (201, True)
    # Of some 60 in the 0.3 s that the request takes; none if it held up the others.
    assert told["beats"] > 5
    assert sorted(int(event["n"]) for event in collector.events) == list(range(201))
    with server.client() as rdb:
        assert rdb.keys() == []
