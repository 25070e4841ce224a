"""Directories that this user may not use: an error at construction that says what to do, or one warning."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastemit import Emitter
from tests.support.delivery import DEADLINE, Rig
from tests.support.environment import environment
from tests.support.spool import PATIENCE, arrivals, is_root, leave

#: Who has no rights: root may do anything, so a child of root becomes another user.
SOMEBODY = 65534 if is_root() else os.geteuid()
OTHER = 12345
ROOT_ONLY = pytest.mark.skipif(not is_root(), reason="only root can give a directory to somebody else")

#: All is imported before the user is changed: Python itself may be where only root can read.
PREAMBLE = """
import logging, os, sys, time
from fastemit import Emitter
warm = Emitter("127.0.0.1:9", spool=sys.argv[1] + "/warm")
warm.input({"n": 1})
warm.close(0)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
logging.basicConfig(format="%(message)s", stream=sys.stdout)
spool = sys.argv[2]
url = sys.argv[3]
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that everybody can enter; what pytest has is for this user alone."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    for each in path.rglob("*"):
        if each.is_dir() and not each.is_symlink():
            each.chmod(0o700)
    shutil.rmtree(path)


Run = Callable[..., str]


@pytest.fixture
def run(folder: Path) -> Run:
    def run_as_somebody(script: str, spool: Path, url: str = "127.0.0.1:9") -> str:
        """What the script prints."""
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + script, str(folder), str(spool), url],
            env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run_as_somebody


def of_somebody(path: Path, mode: int) -> Path:
    path.mkdir()
    if is_root():
        os.chown(path, SOMEBODY, SOMEBODY)
    path.chmod(mode)
    return path


CONSTRUCT = """
try:
    Emitter(url, spool=spool)
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (0o500, "no file can be made and mapped in it (Permission denied): let user {} write into it"),
        (0o000, "it cannot be opened (Permission denied): let user {} read, write and enter it, or give another path"),
    ],
)
def test_a_directory_that_cannot_be_used_is_refused(folder: Path, run: Run, mode: int, why: str) -> None:
    spool = of_somebody(folder / "spool", mode)
    start = f"spool must be a directory that events can be kept in, not {str(spool)!r}: "
    assert run(CONSTRUCT, spool) == start + why.format(SOMEBODY) + "\n"


def test_a_directory_that_may_not_be_made_is_refused(folder: Path, run: Run) -> None:
    spool = of_somebody(folder / "above", 0o500) / "spool"
    why = f"it cannot be made (Permission denied): make it for user {SOMEBODY}, or give another path\n"
    assert run(CONSTRUCT, spool).endswith(why)


@ROOT_ONLY
def test_a_directory_of_another_user_is_refused_whatever_its_mode(folder: Path, run: Run) -> None:
    spool = folder / "theirs"
    spool.mkdir()
    os.chown(spool, OTHER, OTHER)
    spool.chmod(0o777)
    why = f"it belongs to user {OTHER}, and this process is user {SOMEBODY}: give a directory of user {SOMEBODY}\n"
    assert run(CONSTRUCT, spool).endswith(why)


TAKE_OVER = """
emitter = Emitter(url, spool=spool)
emitter.input({"n": 7})
print(emitter.drain(10), emitter.stats().recovered_events)
emitter.close()
"""


@ROOT_ONLY
def test_what_another_user_has_left_stays_there_with_one_warning(rig: Rig, folder: Path, run: Run) -> None:
    spool = of_somebody(folder / "spool", 0o700)
    leave(rig.collector.url, folder / "before", "put(3)", batch_size=10)
    (home,) = (folder / "before").iterdir()
    home.rename(spool / home.name)
    told, answer = run(TAKE_OVER, spool, rig.collector.url).splitlines()
    assert told == f"spool: {spool}/{home.name} belongs to user 0, and is left alone"
    assert answer == "True 0"
    assert arrivals(rig.collector) == {7: 1}
    assert len(list((spool / home.name).glob("*.seg"))) >= 1


def test_a_directory_that_loses_its_rights_is_a_full_disk_until_it_has_them_again(
    rig: Rig, folder: Path, run: Run
) -> None:
    rig.collector.respond(503, headers={"Retry-After": "60"}, times=None)
    spool = of_somebody(folder / "spool", 0o700)
    script = """
emitter = Emitter(url, spool=spool, overflow="drop_newest", max_request_bytes=2000)
emitter.input({"n": 0})
(home,) = os.listdir(spool)
os.chmod(os.path.join(spool, home), 0o500)
number = 1
while not emitter.stats().dropped_events["overflow"]:
    emitter.input({"n": number})
    number += 1
os.chmod(os.path.join(spool, home), 0o700)

def waiting():
    stats = emitter.stats()
    return stats.queued_events + stats.in_flight_events

accepted, deadline = waiting(), time.monotonic() + 10
while (more := waiting() - accepted) == 0 and time.monotonic() < deadline:
    emitter.input({"n": number})
    time.sleep(0.02)
print(more, number < 10_000)
emitter.close(0)
"""
    lines = run(script, spool, rig.collector.url).splitlines()
    assert any("no file can be made in" in line and line.endswith("Permission denied") for line in lines)
    assert "1 True" in lines


@ROOT_ONLY
def test_root_sees_which_processes_of_others_are_dead(
    rig: Rig, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastemit.cli import main

    spool = folder / "spool"
    leave(rig.collector.url, spool, "put(3)", batch_size=10)
    (home,) = spool.iterdir()
    for path in (spool, home, *home.iterdir()):
        os.chown(path, OTHER, OTHER)
    assert main(["spool", str(spool)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1:4] == ["no", "post", "3"]


def test_a_file_that_may_not_be_written_holds_up_no_other(rig: Rig, folder: Path) -> None:
    """A directory with the name of a file cannot be opened by root either."""
    spool = folder / "spool"
    spool.mkdir()
    for first in (0, 3):
        leave(rig.collector.url, folder / str(first), f"put(3, first={first})", batch_size=10)
        (home,) = (folder / str(first)).iterdir()
        home.rename(spool / home.name)
        if first == 0:
            (spool / home.name / "00000000.seg").mkdir()
    emitter = Emitter(rig.collector.url, spool=spool)
    assert emitter.drain(DEADLINE)
    assert arrivals(rig.collector) == dict.fromkeys(range(6), 1)
    emitter.close()
    assert [path.name for path in spool.glob("*/*.seg")] == ["00000000.seg"]
