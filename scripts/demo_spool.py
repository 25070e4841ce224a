"""The end of `make demo`: a producer is killed with kill -9 while its collector is down, and the next one sends all."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile

from demo_collector import CollectorProcess, DemoError

import fastemit

#: Run as a program of its own: tracks, tells the ids of what it has tracked, and waits to be killed.
_PRODUCER = """
import logging, sys, time
import fastemit
from demo_events import events

# That the collector is down is part of the show.
logging.getLogger("fastemit").setLevel(logging.ERROR)
url, spool, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
tracker = fastemit.Tracker(namespace="demo", emitters=fastemit.Emitter(url, spool=spool), app_id="shop")
for event in events(count):
    print(tracker.track(event))
print("all", flush=True)
time.sleep(60)
"""


def killed(url: str, spool: str, count: int) -> list[str]:
    """Have a producer track so many events, and kill it with SIGKILL; the ids of what its `track` had returned for."""
    command = [sys.executable, "-c", _PRODUCER, url, spool, str(count)]
    environment = {**os.environ, "PYTHONPATH": sys.path[0]}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as producer:
        try:
            assert producer.stdout is not None
            told = list(itertools.takewhile("all".__ne__, (line.strip() for line in producer.stdout)))
        finally:
            producer.kill()
    if len(told) != count:
        raise DemoError(f"the producer tracked {len(told):,} events, not {count:,}")
    return told


def survive(count: int) -> None:
    """Show that what a killed producer had accepted arrives, each event once."""
    with CollectorProcess() as collector:
        url = collector.url
    with tempfile.TemporaryDirectory(prefix="fastemit-demo-") as spool:
        ids = killed(url, spool, count)
        print(
            f"kill -9: a producer had tracked {count:,} events with spool=..., its collector was down, and it is dead."
        )
        with CollectorProcess(int(url.rpartition(":")[2])) as collector, fastemit.Emitter(url, spool=spool) as emitter:
            if not emitter.drain(60, retry=True):
                raise DemoError("what the killed producer had left was not sent within a minute")
            collector.check("the next producer", ids)
            recovered = emitter.stats().recovered_events
        print(
            f"The collector is back. The next producer found {recovered:,} events, and sent them: each arrived, once."
        )
