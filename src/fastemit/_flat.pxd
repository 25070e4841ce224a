"""A writer of flat dictionaries: exact strings, ints, None, True and False, straight into JSON.

Nine events in ten are such dictionaries. For everything else it says so, and orjson does the work: see
`_buffer.pyx`. It runs no Python code, so a dictionary cannot change under it.
"""

from cpython.object cimport PyObject
from libc.string cimport memcmp, memcpy

from fastemit._text cimport (
    PyUnicode_1BYTE_KIND,
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_COMPACT_ASCII,
    PyUnicode_KIND,
    TEXT_MARGIN,
    ascii_of,
    is_ready,
    text_string,
)


cdef extern from "Python.h":
    # On PyObject*, so that a walk over a dict takes no references.
    bint PyDict_CheckExact(PyObject* o) noexcept
    int PyDict_Next(PyObject* o, Py_ssize_t* at, PyObject** key, PyObject** value) noexcept
    bint PyUnicode_CheckExact(PyObject* o) noexcept
    bint PyLong_CheckExact(PyObject* o) noexcept
    long long PyLong_AsLongLongAndOverflow(PyObject* o, int* overflow) noexcept
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False


cdef extern from * nogil:
    """
    static const char fastemit_pairs[] =
        "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
        "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    """
    const char* PAIRS "fastemit_pairs"


cdef enum:
    # Most bytes that are written between two looks at the room that is left: a name, a value, and what surrounds them.
    FLAT_MARGIN = 2 * TEXT_MARGIN + 8
    FLAT_NO_ROOM = 1  # no length of an event, which has two braces


cdef inline char* flat_decimal(char* out, long long number) noexcept nogil:
    """The digits of `number`, as `str` gives them: at most 20 characters."""
    # Negated as unsigned: the least long long has no positive counterpart.
    cdef unsigned long long left = <unsigned long long> number
    cdef unsigned long long rest
    cdef char* at
    if number < 0:
        left = 0 - left
        out[0] = b"-"
        out += 1
    # How many digits there are, so that they are written where they belong, from the last to the first.
    at = out + 1
    rest = left
    while rest >= 10_000:
        rest //= 10_000
        at += 4
    at += (rest >= 10) + (rest >= 100) + (rest >= 1000)
    out = at
    while left >= 100:
        at -= 2
        memcpy(at, PAIRS + 2 * (left % 100), 2)
        left //= 100
    if left >= 10:
        memcpy(at - 2, PAIRS + 2 * left, 2)
    else:
        at[-1] = <char> (<char> b"0" + left)
    return out


cdef inline char* flat_value(char* out, const char* limit, PyObject* value) noexcept:
    """`str(value)` as a JSON string. NULL if it takes more than this."""
    cdef long long number
    cdef int overflow = 0
    if PyUnicode_CheckExact(value):
        return text_string(out, limit, value)
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            return NULL
        out[0] = b'"'
        out = flat_decimal(out + 1, number)
        out[0] = b'"'
        return out + 1
    if value == Py_None:
        memcpy(out, b'"None"', 6)
        return out + 6
    if value == Py_True:
        memcpy(out, b'"True"', 6)
        return out + 6
    if value == Py_False:
        memcpy(out, b'"False"', 7)
        return out + 7
    return NULL


cdef inline bint is_stm(PyObject* key) noexcept:
    if PyUnicode_IS_COMPACT_ASCII(key):
        return PyUnicode_GET_LENGTH(key) == 3 and memcmp(ascii_of(key), b"stm", 3) == 0
    # What an old C extension has made is not compact, ASCII or not.
    return (is_ready(key) and PyUnicode_GET_LENGTH(key) == 3 and PyUnicode_KIND(key) == PyUnicode_1BYTE_KIND
            and memcmp(PyUnicode_DATA(key), b"stm", 3) == 0)


cdef inline size_t flat_event(PyObject* payload, char* room, size_t size) noexcept:
    """Write a payload as the JSON of an event, less its `stm`, into `room` of `size` bytes (at least FLAT_MARGIN).

    Returns its length, or 0 when the payload is not so simple: no dict, or a key or value of another kind. Or
    FLAT_NO_ROOM, when it may be larger than `room`, or has a string that is left to others (see `_text.pxd`).
    """
    cdef char* out = room
    cdef const char* limit = room + size - FLAT_MARGIN
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    if not PyDict_CheckExact(payload):
        return 0
    out[0] = b"{"
    out += 1
    while PyDict_Next(payload, &at, &key, &value):
        if not PyUnicode_CheckExact(key):
            return 0
        if is_stm(key):
            continue
        if out > limit:
            return FLAT_NO_ROOM
        out = text_string(out, limit, key)
        if out == NULL:
            return FLAT_NO_ROOM
        out[0] = b":"
        out = flat_value(out + 1, limit, value)
        if out == NULL:
            return FLAT_NO_ROOM if PyUnicode_CheckExact(value) else 0
        out[0] = b","
        out += 1
    if out == room + 1:
        out += 1
    out[-1] = b"}"
    return out - room
