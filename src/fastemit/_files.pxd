from libc.stdint cimport int64_t

from fastemit._segment cimport Format
from fastemit._segment_file cimport FileKind, SegFile


cdef class MappedFile:
    cdef Py_buffer view
    cdef bint held
    cdef SegFile file

cdef FileKind kind_of(bint query) noexcept
cdef MappedFile open_file(object memory, bint query)
cdef bytes judge(MappedFile mapped, const Format* format)
cdef list damaged_runs(MappedFile mapped, const Format* format, bytes verdicts)
