"""Reading lines from files, pipes and gzip, in lists of many lines: one step of Python for each 256 KiB."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

#: Bytes that are read at once. With 1 MiB the lines cost more than twice as much: they no longer fit the cache.
CHUNK: Final = 256 * 1024
#: Longest line, in bytes; an event of that size still fits an emitter's buffer when it is percent-encoded.
LONGEST_LINE: Final = 8 * 1024 * 1024

#: Bytes of the shortest event. Where lines are shorter on average, many of them are blank.
_SHORTEST: Final = 8
#: A run of blank lines, or a line.
_RUN_OR_LINE: Final = re.compile(rb"[ \t\r\v\f\n]*\n|[^\n]*\n")

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP: Final = 31  # wbits of zlib for data with a gzip header


class InputError(Exception):
    """An input cannot be read, or not to its end. The message tells the user why."""


class Input:
    """A file, or standard input by the name "-".

    Args:
        name: as the user gave it.

    Attributes:
        size: bytes there are to read, or None for a pipe and the like.
        done: bytes read so far, compressed as they are.
    """

    def __init__(self, name: str) -> None:
        self.name = "standard input" if name == "-" else name
        self.done = 0
        self._path = None if name == "-" else name
        try:
            status = os.fstat(_standard_input()) if self._path is None else os.stat(self._path)
        except OSError as error:
            raise self._error(error) from error
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{self.name}: is a directory")
        if self._path is not None and not os.access(self._path, os.R_OK):
            raise InputError(f"{self.name}: Permission denied")
        self.size: int | None = status.st_size if stat.S_ISREG(status.st_mode) else None
        self.identity = (status.st_dev, status.st_ino)

    def _error(self, error: OSError) -> InputError:
        return InputError(f"{self.name}: {error.strerror or error}")

    def lines(self, read: Callable[[io.FileIO], bytes]) -> Iterator[list[bytes] | int]:
        """Yield the lines of each read, without the byte that ends them, or a number of blank lines.

        A line that is longer than `LONGEST_LINE` may have lost a part, but it is still longer than that.

        Args:
            read: does each read, so that its caller knows when it waits.

        Raises:
            InputError: the input cannot be read further. All lines before that have been given.
        """
        return split_lines(gunzipped(self._chunks(read), self.name))

    def _chunks(self, read: Callable[[io.FileIO], bytes]) -> Iterator[bytes]:
        try:
            # Without a buffer, a read of a pipe gives what there is and does not wait for more.
            with io.FileIO(
                _standard_input() if self._path is None else self._path, closefd=self._path is not None
            ) as file:
                while chunk := read(file):
                    self.done += len(chunk)
                    yield chunk
        except OSError as error:
            raise self._error(error) from error


def _standard_input() -> int:
    if sys.stdin is None:
        raise OSError("is closed")
    return sys.stdin.fileno()


def gunzipped(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Unpack gzip data of one or several members. Other data is passed on unchanged."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= len(_GZIP_MAGIC):
            break
    if not head.startswith(_GZIP_MAGIC):
        yield head
        yield from chunks
        return
    packed, ended = head, False
    stream = zlib.decompressobj(_GZIP)
    try:
        while True:
            while packed:
                if ended:
                    # After a member there may be zeros as padding, and another member.
                    packed = packed.lstrip(b"\0")
                    if not packed:
                        break
                    stream, ended = zlib.decompressobj(_GZIP), False
                data = stream.decompress(packed, CHUNK)
                ended = stream.eof
                packed = stream.unused_data if ended else stream.unconsumed_tail
                if data:
                    yield data
            packed = next(chunks, b"")
            if not packed:
                break
    except zlib.error as error:
        raise InputError(f"{name}: its gzip data is damaged ({error})") from error
    if not ended:
        raise InputError(f"{name}: its gzip data ends too early")


def split_lines(chunks: Iterable[bytes]) -> Iterator[list[bytes] | int]:
    """The lines of these chunks, which may end anywhere in a line. Many blank lines are given as their number."""
    rest = b""
    for chunk in chunks:
        end = chunk.rfind(b"\n")
        if end < 0:
            # The rest of a line that is too long already is not kept, because nobody needs it.
            if len(rest) <= LONGEST_LINE:
                rest += chunk
            continue
        # If there is an event, this looks at only a byte or two.
        if chunk.isspace() and not rest.strip():
            yield chunk.count(b"\n")
            rest = chunk[end + 1 :]
            continue
        lines = chunk[:end].split(b"\n")
        lines[0] = rest + lines[0]
        rest, tail = chunk[end + 1 :], rest
        if len(lines) * _SHORTEST > len(tail) + end:
            yield from _without_blank_lines(tail + chunk[: end + 1])
        else:
            yield lines
    # This is for the end of the input and not for an error, because after an error it may be half a line.
    if rest:
        yield [rest]


def _without_blank_lines(data: bytes) -> Iterator[list[bytes] | int]:
    """The lines of `data`, which ends with one. Each run of blank lines is a number, so that many take little time."""
    lines: list[bytes] = []
    for found in _RUN_OR_LINE.finditer(data):
        line = found[0]
        if line.isspace():
            if lines:
                yield lines
                lines = []
            yield line.count(b"\n")
        else:
            lines.append(line[:-1])
    if lines:
        yield lines
