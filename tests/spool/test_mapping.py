"""Files that are made and mapped in one step: what is in them, and what stays when that fails."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastemit import _mapping
from fastemit._spool import ground
from tests.support.spool import is_root

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they are made in this way on Linux")

SIZE = 1_134_567


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    handle = os.open(tmp_path, os.O_RDONLY)
    yield handle
    os.close(handle)


def make(directory: int, *names: str, size: int = SIZE) -> list[_mapping.Mapping]:
    return _mapping.make_files(_mapping.duplicate(directory), [os.fsencode(name) for name in names], size)


def test_they_are_zeros_of_this_size_and_have_their_room(directory: int, tmp_path: Path) -> None:
    made = make(directory, "a", "b", "c")
    assert [len(each) for each in made] == [SIZE] * 3
    for name in "abc":
        path = tmp_path / name
        assert path.read_bytes() == bytes(SIZE)
        assert path.stat().st_mode & 0o777 == 0o600
        os.sync()
        assert path.stat().st_blocks * 512 >= SIZE


def test_what_is_written_to_the_memory_is_in_the_file(directory: int, tmp_path: Path) -> None:
    (made,) = make(directory, "a")
    view = memoryview(made)
    view[SIZE - 4 :] = b"last"
    assert (tmp_path / "a").read_bytes()[-4:] == b"last"


def test_a_write_to_them_meets_no_page_for_the_first_time(directory: int) -> None:
    (made,) = make(directory, "a")
    view = memoryview(made)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for at in range(0, SIZE, mmap.PAGESIZE):
        view[at] = 1
    faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
    assert faults < SIZE / mmap.PAGESIZE / 10


def test_a_view_keeps_it_mapped(directory: int, tmp_path: Path) -> None:
    def mapped() -> bool:
        return str(tmp_path / "a") in Path("/proc/self/maps").read_text("utf-8")

    view = memoryview(make(directory, "a")[0])
    assert mapped()
    assert view[0] == 0
    view.release()
    assert not mapped()


def test_the_descriptors_are_closed(directory: int) -> None:
    before = set(os.listdir("/proc/self/fd"))
    made = make(directory, "a", "b")
    with pytest.raises(FileExistsError):
        make(directory, "a")
    assert set(os.listdir("/proc/self/fd")) == before
    assert len(made) == 2


def test_a_file_that_is_there_is_not_touched(directory: int, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"mine")
    with pytest.raises(FileExistsError) as raised:
        make(directory, "there")
    assert raised.value.filename == "there"
    assert (tmp_path / "there").read_bytes() == b"mine"


def test_a_symbolic_link_is_not_followed(directory: int, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        make(directory, "link")
    assert not (tmp_path / "target").exists()


def test_those_before_the_first_that_fails_are_there(directory: int, tmp_path: Path) -> None:
    (tmp_path / "c").touch()
    assert len(make(directory, "a", "b", "c", "d")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_of_what_has_no_room_nothing_stays(directory: int, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE - 1, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            make(directory, "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert raised.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not is_root(), reason="only root can mount a small tmpfs")
def test_a_full_disk_is_an_error_and_no_signal(tmp_path: Path) -> None:
    if os.system(f"mount -t tmpfs -o size=3m tmpfs {tmp_path} 2>/dev/null") != 0:
        pytest.skip("nothing can be mounted here")
    try:
        handle = os.open(tmp_path, os.O_RDONLY)
        try:
            made = make(handle, "a", "b", "c")
            assert len(made) == 2
            with pytest.raises(OSError, match="No space left"):
                make(handle, "c")
            for each in made:
                memoryview(each)[:] = b"x" * SIZE
            assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
        finally:
            os.close(handle)
            del made, each
    finally:
        assert os.system(f"umount -l {tmp_path}") == 0


@pytest.mark.parametrize("count", [0, _mapping.MOST_AT_ONCE + 1])
def test_too_few_and_too_many_are_refused(directory: int, count: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"names must be from 1 to 16, not {count}"):
        _mapping.make_files(directory, [b"%d" % number for number in range(count)], SIZE)
    with pytest.raises(ValueError, match="size must be at least 1, not 0"):
        _mapping.make_files(directory, [b"a"], 0)
    assert list(tmp_path.iterdir()) == []


def test_a_mapping_of_nothing_gives_no_buffer() -> None:
    with pytest.raises(BufferError, match="nothing is mapped"):
        memoryview(_mapping.Mapping())


def test_of_a_large_file_the_room_is_only_reserved(directory: int, tmp_path: Path) -> None:
    (made,) = ground.make_files(["a", "b"], _mapping.duplicate(directory), 9 << 20)
    assert isinstance(made, mmap.mmap)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").stat().st_blocks * 512 >= 9 << 20


def test_an_object_that_is_dropped_unmaps_its_file(directory: int) -> None:
    made = make(directory, *"abcdefgh")
    before = Path("/proc/self/maps").read_text("utf-8").count("\n")
    made.clear()
    assert before - Path("/proc/self/maps").read_text("utf-8").count("\n") >= 1
