"""A writer of flat dictionaries: exact strings, ints, None, True and False, straight into JSON.

Nine events in ten are such dictionaries. For everything else it says so, and orjson does the work: see
`_buffer.pyx`. It runs no Python code, so a dictionary cannot change under it.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "Python.h":
    # On PyObject*, so that a walk over a dict takes no references.
    bint PyDict_CheckExact(PyObject* o) noexcept
    int PyDict_Next(PyObject* o, Py_ssize_t* at, PyObject** key, PyObject** value) noexcept
    bint PyUnicode_CheckExact(PyObject* o) noexcept
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* o) noexcept
    const uint8_t* PyUnicode_1BYTE_DATA(PyObject* o) noexcept
    void* PyUnicode_DATA(PyObject* o) noexcept
    int PyUnicode_KIND(PyObject* o) noexcept
    uint32_t PyUnicode_READ(int kind, const void* data, Py_ssize_t index) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* o) noexcept
    bint PyLong_CheckExact(PyObject* o) noexcept
    long long PyLong_AsLongLongAndOverflow(PyObject* o, int* overflow) noexcept
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False


cdef extern from * nogil:
    """
    /* Nonzero where one of 8 ASCII bytes is below 0x20, a quote or a backslash. With each high bit clear, a subtraction
       borrows into a byte's high bit exactly where the byte is too small. */
    #define FASTEMIT_ONES 0x0101010101010101ULL
    #define FASTEMIT_HIGHS 0x8080808080808080ULL
    static inline uint64_t fastemit_special(uint64_t eight) {
        uint64_t quote = eight ^ (FASTEMIT_ONES * '"');
        uint64_t backslash = eight ^ (FASTEMIT_ONES * '\\\\');
        return (((eight - FASTEMIT_ONES * 0x20) & ~eight) | ((quote - FASTEMIT_ONES) & ~quote)
                | ((backslash - FASTEMIT_ONES) & ~backslash)) & FASTEMIT_HIGHS;
    }
    /* The same of 16; where the machine has vectors, in one look. */
    #if defined(__SSE2__) || defined(_M_X64)
    #include <emmintrin.h>
    static inline int fastemit_special16(const uint8_t* text) {
        const __m128i v = _mm_loadu_si128((const __m128i*) text);
        /* A comparison with signs, which ASCII has none of. */
        const __m128i bad = _mm_or_si128(
            _mm_cmplt_epi8(v, _mm_set1_epi8(0x20)),
            _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(0x22)), _mm_cmpeq_epi8(v, _mm_set1_epi8(0x5C))));
        return _mm_movemask_epi8(bad);
    }
    #elif defined(__aarch64__) || defined(_M_ARM64)
    #include <arm_neon.h>
    static inline int fastemit_special16(const uint8_t* text) {
        const uint8x16_t v = vld1q_u8(text);
        const uint8x16_t bad = vorrq_u8(
            vcltq_u8(v, vdupq_n_u8(0x20)),
            vorrq_u8(vceqq_u8(v, vdupq_n_u8(0x22)), vceqq_u8(v, vdupq_n_u8(0x5C))));
        return vmaxvq_u8(bad) != 0;
    }
    #else
    static inline int fastemit_special16(const uint8_t* text) {
        uint64_t a, b;
        memcpy(&a, text, 8);
        memcpy(&b, text + 8, 8);
        return (fastemit_special(a) | fastemit_special(b)) != 0;
    }
    #endif
    """
    uint64_t special "fastemit_special" (uint64_t eight)
    bint special16 "fastemit_special16" (const uint8_t* text)
    const char* SHORT_ESCAPES "\"btn?fr\""


cdef enum:
    # Most bytes that are written between two looks at the room that is left: 16 characters of 6 bytes, and what
    # surrounds a member.
    FLAT_MARGIN = 128


cdef inline char* flat_byte(char* out, uint8_t byte) noexcept nogil:
    """One ASCII character, escaped where JSON says so (RFC 8259, 7) and in the way that orjson does it."""
    if byte >= 0x20 and byte != b'"' and byte != b"\\":
        out[0] = <char> byte
        return out + 1
    out[0] = b"\\"
    if byte == b'"' or byte == b"\\":
        out[1] = <char> byte
        return out + 2
    if 0x08 <= byte <= 0x0D and byte != 0x0B:
        out[1] = SHORT_ESCAPES[byte - 0x08]
        return out + 2
    memcpy(out + 1, b"u00", 3)
    out[4] = b"1" if byte >= 0x10 else b"0"
    out[5] = <char> ((byte & 15) + (<char> b"0" if (byte & 15) < 10 else <char> b"a" - 10))
    return out + 6


cdef inline char* flat_bytes(char* out, const uint8_t* text, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(length):
        out = flat_byte(out, text[i])
    return out


cdef inline char* flat_short(char* out, const uint8_t* text, Py_ssize_t length) noexcept nogil:
    """Fewer than 8 ASCII characters: the first and the last 4 (or 2) of them in one look, which may overlap."""
    cdef uint64_t eight = 0
    cdef uint32_t first = 0
    cdef uint32_t last = 0
    cdef uint16_t two = 0
    if length >= 4:
        memcpy(&first, text, 4)
        memcpy(&last, text + length - 4, 4)
        eight = first | (<uint64_t> last << 32)
        if special(eight):
            return flat_bytes(out, text, length)
        memcpy(out, &first, 4)
        memcpy(out + length - 4, &last, 4)
        return out + length
    if length >= 2:
        memcpy(&two, text, 2)
        first = two
        memcpy(&two, text + length - 2, 2)
        last = two
        # What is not there counts as spaces.
        eight = first | (last << 16) | (<uint64_t> 0x20202020 << 32)
        if special(eight):
            return flat_bytes(out, text, length)
        memcpy(out + length - 2, &two, 2)
        two = <uint16_t> first
        memcpy(out, &two, 2)
        return out + length
    return flat_bytes(out, text, length)


cdef inline char* flat_ascii(char* out, const char* limit, const uint8_t* text, Py_ssize_t length) noexcept nogil:
    cdef uint64_t first = 0
    cdef uint64_t last = 0
    cdef Py_ssize_t at = 0
    if length < 8:
        return flat_short(out, text, length)
    if length < 16:
        memcpy(&first, text, 8)
        memcpy(&last, text + length - 8, 8)
        if special(first) | special(last):
            return flat_bytes(out, text, length)
        memcpy(out, &first, 8)
        memcpy(out + length - 8, &last, 8)
        return out + length
    while at + 16 <= length:
        if out > limit:
            return NULL
        if special16(text + at):
            out = flat_bytes(out, text + at, 16)
        else:
            memcpy(out, text + at, 16)
            out += 16
        at += 16
    if at == length:
        return out
    if out > limit:
        return NULL
    # The last 16 in one look. If nothing is special in them, those of them that are written already are as they were.
    if special16(text + length - 16):
        return flat_bytes(out, text + at, length - at)
    memcpy(out + (length - at) - 16, text + length - 16, 16)
    return out + (length - at)


cdef inline char* flat_wide(char* out, const char* limit, PyObject* text) noexcept:
    """A string that is not all ASCII, as UTF-8. NULL for a lone surrogate."""
    cdef int kind = PyUnicode_KIND(text)
    cdef const void* data = PyUnicode_DATA(text)
    cdef Py_ssize_t i
    cdef uint32_t c
    for i in range(PyUnicode_GET_LENGTH(text)):
        if out > limit:
            return NULL
        c = PyUnicode_READ(kind, data, i)
        if c < 0x80:
            out = flat_byte(out, <uint8_t> c)
        elif c < 0x800:
            out[0] = <char> (0xC0 | (c >> 6))
            out[1] = <char> (0x80 | (c & 0x3F))
            out += 2
        elif c < 0x10000:
            if 0xD800 <= c < 0xE000:
                return NULL
            out[0] = <char> (0xE0 | (c >> 12))
            out[1] = <char> (0x80 | ((c >> 6) & 0x3F))
            out[2] = <char> (0x80 | (c & 0x3F))
            out += 3
        else:
            out[0] = <char> (0xF0 | (c >> 18))
            out[1] = <char> (0x80 | ((c >> 12) & 0x3F))
            out[2] = <char> (0x80 | ((c >> 6) & 0x3F))
            out[3] = <char> (0x80 | (c & 0x3F))
            out += 4
    return out


cdef inline char* flat_string(char* out, const char* limit, PyObject* text) noexcept:
    out[0] = b'"'
    if PyUnicode_IS_COMPACT_ASCII(text):
        out = flat_ascii(out + 1, limit, PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text))
    else:
        out = flat_wide(out + 1, limit, text)
    if out == NULL:
        return NULL
    out[0] = b'"'
    return out + 1


cdef inline char* flat_decimal(char* out, long long number) noexcept nogil:
    """The digits of `number`, as `str` gives them: at most 20 characters."""
    cdef char[20] digits
    cdef int at = 20
    # Negated as unsigned: the least long long has no positive counterpart.
    cdef unsigned long long left = <unsigned long long> number
    if number < 0:
        left = 0 - left
    while True:
        at -= 1
        digits[at] = <char> (<char> b"0" + left % 10)
        left //= 10
        if left == 0:
            break
    if number < 0:
        at -= 1
        digits[at] = b"-"
    memcpy(out, digits + at, 20 - at)
    return out + (20 - at)


cdef inline char* flat_value(char* out, const char* limit, PyObject* value) noexcept:
    """`str(value)` as a JSON string. NULL if it takes more than this."""
    cdef long long number
    cdef int overflow = 0
    if PyUnicode_CheckExact(value):
        return flat_string(out, limit, value)
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
    cdef const uint8_t* text
    if PyUnicode_GET_LENGTH(key) != 3 or not PyUnicode_IS_COMPACT_ASCII(key):
        return False
    text = PyUnicode_1BYTE_DATA(key)
    return text[0] == b"s" and text[1] == b"t" and text[2] == b"m"


cdef inline size_t flat_event(PyObject* payload, char* room, size_t size) noexcept:
    """Write a payload as the JSON of an event, less its `stm`, into `room` of `size` bytes (at least FLAT_MARGIN).

    Returns its length, or 0 when the payload is not so simple: no dict, a key or value of another kind, a lone
    surrogate, or larger than `room`.
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
        if out > limit or not PyUnicode_CheckExact(key):
            return 0
        if is_stm(key):
            continue
        out = flat_string(out, limit, key)
        if out == NULL:
            return 0
        if out > limit:
            return 0
        out[0] = b":"
        out = flat_value(out + 1, limit, value)
        if out == NULL:
            return 0
        out[0] = b","
        out += 1
    if out == room + 1:
        out += 1
    out[-1] = b"}"
    return out - room
