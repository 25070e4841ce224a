"""The steps on the file system: directories that are opened safely, files whose room is reserved, and mapped."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import secrets
import stat
import struct
import sys
from typing import Final, TypeAlias

from fastemit import _mapping

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
#: Kinds of file systems on which shared mappings or locks do not work as on a disk of this machine.
_REMOTE: Final = frozenset({"afs", "ceph", "cifs", "fuse.sshfs", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"})
#: Errors from a file system that cannot reserve room.
_CANNOT: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})
_PROBE_BYTES: Final = 8192
_PROBE: Final = ".probe-"
#: Errors from a disk that is full.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
#: Files up to this size are written in full before they are used. For larger ones the room is only reserved.
_MOST_FILLED: Final = 8 << 20

#: A file that is mapped.
Memory: TypeAlias = mmap.mmap | _mapping.Mapping


class UnfitSpoolError(ValueError):
    """A path that cannot be a spool; the text says what is wrong, and what to do."""


def open_directory(path: str, within: int | None = None) -> int:
    """A descriptor of a directory. Symbolic links are refused."""
    return os.open(path, _DIRECTORY, dir_fd=within)


def open_file(name: str, within: int, flags: int = 0) -> int:
    """A descriptor of a file. Symbolic links are refused."""
    handle = os.open(name, _FILE | flags, 0o600, dir_fd=within)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return handle


def reserve(handle: int, size: int) -> None:
    """Make a file `size` bytes long and reserve all of it, so that writing to its mapping never meets a full disk."""
    try:
        if sys.platform == "darwin":
            # struct fstore: F_ALLOCATEALL, from F_PEOFPOSMODE.
            fcntl.fcntl(handle, fcntl.F_PREALLOCATE, struct.pack("=Iiqqq", 4, 3, 0, size, 0))
            os.ftruncate(handle, size)
        else:
            os.posix_fallocate(handle, 0, size)
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in _CANNOT:
            raise
        _write_zeros(handle, size)


def _write_zeros(handle: int, size: int) -> None:
    block = bytes(1 << 16)
    at = 0
    while at < size:
        at += os.pwrite(handle, block[: size - at], at)


def make_file(name: str, within: int, size: int) -> mmap.mmap:
    """A new file of `size` bytes, mapped. If that fails, nothing is left of it."""
    handle = open_file(name, within, os.O_CREAT | os.O_EXCL)
    try:
        reserve(handle, size)
        return mmap.mmap(handle, size)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=within)
        raise
    finally:
        os.close(handle)


def make_files(names: list[str], within: int, size: int) -> list[Memory]:
    """New files of `size` bytes, mapped: all of these, or only the first of them. `within` is closed.

    Raises:
        OSError: not even the first file can be made. Nothing is left of it.
    """
    if sys.platform == "linux" and size <= _MOST_FILLED:
        return [*_mapping.make_files(within, [os.fsencode(name) for name in names[: _mapping.MOST_AT_ONCE]], size)]
    try:
        return [make_file(names[0], within, size)]
    finally:
        os.close(within)


def duplicate(handle: int) -> int:
    """Another descriptor of the same directory."""
    return _mapping.duplicate(handle) if sys.platform == "linux" else os.dup(handle)


def map_file(name: str, within: int) -> mmap.mmap:
    """Map all of an existing file. `ValueError` if it is empty."""
    handle = open_file(name, within)
    try:
        return mmap.mmap(handle, 0)
    finally:
        os.close(handle)


def sync_file(name: str, within: int) -> None:
    """Write this file to the disk, including what was written through a mapping."""
    handle = open_file(name, within)
    try:
        getattr(os, "fdatasync", os.fsync)(handle)
    finally:
        os.close(handle)


def sync_directory(handle: int) -> None:
    """Write the list of this directory's files to the disk."""
    # Not every file system can do this.
    with contextlib.suppress(OSError):
        os.fsync(handle)


def is_probe(name: str) -> bool:
    """Whether this is the name of a file with which a process tests whether a spool can be there."""
    return name.startswith(_PROBE)


def remove_file(name: str, within: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=within)


# -- the spool itself ------------------------------------------------------------------------------------------------


def checked_root(path: str) -> None:
    """Make the directory of a spool, and check that it can be one.

    Raises:
        UnfitSpoolError: it cannot be one.
    """
    me = os.geteuid()
    if os.path.islink(path):
        raise _unfit(path, f"it is a symbolic link: give the path that it leads to, {os.path.realpath(path)!r}")
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except FileExistsError:
        raise _unfit(path, "it is a file: give the path of a directory") from None
    except OSError as error:
        why = f"it cannot be made ({_text(error)}): make it for user {me}, or give another path"
        raise _unfit(path, why) from error
    try:
        handle = open_directory(path)
    except OSError as error:
        why = f"it cannot be opened ({_text(error)}): let user {me} read, write and enter it, or give another path"
        raise _unfit(path, why) from error
    try:
        owner = os.fstat(handle).st_uid
        if owner not in (0, me):
            why = f"it belongs to user {owner}, and this process is user {me}: give a directory of user {me}"
            raise _unfit(path, why)
        kind = _file_system_of(os.fstat(handle).st_dev)
        if kind in _REMOTE:
            raise _unfit(
                path,
                f"it is on {kind}, where a file that is mapped into memory is not what other machines and the next "
                "process see: give a directory on a disk of this machine",
            )
        _probe(path, handle)
    finally:
        os.close(handle)


def _probe(path: str, handle: int) -> None:
    """Check that a file can be made, mapped, shared and locked here."""
    name = f"{_PROBE}{secrets.token_hex(8)}"
    try:
        memory = make_file(name, handle, _PROBE_BYTES)
    except OSError as error:
        if error.errno in _FULL:
            # The disk may be full of events that this process is about to send.
            return
        why = f"no file can be made and mapped in it ({_text(error)})"
        what = f"let user {os.geteuid()} write into it" if error.errno in _DENIED else "give a directory on a disk"
        raise _unfit(path, f"{why}: {what}") from error
    try:
        memory[:5] = b"probe"
        file = open_file(name, handle)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shared = os.pread(file, 5, 0) == b"probe"
        finally:
            os.close(file)
    except OSError as error:
        why = f"a file in it cannot be locked ({_text(error)}): give a directory on a disk of this machine"
        raise _unfit(path, why) from error
    finally:
        memory.close()
        remove_file(name, handle)
    if not shared:
        raise _unfit(path, "its file system has no mappings that are shared: give a directory on a disk")


def _file_system_of(device: int) -> str:
    """The kind of the file system of this device, as Linux calls it. Empty when it is not known."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields, _, rest = line.partition(" - ")
                if fields.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                    return rest.split()[0]
    except (OSError, IndexError):
        pass
    return ""


def _unfit(path: str, why: str) -> UnfitSpoolError:
    return UnfitSpoolError(f"spool must be a directory that events can be kept in, not {path!r}: {why}")


def _text(error: OSError) -> str:
    return error.strerror or type(error).__name__
