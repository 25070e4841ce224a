"""Writes JSON in UTF-8, with exactly the bytes of `json.dumps(value, ensure_ascii=False, default=encoder)`.

`json.dumps` makes a new encoder for each such call, and a string of each value. Exact strings, numbers, dicts and lists
are written here without such objects. For a value of another type the encoder is asked, or `json.dumps` writes this one
value, so the rare rules are those of `json.dumps` itself.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next, PyDict_Size
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from fastemit._flat cimport FLAT_MARGIN, PyUnicode_CheckExact, flat_decimal, flat_float
from fastemit._text cimport PyUnicode_GET_LENGTH, PyUnicode_IS_COMPACT_ASCII, ascii_of, form, is_ready, text_string


cdef extern from "Python.h":
    void* PyMem_RawRealloc(void* pointer, size_t size) nogil
    int Py_EnterRecursiveCall(const char* where) except *
    void Py_LeaveRecursiveCall() noexcept
    bint PyUnicode_Check(object o) noexcept
    bint PyLong_Check(object o) noexcept
    bint PyLong_CheckExact(object o) noexcept
    bint PyFloat_Check(object o) noexcept
    bint PyFloat_CheckExact(object o) noexcept
    double PyFloat_AS_DOUBLE(object o) noexcept
    long long PyLong_AsLongLongAndOverflow(object o, int* overflow) except? -1
    bint PyDict_Check(object o) noexcept
    bint PyDict_CheckExact(object o) noexcept
    bint PyList_Check(object o) noexcept
    bint PyTuple_Check(object o) noexcept
    Py_ssize_t PySequence_Fast_GET_SIZE(object o) noexcept
    PyObject* PySequence_Fast_GET_ITEM(object o, Py_ssize_t index) noexcept
    bint isfinite "Py_IS_FINITE" (double value) noexcept


cdef struct Text:
    char* start            # from PyMem_RawRealloc, or NULL before the first room is made
    char* at               # where the next byte is written
    char* limit            # up to here `at` has FLAT_MARGIN bytes of room behind it
    bint surrogates        # a lone surrogate was written, in three bytes, which UTF-8 does not allow
    PyObject* encoder      # asked for what to write in place of other types; None for none
    PyObject* dumps        # json.dumps


# The containers around a value, innermost first: one that holds itself is an error.
cdef struct Around:
    PyObject* container
    const Around* further


cdef inline int make_room(Text* text, size_t more) except -1:
    """Have room for so many bytes and FLAT_MARGIN behind them."""
    cdef size_t used
    cdef size_t size
    cdef char* start
    if text.start != NULL and <size_t> (text.limit - text.at) >= more and text.at <= text.limit:
        return 0
    used = text.at - text.start
    if more > (<size_t> -1) // 4 - used:
        raise MemoryError
    size = 2 * (used + more) + FLAT_MARGIN
    start = <char*> PyMem_RawRealloc(text.start, size)
    if start == NULL:
        raise MemoryError
    text.start = start
    text.at = start + used
    text.limit = start + size - FLAT_MARGIN
    return 0


cdef inline int write_raw(Text* text, const char* some, size_t length) except -1:
    make_room(text, length)
    memcpy(text.at, some, length)
    text.at += length
    return 0


cdef inline int write_text(Text* text, str some) except -1:
    """Write the characters of a string unchanged."""
    cdef bytes encoded
    if PyUnicode_IS_COMPACT_ASCII(<PyObject*> some):
        return write_raw(text, <const char*> ascii_of(<PyObject*> some), PyUnicode_GET_LENGTH(<PyObject*> some))
    encoded = utf8_of(text, some)
    return write_raw(text, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))


cdef inline bytes utf8_of(Text* text, str some):
    try:
        return some.encode("utf-8")
    except UnicodeEncodeError:
        text.surrogates = True
        return some.encode("utf-8", "surrogatepass")


cdef inline int write_string(Text* text, str value) except -1:
    cdef char* end = NULL
    cdef bytes encoded
    cdef uint8_t byte
    # A character takes six bytes at most: \u001f.
    if is_ready(<PyObject*> value):
        make_room(text, 6 * <size_t> PyUnicode_GET_LENGTH(<PyObject*> value) + 2)
        end = text_string(text.at, text.limit, <PyObject*> value)
    if end == NULL:
        # A lone surrogate, which is three bytes long; or a string of an old C extension, whose length is not known yet.
        encoded = utf8_of(text, value)
        make_room(text, 6 * <size_t> PyBytes_GET_SIZE(encoded) + 2)
        text.at[0] = b'"'
        end = text.at + 1
        for byte in encoded:
            if byte < 0x80:
                end = form(end, byte)
            else:
                end[0] = <char> byte
                end += 1
        end[0] = b'"'
        end += 1
    text.at = end
    return 0


cdef inline int write_int(Text* text, object value) except -1:
    cdef int overflow = 0
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        return write_text(text, int.__repr__(value))
    make_room(text, 20)
    text.at = flat_decimal(text.at, number)
    return 0


cdef inline int write_float(Text* text, double value) except -1:
    cdef char* end
    if not isfinite(value):
        if value != value:
            return write_raw(text, b"NaN", 3)
        return write_raw(text, b"Infinity", 8) if value > 0 else write_raw(text, b"-Infinity", 9)
    make_room(text, 32)
    end = flat_float(text.at, value)
    if end == NULL:
        raise MemoryError
    text.at = end
    return 0


cdef inline bint all_strings(dict members) noexcept:
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    while PyDict_Next(members, &at, &key, &value):
        if not PyUnicode_CheckExact(key):
            return False
    return True


cdef inline int write_member(Text* text, str key, object value, const Around* around) except -1:
    write_string(text, key)
    write_raw(text, b": ", 2)
    return write_value(text, value, around)


cdef inline int write_dict(Text* text, dict members, const Around* around) except -1:
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    cdef bint first = True
    if PyDict_Size(members) == 0:
        return write_raw(text, b"{}", 2)
    write_raw(text, b"{", 1)
    if text.encoder != <PyObject*> None:
        # This call may change the dict that is being written.
        for name, member in list(members.items()):
            if not first:
                write_raw(text, b", ", 2)
            first = False
            write_member(text, name, member, around)
    else:
        while PyDict_Next(members, &at, &key, &value):
            if not first:
                write_raw(text, b", ", 2)
            first = False
            write_member(text, <str> key, <object> value, around)
    return write_raw(text, b"}", 1)


cdef inline int write_items(Text* text, object items, const Around* around) except -1:
    cdef Py_ssize_t i = 0
    if PySequence_Fast_GET_SIZE(items) == 0:
        return write_raw(text, b"[]", 2)
    write_raw(text, b"[", 1)
    # The encoder may change the list meanwhile.
    while i < PySequence_Fast_GET_SIZE(items):
        if i:
            write_raw(text, b", ", 2)
        write_value(text, <object> PySequence_Fast_GET_ITEM(items, i), around)
        i += 1
    return write_raw(text, b"]", 1)


cdef inline int write_within(Text* text, object value, const Around* around) except -1:
    """Write a dict or list, or what the encoder returns for another value."""
    cdef Around here = Around(container=<PyObject*> value, further=around)
    while around != NULL:
        if around.container == <PyObject*> value:
            raise ValueError("Circular reference detected")
        around = around.further
    Py_EnterRecursiveCall(b" while encoding a JSON object")
    try:
        if PyDict_CheckExact(value):
            return write_dict(text, value, &here)
        if PyList_Check(value) or PyTuple_Check(value):
            return write_items(text, value, &here)
        return write_value(text, (<object> text.encoder)(value), &here)
    finally:
        Py_LeaveRecursiveCall()


cdef inline int write_value(Text* text, object value, const Around* around) except -1:
    if PyUnicode_CheckExact(<PyObject*> value):
        return write_string(text, <str> value)
    if value is None:
        return write_raw(text, b"null", 4)
    if value is True:
        return write_raw(text, b"true", 4)
    if value is False:
        return write_raw(text, b"false", 5)
    if PyLong_CheckExact(value):
        return write_int(text, value)
    if PyFloat_CheckExact(value):
        return write_float(text, PyFloat_AS_DOUBLE(value))
    if PyDict_CheckExact(value):
        if all_strings(<dict> value):
            return write_within(text, value, around)
    elif PyList_Check(value) or PyTuple_Check(value):
        return write_within(text, value, around)
    elif text.encoder != <PyObject*> None and not (
        PyUnicode_Check(value) or PyLong_Check(value) or PyFloat_Check(value) or PyDict_Check(value)
    ):
        return write_within(text, value, around)
    # Subclasses, names that are no strings, and what nobody can write, for which `json.dumps` has the error.
    return write_text(
        text, (<object> text.dumps)(value, ensure_ascii=False, default=<object> text.encoder)
    )
