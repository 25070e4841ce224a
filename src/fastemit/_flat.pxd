"""Writes flat dictionaries as JSON: their values are exact strings, ints, floats, None, True and False.

Nine events in ten are such dictionaries. It refuses all others, and orjson writes them instead: see
`_buffer.pyx`. It runs no Python code, so a dictionary cannot change meanwhile.
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
    bint PyFloat_CheckExact(PyObject* o) noexcept
    double PyFloat_AS_DOUBLE(PyObject* o) noexcept
    char* PyOS_double_to_string(double value, char kind, int precision, int flags, int* type) noexcept
    const int Py_DTSF_ADD_DOT_0
    void PyMem_Free(void* pointer) noexcept
    void PyErr_Clear() noexcept
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False


cdef extern from * nogil:
    """
    #include <float.h>
    /* Whether each step of a calculation is rounded to a double. On the x87 it is not. */
    #define FASTEMIT_DOUBLES_ARE_EXACT (FLT_EVAL_METHOD == 0)
    static const char fastemit_pairs[] =
        "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
        "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    """
    const char* PAIRS "fastemit_pairs"
    const bint DOUBLES_ARE_EXACT "FASTEMIT_DOUBLES_ARE_EXACT"


cdef enum:
    # Most bytes written between two checks of the room that is left: a name, a value, and the characters around them.
    FLAT_MARGIN = 2 * TEXT_MARGIN + 8
    FLAT_NO_ROOM = 1  # cannot be the length of an event, which has at least two braces
    FLOAT_PLACES = 4  # most digits tried after the point: nearly all floats of events are prices and shares


cdef inline char* flat_decimal(char* out, long long number) noexcept nogil:
    """The digits of `number`, as `str` gives them: at most 20 characters."""
    # Negated as unsigned, because the smallest long long has no positive counterpart.
    cdef unsigned long long left = <unsigned long long> number
    cdef unsigned long long rest
    cdef char* at
    if number < 0:
        left = 0 - left
        out[0] = b"-"
        out += 1
    # Count the digits first, because they are written from the last to the first.
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


cdef inline char* flat_float(char* out, double value) noexcept:
    """`repr(value)`: at most 24 characters. NULL when there is no memory.

    No two numbers of up to 15 digits have the same double. So if such a number gives the double back, `repr`, which is
    the shortest one, is the same number. The first that does so has the fewest places, so no zero at its end.
    """
    cdef double size = -value if value < 0 else value
    cdef double scale = 1
    cdef long long number
    cdef long long unit = 1
    cdef int places
    cdef int i
    cdef char* digits
    cdef char* at
    if DOUBLES_ARE_EXACT and 0.001 <= size < 1e10:
        for places in range(FLOAT_PLACES + 1):
            number = <long long> (size * scale + 0.5)
            if <double> number / scale == size:
                if value < 0:
                    out[0] = b"-"
                    out += 1
                out = flat_decimal(out, number // unit)
                out[0] = b"."
                number %= unit
                if places == 0:
                    out[1] = b"0"
                    return out + 2
                for i in range(places, 0, -1):
                    out[i] = <char> (<char> b"0" + number % 10)
                    number //= 10
                return out + 1 + places
            scale *= 10
            unit *= 10
    digits = PyOS_double_to_string(value, b"r", 0, Py_DTSF_ADD_DOT_0, NULL)
    if digits == NULL:
        PyErr_Clear()
        return NULL
    at = digits
    while at[0] != 0:
        out[0] = at[0]
        out += 1
        at += 1
    PyMem_Free(digits)
    return out


cdef inline char* flat_value(char* out, const char* limit, PyObject* value) noexcept:
    """`str(value)` as a JSON string. NULL if the value is of another type, or cannot be written here."""
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
    if PyFloat_CheckExact(value):
        out[0] = b'"'
        out = flat_float(out + 1, PyFloat_AS_DOUBLE(value))
        if out == NULL:
            return NULL
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
    # A string that an old C extension made is not compact, whether it is ASCII or not.
    return (is_ready(key) and PyUnicode_GET_LENGTH(key) == 3 and PyUnicode_KIND(key) == PyUnicode_1BYTE_KIND
            and memcmp(PyUnicode_DATA(key), b"stm", 3) == 0)


cdef inline size_t flat_event(PyObject* payload, char* room, size_t size) noexcept:
    """Write a payload as the JSON of an event, without its `stm`, into `room` of `size` bytes (at least FLAT_MARGIN).

    Returns its length. Returns 0 when the payload is not a dict, or a key or value is of another kind. Returns
    FLAT_NO_ROOM when it may be larger than `room`, or has a string that cannot be written here (see `_text.pxd`).
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
