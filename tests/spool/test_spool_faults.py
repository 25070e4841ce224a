"""What may be wrong with the disk, the directory and the files of a spool, and what must not come of it."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastemit import Emitter, EmitterConfiguration, InMemoryEventStore, RedisEmitter, Snowplow
from fastemit._spool.spool import SPARES
from tests.support.delivery import DEADLINE, Rig
from tests.support.emitters import accounted
from tests.support.spool import arrivals, homes, is_root, leave, segments
from tests.support.waiting import until

ROOT_ONLY = pytest.mark.skipif(not is_root(), reason="only root can give a directory to somebody else")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


# -- at construction -------------------------------------------------------------------------------------------------


def test_a_relative_path_is_made_absolute(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    emitter = rig.emitter(spool="relative")
    monkeypatch.chdir("/")
    emitter.input({"n": 1})
    assert len(homes(tmp_path / "relative")) == 1


@pytest.mark.parametrize("value", [1, b"/tmp/x", True, ["x"]])
def test_what_is_no_path_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="spool must be the path of a directory, not"):
        Emitter("example.com", spool=value)


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(ValueError, match="spool must be the path of a directory, not ''"):
        Emitter("example.com", spool="")


def test_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ValueError, match=r"spool must be a directory .*file.*: it is a file"):
        Emitter("example.com", spool=path)


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ValueError, match=r"it is a symbolic link: give the path that it leads to, '.*real'"):
        Emitter("example.com", spool=tmp_path / "link")


def test_a_directory_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'/proc/nowhere': it cannot be made"):
        Emitter("example.com", spool="/proc/nowhere")


@ROOT_ONLY
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(ValueError, match="it belongs to user 12345, and this process is user 0"):
        Emitter("example.com", spool=tmp_path / "theirs")


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastemit._spool.ground._file_system_of", lambda device: "nfs4")
    with pytest.raises(ValueError, match=r"it is on nfs4, where .*: give a directory on a disk of this machine"):
        Emitter("example.com", spool=tmp_path)


def test_an_event_store_beside_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spool and event_store must not both be given"):
        Emitter("example.com", spool=tmp_path, event_store=InMemoryEventStore())


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(NotImplementedError, match="spool is for Linux and macOS"):
        Emitter("example.com", spool=tmp_path)


def test_the_bounds_are_those_of_a_disk(spool: Path) -> None:
    emitter = Emitter("example.com", spool=spool)
    assert emitter._buffer.max_bytes == 1 << 30
    assert emitter._buffer.capacity > 40_000_000
    assert Emitter("example.com", spool=spool, buffer_capacity=7)._buffer.capacity == 7


@pytest.mark.usefixtures("no_trackers")
def test_create_tracker_passes_it_on(rig: Rig, spool: Path) -> None:
    config = EmitterConfiguration(spool=spool, spool_sync=2.0)
    emitter: Any = Snowplow.create_tracker("ns", rig.collector.url, emitter_config=config).emitters[0]
    emitter.input({"n": 1})
    assert len(homes(spool)) == 1
    emitter.close()


# -- modes -----------------------------------------------------------------------------------------------------------


def test_nobody_else_can_read_what_is_in_it(rig: Rig, spool: Path) -> None:
    mask = os.umask(0)
    try:
        rig.emitter(spool=spool).input({"n": 1})
    finally:
        os.umask(mask)
    (home,) = spool.iterdir()
    assert [oct(path.stat().st_mode & 0o777) for path in (spool, home)] == ["0o700", "0o700"]
    assert {oct(path.stat().st_mode & 0o777) for path in home.iterdir()} == {"0o600"}


# -- a full disk -----------------------------------------------------------------------------------------------------

FULL = """
import logging, resource
logging.basicConfig(format="%(message)s", stream=sys.stdout)
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
put(3)
print(e.stats().dropped_events["overflow"], e.stats().queued_events)
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
time.sleep(0.3)
put(2, first=3)
print(e.drain(5), e.stats().sent_events)
e.close()
"""


def test_a_full_disk_drops_says_why_and_goes_on_by_itself(rig: Rig, spool: Path) -> None:
    done = leave(rig.collector.url, spool, FULL, overflow="drop_newest")
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith(("no room", "events dropped"))] == ["3 0", "True 2"]
    assert lines[0].startswith("no room for events on the disk: no file can be made in")
    assert "File too large" in lines[0]
    assert arrivals(rig.collector) == {3: 1, 4: 1}


WAITS = """
import resource
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
threading.Timer(0.5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)).start()
started = time.process_time()
put(3)
print(e.drain(5), e.stats().sent_events, time.process_time() - started < 0.4)
"""


def test_a_thread_that_waits_for_room_on_the_disk_goes_on_when_there_is_some(rig: Rig, spool: Path) -> None:
    done = leave(rig.collector.url, spool, WAITS, overflow="block")
    assert (done.stderr, done.stdout) == ("", "True 3 True\n")


OLDEST = """
import resource
put(200)
files = [name for name in os.listdir(next(os.scandir(e._spool.root)).path) if name.endswith(".seg")]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
put(400, first=200)
print(e.stats().dropped_events["overflow"] > 0, e.stats().queued_events > 0)
"""


def test_drop_oldest_makes_room_on_a_full_disk(rig: Rig, spool: Path) -> None:
    rig.collector.respond(503, headers={"Retry-After": "60"}, times=None)
    done = leave(rig.collector.url, spool, OLDEST, overflow="drop_oldest", max_request_bytes=2000)
    assert (done.stderr, done.stdout) == ("", "True True\n")
    rig.collector.reset()
    emitter = rig.emitter(spool=spool, max_request_bytes=2000)
    assert emitter.drain(DEADLINE)
    assert 599 in arrivals(rig.collector)


def test_a_directory_that_is_removed_under_a_living_process_is_made_again(
    rig: Rig, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    emitter = rig.emitter(spool=spool, max_request_bytes=2000)
    emitter.input({"n": 0})
    # Otherwise the sender makes a file while the directory is being emptied.
    until(lambda: emitter._buffer.spare_files >= SPARES)
    shutil.rmtree(spool)
    with caplog.at_level(logging.WARNING, "fastemit"):
        for number in range(1, 200):
            emitter.input({"n": number})
        assert emitter.drain(DEADLINE)
    assert "was removed; from here on another is used" in caplog.text
    assert arrivals(rig.collector) == dict.fromkeys(range(200), 1)
    assert accounted(emitter.stats()) == 200


# -- files of others -------------------------------------------------------------------------------------------------


def take_over(rig: Rig, spool: Path) -> Emitter:
    emitter = rig.emitter(spool=spool)
    assert emitter.drain(DEADLINE)
    return emitter


def test_what_is_damaged_is_put_aside_and_the_rest_is_sent(
    rig: Rig, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave(rig.collector.url, spool, "put(5, first=10)", batch_size=100)
    (path,) = [each for each in segments(spool) if b'"n":"12"' in each.read_bytes()]
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"n":"12"', b'"n":"99"'))
    with caplog.at_level(logging.WARNING, "fastemit"):
        take_over(rig, spool)
    assert arrivals(rig.collector) == dict.fromkeys([10, 11, 13, 14], 1)
    (kept,) = (spool / "damaged").iterdir()
    assert b'"n":"99"' in kept.read_bytes()
    assert "1 damaged event in " in caplog.text
    assert f": {kept.stat().st_size} bytes, kept in {spool}/damaged" in caplog.text


@pytest.mark.parametrize("text", [b"rubbish" * 1000, b"FASTEMIT" + b"\xff" * 5000])
def test_what_is_no_file_of_ours_is_put_aside_or_left_alone(rig: Rig, spool: Path, text: bytes) -> None:
    leave(rig.collector.url, spool, "put(2)", batch_size=100)
    (home,) = spool.iterdir()
    (home / "00000099.seg").write_bytes(text)
    take_over(rig, spool)
    assert arrivals(rig.collector) == {0: 1, 1: 1}
    kept = list((spool / "damaged").iterdir()) if (spool / "damaged").exists() else segments(spool)
    assert [each.read_bytes() for each in kept] == [text]


def test_a_planted_link_is_not_followed(rig: Rig, spool: Path, tmp_path: Path) -> None:
    leave(rig.collector.url, spool, "put(2)", batch_size=100)
    (home,) = spool.iterdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 10_000)
    (home / "00000000.seg").symlink_to(secret)
    (spool / "planted").symlink_to(tmp_path)
    take_over(rig, spool)
    assert arrivals(rig.collector) == {0: 1, 1: 1}
    assert secret.read_bytes() == b"x" * 10_000


def test_a_directory_without_a_word_on_whose_it_is_is_left_alone(rig: Rig, spool: Path) -> None:
    leave(rig.collector.url, spool, "put(2)", batch_size=100)
    next(spool.glob("*/owner.json")).write_text('{"version": 99}')
    take_over(rig, spool)
    assert arrivals(rig.collector) == {}
    assert len(homes(spool)) == 1


# -- fork ------------------------------------------------------------------------------------------------------------

FORK = """
put(2)
def child(first, deeper):
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        return
    put(2, first=first)
    if deeper:
        child(first + 2, False)
    os._exit(0)
child(2, True)
print(e.stats().queued_events, len([name for name in os.listdir(e._spool.root)]))
"""


def test_a_forked_child_and_a_child_of_it_have_directories_of_their_own(rig: Rig, spool: Path) -> None:
    done = leave(rig.collector.url, spool, FORK, batch_size=100)
    assert (done.stderr, done.stdout) == ("", "2 3\n")
    assert len(homes(spool)) == 3
    emitter = take_over(rig, spool)
    assert arrivals(rig.collector) == dict.fromkeys(range(6), 1)
    assert emitter.stats().recovered_events == 6


FORK_WITHIN = """
class Forks:
    def __str__(self):
        self.pid = os.fork()
        return "5"
forks = Forks()
e.input({"n": forks})
if forks.pid == 0:
    put(1, first=6)
    os._exit(0)
os.waitpid(forks.pid, 0)
"""


def test_a_fork_in_the_middle_of_input_loses_nothing(rig: Rig, spool: Path) -> None:
    done = leave(rig.collector.url, spool, "put(1)\n" + FORK_WITHIN, batch_size=100)
    assert done.stderr == ""
    take_over(rig, spool)
    # The event itself is given in by both.
    assert arrivals(rig.collector) == {0: 1, 5: 2, 6: 1}


# -- Redis and GET ---------------------------------------------------------------------------------------------------


class Redis:
    """A client of a Redis that is there, or not."""

    def __init__(self) -> None:
        self.pushed: list[bytes] = []
        self.down = True

    def rpush(self, key: str, *events: bytes) -> int:
        if self.down:
            raise ConnectionError("no Redis today")
        self.pushed += events
        return len(self.pushed)


def test_a_redis_emitter_pushes_what_the_one_before_has_left(spool: Path) -> None:
    rdb = Redis()
    emitter = RedisEmitter(rdb, spool=spool)
    emitter.input({"n": 1, "list": [1, {"a": None}], "stm": "mine"})
    emitter.input({})
    assert emitter.close(0.05) == 2
    rdb.down = False
    again = RedisEmitter(rdb, spool=spool)
    assert again.drain(DEADLINE)
    assert rdb.pushed == [b'{"n":1,"list":[1,{"a":null}],"stm":"mine"}', b"{}"]
    assert again.stats().recovered_events == 2
    again.close()
    assert homes(spool) == []


def test_callbacks_of_get_read_the_file(rig: Rig, spool: Path) -> None:
    got: list[Any] = []
    emitter = rig.emitter(spool=spool, method="get", batch_size=10, on_success=got.extend)
    emitter.input({"n": 1, "list": ["a", "b"], "empty": "", "none": None, "text": "Zoë & 1=2"})
    stored = emitter.event_store.event_buffer
    emitter.flush()
    assert got[0].pop("stm") == rig.collector.events[0]["stm"]
    assert got == [{"n": "1", "list": ["a", "b"], "empty": "", "text": "Zoë & 1=2"}]
    assert list(stored) == got


def test_a_lock_that_was_let_go_of_after_a_close_is_for_the_next(rig: Rig, spool: Path) -> None:
    rig.collector.respond(503, times=None)
    first = Emitter(rig.collector.url, spool=spool)
    first.input({"n": 1})
    first.close(0.05)
    rig.collector.reset()
    second = rig.emitter(spool=spool)
    second.async_flush()
    until(lambda: second.stats().recovered_events == 1)
