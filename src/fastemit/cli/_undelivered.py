"""The events of `fastemit send` that are not delivered: the file that they go to, and those that are in a request."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any
from urllib.parse import parse_qsl

import orjson


class FailedFile:
    """Where the events go that were not delivered: as lines that `send` can read again.

    Thread safety: any thread may call `write`.

    Args:
        path: of a file of this user's, or of none yet; None to write nothing. What it has stays.

    Raises:
        OSError: it is none, or cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        self.error: OSError | None = None
        self._lock = threading.Lock()
        self._file = None if path is None else _opened(path)

    def write(self, events: Sequence[dict[str, Any]]) -> None:
        """Add these events. An error is noted and not raised, because the callers have events to settle."""
        if self._file is None:
            return
        lines = bytearray()
        for event in events:
            lines += _line_of({name: value for name, value in event.items() if name != "stm"})
        with self._lock:
            try:
                self._file.write(lines)
                self._file.flush()
            except OSError as error:
                self.error = error

    def close(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self.error = error


def _opened(path: str) -> IO[bytes]:
    """Open a file to append to, which nobody else can read: events say what people have done.

    In a folder that others may write to, somebody may have put something in the file's place. So no symbolic link is
    followed, nothing is opened but a regular file or a device such as /dev/null, and no file of another user's.
    """
    if os.path.lexists(path):
        _refuse_unless_ours(os.lstat(path))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    # The last flag is for a FIFO that was made after the check.
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY", "O_NONBLOCK"):
        flags |= getattr(os, name, 0)
    number = os.open(path, flags, 0o600)
    try:
        _refuse_unless_ours(os.fstat(number))
        if hasattr(os, "fchmod") and stat.S_ISREG(os.fstat(number).st_mode):
            os.fchmod(number, 0o600)
        return os.fdopen(number, "ab")
    except BaseException:
        os.close(number)
        raise


def _refuse_unless_ours(status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "is a symbolic link, which is not followed")
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, "is a directory")
    if stat.S_ISCHR(status.st_mode):
        return
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no regular file")
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "belongs to another user")


def _line_of(event: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # A lone surrogate, which only the escapes of plain ASCII can write.
        return json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n"


class InFlight:
    """Knows the events of the request that is under way, in case nobody waits for its answer any more."""

    def __init__(self, transport: Any) -> None:
        self._body: Any = None
        post, get = transport.post, transport.get

        def note(request: Callable[..., Any]) -> Callable[..., Any]:
            def noted(body: Any, cap: float | None = None) -> Any:
                self._body = body
                try:
                    return request(body, cap)
                finally:
                    self._body = None

            return noted

        transport.post, transport.get = note(post), note(get)

    def events(self) -> list[dict[str, Any]]:
        body = self._body
        if body is None:
            return []
        if isinstance(body, str):
            return [dict(parse_qsl(body, keep_blank_values=True))]
        copy = bytes(body)
        # If the request has ended meanwhile, its memory may belong to another one already.
        data: list[dict[str, Any]] = json.loads(copy)["data"] if self._body is body else []
        return data
