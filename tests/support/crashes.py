"""Processes that are killed while they fill and settle files, and the books that their parent keeps of them."""

from __future__ import annotations

import os
import signal
import struct
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fastemit._batch import Batch
from fastemit._buffer import EventBuffer
from tests.support.buffer import drain, numbers
from tests.support.segment_files import recover_all

TOLD = struct.Struct("<cq")
IN, SETTLING, SETTLED, END = b"i", b"s", b"d", b"e"


class Teller:
    """The end of a pipe that the process to be killed has: it says what has returned, each time in one write."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def tell(self, what: bytes, *events: int) -> None:
        for at in range(0, len(events), 400):
            # Not longer than PIPE_BUF, so that it is written whole or not at all.
            os.write(self._pipe, b"".join(TOLD.pack(what, number) for number in events[at : at + 400]))

    def append(self, buffer: EventBuffer, number: int) -> None:
        answer = buffer.append({"n": number})
        assert isinstance(answer, int), answer
        self.tell(IN, number)

    def settle(self, batch: Batch, how: Callable[[Batch], None] = Batch.sent) -> None:
        events = numbers(batch.decode())
        self.tell(SETTLING, *events)
        how(batch)
        self.tell(SETTLED, *events)


class Books:
    """What a process has told before it was killed."""

    def __init__(self) -> None:
        self.told: dict[bytes, set[int]] = {IN: set(), SETTLING: set(), SETTLED: set(), END: set()}
        self._rest = b""

    def read(self, pipe: int) -> bool:
        """Read what there is, waiting for something; False at the end."""
        got = os.read(pipe, 1 << 20)
        data = self._rest + got
        whole = len(data) - len(data) % TOLD.size
        for what, number in TOLD.iter_unpack(data[:whole]):
            self.told[what].add(number)
        self._rest = data[whole:]
        return bool(got)

    def balance(self, *folders: Path) -> int:
        """Compare with what a process after it finds in the files; how many that are."""
        buffer = EventBuffer(1_000_000, 1 << 30, 1024, 10, files=True)
        for at, folder in enumerate(folders):
            for recovered in recover_all(folder, buffer, at):
                assert (recovered.damaged, recovered.left) == ([], 0)
        assert buffer.check() == 0
        found = Counter(numbers(drain(buffer)))
        assert [number for number, times in found.items() if times > 1] == []
        lost = self.told[IN] - self.told[SETTLING] - found.keys()
        assert lost == set(), f"lost: {sorted(lost)[:20]}"
        doubled = self.told[SETTLED] & found.keys()
        assert doubled == set(), f"settled, and there again: {sorted(doubled)[:20]}"
        return len(found)


def start(child: Callable[[Teller], None]) -> tuple[int, int]:
    """Fork a process that calls `child` and tells when that has returned; its id and the pipe that it tells through."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # The child here takes no lock that another thread could hold.
        warnings.filterwarnings("ignore", r"This process .* is multi-threaded", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            teller = Teller(writer)
            child(teller)
            teller.tell(END, 0)
            os._exit(0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writer)
    return pid, reader


def killed_after(child: Callable[[Teller], None], messages: int) -> Books:
    """Run `child` in a process, and kill that once it has told so much, or has come to its end."""
    pid, reader = start(child)
    books = Books()
    try:
        while sum(map(len, books.told.values())) < messages and not books.told[END]:
            if not books.read(reader):
                break
    finally:
        os.kill(pid, signal.SIGKILL)
        while books.read(reader):
            pass
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or books.told[END], "the process ended by itself, with an error"
    return books
