"""A segment in plain C: the events of one future request body, in its own memory or in a mapped file.

    data: [.. envelope ..][event,][event,][event,]            ]
           ^start - prefix ^start                ^used        ^capacity

Each event ends with its own `stm` and a separator, so the body of a POST is one contiguous run of memory: the
envelope goes before `start`, and the last comma becomes `]}`. For GET the events are query strings without an
envelope, and each is sent alone. What differs between the two is in `Format`.

A `mapped` segment lies in its file, with `data` and `ends`. A copy of events of a file has its own memory, and refers
to the file, in which they are settled. `_ring.pxd` says which of the two is sent.
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint32_t
from libc.string cimport memcpy, memmove

from fastemit._segment_file cimport SegFile


cdef extern from "Python.h" nogil:
    # Raw domain: needs no GIL, and tracemalloc still sees it.
    void* PyMem_RawMalloc(size_t size)
    void* PyMem_RawRealloc(void* pointer, size_t size)
    void PyMem_RawFree(void* pointer)


cdef enum:
    STM_DIGITS = 13
    ENDS_AT_FIRST = 64

cdef extern from * nogil:
    # Number of the first event of a process before this one. Its own are numbered from 0.
    const int64_t FIRST_RECOVERED "(-((int64_t) 1 << 62))"

cdef enum SegmentState:
    SPARE                  # in Ring.spare: empty, kept for use again
    QUEUED                 # in the list Ring.head .. Ring.tail
    IN_FLIGHT              # in the list Ring.flying: a Batch owns its bytes
    LIMBO                  # in no list: done with, but a view of its bytes is still out
    ORPHAN                 # in no list: from before a fork, freed by its Batch

cdef enum DropReason:
    OVERFLOW = 0
    REJECTED = 1
    OVERSIZE = 2
    CLOSED = 3
    DROP_REASONS = 4

cdef enum PutResult:
    PUT_OK
    PUT_FULL               # no room now: nothing was changed
    PUT_TOO_LARGE          # no room ever: larger than the ring's bounds
    PUT_NO_MEMORY          # no memory: nothing was changed
    PUT_NO_FILE            # no spare file with room for it: nothing was changed


cdef struct Format:
    const char* prefix     # written before the first event of a body
    size_t prefix_len
    const char* tail       # written after each event: its `stm`, whose digits change at every attempt, and a separator
    size_t tail_len
    size_t chop            # bytes at the end of an encoded event that the tail takes the place of: its closing brace
    size_t empty_len       # length of an encoded event without members, after which the tail's first byte is left out
    size_t stm_from_end    # from one past an event's separator back to the first digit
    bint enclosed          # the last separator of a body becomes `]}`; else it is left out


cdef struct Segment:
    char* data             # `capacity` bytes; never moves while the segment lives
    size_t capacity        # bytes at `data`; at least the prefix and 1
    size_t start           # offset of the first event; prefix_len <= start <= used
    size_t used            # offset one past the last event's comma; used + 1 <= capacity
    uint32_t* ends         # ends[first + i]: offset one past the comma of event i; strictly increasing
    size_t ends_capacity   # entries at `ends`; first + count <= ends_capacity
    SegFile* file          # where its events are settled; NULL for a ring without files, and for an ORPHAN
    size_t file_base       # entry of the file that ends[0] stands for; 0 when mapped
    bint mapped            # `data` and `ends` lie in the file, not in memory of its own; NULL while that is parked
    size_t first           # entries of `ends` whose events have left by the front
    size_t count           # events here; 0 only when SPARE, LIMBO or being filled
    int64_t seq            # sequence number of the first event; the others follow without a gap
    Segment* next          # in whichever list the state says; NULL at its end
    Py_ssize_t exports     # Python buffer views of `data`; it is not reused or freed while > 0
    int server_errors      # times it was answered 5xx (but for 503); a merge keeps the larger
    bint sealed            # takes no more events and is not merged: it was split for a reason
    bint oversize          # one event larger than a request should be, in memory of its own
    SegmentState state


cdef struct Ring:
    Format format          # set once
    Segment* head          # oldest queued segment; sorted by seq up to `tail`
    Segment* tail          # newest; NULL when head is
    Segment* flying        # handed out as batches, in no order
    Segment* spare         # empty ones, the last used first, because its pages are in memory
    size_t spare_count     # length of `spare`
    size_t segment_count   # segments allocated and not freed, whatever their state
    size_t peak            # most segments with events since the ring was last empty
    size_t segment_bytes   # most bytes of events in a segment: a request less its envelope
    int64_t next_seq       # number the next accepted event gets
    size_t queued_events   # sum of count over head .. tail
    size_t queued_bytes    # sum of used - start over the same
    size_t flying_events   # the same for `flying`
    size_t flying_bytes
    size_t max_events      # queued_events + flying_events <= max_events
    size_t max_bytes       # queued_bytes + flying_bytes <= max_bytes
    int64_t sent_events    # settled as sent since the start (or the fork)
    int64_t sent_bytes     # their bytes
    int64_t retried_events  # given back after a failed attempt, once per attempt
    int64_t dropped[4]     # by DropReason
    bint in_files          # set once: events are put into files that were lent, and nowhere else
    SegFile* spare_file    # lent and empty, the oldest first, so that files are used in the order of their numbers
    SegFile* last_spare_file
    size_t spare_files     # length of that list
    SegFile* used_file     # those that a segment refers to, parked or not, in no order
    SegFile* finished_file  # those that nothing refers to any more, until the Python class asks for them
    SegFile* forgotten_file  # the parent's, in a forked child: their owners must still be let go of
    size_t mapped_files    # spare ones, and used ones that are not parked
    size_t spares_wanted   # if there are fewer spare ones, the owner must make more
    size_t most_mapped     # if there are more mapped ones, the owner must park some
    bint wants_service     # the owner has something to do since the Python class looked last, or a file is finished
    bint left_to_others    # other processes may write into the files, so they must not be read any more
    int64_t recovered_seq  # number that the next recovered event gets; all of them are below 0


# -- segments --------------------------------------------------------------------------------------------------------

cdef inline size_t seg_bytes(const Segment* seg) noexcept nogil:
    return seg.used - seg.start


cdef inline bint seg_parked(const Segment* seg) noexcept nogil:
    return seg.data == NULL


cdef inline size_t seg_file_index(const Segment* seg) noexcept nogil:
    """The entry in the file that stands for the first event."""
    return seg.file_base + seg.first


cdef inline void file_refer(Segment* seg, SegFile* file, size_t base) noexcept nogil:
    seg.file = file
    seg.file_base = base
    file.refs += 1


cdef inline void file_use(Ring* ring, SegFile* file) noexcept nogil:
    """Put a file, which is in no list, among those in use."""
    file.previous = NULL
    file.next = ring.used_file
    if file.next != NULL:
        file.next.previous = file
    ring.used_file = file


cdef inline void file_unrefer(Ring* ring, Segment* seg) noexcept nogil:
    """Let a segment no longer refer to its file, if it has one. When none refers to it, the file is finished."""
    cdef SegFile* file = seg.file
    seg.file = NULL
    if file == NULL:
        return
    file.refs -= 1
    if file.refs > 0:
        return
    if file.forgotten:
        PyMem_RawFree(file)
        return
    if file.previous == NULL:
        ring.used_file = file.next
    else:
        file.previous.next = file.next
    if file.next != NULL:
        file.next.previous = file.previous
    if file.memory != NULL:
        ring.mapped_files -= 1
    file.next = ring.finished_file
    ring.finished_file = file
    ring.wants_service = True


cdef inline void seg_free(Ring* ring, Segment* seg) noexcept nogil:
    if not seg.mapped:
        PyMem_RawFree(seg.data)
        PyMem_RawFree(seg.ends)
    file_unrefer(ring, seg)
    PyMem_RawFree(seg)
    ring.segment_count -= 1


cdef inline void seg_clear(const Ring* ring, Segment* seg) noexcept nogil:
    seg.start = ring.format.prefix_len
    seg.used = ring.format.prefix_len
    seg.first = 0
    seg.count = 0
    seg.seq = 0
    seg.next = NULL
    seg.server_errors = 0
    seg.sealed = False
    seg.oversize = False
    seg.file = NULL
    seg.file_base = 0
    seg.mapped = False


cdef inline Segment* seg_new(Ring* ring, size_t event_bytes) noexcept nogil:
    """An empty segment with room for `event_bytes`: a spare one, or a new one. NULL without memory."""
    cdef Segment* seg = ring.spare
    cdef size_t capacity
    if seg != NULL and event_bytes <= ring.segment_bytes:
        ring.spare = seg.next
        ring.spare_count -= 1
        seg_clear(ring, seg)
        return seg
    # No overflow: event_bytes was checked against UINT32_MAX less room for the envelope.
    capacity = ring.format.prefix_len + max(event_bytes, ring.segment_bytes) + 1
    seg = <Segment*> PyMem_RawMalloc(sizeof(Segment))
    if seg == NULL:
        return NULL
    # A page that nothing was written to takes no memory, so a segment costs a quiet emitter only a page or two.
    seg.data = <char*> PyMem_RawMalloc(capacity)
    seg.ends = <uint32_t*> PyMem_RawMalloc(ENDS_AT_FIRST * sizeof(uint32_t))
    ring.segment_count += 1
    if seg.data == NULL or seg.ends == NULL:
        PyMem_RawFree(seg.data)
        PyMem_RawFree(seg.ends)
        PyMem_RawFree(seg)
        ring.segment_count -= 1
        return NULL
    seg.capacity = capacity
    seg.ends_capacity = ENDS_AT_FIRST
    seg.exports = 0
    seg.state = SPARE
    seg_clear(ring, seg)
    return seg


cdef inline void seg_enter(Ring* ring, Segment* seg, SegFile* file) noexcept nogil:
    """Make fresh memory for a `Segment` an empty one that is mapped in a file, which is in use and attached."""
    ring.segment_count += 1
    seg_clear(ring, seg)
    seg.exports = 0
    seg.data = file.data
    seg.capacity = file.capacity
    seg.ends = file.ends
    seg.ends_capacity = file.entries
    seg.mapped = True
    file_refer(seg, file, 0)


cdef inline void seg_release(Ring* ring, Segment* seg) noexcept nogil:
    """Give back the memory of a segment that is in no list: to the spare ones, or to the system."""
    if seg.exports > 0:
        seg.state = LIMBO        # the last view to go releases it
        if not seg.mapped:
            file_unrefer(ring, seg)
        return
    if seg.mapped or seg.capacity != ring.format.prefix_len + ring.segment_bytes + 1:
        seg_free(ring, seg)      # it has no memory of its own, or was made for one large event
        return
    file_unrefer(ring, seg)
    seg.state = SPARE
    seg.next = ring.spare
    ring.spare = seg
    ring.spare_count += 1


cdef inline void seg_compact_ends(Segment* seg) noexcept nogil:
    """Move `ends` over the entries whose events have left."""
    memmove(seg.ends, seg.ends + seg.first, seg.count * sizeof(uint32_t))
    seg.first = 0


cdef inline bint seg_grow_ends(Segment* seg, size_t needed) noexcept nogil:
    """Double `ends` until it has `needed` entries. False when out of memory: nothing was changed."""
    cdef size_t capacity = seg.ends_capacity
    cdef uint32_t* ends
    while capacity < needed:
        capacity *= 2
    ends = <uint32_t*> PyMem_RawRealloc(seg.ends, capacity * sizeof(uint32_t))
    if ends == NULL:
        return False
    seg.ends = ends
    seg.ends_capacity = capacity
    return True


cdef inline bint seg_reserve_end(Segment* seg, size_t more) noexcept nogil:
    """Make room for `more` entries in `ends`. False when out of memory: no entry was changed."""
    cdef size_t needed = seg.first + seg.count + more
    if needed <= seg.ends_capacity:
        return True
    # Moved only if at least half is dead. Then as many events have left as are moved, so a move costs each of them one
    # step. Without this rule a full buffer that drops its oldest event for each new one would move all of them each
    # time: 112 us an event at 1,048,576 of them.
    if seg.first < seg.count or seg.count + more > seg.ends_capacity:
        if seg_grow_ends(seg, needed):
            return True
        # Without memory a slow event is better than none.
        if seg.count + more > seg.ends_capacity:
            return False
    seg_compact_ends(seg)
    return True


cdef inline void seg_advance(Segment* seg, size_t events) noexcept nogil:
    """Forget the first `events` events."""
    seg.first += events
    seg.count -= events
    seg.seq += <int64_t> events
    seg.start = seg.ends[seg.first - 1]


cdef inline bint seg_append(Segment* seg, const Segment* other, size_t events) noexcept nogil:
    """Copy the first `events` events of `other` behind those of `seg`; the caller checked the room."""
    cdef size_t i, length
    cdef size_t from_ = other.start
    if not seg_reserve_end(seg, events):
        return False
    length = other.ends[other.first + events - 1] - from_
    memcpy(seg.data + seg.used, other.data + from_, length)
    for i in range(events):
        seg.ends[seg.first + seg.count + i] = <uint32_t> (other.ends[other.first + i] - from_ + seg.used)
    if seg.count == 0:
        seg.seq = other.seq
    seg.count += events
    seg.used += length
    seg.server_errors = max(seg.server_errors, other.server_errors)
    return True


cdef inline bint seg_leave_map(Ring* ring, Segment* seg) noexcept nogil:
    """Copy a mapped segment into its own memory. It refers to its file as before. False without memory.

    Views of the mapped bytes go on showing those.
    """
    cdef Segment* other = seg_new(ring, seg_bytes(seg))
    if other == NULL:
        return False
    if not seg_append(other, seg, seg.count):
        seg_release(ring, other)
        return False
    seg.file_base = seg.first
    seg.first = 0
    seg.data = other.data
    seg.capacity = other.capacity
    seg.start = other.start
    seg.used = other.used
    seg.ends = other.ends
    seg.ends_capacity = other.ends_capacity
    seg.mapped = False
    PyMem_RawFree(other)
    ring.segment_count -= 1
    return True


cdef inline void seg_compact(const Ring* ring, Segment* seg) noexcept nogil:
    """Move the events to the front of the segment; no view of it may be out."""
    cdef size_t shift = seg.start - ring.format.prefix_len
    cdef size_t i
    memmove(seg.data + ring.format.prefix_len, seg.data + seg.start, seg_bytes(seg))
    for i in range(seg.first, seg.first + seg.count):
        seg.ends[i] -= <uint32_t> shift
    seg.start -= shift
    seg.used -= shift


cdef inline void seg_shrink(const Ring* ring, Segment* seg) noexcept nogil:
    """Free the memory that the events do not need, because a sealed segment takes no more events."""
    cdef char* data
    seg_compact(ring, seg)
    data = <char*> PyMem_RawRealloc(seg.data, seg.used + 1)
    if data != NULL:
        seg.data = data
        seg.capacity = seg.used + 1


cdef inline size_t seg_events_within(const Segment* seg, size_t limit) noexcept nogil:
    """How many events from the front take at most `limit` bytes together (a binary search)."""
    cdef size_t low = 0, high = seg.count, middle
    while low < high:
        middle = (low + high + 1) // 2
        if seg.ends[seg.first + middle - 1] - seg.start <= limit:
            low = middle
        else:
            high = middle - 1
    return low


cdef inline size_t seg_enclose(const Format* format, Segment* seg) noexcept nogil:
    """Write the envelope around the events; the length of the body that starts at start - prefix_len."""
    memcpy(seg.data + seg.start - format.prefix_len, format.prefix, format.prefix_len)
    if not format.enclosed:
        return format.prefix_len + seg_bytes(seg) - 1
    seg.data[seg.used - 1] = b"]"
    seg.data[seg.used] = b"}"
    return format.prefix_len + seg_bytes(seg) + 1


cdef inline void seg_stamp(const Format* format, Segment* seg, int64_t milliseconds) noexcept nogil:
    """Write `milliseconds` over the `stm` of each event, in 13 digits."""
    cdef char[STM_DIGITS] digits
    cdef size_t i
    cdef int d
    for d in range(STM_DIGITS - 1, -1, -1):
        digits[d] = <char> (<char> b"0" + milliseconds % 10)
        milliseconds //= 10
    for i in range(seg.first, seg.first + seg.count):
        memcpy(seg.data + seg.ends[i] - format.stm_from_end, digits, STM_DIGITS)
