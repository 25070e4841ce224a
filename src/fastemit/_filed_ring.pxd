"""What `_filed_ring.pyx` offers to the buffer."""

from libc.stdint cimport int64_t

from fastemit._batch cimport RingOwner
from fastemit._files cimport MappedFile
from fastemit._segment_file cimport SegFile


cdef class FiledRing(RingOwner):
    cdef public object more        # `more(n)` lends a file with room for `n` bytes of data; None without an owner
    cdef public object bring       # `bring(number)` attaches a parked file; None without an owner

    cdef Py_ssize_t _data_bytes(self, size_t event_bytes)
    cdef MappedFile _opened(self, memory)
    cdef SegFile* _new_file(self, int64_t number, MappedFile mapped) except NULL
    cdef int64_t _free_file(self, SegFile* file)
    cdef int _let_go_of_forgotten(self) except -1
    cdef bint _more_room(self, size_t event_bytes) except -1
    cdef bint _bring_missing(self) except -1
    cdef int _bring_all(self) except -1
