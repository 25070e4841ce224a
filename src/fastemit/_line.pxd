"""Reads lines that are already the JSON of one event. Each line is checked, and copied in the form that is sent.

It takes an object of strings, numbers, true, false and null. Everything else, and every doubtful case, is left to
Python: see `EventBuffer.append_line`. Each line that it takes is checked as strictly as a collector may check it
(RFC 8259, UTF-8).
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

from fastemit._text cimport run8


cdef enum:
    LINE_NAMES = 64  # an object with more members is left to Python
    # Extra room behind the line: two quotes for each member, and 8 bytes because bytes are copied 8 at a time.
    LINE_MARGIN = 2 * LINE_NAMES + 16


cdef struct Copy:
    const uint8_t* at        # next byte to read; <= end
    const uint8_t* end       # end of the line
    char* out                # next byte to write
    bint escaped             # the string that was copied last has a backslash in it


cdef inline uint8_t line_token(Copy* copy) noexcept nogil:
    """The next byte that is not white space. It is not read yet. 0 at the end of the line."""
    while copy.at < copy.end and (copy.at[0] == b" " or copy.at[0] == b"\t" or copy.at[0] == b"\r"):
        copy.at += 1
    return copy.at[0] if copy.at < copy.end else 0


cdef inline bint line_take(Copy* copy, Py_ssize_t length) noexcept nogil:
    """Copy this many bytes. They must be there."""
    memcpy(copy.out, copy.at, length)
    copy.at += length
    copy.out += length
    return True


cdef inline int line_hex(const Copy* copy) noexcept nogil:
    """The code of a `\\u` escape, if that is what comes next; otherwise -1."""
    cdef const uint8_t* at = copy.at
    cdef int code = 0
    cdef uint8_t c
    cdef int i
    if copy.end - at < 6 or at[0] != b"\\" or at[1] != b"u":
        return -1
    for i in range(2, 6):
        c = at[i]
        if b"0" <= c <= b"9":
            code = code << 4 | (c - <uint8_t> b"0")
        elif b"a" <= (c | 0x20) <= b"f":
            code = code << 4 | ((c | 0x20) - <uint8_t> b"a" + 10)
        else:
            return -1
    return code


cdef inline bint line_escape(Copy* copy) noexcept nogil:
    """Copy an escape. A lone surrogate is left to Python."""
    cdef int code
    cdef uint8_t c
    copy.escaped = True
    if copy.end - copy.at < 2:
        return False
    c = copy.at[1]
    if c == b'"' or c == b"\\" or c == b"/" or c == b"b" or c == b"f" or c == b"n" or c == b"r" or c == b"t":
        return line_take(copy, 2)
    code = line_hex(copy)
    if code < 0 or 0xDC00 <= code < 0xE000:
        return False
    line_take(copy, 6)
    return not 0xD800 <= code < 0xDC00 or (0xDC00 <= line_hex(copy) < 0xE000 and line_take(copy, 6))


cdef inline bint line_wide(Copy* copy) noexcept nogil:
    """Copy one character of UTF-8 that is not ASCII: the table of well-formed sequences (Unicode, 3-7)."""
    cdef uint8_t lead = copy.at[0]
    cdef uint8_t low = 0x80
    cdef uint8_t high = 0xBF
    cdef Py_ssize_t length
    cdef Py_ssize_t i
    if 0xC2 <= lead <= 0xDF:
        length = 2
    elif 0xE0 <= lead <= 0xEF:
        length = 3
        low = 0xA0 if lead == 0xE0 else 0x80
        high = 0x9F if lead == 0xED else 0xBF
    elif 0xF0 <= lead <= 0xF4:
        length = 4
        low = 0x90 if lead == 0xF0 else 0x80
        high = 0x8F if lead == 0xF4 else 0xBF
    else:
        return False
    if copy.end - copy.at < length or not low <= copy.at[1] <= high:
        return False
    for i in range(2, length):
        if not 0x80 <= copy.at[i] <= 0xBF:
            return False
    return line_take(copy, length)


cdef inline bint line_string(Copy* copy) noexcept nogil:
    """Copy a string; its first quote is the next byte."""
    cdef int run
    cdef uint8_t c
    copy.escaped = False
    line_take(copy, 1)
    while True:
        while copy.end - copy.at >= 8:
            run = run8(copy.at)
            # Always 8 bytes, because a fixed number is copied in one step. The extra ones are overwritten.
            memcpy(copy.out, copy.at, 8)
            copy.at += run
            copy.out += run
            if run < 8:
                break
        if copy.at >= copy.end:
            return False
        c = copy.at[0]
        if c == b'"':
            return line_take(copy, 1)
        if c == b"\\":
            if not line_escape(copy):
                return False
        elif c >= 0x80:
            if not line_wide(copy):
                return False
        elif c < 0x20:
            return False
        else:
            line_take(copy, 1)


cdef inline bint line_digits(Copy* copy) noexcept nogil:
    """Copy one digit or more."""
    cdef const uint8_t* start = copy.at
    while copy.at < copy.end and b"0" <= copy.at[0] <= b"9":
        line_take(copy, 1)
    return copy.at > start


cdef inline bint line_number(Copy* copy) noexcept nogil:
    """Copy a number."""
    if copy.at < copy.end and copy.at[0] == b"-":
        line_take(copy, 1)
    if copy.at < copy.end and copy.at[0] == b"0":
        line_take(copy, 1)
    elif not line_digits(copy):
        return False
    if copy.at < copy.end and copy.at[0] == b".":
        line_take(copy, 1)
        if not line_digits(copy):
            return False
    if copy.at < copy.end and (copy.at[0] | 0x20) == b"e":
        line_take(copy, 1)
        if copy.at < copy.end and (copy.at[0] == b"+" or copy.at[0] == b"-"):
            line_take(copy, 1)
        return line_digits(copy)
    return True


cdef inline bint line_word(Copy* copy, const char* word, Py_ssize_t length) noexcept nogil:
    return copy.end - copy.at >= length and memcmp(copy.at, word, length) == 0 and line_take(copy, length)


cdef inline bint line_value(Copy* copy) noexcept nogil:
    """Copy a value as a string. Nothing is copied for a null."""
    cdef uint8_t c = line_token(copy)
    cdef bint fine
    if c == b'"':
        return line_string(copy)
    if c == b"n":
        if copy.end - copy.at < 4 or memcmp(copy.at, b"null", 4) != 0:
            return False
        copy.at += 4
        return True
    copy.out[0] = b'"'
    copy.out += 1
    if c == b"t":
        fine = line_word(copy, b"true", 4)
    elif c == b"f":
        fine = line_word(copy, b"false", 5)
    else:
        fine = line_number(copy)
    copy.out[0] = b'"'
    copy.out += 1
    return fine


cdef inline size_t line_event(const uint8_t* line, size_t length, char* room, size_t size) noexcept nogil:
    """Copy a line into `room` of `size` bytes as the JSON of an event.

    Returns its length, or 0 when the line has to be left to Python: it is not an object of this kind, it is empty
    without `stm` and nulls, a name is escaped or comes twice, it has a lone surrogate, or it does not fit.
    """
    cdef const uint8_t* names[LINE_NAMES]  # where each name is in the line
    cdef Py_ssize_t lengths[LINE_NAMES]
    cdef int count = 0
    cdef int i
    cdef char* member
    cdef char* value
    cdef bint stm
    cdef Copy copy = Copy(line, line + length, room, False)
    if length + LINE_MARGIN > size or line_token(&copy) != b"{":
        return 0
    line_take(&copy, 1)
    while True:
        member = copy.out
        if count == LINE_NAMES or line_token(&copy) != b'"':
            return 0
        names[count] = copy.at
        if not line_string(&copy) or copy.escaped:
            return 0
        lengths[count] = copy.at - names[count]
        stm = lengths[count] == 5 and memcmp(names[count], b'"stm"', 5) == 0
        for i in range(count):
            if lengths[i] == lengths[count] and memcmp(names[i], names[count], lengths[i]) == 0:
                return 0
        count += 1
        if line_token(&copy) != b":":
            return 0
        line_take(&copy, 1)
        value = copy.out
        if not line_value(&copy):
            return 0
        if stm or copy.out == value:
            copy.out = member
        else:
            copy.out[0] = b","
            copy.out += 1
        if line_token(&copy) != b",":
            break
        copy.at += 1
    if copy.out == room + 1 or line_token(&copy) != b"}":
        return 0
    copy.at += 1
    # This replaces the last comma.
    copy.out[-1] = b"}"
    return copy.out - room if line_token(&copy) == 0 and copy.at == copy.end else 0
