"""A shelf of mapped files for an `EventBuffer`, as its owner keeps one: made, lent, parked, read again."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

from fastemit._buffer import EventBuffer
from fastemit._filed_ring import Recovered
from fastemit._files import SegmentFileError, file_size, format_file


def map_file(path: Path) -> mmap.mmap:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(handle, 0)
    finally:
        os.close(handle)


class Shelf:
    """The files of one buffer, in a folder; it makes one whenever the buffer asks."""

    def __init__(self, folder: Path, spares: int = 2) -> None:
        self.folder = folder
        self.spares = spares
        self.made = 0
        self.full = False
        self.maps: dict[int, mmap.mmap] = {}
        self.buffer: EventBuffer
        self.lock = threading.RLock()

    def serve(self, buffer: EventBuffer) -> EventBuffer:
        self.buffer = buffer
        buffer.more = self.more
        buffer.bring = self.bring
        buffer.spares_wanted = self.spares
        return buffer

    def path(self, number: int) -> Path:
        return self.folder / f"{number:08}.seg"

    def numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.seg"))

    def make(self, data_bytes: int) -> None:
        self.made += 1
        path = self.folder / "made"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(handle, file_size(data_bytes))
            memory = mmap.mmap(handle, 0)
        finally:
            os.close(handle)
        path.rename(self.path(self.made))
        format_file(memory, self.made, 1_700_000_000_000, data_bytes, self.buffer.query)
        self.maps[self.made] = memory
        self.buffer.lend(self.made, memory)

    def more(self, data_bytes: int) -> bool:
        with self.lock:
            if not self.full:
                self.make(data_bytes)
            return not self.full

    def bring(self, number: int) -> bool:
        with self.lock:
            self.maps[number] = map_file(self.path(number))
            self.buffer.attach(number, self.maps[number])
        return True

    def tend(self, keep: int | None = None) -> None:
        """What a sender does between two requests: removes what is done with, makes spare files, and parks."""
        with self.lock:
            for number in self.buffer.finished():
                self.maps.pop(number, None)
                self.path(number).unlink()
            while self.buffer.spare_files < self.spares and not self.full:
                self.make(self.buffer.file_bytes)
            if keep is not None:
                for number in self.buffer.park(keep):
                    self.maps.pop(number).close()


#: Added to the number of a file for the buffer that recovers it.
RECOVERED = 1_000_000


def recover_all(folder: Path, buffer: EventBuffer, nth: int = 0) -> list[Recovered]:
    """Have a buffer take over each file of a folder, in order. `nth`: it is the nth folder of which it does that."""
    recovered = []
    for path in sorted(folder.glob("*.seg")):
        try:
            recovered.append(buffer.recover(RECOVERED * (1 + nth) + int(path.stem), map_file(path)))
        except SegmentFileError as error:
            # Of a process that died while it made the file.
            if error.reason != "blank":
                raise
    return recovered
