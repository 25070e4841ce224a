"""The ring in plain C: segments of ready-made JSON, counted to the byte.

Nothing here touches a Python object, raises, or needs the GIL. `_buffer.pyx` is the Python face;
it says which lock protects a `Ring`.

A segment holds one request body in the making:

    data: [.. envelope ..][event,][event,][event,]            ]
           ^start - prefix ^start                ^used        ^capacity

Each event ends with its own `stm` and a separator, so the body of a POST is one contiguous run of memory: the
envelope goes before `start`, and the last comma becomes `]}`. For GET the events are query strings without an
envelope, and each is sent alone. What differs between the two is in `Format`.
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint32_t
from libc.string cimport memcpy, memmove


cdef extern from "Python.h" nogil:
    # Raw domain: needs no GIL, and tracemalloc still sees it.
    void* PyMem_RawMalloc(size_t size)
    void* PyMem_RawRealloc(void* pointer, size_t size)
    void PyMem_RawFree(void* pointer)


cdef extern from * nogil:
    """
    #ifdef FASTEMIT_ASSERT
    #include <stdio.h>
    #include <stdlib.h>
    #define FASTEMIT_VERIFY(wrong) \
        do { int at_ = (wrong); \
             if (at_) { fprintf(stderr, "fastemit: ring invariant %d broken\\n", at_); abort(); } } while (0)
    #else
    #define FASTEMIT_VERIFY(wrong) ((void)0)
    #endif
    """
    void verify "FASTEMIT_VERIFY"(int wrong)


cdef enum:
    STM_DIGITS = 13
    ENDS_AT_FIRST = 64

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
    PUT_NO_MEMORY          # the allocator said no: nothing was changed


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
    Segment* spare         # empty ones, the last used first, since its pages are in memory
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


# -- segments --------------------------------------------------------------------------------------------------------

cdef inline size_t seg_bytes(const Segment* seg) noexcept nogil:
    return seg.used - seg.start


cdef inline void seg_free(Ring* ring, Segment* seg) noexcept nogil:
    PyMem_RawFree(seg.data)
    PyMem_RawFree(seg.ends)
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


cdef inline Segment* seg_new(Ring* ring, size_t event_bytes) noexcept nogil:
    """An empty segment with room for `event_bytes`: a spare one, or a new one. NULL when out of memory."""
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
    # A page that nothing was written to takes no memory, so a whole segment costs a quiet emitter a page or two.
    seg.data = <char*> PyMem_RawMalloc(capacity)
    seg.ends = <uint32_t*> PyMem_RawMalloc(ENDS_AT_FIRST * sizeof(uint32_t))
    ring.segment_count += 1
    if seg.data == NULL or seg.ends == NULL:
        seg_free(ring, seg)
        return NULL
    seg.capacity = capacity
    seg.ends_capacity = ENDS_AT_FIRST
    seg.exports = 0
    seg.state = SPARE
    seg_clear(ring, seg)
    return seg


cdef inline void seg_release(Ring* ring, Segment* seg) noexcept nogil:
    """Give back the memory of a segment that is in no list: to the spare ones, or to the system."""
    if seg.exports > 0:
        seg.state = LIMBO        # the last view to go releases it
        return
    if seg.capacity != ring.format.prefix_len + ring.segment_bytes + 1:
        seg_free(ring, seg)      # made for one large event
        return
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
    # Moved only where at least half is dead: then as many events have left as are moved, so a move costs each of them
    # one step. With fewer dead ones a full buffer that drops its oldest event for each new one would move all of them
    # each time: 112 us an event at 1,048,576 of them.
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
    """Keep no more memory than the events take: a sealed segment takes no more of them."""
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


# -- the ring --------------------------------------------------------------------------------------------------------

cdef inline void ring_note_peak(Ring* ring) noexcept nogil:
    ring.peak = max(ring.peak, ring.segment_count - ring.spare_count)


cdef inline void ring_trim(Ring* ring, size_t keep) noexcept nogil:
    cdef Segment* seg
    while ring.spare_count > keep:
        seg = ring.spare
        ring.spare = seg.next
        ring.spare_count -= 1
        seg_free(ring, seg)


cdef inline void ring_when_empty(Ring* ring) noexcept nogil:
    """After a burst: keep as many spare segments as the last round needed, so a quiet round gives the rest back."""
    if ring.head == NULL and ring.flying == NULL:
        ring_trim(ring, max(<size_t> 1, ring.peak))
        ring.peak = 0


cdef inline bint ring_full(const Ring* ring) noexcept nogil:
    return (ring.queued_events + ring.flying_events >= ring.max_events
            or ring.queued_bytes + ring.flying_bytes >= ring.max_bytes)


cdef inline size_t event_size(const Format* format, size_t length) noexcept nogil:
    """Bytes that an encoded event of `length` bytes takes in a body: with its `stm` and separator."""
    return length - format.chop + format.tail_len - (length == format.empty_len)


cdef inline char* ring_place(const Ring* ring, size_t* size) noexcept nogil:
    """Where the next event will lie in all likelihood, so that it can be written there before it is put.

    `size` is the least that there should be, and becomes what there is. NULL when there is no such place.
    """
    cdef const Segment* seg = ring.tail
    if seg != NULL and not seg.sealed and seg.exports == 0 and seg.capacity - seg.used >= size[0]:
        size[0] = seg.capacity - seg.used
        return seg.data + seg.used
    seg = ring.spare
    if seg != NULL and seg.capacity - ring.format.prefix_len >= size[0]:
        size[0] = seg.capacity - ring.format.prefix_len
        return seg.data + ring.format.prefix_len
    return NULL


cdef inline PutResult ring_put(Ring* ring, const char* event, size_t length) noexcept nogil:
    """Append the encoded event of `length` bytes (at least empty_len) as the newest."""
    cdef const Format* format = &ring.format
    cdef size_t size
    cdef bint empty = length == format.empty_len
    cdef Segment* seg = ring.tail
    cdef char* at
    if length > UINT32_MAX - 4096:      # offsets in a segment are 32 bits wide
        return PUT_TOO_LARGE
    size = event_size(format, length)
    if size > ring.max_bytes:
        return PUT_TOO_LARGE
    if (ring.queued_events + ring.flying_events + 1 > ring.max_events
            or ring.queued_bytes + ring.flying_bytes > ring.max_bytes - size):
        return PUT_FULL
    if (seg == NULL or seg.sealed or seg.exports > 0 or seg.used + size + 1 > seg.capacity
            or seg_bytes(seg) + size > ring.segment_bytes
            or seg.seq + <int64_t> seg.count != ring.next_seq):
        seg = seg_new(ring, size)
        if seg == NULL:
            return PUT_NO_MEMORY
        seg.seq = ring.next_seq
        seg.oversize = size > ring.segment_bytes
        seg.sealed = seg.oversize
        seg.state = QUEUED
        if ring.tail == NULL:
            ring.head = seg
        else:
            ring.tail.next = seg
        ring.tail = seg
        ring_note_peak(ring)
    elif not seg_reserve_end(seg, 1):
        return PUT_NO_MEMORY
    at = seg.data + seg.used
    if at != event:
        memcpy(at, event, length - format.chop)
    memcpy(at + length - format.chop, format.tail + empty, format.tail_len - empty)
    seg.used += size
    seg.ends[seg.first + seg.count] = <uint32_t> seg.used
    seg.count += 1
    ring.next_seq += 1
    ring.queued_events += 1
    ring.queued_bytes += size
    return PUT_OK


cdef inline bint ring_merge_second(Ring* ring, size_t limit) noexcept nogil:
    """Copy the second queued segment into the first where both are whole neighbours and fit `limit` bytes."""
    cdef Segment* seg = ring.head
    cdef Segment* other = seg.next
    if (other == NULL or seg.sealed or other.sealed or seg.exports > 0
            or seg.seq + <int64_t> seg.count != other.seq
            or seg_bytes(seg) + seg_bytes(other) > limit
            or ring.format.prefix_len + seg_bytes(seg) + seg_bytes(other) + 1 > seg.capacity):
        return False
    if seg.used + seg_bytes(other) + 1 > seg.capacity:
        seg_compact(ring, seg)
    if not seg_append(seg, other, other.count):
        return False
    seg.next = other.next
    if ring.tail == other:
        ring.tail = seg
    seg_release(ring, other)
    return True


cdef inline void ring_fly(Ring* ring, Segment* seg) noexcept nogil:
    seg.state = IN_FLIGHT
    seg.next = ring.flying
    ring.flying = seg
    ring.flying_events += seg.count
    ring.flying_bytes += seg_bytes(seg)


cdef inline void ring_land(Ring* ring, Segment* seg) noexcept nogil:
    """Take `seg` out of the list of those in flight."""
    cdef Segment** link = &ring.flying
    while link[0] != seg:
        link = &link[0].next
    link[0] = seg.next
    seg.next = NULL
    ring.flying_events -= seg.count
    ring.flying_bytes -= seg_bytes(seg)


cdef inline Segment* ring_take(Ring* ring, size_t aim, size_t at_least) noexcept nogil:
    """Move the oldest events to those in flight: what fits a request, or `aim` bytes but `at_least` events."""
    cdef Segment* seg = ring.head
    cdef Segment* part
    cdef size_t events
    if seg == NULL:
        return NULL
    aim = min(aim, ring.segment_bytes)
    while ring_merge_second(ring, aim):
        pass
    if seg_bytes(seg) > aim and seg.count > at_least:
        events = max(seg_events_within(seg, aim), at_least)
        if events < seg.count:
            # The part that leaves is copied, not the rest that stays: a backlog taken in small bites stays O(n).
            part = seg_new(ring, ring.segment_bytes)
            if part != NULL and seg_append(part, seg, events):
                part.sealed = seg.sealed
                seg_advance(seg, events)
                ring.queued_events -= events
                ring.queued_bytes -= seg_bytes(part)
                ring_fly(ring, part)
                ring_note_peak(ring)
                return part
            if part != NULL:
                seg_release(ring, part)
            # Out of memory: all of it then, which needs none.
    ring.head = seg.next
    if ring.head == NULL:
        ring.tail = NULL
    ring.queued_events -= seg.count
    ring.queued_bytes -= seg_bytes(seg)
    ring_fly(ring, seg)
    return seg


cdef inline Segment* ring_split(Ring* ring, Segment* seg) noexcept nogil:
    """The first half of a segment in flight, as one of its own; `seg` keeps the second. NULL when out of memory."""
    cdef size_t events = seg.count // 2
    cdef Segment* part = seg_new(ring, ring.segment_bytes)
    if part == NULL:
        return NULL
    if not seg_append(part, seg, events):
        seg_release(ring, part)
        return NULL
    part.sealed = seg.sealed
    seg_advance(seg, events)
    if seg.state == ORPHAN:
        part.state = ORPHAN
        return part
    ring.flying_events -= events
    ring.flying_bytes -= seg_bytes(part)
    ring_fly(ring, part)
    ring_note_peak(ring)
    return part


cdef inline void ring_queue(Ring* ring, Segment* seg) noexcept nogil:
    """Put `seg`, which is in no list, where its number belongs among those queued."""
    cdef Segment** link = &ring.head
    while link[0] != NULL and link[0].seq < seg.seq:
        link = &link[0].next
    seg.next = link[0]
    link[0] = seg
    if seg.next == NULL:
        ring.tail = seg
    # The envelope's end goes: events may follow again.
    seg.data[seg.used - 1] = ring.format.tail[ring.format.tail_len - 1]
    seg.state = QUEUED
    ring.queued_events += seg.count
    ring.queued_bytes += seg_bytes(seg)


cdef inline void ring_give_back(Ring* ring, Segment* seg, bint to_the_end) noexcept nogil:
    ring_land(ring, seg)
    if seg.sealed and seg.exports == 0 and not seg.oversize:
        seg_shrink(ring, seg)
    if to_the_end:
        seg.seq = ring.next_seq
        ring.next_seq += <int64_t> seg.count
    ring_queue(ring, seg)


cdef inline void ring_settle(Ring* ring, Segment* seg) noexcept nogil:
    ring_land(ring, seg)
    seg_release(ring, seg)
    ring_when_empty(ring)


cdef inline bint ring_drop_oldest(Ring* ring) noexcept nogil:
    """Drop the oldest queued event. False when nothing is queued."""
    cdef Segment* seg = ring.head
    if seg == NULL:
        return False
    ring.queued_events -= 1
    ring.queued_bytes -= seg.ends[seg.first] - seg.start
    seg_advance(seg, 1)
    if seg.count == 0:
        ring.head = seg.next
        if ring.head == NULL:
            ring.tail = NULL
        seg.next = NULL
        seg_release(ring, seg)
    ring.dropped[<int> OVERFLOW] += 1
    return True


cdef inline int64_t ring_oldest(const Ring* ring) noexcept nogil:
    """Number of the oldest event not yet settled; next_seq when there is none."""
    cdef int64_t oldest = ring.next_seq
    cdef Segment* seg = ring.flying
    if ring.head != NULL:
        oldest = ring.head.seq
    while seg != NULL:
        oldest = min(oldest, seg.seq)
        seg = seg.next
    return oldest


cdef inline void ring_start_over(Ring* ring) noexcept nogil:
    """In a forked child: nothing queued, nothing counted; what flies belongs to its Batch from here on."""
    cdef Segment* seg
    while ring.head != NULL:
        seg = ring.head
        ring.head = seg.next
        if seg.exports == 0:
            seg_free(ring, seg)
        else:
            seg.state = LIMBO
    while ring.flying != NULL:
        seg = ring.flying
        ring.flying = seg.next
        seg.state = ORPHAN
    ring.tail = NULL
    ring_trim(ring, 0)
    ring.next_seq = 0
    ring.peak = 0
    ring.queued_events = ring.queued_bytes = ring.flying_events = ring.flying_bytes = 0
    ring.sent_events = ring.sent_bytes = ring.retried_events = 0
    for reason in range(<int> DROP_REASONS):
        ring.dropped[reason] = 0


cdef inline int ring_wrong(const Ring* ring) noexcept nogil:
    """0 when every invariant above holds, else the number of the first that does not. Slow: for tests and debug."""
    cdef size_t events = 0, size = 0, spare = 0, i
    cdef int64_t seq = -1
    cdef Segment* seg = ring.head
    cdef Segment* last = NULL
    while seg != NULL:
        if seg.state != QUEUED or seg.count == 0:
            return 1
        if seg.seq <= seq:
            return 2
        if seg.start < ring.format.prefix_len or seg.used + 1 > seg.capacity:
            return 3
        if seg.first + seg.count > seg.ends_capacity:
            return 3
        if seg.ends[seg.first + seg.count - 1] != seg.used or (
            seg.data[seg.used - 1] != ring.format.tail[ring.format.tail_len - 1]
        ):
            return 4
        for i in range(seg.first + 1, seg.first + seg.count):
            if seg.ends[i] <= seg.ends[i - 1]:
                return 5
        if not seg.oversize and seg_bytes(seg) > ring.segment_bytes:
            return 6
        seq = seg.seq + <int64_t> seg.count - 1
        events += seg.count
        size += seg_bytes(seg)
        last = seg
        seg = seg.next
    if last != ring.tail or seq >= ring.next_seq:
        return 7
    if events != ring.queued_events or size != ring.queued_bytes:
        return 8
    events = size = 0
    seg = ring.flying
    while seg != NULL:
        if seg.state != IN_FLIGHT or seg.count == 0:
            return 9
        events += seg.count
        size += seg_bytes(seg)
        seg = seg.next
    if events != ring.flying_events or size != ring.flying_bytes:
        return 10
    if (ring.queued_events + ring.flying_events > ring.max_events
            or ring.queued_bytes + ring.flying_bytes > ring.max_bytes):
        return 11
    seg = ring.spare
    while seg != NULL:
        if seg.state != SPARE or seg.exports != 0:
            return 12
        spare += 1
        seg = seg.next
    if spare != ring.spare_count or spare > ring.segment_count:
        return 13
    return 0
