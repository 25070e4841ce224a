"""The directories under a spool: each belongs to one emitter of one process, and is locked while that process lives.

    <spool>/<name>/00000001.seg    segments
    <spool>/<name>/lock            a record lock of the process: the kernel releases it when the process dies
    <spool>/<name>/owner.json      the collector that the events are for
    <spool>/damaged/               what could not be read

A directory is made under a name that begins with a dot, and gets its own name once it is locked. So if a directory has
its own name and is not locked, its process is dead. A process loses such a lock when it opens and closes the locked
file again. So the directories of this process are registered, and their locks are opened only once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import mmap
import os
import re
import socket
import stat
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from fastemit._spool import ground
from fastemit._spool.registry import registry
from fastemit._time import wall_clock

DAMAGED: Final = "damaged"
_LOCK: Final = "lock"
_OWNER: Final = "owner.json"
_SUFFIX: Final = ".seg"
_UNFINISHED: Final = ".new"
_VERSION: Final = 1
_MOST_OWNER_BYTES: Final = 64 * 1024
_NAME: Final = re.compile(r"[0-9]+-[0-9a-f]{8}")
#: Seconds after which a directory is removed that its process has not finished making.
_STALE: Final = 60.0


@dataclass(frozen=True)
class Owner:
    """The endpoint that the events of a directory are for, and the process that put them there.

    Attributes:
        endpoint: the URL that they are sent to, without credentials.
        method: "post" or "get"; "rpush" for a Redis list.
        pid, host: of the process.
        created: milliseconds since 1970.
    """

    endpoint: str
    method: str
    pid: int
    host: str
    created: int

    @classmethod
    def here(cls, endpoint: str, method: str) -> Owner:
        return cls(endpoint, method, os.getpid(), socket.gethostname(), time.time_ns() // 1_000_000)

    def same(self, other: Owner) -> bool:
        """Whether one of the two may send what the other has queued."""
        return (self.endpoint, self.method) == (other.endpoint, other.method)

    def to_json(self) -> bytes:
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Owner | None:
        """The owner that a file names. None if it is in no form that this version knows."""
        try:
            found: Any = json.loads(text)
            if type(found["version"]) is not int or found["version"] > _VERSION:
                return None
            owner = cls(**{name: found[name] for name in cls.__dataclass_fields__})
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        kinds = (str, str, int, str, int)
        fine = all(type(value) is kind for value, kind in zip(asdict(owner).values(), kinds, strict=True))
        return owner if fine else None


class Home:
    """A directory that is locked by this process.

    Thread safety: none of its own; its spool's lock is held around each call.
    """

    def __init__(self, root: str, name: str, handle: int, lock: int, key: tuple[int, int, str]) -> None:
        self.name = name
        self.path = os.path.join(root, name)
        self._root = root
        self._handle = handle
        self._lock = lock
        self._key = key
        self._files = [(each, _identity(each)) for each in (handle, lock)]
        self._process = os.getpid()
        #: Whether more than its segments was written to the disk.
        self._synced = False

    @classmethod
    def make(cls, root: str, owner: Owner) -> Home:
        """A new, empty directory."""
        name = f"{owner.pid}-{os.urandom(4).hex()}"
        parent = ground.open_directory(root)
        try:
            key = (*_identity(parent), name)
            unfinished = f".{name}{_UNFINISHED}"
            os.mkdir(unfinished, 0o700, dir_fd=parent)
            opened: list[int] = []
            try:
                handle = ground.open_directory(unfinished, parent)
                opened.append(handle)
                os.fchmod(handle, 0o700)
                lock = ground.open_file(_LOCK, handle, os.O_CREAT | os.O_EXCL)
                opened.append(lock)
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _write(_OWNER, handle, owner.to_json())
                registry().mine.add(key)
                os.rename(unfinished, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                registry().mine.discard(key)
                with contextlib.suppress(OSError):
                    for file in (_LOCK, _OWNER):
                        ground.remove_file(os.path.join(unfinished, file), parent)
                    os.rmdir(unfinished, dir_fd=parent)
                for each in opened:
                    os.close(each)
                raise
        finally:
            os.close(parent)
        return cls(root, name, handle, lock, key)

    @classmethod
    def claim(cls, root: str, name: str, *, anyones: bool = False) -> Home | None:
        """A directory that a dead process has left. None if its process lives, or if it must be left alone.

        Args:
            anyones: also take a directory of another user, if the system permits it.
        """
        here = registry()
        try:
            parent = ground.open_directory(root)
        except OSError:
            return None
        opened: list[int] = []
        try:
            key = (*_identity(parent), name)
            with here.lock:
                if key in here.mine:
                    return None
                try:
                    handle = ground.open_directory(name, parent)
                    opened.append(handle)
                    if not anyones and os.fstat(handle).st_uid != os.geteuid():
                        raise PermissionError(f"{name} belongs to another user")
                    lock = ground.open_file(_LOCK, handle)
                    opened.append(lock)
                    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Another process may have removed it just before this one locked it.
                    if _identity(lock) != _identity_of(_LOCK, handle):
                        raise FileNotFoundError(_LOCK)
                    here.mine.add(key)
                except BaseException as error:
                    for each in opened:
                        os.close(each)
                    if isinstance(error, OSError):
                        return None
                    raise
        finally:
            os.close(parent)
        return cls(root, name, handle, lock, key)

    @classmethod
    def of_another(cls, root: str, name: str) -> Home | None:
        """The directory of a living process, only to look at. None if it is gone, or not a directory of a spool."""
        try:
            handle = ground.open_directory(os.path.join(root, name))
        except OSError:
            return None
        if not stat.S_ISREG(_mode_of(_LOCK, handle)):
            os.close(handle)
            return None
        return cls(root, name, handle, os.dup(handle), (0, 0, name))

    @staticmethod
    def clear_away(root: str, entry: os.DirEntry[str]) -> None:
        """Remove a directory whose process died while it made or removed it. Nothing else is removed."""
        path = os.path.join(root, entry.name)
        with contextlib.suppress(OSError):
            if not entry.name.startswith("."):
                # The lock is made first and removed last. A directory with anything else in it stays.
                if _NAME.fullmatch(entry.name) and not os.path.lexists(os.path.join(path, _LOCK)):
                    os.rmdir(path)
                return
            if wall_clock() - entry.stat(follow_symlinks=False).st_mtime < _STALE:
                return
            if ground.is_probe(entry.name):
                os.unlink(path)
            elif entry.name.endswith(_UNFINISHED) and entry.is_dir(follow_symlinks=False):
                for file in (_OWNER, _LOCK):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(path, file))
                os.rmdir(path)

    @staticmethod
    def user_of(root: str, name: str) -> int | None:
        """The user who owns this directory. None if it belongs to this user, or is gone."""
        try:
            user = os.stat(os.path.join(root, name), follow_symlinks=False).st_uid
        except OSError:
            return None
        return None if user == os.geteuid() else user

    # -- what is in it -----------------------------------------------------------------------------------------------

    @property
    def owner(self) -> Owner | None:
        """The owner that the directory names. None if it names none."""
        try:
            file = ground.open_file(_OWNER, self._handle)
        except OSError:
            return None
        try:
            return Owner.from_json(os.read(file, _MOST_OWNER_BYTES))
        except OSError:
            return None
        finally:
            os.close(file)

    def names(self) -> list[str]:
        """The names of its segments."""
        return sorted(name for name in os.listdir(self._handle) if name.endswith(_SUFFIX))

    @property
    def is_mine(self) -> bool:
        """Whether this process locked it itself. False in a forked child."""
        return self._process == os.getpid()

    @staticmethod
    def name_of(number: int) -> str:
        return f"{number:08}{_SUFFIX}"

    def map_file(self, name: str) -> mmap.mmap:
        return ground.map_file(name, self._opened())

    def remove_file(self, name: str) -> None:
        """Remove a file, if possible. A file that stays has no event left, and the next process removes it."""
        with contextlib.suppress(OSError):
            ground.remove_file(name, self._opened())

    def _opened(self) -> int:
        if self._handle < 0:
            raise FileNotFoundError(errno.ENOENT, "this process has given up the directory", self.path)
        return self._handle

    def lend_handle(self) -> int:
        """A descriptor of the directory that outlives this object. The caller closes it."""
        return ground.duplicate(self._opened())

    @property
    def was_removed(self) -> bool:
        """Whether somebody has removed it. A directory that was moved elsewhere is still used."""
        try:
            return os.fstat(self._opened()).st_nlink == 0
        except OSError:
            return True

    def sync(self, handle: int, names: list[str]) -> None:
        """Write these files and the list of files to the disk. `handle` is a descriptor that was lent."""
        first = not self._synced
        # Otherwise a loss of power may leave files without their owner, or no files at all.
        for name in [*names, _OWNER] if first else names:
            with contextlib.suppress(FileNotFoundError):
                ground.sync_file(name, handle)
        ground.sync_directory(handle)
        for path in (self._root, os.path.dirname(self._root)) if first else ():
            with contextlib.suppress(OSError):
                parent = ground.open_directory(path)
                try:
                    ground.sync_directory(parent)
                finally:
                    os.close(parent)
        self._synced = True

    def put_aside(self, name: str) -> str:
        """Move a file to `damaged/`, and return its path there."""
        there, kept = self._open_damaged(name)
        try:
            os.rename(name, kept, src_dir_fd=self._handle, dst_dir_fd=there)
        finally:
            os.close(there)
        return os.path.join(self._root, DAMAGED, kept)

    def put_aside_part(self, name: str, part: memoryview, first: int) -> str:
        """Write `part`, which begins at byte `first` of a file, to `damaged/`, and return its path there."""
        there, kept = self._open_damaged(f"{name}.{first}-{first + len(part)}")
        try:
            ground.remove_file(kept, there)
            _write(kept, there, part)
        finally:
            os.close(there)
        return os.path.join(self._root, DAMAGED, kept)

    def _open_damaged(self, name: str) -> tuple[int, str]:
        parent = ground.open_directory(self._root)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(DAMAGED, 0o700, dir_fd=parent)
            return ground.open_directory(DAMAGED, parent), f"{self.name}-{name}"
        finally:
            os.close(parent)

    # -- its end -----------------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Remove it if it holds no segment, and unlock it."""
        try:
            if not self.names():
                parent = ground.open_directory(self._root)
                try:
                    # The lock goes last, because a directory that has one counts as complete.
                    for file in (_OWNER, _LOCK):
                        ground.remove_file(file, self._handle)
                    os.rmdir(self.name, dir_fd=parent)
                finally:
                    os.close(parent)
        except OSError:
            # Somebody else has put something into it, or removed it.
            pass
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Unlock it. In a forked child it belongs to the parent, so only the descriptors are closed.

        A daemon may have closed the descriptors that it inherited, and opened files of its own under the same numbers.
        Those stay open.
        """
        if self.is_mine:
            registry().mine.discard(self._key)
        # A file that gets this number next must not be mistaken for this directory.
        self._handle = -1
        files, self._files = self._files, []
        for handle, identity in files:
            with contextlib.suppress(OSError):
                if _identity(handle) == identity:
                    os.close(handle)


def _mode_of(name: str, within: int) -> int:
    try:
        return os.stat(name, dir_fd=within, follow_symlinks=False).st_mode
    except OSError:
        return 0


def _identity(handle: int) -> tuple[int, int]:
    found = os.fstat(handle)
    return found.st_dev, found.st_ino


def _identity_of(name: str, within: int) -> tuple[int, int]:
    found = os.stat(name, dir_fd=within, follow_symlinks=False)
    return found.st_dev, found.st_ino


def _write(name: str, within: int, data: bytes | memoryview) -> None:
    file = ground.open_file(name, within, os.O_CREAT | os.O_EXCL)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
    finally:
        os.close(file)
