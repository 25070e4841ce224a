"""Writing to the disk, for users who ask for it (`spool_sync`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import NamedTuple

from fastemit._spool.estate import NO_ROOM
from fastemit._spool.home import Home
from fastemit._spool.life import Life


class Unwritten(NamedTuple):
    """Files of a directory that the disk may not have in their present state, and a descriptor of the directory."""

    home: Home
    handle: int
    names: list[str]


def find_unwritten(life: Life) -> list[Unwritten]:
    """Find what has to be written. The spool's lock is held around the call."""
    homes: dict[Home, list[str]] = {}
    for file in list(life.files.values()):
        if not file.synced:
            homes.setdefault(file.home, []).append(file.name)
            file.synced = file.memory is None
    found = []
    for home, names in homes.items():
        with contextlib.suppress(FileNotFoundError):
            found.append(Unwritten(home, home.lend_handle(), names))
    return found


def write_disk(unwritten: list[Unwritten], note: Callable[[str, str], None]) -> None:
    """Write it. This needs no lock, and a disk may take seconds."""
    for home, handle, names in unwritten:
        try:
            home.sync(handle, names)
        except OSError as error:
            note(NO_ROOM, f"what is in {home.path} cannot be written to the disk: {error.strerror}")
        finally:
            os.close(handle)
