"""Names and values that are added to the dict of an event, by the rules of snowplow_tracker's `Payload`.

Most dicts that are added are the same for event after event. So the pairs to add from a dict are kept until it changes.
All of them are borrowed from the dict, which holds them as long as it has the same version.
"""

from cpython.dict cimport PyDict_Next, PyDict_SetItem
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

from fastemit._watch cimport UNKNOWN_VERSION, version_of


cdef extern from "Python.h":
    bint PyUnicode_CheckExact(PyObject* o) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* o) noexcept
    bint PyLong_CheckExact(PyObject* o) noexcept
    bint PyBool_Check(PyObject* o) noexcept
    bint PyFloat_CheckExact(PyObject* o) noexcept
    bint PyDict_CheckExact(object o) noexcept
    Py_ssize_t PyDict_GET_SIZE(object members) noexcept
    # On borrowed references.
    int set_pair "PyDict_SetItem" (PyObject* pairs, PyObject* name, PyObject* value) except -1
    int PyUnicode_Compare(PyObject* a, PyObject* b) noexcept


cdef enum:
    MOST_PAIRS = 16


cdef struct Pairs:
    uint64_t version                # of the dict that these are from; UNKNOWN_VERSION for none
    Py_ssize_t size                 # of that dict
    bint with_id                    # whether there is an "eid", which replaces that of the event
    Py_ssize_t count                # of those that are added; the others are empty
    PyObject* names[MOST_PAIRS]     # each an exact str
    PyObject* values[MOST_PAIRS]    # each compared with "" without code of anybody's
    Py_ssize_t further[MOST_PAIRS]  # where PyDict_Next goes on behind each


cdef enum Adding:
    NOT_ADDED
    IS_ADDED
    ONLY_PYTHON_KNOWS


cdef inline Adding adding(PyObject* value) noexcept:
    """Whether `Payload.add` adds this."""
    if PyUnicode_CheckExact(value):
        return NOT_ADDED if PyUnicode_GET_LENGTH(value) == 0 else IS_ADDED
    if value == <PyObject*> None:
        return NOT_ADDED
    if PyLong_CheckExact(value) or PyFloat_CheckExact(value) or PyBool_Check(value):
        return IS_ADDED
    return ONLY_PYTHON_KNOWS


cdef inline int add(dict pairs, object name, object value) except -1:
    """`Payload.add`."""
    cdef Adding answer = adding(<PyObject*> value)
    if answer == NOT_ADDED or (answer == ONLY_PYTHON_KNOWS and value == ""):
        return 0
    return PyDict_SetItem(pairs, name, value)


cdef inline int add_rest(dict pairs, object more, Py_ssize_t at, Py_ssize_t size) except -1:
    """Add what an exact dict, which had `size`, has from a position on."""
    cdef PyObject* name = NULL
    cdef PyObject* value = NULL
    while True:
        if PyDict_GET_SIZE(more) != size:
            raise RuntimeError("dictionary changed size during iteration")
        if not PyDict_Next(more, &at, &name, &value):
            return 0
        add(pairs, <object> name, <object> value)


cdef inline int add_dict(dict pairs, object more) except -1:
    """`Payload.add_dict`."""
    if PyDict_CheckExact(more):
        return add_rest(pairs, more, 0, PyDict_GET_SIZE(more))
    for name in more:
        add(pairs, name, more[name])
    return 0


cdef inline bint is_kept(dict more, const Pairs* kept) noexcept:
    """Whether these are from the dict `more` as it is now."""
    return kept.version == version_of(<PyObject*> more) and kept.version != UNKNOWN_VERSION


cdef inline bint look_through(Pairs* kept, dict more) noexcept:
    """Keep what is to be added of an exact dict. False if it is not as simple as that."""
    cdef PyObject* name = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t count = 0
    cdef Adding answer
    kept.version = UNKNOWN_VERSION
    kept.with_id = False
    while PyDict_Next(more, &at, &name, &value):
        answer = adding(value)
        if answer == NOT_ADDED:
            continue
        if answer == ONLY_PYTHON_KNOWS or count == MOST_PAIRS or not PyUnicode_CheckExact(name):
            return False
        kept.with_id |= PyUnicode_Compare(name, <PyObject*> "eid") == 0
        kept.names[count] = name
        kept.values[count] = value
        kept.further[count] = at
        count += 1
    kept.count = count
    kept.size = PyDict_GET_SIZE(more)
    kept.version = version_of(<PyObject*> more)
    return kept.version != UNKNOWN_VERSION


cdef inline bint add_kept(dict pairs, dict more, Pairs* kept) except -1:
    """`add_dict`, of a dict that was probably the same at the event before. True if it is known to have no "eid"."""
    cdef uint64_t version
    cdef Py_ssize_t size
    cdef Py_ssize_t further
    cdef Py_ssize_t i = 0
    if version_of(<PyObject*> more) == UNKNOWN_VERSION or not (is_kept(more, kept) or look_through(kept, more)):
        add_dict(pairs, more)
        return False
    version = kept.version
    size = kept.size
    while i < kept.count:
        further = kept.further[i]
        set_pair(<PyObject*> pairs, kept.names[i], kept.values[i])
        if version_of(<PyObject*> more) != version or kept.version != version:
            # A key of `pairs` that is no str, or the finalizer of a replaced value, has run foreign code.
            add_rest(pairs, more, further, size)
            return False
        i += 1
    return not kept.with_id
