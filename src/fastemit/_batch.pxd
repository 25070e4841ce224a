"""What `_batch.pyx` offers to the buffer."""

cimport cython
from cpython.object cimport PyObject

from fastemit._segment cimport Ring, Segment


cdef extern from "Python.h":
    # For under the ring lock: what fails there is looked at afterwards, and nothing is raised. The keys are ints.
    int dict_put "PyDict_SetItem" (dict d, object key, object value) noexcept
    int dict_drop "PyDict_DelItem" (dict d, object key) noexcept
    PyObject* dict_get "PyDict_GetItemWithError" (dict d, object key) noexcept
    PyObject* list_item "PyList_GET_ITEM" (list items, Py_ssize_t at) noexcept
    void PyErr_Clear() noexcept


cdef class RingOwner:
    cdef Ring ring
    cdef dict originals        # by number, what each event was made from; None unless `EventBuffer`'s `keep`
    cdef readonly bint query   # events are query strings
    cdef long forks            # what `fork_count` counted in the process that the ring works for


# What becomes of a batch.
cdef enum Fate:
    SENT
    DROPPED
    KEPT
    RETRIED
    YIELDED


@cython.final
cdef class Batch:
    cdef RingOwner buffer
    cdef dict kept             # the buffer's `originals`, as they were when it was taken: a forked child has others
    cdef Segment* seg          # NULL once settled
    cdef object mapped         # what keeps the bytes in place of a segment that lies in a file

    cdef Segment* _open(self) except NULL
    cdef Segment* _writable(self) except NULL
    cdef int _settle(self, Fate fate, int reason=*) except -1
    cdef void _finish(self, Fate fate, int reason) noexcept
    cdef bint _enter_anew(self, list numbers, list fresh) noexcept
