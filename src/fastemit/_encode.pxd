"""What `_encode.pyx` offers to the buffer."""

cimport cython


@cython.final
cdef class KeptEvent:
    cdef readonly bytes encoded
    cdef readonly object original


cdef inline bytes encoded_of(object event):
    """The bytes of an event as `EventBuffer.prepare` returned it."""
    if type(event) is KeptEvent:
        return (<KeptEvent> event).encoded
    return event


cdef bytes dump(dict strings)
cdef bytes encode_payload(object payload)
cdef bytes encode_query(dict payload)
cdef dict strings_of(object payload)
cdef dict captured_query(object payload)
cdef int leave_out_stm(dict payload) except -1
cdef list load_events(object document)
cdef list queries_in(bytes run)
cdef list events_of_queries(list texts, str stm=*)
