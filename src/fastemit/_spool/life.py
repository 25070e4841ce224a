"""What a spool has in one process: its directory, its files, and what it takes over."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from fastemit._spool.estate import Estate
from fastemit._spool.ground import Memory
from fastemit._spool.home import Home


@dataclass
class File:
    """A file of this process that the buffer uses. It is known by its number.

    Attributes:
        memory: None while it is parked.
        again: whether it has the usual size, and so can be used again.
        synced: whether nothing was written to it since it was last written to the disk.
    """

    home: Home
    name: str
    memory: Memory | None
    again: bool
    synced: bool = False


class Life:
    """What a spool has in one process. A forked child starts a new one."""

    def __init__(self, estate: Estate) -> None:
        #: Held while files are looked after, which may take long.
        self.lock = threading.RLock()
        #: Held for a moment before and after files are made. Where both locks are held, this one is taken second.
        self.making_lock = threading.RLock()
        #: How many threads are making files in `home`.
        self.making = 0
        self.home: Home | None = None
        self.files: dict[int, File] = {}
        self.estate = estate
        self.last_number = 0
        self.closed = False
        self.try_again_at = 0.0
        #: Whether there may be room where there was none, which nobody was told yet.
        self.has_room_again = False
        #: Until when many files are kept ready, because `input` has used up the spare ones.
        self.hurried_until = 0.0
        self.look_at = 0.0
        self.feed_at = math.inf
        self.sync_at = math.inf

    def next_number(self) -> int:
        self.last_number += 1
        return self.last_number
