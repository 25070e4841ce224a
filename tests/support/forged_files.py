"""Segments' files as somebody may forge them: any header and any entries, with checks that fit."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from fastemit._files import file_size

HEADER = struct.Struct("=8sIIIIQQqqQI")
HEADER_BYTES = 4096
COUNT_AT = 128
PREFIX_LEN = len('{"schema":"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4","data":[')
JSON_TAIL = b',"stm":"0000000000000"},'
QUERY_TAIL = b"&stm=0000000000000&"
_ALL = (1 << 64) - 1


def _mixed(before: int, value: int) -> int:
    after = (before ^ value) * 0x9E3779B97F4A7C15 & _ALL
    return after ^ (after >> 32)


def hash_of(text: bytes, seed: int) -> int:
    """What the extension hashes an event to, worked out without it."""
    pieces = [text[at : at + 16] for at in range(0, len(text) - len(text) % 16, 16)]
    if len(text) % 16:
        pieces.append(text[-16:] if len(text) >= 16 else text.ljust(16, b"\0"))
    sums, of_sums = [0, 0], [0, 0]
    for piece in pieces:
        for lane, word in enumerate(struct.unpack("=QQ", piece)):
            sums[lane] = (sums[lane] + word) & _ALL
            of_sums[lane] = (of_sums[lane] + sums[lane]) & _ALL
    result = _mixed(seed, len(text))
    for value in (*sums, *of_sums):
        result = _mixed(result, value)
    return result & 0xFFFFFFFF


@dataclass
class Forged:
    """A file to be forged: `events` are (text without its tail, its tail), the rest what the header says."""

    events: list[tuple[bytes, bytes]] = field(default_factory=list)
    magic: bytes = b"FASTEMIT"
    version: int = 1
    byte_order: int = 0x01020304
    kind: int = 1
    capacity: int = 4096
    entries: int | None = None
    data_offset: int | None = None
    count: int | None = None
    salt: int = 0xFEDCBA9876543211
    settled: int = 0x76543211
    #: By index, in place of what would fit.
    ends: dict[int, int] = field(default_factory=dict)
    checks: dict[int, int] = field(default_factory=dict)

    def made(self) -> bytearray:
        places = max(self.capacity // 64, 16)
        entries = places if self.entries is None else self.entries
        offset = HEADER_BYTES + 8 * places
        memory = bytearray(file_size(self.capacity))
        told = [self.magic, self.version, self.byte_order, self.kind, entries]
        told += [offset if self.data_offset is None else self.data_offset, self.capacity, 1, 0, self.salt, self.settled]
        fixed = HEADER.pack(*told)
        memory[: len(fixed)] = fixed
        memory[len(fixed) : len(fixed) + 4] = struct.pack("=I", hash_of(fixed, 0))
        at = PREFIX_LEN if self.kind == 1 else 0
        for index, (text, tail) in enumerate(self.events):
            check = hash_of(text, (self.salt + at) & _ALL)
            memory[offset + at : offset + at + len(text) + len(tail)] = text + tail
            at += len(text) + len(tail)
            self._enter(memory, HEADER_BYTES + 4 * index, self.ends.get(index, at))
            self._enter(memory, HEADER_BYTES + 4 * (places + index), self.checks.get(index, check))
        memory[COUNT_AT : COUNT_AT + 8] = struct.pack("=Q", len(self.events) if self.count is None else self.count)
        return memory

    @staticmethod
    def _enter(memory: bytearray, at: int, value: int) -> None:
        memory[at : at + 4] = struct.pack("=I", value)


def json_events(*texts: bytes) -> list[tuple[bytes, bytes]]:
    """Events as `append` writes them; each text is a JSON object without its brace."""
    return [(text, JSON_TAIL) for text in texts]
