"""A small tmpfs that is full: no signal kills the process, and what is there is sent and makes room."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.environment import environment
from tests.support.spool import PATIENCE

#: In a mount namespace of its own, also where this user is not root. `RLIMIT_FSIZE` stands for it elsewhere.
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNT = 'mount -t tmpfs -o size=5m,mode=0700 tmpfs "$1" && shift && exec "$@"'


@cache
def can_mount() -> bool:
    try:
        command = [*UNSHARE, "sh", "-c", MOUNT, "sh", "/mnt", "true"]
        return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here, not in a namespace either")

SCRIPT = """
import itertools, json, logging, os, subprocess, sys, time
from fastemit import Emitter
from fastemit.testing import Collector

disk = sys.argv[1]
spool = disk + "/spool"
FILLER = disk + "/filler"

def fill_up():
    with open(FILLER, "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == 28, error

def arrived():
    return sorted(int(event["n"]) for event in collector.events)

def wait_for(condition):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []
    def emit(self, record):
        self.lines.append(record.getMessage())

lines = Lines()
logging.getLogger("fastemit").addHandler(lines)
collector = Collector().start()
"""

#: Fills the disk behind its back, and then gives in events until one is refused. It is killed.
FILL = (
    SCRIPT.replace("collector = Collector().start()", "")
    + """
import signal
emitter = Emitter(sys.argv[2], spool=spool, overflow="drop_newest")
emitter.input({"n": 0, "x": "y" * 1000})
wait_for(lambda: emitter._buffer.spare_files >= 2)
fill_up()
number = 1
while not emitter.stats().dropped_events["overflow"]:
    emitter.input({"n": number, "x": "y" * 1000})
    number += 1
sizes = {os.stat(os.path.join(path, name)).st_size for path, _, names in os.walk(spool)
         for name in names if name.endswith(".seg")}
print(json.dumps([number - 1, len(sizes), lines.lines]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
)


def on_a_small_disk(tmp_path: Path, script: str, *more: str) -> Any:
    """What the script prints as JSON."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [*UNSHARE, "sh", "-c", MOUNT, "sh", str(disk), sys.executable, "-c", SCRIPT + script, str(disk), *more]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_what_has_filled_a_disk_is_sent_by_the_next_process_which_can_begin_on_it(tmp_path: Path) -> None:
    script = """
collector.respond(503, headers={"Retry-After": "60"}, times=None)
filled = subprocess.run([sys.executable, "-c", sys.argv[2], disk, collector.url], capture_output=True, text=True)
accepted, sizes, said = json.loads(filled.stdout)
fill_up()
collector.reset()
emitter = Emitter(collector.url, spool=spool, overflow="drop_newest")
emitter.async_flush()
wait_for(lambda: len(arrived()) == accepted)
os.remove(FILLER)
def accepts():
    emitter.input({"n": accepted})
    return emitter.stats().queued_events + emitter.stats().sent_events > accepted
wait_for(accepts)
assert emitter.drain(10)
emitter.close()
print(json.dumps([filled.returncode, filled.stderr, sizes, accepted, arrived()[:accepted], os.listdir(spool), said]))
"""
    status, errors, sizes, accepted, arrived, left, said = on_a_small_disk(tmp_path, script, FILL)
    assert (status, errors) == (-9, "")
    # What could be reserved in part only is not there.
    assert sizes == 1
    assert accepted > 2000
    assert arrived == list(range(accepted))
    assert left == []
    assert any(line.endswith("No space left on device") for line in said)


def test_a_disk_that_is_full_from_the_start_drops_says_why_and_goes_on_by_itself(tmp_path: Path) -> None:
    script = """
os.mkdir(spool, 0o700)
fill_up()
emitter = Emitter(collector.url, spool=spool, overflow="drop_newest", batch_size=10**6)
emitter.input({"n": 0})
before = emitter.stats().dropped_events["overflow"], os.listdir(spool)
os.remove(FILLER)
given = itertools.count(2)
def accepts():
    emitter.input({"n": 1})
    return emitter.stats().dropped_events["overflow"] < next(given)
wait_for(accepts)
assert emitter.drain(10)
emitter.close()
print(json.dumps([before, arrived(), os.listdir(spool), lines.lines]))
"""
    before, arrived, left, said = on_a_small_disk(tmp_path, script)
    assert before == [1, []]
    assert (arrived, left) == ([1], [])
    assert any("no file can be made in" in line and line.endswith("No space left on device") for line in said)
