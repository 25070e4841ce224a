"""The ids of `Tracker`: random UUIDs of version 4, and no two alike, whatever threads and forks do."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import pytest
from snowplow_tracker import PageView

from fastemit import Tracker
from tests.support.emitters import join, threads_of
from tests.support.processes import environment, watched
from tests.support.slow import slow
from tests.support.tracker import Taken

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


def test_each_is_a_random_uuid_of_version_4() -> None:
    ids = [Tracker.get_uuid() for _ in range(5_000)]
    assert len(set(ids)) == len(ids)
    numbers = []
    for text in ids:
        assert type(text) is str
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)
        numbers.append(parsed.int)
    # Of 5,000 throws half are 1: a difference of 300 is seen once in 10^16. Six bits are the version and the variant.
    ones = [sum(number >> bit & 1 for number in numbers) for bit in range(128)]
    assert sum(count in (0, 5_000) for count in ones) == 6
    assert all(abs(count - 2_500) < 300 for count in ones if count not in (0, 5_000))


def test_an_event_has_the_id_that_track_returns() -> None:
    emitter = Taken()
    tracker = Tracker("ns", emitter)
    returned = [tracker.track(PageView("url")) for _ in range(1_000)]
    assert [dict(event)["eid"] for event in emitter.events] == returned
    assert len(set(returned)) == 1_000


def test_threads_share_none() -> None:
    ids: list[list[str]] = [[] for _ in range(8)]

    def draw(number: int) -> None:
        ids[number] = [Tracker.get_uuid() for _ in range(5_000)]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        join(threads_of(8, draw))
    finally:
        sys.setswitchinterval(before)
    assert len({text for drawn in ids for text in drawn}) == 40_000


@needs_fork
@pytest.mark.parametrize("forks", [20, slow(200)])
def test_forks_repeat_none(forks: int) -> None:
    Tracker.get_uuid()
    reader, writer = os.pipe()
    expected = 0
    ids = []
    for _ in range(forks):
        ids.append(Tracker.get_uuid())
        child = os.fork()
        if child == 0:
            drawn = "".join(Tracker.get_uuid() + "\n" for _ in range(5))
            os.write(writer, drawn.encode())
            os._exit(0)
        os.waitpid(child, 0)
        expected += 5
    os.close(writer)
    with os.fdopen(reader) as lines:
        ids += lines.read().split()
    assert len(ids) == forks + expected
    assert len(set(ids)) == len(ids)


def output_of(script: str, directory: Path) -> str:
    path = directory / "script.py"
    path.write_text(script)
    with watched([sys.executable, "-W", "ignore::DeprecationWarning", str(path)], env=environment()) as program:
        done = program.wait()
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@needs_fork
@pytest.mark.parametrize("forks", [15, slow(60)])
def test_forks_from_threads_that_draw_repeat_none(tmp_path: Path, forks: int) -> None:
    script = f"""
import os, sys, threading
from fastemit import Tracker
sys.setswitchinterval(1e-6)
stop, drawn = threading.Event(), []

def draw():
    while not stop.is_set():
        drawn.append(Tracker.get_uuid())

threads = [threading.Thread(target=draw) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range({forks}):
    child = os.fork()
    if child == 0:
        os.write(1, "".join(Tracker.get_uuid() + "\\n" for _ in range(20)).encode())
        os._exit(0)
    os.waitpid(child, 0)
stop.set()
for thread in threads:
    thread.join()
os.write(1, "".join(text + "\\n" for text in drawn[-20_000:]).encode())
"""
    ids = output_of(script, tmp_path).split()
    assert len(ids) > 20 * forks
    assert len(set(ids)) == len(ids)


@needs_fork
@pytest.mark.parametrize("method", ["fork", slow("spawn"), slow("forkserver")])
def test_processes_of_multiprocessing_repeat_none(method: str, tmp_path: Path) -> None:
    script = f"""
import multiprocessing
from fastemit import Tracker

def draw(_):
    return [Tracker.get_uuid() for _ in range(50)]

if __name__ == "__main__":
    own = draw(0)
    with multiprocessing.get_context({method!r}).Pool(3) as pool:
        for ids in [own, *pool.map(draw, range(12), 1), draw(0)]:
            print(*ids)
"""
    ids = output_of(script, tmp_path).split()
    assert len(ids) == 50 * 14
    assert len(set(ids)) == len(ids)


@needs_fork
def test_a_fork_that_runs_no_hook_of_python_s_repeats_none(tmp_path: Path) -> None:
    # As uWSGI forks: in C.
    script = """
import ctypes, os
from fastemit import Tracker
fork = ctypes.PyDLL(None).fork
print(Tracker.get_uuid(), flush=True)
for _ in range(50):
    child = fork()
    if child == 0:
        os.write(1, (Tracker.get_uuid() + "\\n").encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.write(1, (Tracker.get_uuid() + "\\n").encode())
"""
    ids = output_of(script, tmp_path).split()
    assert len(ids) == 101
    assert len(set(ids)) == len(ids)


#: A generator whose bytes and calls are known. `BytesIO.read` is a function in C, as `os.urandom` is, so it is taken
#: for that when it is there before fastemit. One that comes later is a patch, and called by snowplow_tracker's code.
KNOWN_GENERATOR = """
import io, os, time, uuid
known = os.urandom(1 << 20)
generator = io.BytesIO(known)
os.urandom = generator.read
from fastemit import Tracker
"""


def test_they_are_the_bytes_of_the_system_s_generator_taken_in_blocks(tmp_path: Path) -> None:
    script = """
drawn, taken = [], []
for _ in range(16 + 256 + 1):
    drawn.append(Tracker.get_uuid())
    taken.append(generator.tell())
assert set(taken) == {256, 256 + 4096, 256 + 2 * 4096}, set(taken)
blocks = [known[at : at + 16] for at in range(0, generator.tell(), 16)]
assert set(drawn) <= {str(uuid.UUID(bytes=block, version=4)) for block in blocks}
assert len(set(drawn)) == len(drawn)
print("known")
"""
    assert output_of(KNOWN_GENERATOR + script, tmp_path) == "known\n"


def test_a_block_is_used_for_a_second_at_most(tmp_path: Path) -> None:
    # A machine that is started from a snapshot has the block of the one that was saved.
    script = """
Tracker.get_uuid()
deadline, drawn = time.monotonic() + 10, 1
while generator.tell() == 256:
    assert time.monotonic() < deadline and drawn < 16
    time.sleep(0.12)
    Tracker.get_uuid()
    drawn += 1
assert generator.tell() == 512
print("new")
"""
    assert output_of(KNOWN_GENERATOR + script, tmp_path) == "new\n"


def test_what_the_generator_raises_comes_out_and_the_next_id_is_drawn(tmp_path: Path) -> None:
    script = """
generator.seek(len(known) - 256)
Tracker.get_uuid()
for _ in range(15):
    Tracker.get_uuid()
try:
    # Fewer bytes than were asked for.
    Tracker.get_uuid()
except OSError as error:
    print(error)
generator.seek(0)
print(len(Tracker.get_uuid()))
"""
    assert output_of(KNOWN_GENERATOR + script, tmp_path).splitlines() == ["os.urandom gave 0 bytes of 4096", "36"]
