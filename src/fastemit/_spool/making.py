"""New files for a buffer: made in this process's directory, and lent. The directory is made when it is first needed."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Final

from fastemit._buffer import EventBuffer
from fastemit._files import file_size, format_file
from fastemit._spool import ground
from fastemit._spool.estate import GONE, NO_ROOM
from fastemit._spool.home import Home, Owner
from fastemit._spool.life import File, Life
from fastemit._time import monotonic

#: Seconds after which a full disk is tried again.
TRY_AGAIN: Final = 0.25
_GONE: Final = frozenset({errno.ENOENT, errno.ESTALE, errno.ENOTDIR})


class Maker:
    """Makes files and lends them.

    Thread safety: every method may be called from any thread. No lock is held while the file system works, so that two
    threads may make files at the same time.

    Args:
        root: the spool.
        endpoint, method: where the events are sent to, and how.
        note: gets a kind and a text for the log.
    """

    def __init__(self, root: str, endpoint: str, method: str, note: Callable[[str, str], None]) -> None:
        self._root = root
        self._endpoint = endpoint
        self._method = method
        self._note = note

    def lend(self, life: Life, buffer: EventBuffer, size: int, count: int = 1) -> bool:
        """Lend the buffer new files with room for `size` bytes of data each, `count` at the most.

        False when not even one can be made.
        """
        if life.closed or monotonic() < life.try_again_at:
            return False
        home = life.home
        try:
            try:
                lent = self._lend(life, buffer, size, count)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                self.leave_removed(life, home)
                ground.checked_root(self._root)
                lent = self._lend(life, buffer, size, count)
        except (OSError, ValueError) as error:
            life.try_again_at = monotonic() + TRY_AGAIN
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._note(NO_ROOM, f"no file can be made in {self._root}: {text}")
            return False
        if lent:
            life.try_again_at = 0.0
        return lent

    def _lend(self, life: Life, buffer: EventBuffer, size: int, count: int) -> bool:
        with life.making_lock:
            if life.closed:
                return False
            if life.home is None:
                life.home = Home.make(self._root, Owner.here(self._endpoint, self._method))
            home = life.home
            numbers = [life.next_number() for _ in range(count)]
            handle = home.lend_handle()
            # From here on the directory stays, even if there is no file in it yet.
            life.making += 1
        names = [Home.name_of(number) for number in numbers]
        try:
            made = ground.make_files(names, handle, file_size(size))
            if not home.is_mine:
                # This process was forked while it made them, so the files belong to the parent.
                return False
            with life.making_lock:
                if life.closed:
                    # They are blank, and the process that takes the directory over removes them.
                    return False
                # On a disk that is nearly full there may be fewer.
                for number, name, memory in zip(numbers, names, made, strict=False):
                    format_file(memory, number, time.time_ns() // 1_000_000, size, buffer.query)
                    life.files[number] = File(home, name, memory, again=size == buffer.file_bytes)
                    buffer.lend(number, memory)
            return True
        finally:
            if home.is_mine:
                with life.making_lock:
                    life.making -= 1

    def leave_removed(self, life: Life, home: Home | None) -> None:
        """Continue in another directory, because somebody has removed this one."""
        with life.making_lock:
            if home is None or life.home is not home:
                # Another thread was first.
                return
            life.home = None
        # Events in files that are still mapped are sent as before.
        self._note(GONE, f"{home.path} was removed; from here on another is used")
        home.let_go()
