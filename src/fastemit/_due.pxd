"""Decides when there is enough to send, for the native ring and, from Python, for a user's event store."""

cdef extern from "Python.h":
    const Py_ssize_t NO_LIMIT "PY_SSIZE_T_MAX"


cdef struct Load:
    Py_ssize_t queued_events   # that may be taken
    Py_ssize_t queued_bytes    # of those
    Py_ssize_t flying_events   # taken, and not settled
    Py_ssize_t flying_bytes    # of those
    Py_ssize_t max_events      # of both together
    Py_ssize_t max_bytes       # of both together
    bint pressed               # an event was refused for want of room since the last take


cdef inline bint load_due(const Load* load, Py_ssize_t batch_size, Py_ssize_t byte_limit) noexcept nogil:
    """Whether there is enough to send: a batch by number or by bytes, or no room for more."""
    return load.queued_events > 0 and (
        load.queued_events >= batch_size
        or load.queued_bytes >= byte_limit
        or load.pressed
        or load.queued_events + load.flying_events >= load.max_events
        or load.queued_bytes + load.flying_bytes >= load.max_bytes)


cdef inline bint load_worth(const Load* load, Py_ssize_t request_bytes) noexcept nogil:
    """Whether what is due is worth a request soon after another: a full one, or a half full buffer."""
    return (
        load.pressed
        or load.queued_bytes >= request_bytes
        or load.queued_events + load.flying_events >= load.max_events - load.max_events // 2
        or load.queued_bytes + load.flying_bytes >= load.max_bytes - load.max_bytes // 2)
