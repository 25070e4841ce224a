"""Files of segments as Python objects: they are made, opened and checked here. `_segment_file.pxd` has their layout.

Memory is any object with a writable buffer, in practice an `mmap`. Nothing here opens, maps or removes a file.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint64_t

from fastemit._recovery cimport SHAPE_MARGIN, file_find_uncounted, file_judge
from fastemit._ring_files cimport DAMAGED_EVENT, GOOD_EVENT, UNSURE_EVENT, file_start, text_length
from fastemit._segment cimport Format
from fastemit._segment_file cimport (
    FILE_BLANK,
    FILE_BYTE_ORDER,
    FILE_DAMAGED,
    FILE_FINE,
    FILE_FOREIGN,
    FILE_NEWER,
    FILE_TRUNCATED,
    FileFault,
    FileKind,
    KIND_JSON,
    KIND_QUERY,
    SegFile,
    file_format,
    file_open,
    file_size_of,
    file_unsettled,
    mixed,
    set_steps,
)

import json
from collections import namedtuple

import orjson

from fastemit._system import monotonic


cdef extern from "Python.h" nogil:
    void* PyMem_RawMalloc(size_t size)
    void PyMem_RawFree(void* pointer)


FILE_FAULTS = {
    <int> FILE_BLANK: ("blank", "nothing was ever put into it"),
    <int> FILE_FOREIGN: ("foreign", "it does not begin as fastemit's files do"),
    <int> FILE_BYTE_ORDER: ("byte order", "it was written on a machine with another byte order"),
    <int> FILE_NEWER: ("newer", "it was written by a newer version of fastemit"),
    <int> FILE_TRUNCATED: ("truncated", "it is shorter than it should be"),
    <int> FILE_DAMAGED: ("damaged", "its first page is damaged"),
}

#: What the first page of a file says: its number, when it was made (milliseconds since 1970), whether its events are
#: query strings, its bytes for events, how many were written, how many are not settled, and the number of the first.
FileFacts = namedtuple("FileFacts", "number created_ms query capacity events unsettled first_seq")


class SegmentFileError(ValueError):
    """The file holds no segment that can be read. `reason` is "blank", "foreign", "byte order", "newer",
    "truncated", "damaged" or "other kind"."""

    def __init__(self, str reason, str text):
        super().__init__(f"the file cannot be read: {text}")
        self.reason = reason


cdef class MappedFile:
    """Keeps the memory of a file mapped, and knows what its first page says."""

    def __cinit__(self, memory not None):
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        self.held = True
        if <size_t> self.view.buf % sizeof(uint64_t):
            raise ValueError("memory must begin at a multiple of 8, as a mapped file does")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef FileKind kind_of(bint query) noexcept:
    return KIND_QUERY if query else KIND_JSON


cdef MappedFile opened(object memory):
    cdef MappedFile mapped = MappedFile(memory)
    cdef FileFault fault = file_open(&mapped.file, <char*> mapped.view.buf, mapped.view.len)
    if fault != FILE_FINE:
        raise SegmentFileError(*FILE_FAULTS[<int> fault])
    return mapped


cdef MappedFile open_file(object memory, bint query):
    """The file in `memory`. Raises `SegmentFileError` if its events are of the other kind."""
    cdef MappedFile mapped = opened(memory)
    if mapped.file.header.kind != kind_of(query):
        raise SegmentFileError("other kind", f"its events are for {'POST' if query else 'GET'}")
    return mapped


def die_at_step(long steps):
    """Like `die_at_step` of `_buffer`, for the steps of making and of checking a file."""
    return set_steps(steps)


def file_size(Py_ssize_t data_bytes):
    """Size of a file that has room for `data_bytes` bytes of data (1 to 4294967295); see `EventBuffer.file_bytes`."""
    if not 1 <= data_bytes <= <Py_ssize_t> UINT32_MAX:
        raise ValueError(f"data_bytes must be from 1 to {UINT32_MAX}, not {data_bytes}")
    return file_size_of(data_bytes)


cdef uint64_t uses = 0


def format_file(memory not None, int64_t number, int64_t created_ms, Py_ssize_t data_bytes, bint query=False):
    """Make a file empty, whatever was in it. `memory` must have at least `file_size(data_bytes)` bytes."""
    global uses
    cdef MappedFile mapped = MappedFile(memory)
    cdef Py_ssize_t needed = file_size(data_bytes)
    if mapped.view.len < needed:
        raise ValueError(f"memory must be of {needed} bytes for {data_bytes} bytes of data, not {mapped.view.len}")
    uses += 1
    file_format(<char*> mapped.view.buf, data_bytes, kind_of(query), number, created_ms,
                mixed(mixed(uses, <uint64_t> (monotonic() * 1e9)), <uint64_t> &uses))


def read_header(memory not None):
    """The `FileFacts` of a file. Raises `SegmentFileError` if it is not a file of segments."""
    cdef MappedFile mapped = opened(memory)
    cdef SegFile* file = &mapped.file
    return FileFacts(file.number, file.header.created, file.header.kind == KIND_QUERY, file.capacity, file.count,
                     file_unsettled(file), file.header.first_seq)


cdef bint is_event(bytes text):
    """Whether a JSON parser reads this as one event, which is a JSON object."""
    try:
        try:
            return type(orjson.loads(text)) is dict
        except ValueError:
            # This accepts lone surrogates, which orjson refuses.
            return type(json.loads(text)) is dict
    except (ValueError, RecursionError):
        return False


cdef bytes judge(MappedFile mapped, const Format* format):
    """One byte for each event of the file, its `Verdict`: settled, damaged or good."""
    cdef SegFile* file = &mapped.file
    cdef bytes verdicts
    cdef uint8_t* verdict
    cdef char* room
    cdef size_t i, start, unsure
    file_find_uncounted(file, format)
    verdicts = PyBytes_FromStringAndSize(NULL, file.count)
    verdict = <uint8_t*> PyBytes_AS_STRING(verdicts)
    room = <char*> PyMem_RawMalloc(file.capacity + SHAPE_MARGIN)
    if room == NULL:
        raise MemoryError("no memory to look through a file")
    with nogil:
        unsure = file_judge(file, format, verdict, room)
        PyMem_RawFree(room)
    if unsure == 0:
        return verdicts
    for i in range(file.count):
        if verdict[i] == <uint8_t> UNSURE_EVENT:
            start = file_start(file, format, i)
            text = file.data[start:start + text_length(format, file.ends[i] - start)]
            verdict[i] = GOOD_EVENT if is_event(text + b"}") else DAMAGED_EVENT
    return verdicts


cdef list damaged_runs(MappedFile mapped, const Format* format, bytes verdicts):
    """(events, first byte, one past the last) for each run of damaged events, in bytes of the file."""
    cdef SegFile* file = &mapped.file
    cdef const uint8_t* verdict = <const uint8_t*> PyBytes_AS_STRING(verdicts)
    cdef size_t data = <size_t> (file.data - file.memory)
    cdef size_t behind = format.prefix_len, end
    cdef size_t i, events = 0
    cdef list runs = []
    for i in range(file.count):
        if verdict[i] == <uint8_t> DAMAGED_EVENT:
            events += 1
            continue
        end = file_start(file, format, i)
        if events and behind <= end <= file.capacity:
            runs.append((events, data + behind, data + end))
        elif events:
            runs.append((events, data + behind, data + behind))
        events = 0
        if behind <= file.ends[i] <= file.capacity:
            behind = file.ends[i]
    if events:
        # The end that the file gives for them cannot be trusted.
        runs.append((events, data + behind, data + file.capacity))
    return runs
