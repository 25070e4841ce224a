"""The edges of a spool: file systems that are none for it, directories that go away, power, memory, and a close."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastemit import Emitter
from fastemit._spool import ground
from fastemit._spool.spool import SPARES
from tests.support.buffer import SANITIZED
from tests.support.delivery import DEADLINE, Rig
from tests.support.emitters import accounted
from tests.support.spool import PATIENCE, arrivals, homes, leave, segments
from tests.support.waiting import until


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


# -- at construction -------------------------------------------------------------------------------------------------


def test_a_link_that_leads_nowhere_is_refused_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"it is a symbolic link: give the path that it leads to, '.*nowhere'"):
        Emitter("example.com", spool=tmp_path / "link")


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"it cannot be made \(Not a directory\): make it .*, or give another path"):
        Emitter("example.com", spool=tmp_path / "file" / "spool")


def test_a_file_system_that_maps_no_files_is_refused(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_mapping(*_: Any) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(ground.mmap, "mmap", no_mapping)
    with pytest.raises(ValueError, match=r"made and mapped in it \(No such device\): give a directory on a disk"):
        Emitter("example.com", spool=spool)
    assert list(spool.iterdir()) == []


def test_a_file_system_whose_mappings_are_private_is_refused(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = mmap.mmap
    monkeypatch.setattr(ground.mmap, "mmap", lambda handle, size: private(handle, size, mmap.MAP_PRIVATE))
    with pytest.raises(ValueError, match="has no mappings that are shared: give a directory on a disk"):
        Emitter("example.com", spool=spool)
    assert list(spool.iterdir()) == []


# -- directories that go away ----------------------------------------------------------------------------------------


def test_a_spool_that_is_removed_before_its_first_event_is_made_again(rig: Rig, spool: Path) -> None:
    emitter = rig.emitter(spool=spool)
    spool.rmdir()
    emitter.input({"n": 1})
    assert len(homes(spool)) == 1
    assert emitter.drain(DEADLINE)
    assert accounted(emitter.stats()) == 1


def test_a_directory_that_is_removed_is_noticed_before_its_files_are_full(
    rig: Rig, spool: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastemit._spool.spool.LOOK_EVERY", 0.05)
    emitter = rig.emitter(spool=spool)
    emitter.input({"n": 0})
    (home,) = spool.iterdir()
    # Otherwise the sender makes a file while the directory is being emptied.
    until(lambda: emitter._buffer.spare_files >= SPARES)
    with caplog.at_level(logging.WARNING, "fastemit"):
        shutil.rmtree(home)
        until(lambda: len(homes(spool)) == 1 and homes(spool) != [home.name])
        # It is told once the files are made.
        until(lambda: f"{home} was removed; from here on another is used" in caplog.text)
    assert emitter.drain(DEADLINE)
    assert arrivals(rig.collector) == {0: 1}


def test_a_directory_that_is_moved_is_used_on(rig: Rig, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastemit._spool.spool.LOOK_EVERY", 0.02)
    emitter = rig.emitter(spool=spool, max_request_bytes=2000)
    emitter.input({"n": 0})
    (home,) = spool.iterdir()
    home.rename(spool.parent / "elsewhere")
    for number in range(1, 200):
        emitter.input({"n": number})
    assert emitter.drain(DEADLINE)
    assert arrivals(rig.collector) == dict.fromkeys(range(200), 1)
    assert homes(spool) == []


@pytest.mark.parametrize("name", ["1234-0123abcd", "mine"])
def test_a_directory_whose_remover_was_killed_is_removed_and_no_other(rig: Rig, spool: Path, name: str) -> None:
    (spool / name).mkdir(parents=True)
    emitter = rig.emitter(spool=spool)
    assert emitter.drain(DEADLINE)
    assert homes(spool) == ([] if name != "mine" else ["mine"])


@pytest.mark.parametrize("age", [10, 3600])
def test_what_a_death_at_construction_left_is_removed_after_a_while(rig: Rig, spool: Path, age: int) -> None:
    spool.mkdir()
    probe = spool / ".probe-0123456789abcdef"
    probe.touch()
    os.utime(probe, (probe.stat().st_mtime - age,) * 2)
    assert rig.emitter(spool=spool).drain(DEADLINE)
    assert probe.exists() == (age < 60)


# -- files of others -------------------------------------------------------------------------------------------------


def test_a_file_of_a_newer_version_is_told_of_once_and_stays(
    rig: Rig, spool: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastemit._spool.spool.LOOK_EVERY", 0.02)
    leave(rig.collector.url, spool, "put(2)", batch_size=100)
    (home,) = spool.iterdir()
    newer = bytearray((home / "00000001.seg").read_bytes())
    newer[8:12] = (99).to_bytes(4, "little")
    (home / "00000099.seg").write_bytes(newer)
    looks: list[str] = []
    monkeypatch.setattr("fastemit._spool.estate.candidates", lambda root: looks.append(root) or homes(spool))
    with caplog.at_level(logging.WARNING, "fastemit"):
        emitter = rig.emitter(spool=spool)
        assert emitter.drain(DEADLINE)
        emitter.input({"n": 7})
        until(lambda: len(looks) > 5)
    path = home / "00000099.seg"
    lines = [line for line in caplog.messages if str(path) in line]
    assert lines == [f"spool: {path} cannot be read (a newer version of fastemit has written it), and is left alone"]
    assert path.read_bytes() == newer


# -- power, memory, a close ------------------------------------------------------------------------------------------


def test_what_says_whose_the_events_are_is_written_to_the_disk_too(
    rig: Rig, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    original = {name: getattr(os, name) for name in ("fsync", "fdatasync")}

    def noting(name: str) -> Any:
        def sync(handle: int) -> None:
            original[name](handle)
            synced.append(os.readlink(f"/proc/self/fd/{handle}"))

        return sync

    for name in original:
        monkeypatch.setattr(os, name, noting(name))
    emitter = rig.emitter(spool=spool, spool_sync=0.02)
    emitter.input({"n": 1})
    (home,) = spool.iterdir()
    due = {str(path) for path in (home / "00000001.seg", home / "owner.json", home, spool, spool.parent)}
    until(lambda: due <= set(synced))
    assert synced.index(str(home / "owner.json")) < synced.index(str(home)) < synced.index(str(spool))


OUTAGE = """
def memory():
    sizes = dict(line.split()[:2] for line in open("/proc/self/status") if line.startswith("Rss"))
    return (int(sizes["RssAnon:"]) + int(sizes["RssFile:"]) + int(sizes["RssShmem:"])) / 1024
put(1)
before = memory()
number, text, most = 1, "y" * 230, 0.0
while number < 300_000:
    for number in range(number, number + 10_000):
        e.input({"n": number, "x": text})
    number += 1
    # As a real program, which does something else too: the sender gets its turn to park what is full.
    time.sleep(0.01)
    most = max(most, memory())
print(e.stats().queued_events + e.stats().in_flight_events, round(most - before), flush=True)
"""


@pytest.mark.skipif(SANITIZED, reason="the sanitizers' own memory counts as the program's, and they are slow")
def test_an_outage_of_300_000_events_takes_little_memory(rig: Rig, spool: Path) -> None:
    """They are some 85 MB on the disk. What is mapped, and has been touched, counts as memory here."""
    rig.collector.respond(503, headers={"Retry-After": "60"}, times=None)
    done = leave(rig.collector.url, spool, OUTAGE)
    assert done.stderr == ""
    events, more = map(int, done.stdout.split())
    assert events >= 300_000
    assert sum(path.stat().st_size for path in segments(spool)) > 80_000_000
    assert more < 40


def test_a_closed_buffer_reads_nothing_that_another_process_may_write(rig: Rig, spool: Path) -> None:
    rig.collector.respond(503, times=None)
    first = rig.emitter(spool=spool, max_request_bytes=2000, max_retry_delay_seconds=0.01)
    for number in range(100):
        first.input({"n": number})
    assert first.close(0.05) == 100
    rig.collector.reset()
    second = rig.emitter(spool=spool, max_request_bytes=2000)
    assert second.drain(PATIENCE)
    assert arrivals(rig.collector) == dict.fromkeys(range(100), 1)
    assert first._buffer.check() == 0
    assert first.event_store.event_buffer == []
    assert first.stats().queued_events == 100
    assert first.close() == 100
