from typing import Literal, NamedTuple, TypeAlias

from typing_extensions import Buffer

_Reason: TypeAlias = Literal["blank", "foreign", "byte order", "newer", "truncated", "damaged", "other kind"]

class FileFacts(NamedTuple):
    number: int
    created_ms: int
    query: bool
    capacity: int
    events: int
    unsettled: int
    first_seq: int

class SegmentFileError(ValueError):
    reason: _Reason
    def __init__(self, reason: _Reason, text: str) -> None: ...

def die_at_step(steps: int) -> bool: ...
def file_size(data_bytes: int) -> int: ...
def format_file(memory: Buffer, number: int, created_ms: int, data_bytes: int, query: bool = False) -> None: ...
def read_header(memory: Buffer) -> FileFacts: ...
