"""Which events of a segment's file may be sent: each event is checked as if an attacker had written it.

After a crash of the process its files are as they were written. After a power loss pages may be missing or old, and a
disk or a person may have changed anything. So nothing in the file is used before it is checked.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from fastemit._line cimport Copy, line_string
from fastemit._ring_files cimport (
    DAMAGED_EVENT,
    GOOD_EVENT,
    SETTLED_EVENT,
    UNSURE_EVENT,
    Verdict,
    file_start,
    text_length,
)
from fastemit._segment cimport Format, STM_DIGITS
from fastemit._segment_file cimport SegFile, file_check, release, step
from fastemit._shape cimport plain_members
from fastemit._text cimport run8


cdef enum:
    SHAPE_MARGIN = 16      # extra room behind an event, because its last bytes are copied as a whole block


cdef inline bint tail_is_fine(const Format* format, const char* at, bint empty) noexcept nogil:
    """Whether a tail ends an event. Its digits may be of any attempt, its separator may be the end of an envelope."""
    cdef size_t digits = format.tail_len - format.stm_from_end
    cdef size_t i
    cdef char last
    at -= empty
    if memcmp(at + empty, format.tail + empty, digits - empty) != 0:
        return False
    for i in range(digits, digits + STM_DIGITS):
        if not c"0" <= at[i] <= c"9":
            return False
    i = digits + STM_DIGITS
    if memcmp(at + i, format.tail + i, format.tail_len - i - 1) != 0:
        return False
    last = at[format.tail_len - 1]
    return last == format.tail[format.tail_len - 1] or (format.enclosed and last == c"]")


cdef inline const uint8_t* string_end(const uint8_t* at, const uint8_t* end, char* room) noexcept nogil:
    """One past the string that begins at `at`; NULL if there is none. The 8 bytes behind `end` may be read."""
    cdef const uint8_t* start = at
    cdef Copy copy
    cdef int run
    if at >= end or at[0] != b'"':
        return NULL
    at += 1
    while at < end:
        run = run8(at)
        at += run
        if run < 8:
            break
    if at < end and at[0] == b'"':
        return at + 1
    # It contains an escape, or characters that are not ASCII.
    copy = Copy(start, end, room, False)
    return copy.at if line_string(&copy) else NULL


cdef inline Verdict json_shape(const uint8_t* text, size_t length, char* room) noexcept nogil:
    """Whether a JSON object, without its closing brace, has only strings in it. Nearly all events do."""
    cdef const uint8_t* end = text + length
    cdef const uint8_t* at = text + 1
    if length == 0 or text[0] != b"{":
        return DAMAGED_EVENT
    if length == 1 or plain_members(at, length - 1):
        return GOOD_EVENT
    while True:
        at = string_end(at, end, room)
        if at == NULL or at >= end or at[0] != b":":
            return UNSURE_EVENT
        at = string_end(at + 1, end, room)
        if at == NULL:
            return UNSURE_EVENT
        if at == end:
            return GOOD_EVENT
        if at[0] != b",":
            return UNSURE_EVENT
        at += 1


cdef inline bint is_of_query(uint8_t c) noexcept nogil:
    return b"a" <= (c | 0x20) <= b"z" or b"0" <= c <= b"9" or (c != 0 and c < 0x7F and c in b"-._~%+&=*!$'(),;:@/?")


cdef inline Verdict query_shape(const uint8_t* text, size_t length) noexcept nogil:
    cdef size_t i
    for i in range(length):
        if not is_of_query(text[i]):
            return DAMAGED_EVENT
    return GOOD_EVENT


cdef inline void file_find_uncounted(SegFile* file, const Format* format) noexcept nogil:
    """Count the events behind those that the first page counts. After a power loss that page may be older than they.

    A check that fits, or the settled mark, comes from this use of the file, so the event was written.
    """
    cdef size_t counted = file.count
    cdef size_t i, start, end, length
    for i in range(counted, file.entries):
        start = file_start(file, format, i)
        end = file.ends[i]
        if start < format.prefix_len or end <= start or end >= file.capacity:
            break
        if file.checks[i] != file.settled:
            length = text_length(format, end - start)
            if length == end - start or file.checks[i] != file_check(file, start, length):
                break
        file.count = i + 1
    if file.count > counted:
        release(file.header.count, file.count)


cdef inline size_t file_judge(SegFile* file, const Format* format, uint8_t* verdicts, char* room) noexcept nogil:
    """Check each event of a file, and return how many are unsure. `room` is SHAPE_MARGIN bytes longer than the data.

    If an event is good or unsure, its tail is restored as it was written.
    """
    cdef size_t i, start, end, length
    cdef size_t behind = format.prefix_len  # no event may begin before this, so none is sent twice
    cdef size_t unsure = 0
    cdef uint32_t check
    cdef Verdict verdict
    for i in range(file.count):
        start = file_start(file, format, i)
        end = file.ends[i]
        check = file.checks[i]
        if check == file.settled:
            verdicts[i] = SETTLED_EVENT
            continue
        verdicts[i] = DAMAGED_EVENT
        # The last byte of the data is kept for an envelope's end.
        if start < behind or end <= start or end >= file.capacity:
            continue
        length = text_length(format, end - start)
        if (length == end - start or check != file_check(file, start, length)
                or not tail_is_fine(format, file.data + start + length, length == format.empty_len - format.chop)):
            continue
        if format.enclosed:
            verdict = json_shape(<const uint8_t*> file.data + start, length, room)
        else:
            verdict = query_shape(<const uint8_t*> file.data + start, length)
        verdicts[i] = verdict
        if verdict == DAMAGED_EVENT:
            continue
        unsure += verdict == UNSURE_EVENT
        if file.data[end - 1] != format.tail[format.tail_len - 1]:
            # Only for the last event of a request, because the first write to a page costs more than all the checks.
            step()
            file.data[end - 1] = format.tail[format.tail_len - 1]
        behind = end
    return unsure
