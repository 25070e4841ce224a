"""More directories of dead processes than this process may have files open."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from tests.support.delivery import DEADLINE, Rig
from tests.support.spool import arrivals, homes, leave

TAKES_OVER = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
print(e.drain(60), e.stats().recovered_events)
e.close()
"""


def left_by(rig: Rig, spool: Path, processes: int) -> None:
    """Each emitter has a directory of its own, as each process has."""
    script = f"""
import resource
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
kept = [emitter(background=False) for _ in range({processes})]
for number, each in enumerate(kept):
    each.input({{"n": number}})
    time.sleep(0.002)
"""
    leave(rig.collector.url, spool, script, batch_size=10, max_request_bytes=2000)
    assert len(homes(spool)) == processes


@pytest.mark.parametrize("processes", [120])
def test_they_are_taken_over_a_few_at_a_time_in_their_order(rig: Rig, tmp_path: Path, processes: int) -> None:
    spool = tmp_path / "spool"
    left_by(rig, spool, processes)
    done = leave(rig.collector.url, spool, TAKES_OVER)
    assert (done.stdout, done.stderr) == (f"True {processes}\n", "")
    assert [int(event["n"]) for event in rig.collector.events] == list(range(processes))
    assert homes(spool) == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_of_them_are_taken_over(rig: Rig, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    leave(rig.collector.url, spool, "put(1)", background=False, batch_size=10, max_request_bytes=2000)
    (home,) = spool.iterdir()
    for number in range(1, 10_000):
        shutil.copytree(home, spool / f"1-{number:08x}")
    done = leave(rig.collector.url, spool, TAKES_OVER, patience=100)
    assert (done.stdout, done.stderr) == ("True 10000\n", "")
    assert arrivals(rig.collector) == {0: 10_000}
    assert homes(spool) == []


def test_one_line_says_how_many(rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = tmp_path / "spool"
    left_by(rig, spool, 40)
    with caplog.at_level(logging.INFO, "fastemit"):
        assert rig.emitter(spool=spool).drain(DEADLINE)
    (line,) = [line for line in caplog.messages if line.startswith("sending ")]
    assert line.startswith(f"sending 40 events that 40 dead processes left in {spool}")
    assert arrivals(rig.collector) == dict.fromkeys(range(40), 1)
