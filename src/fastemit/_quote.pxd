"""Percent-encoding of query strings, in the same way as `urllib.parse.quote_plus`, which `requests` uses."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t


cdef extern from * nogil:
    """
    static inline int fastemit_unreserved(unsigned char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
            || c == '_' || c == '.' || c == '-' || c == '~';
    }
    """
    bint unreserved "fastemit_unreserved" (uint8_t c)
    const char* HEX_DIGITS "\"0123456789ABCDEF\""


cdef inline bytes quote_plus(bytes text):
    """Keeps the unreserved characters of RFC 3986. A space becomes a plus, and each other byte %XX."""
    cdef const uint8_t* source = <const uint8_t*> PyBytes_AS_STRING(text)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(text)
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t i
    cdef bytes quoted
    cdef char* out
    for i in range(length):
        size += 1 if unreserved(source[i]) or source[i] == b" " else 3
    quoted = PyBytes_FromStringAndSize(NULL, size)
    out = PyBytes_AS_STRING(quoted)
    for i in range(length):
        if unreserved(source[i]):
            out[0] = <char> source[i]
            out += 1
        elif source[i] == b" ":
            out[0] = b"+"
            out += 1
        else:
            out[0] = b"%"
            out[1] = HEX_DIGITS[source[i] >> 4]
            out[2] = HEX_DIGITS[source[i] & 15]
            out += 3
    return quoted
