"""The ring in plain C: segments of ready-made JSON, counted to the byte.

Nothing here touches a Python object, raises, or needs the GIL. `_buffer.pyx` has the Python class, and says which lock
protects a `Ring`.

`_segment.pxd` says what a segment is, and has the structs. With `in_files` events are put into mapped files that were
lent (`_ring_files.pxd`). An envelope covers some bytes before its events and one after them, and other events of the
file may lie there. After a crash only the bytes in the file are left of these. So a segment is sent in place only if it
is all that its file still has to send. Everything else is sent from a copy, which refers to the file, so that its
events are settled there.
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint32_t
from libc.string cimport memcpy

from fastemit._segment cimport (
    FIRST_RECOVERED,
    Format,
    IN_FLIGHT,
    LIMBO,
    ORPHAN,
    OVERFLOW,
    DROP_REASONS,
    PUT_FULL,
    PUT_NO_FILE,
    PUT_NO_MEMORY,
    PUT_OK,
    PUT_TOO_LARGE,
    PutResult,
    PyMem_RawMalloc,
    QUEUED,
    Ring,
    Segment,
    file_refer,
    file_unrefer,
    file_use,
    seg_advance,
    seg_append,
    seg_bytes,
    seg_compact,
    seg_enter,
    seg_events_within,
    seg_file_index,
    seg_free,
    seg_leave_map,
    seg_new,
    seg_parked,
    seg_release,
    seg_reserve_end,
    seg_shrink,
)
from fastemit._segment_file cimport SegFile, file_commit, file_settle, step


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
    """After a burst: keep as many spare segments as the last round needed, so that a quiet round frees the rest."""
    if ring.head == NULL and ring.flying == NULL:
        ring_trim(ring, max(<size_t> 1, ring.peak))
        ring.peak = 0


cdef inline bint ring_full(const Ring* ring) noexcept nogil:
    return (ring.queued_events + ring.flying_events >= ring.max_events
            or ring.queued_bytes + ring.flying_bytes >= ring.max_bytes)


cdef inline size_t event_size(const Format* format, size_t length) noexcept nogil:
    """The bytes of an encoded event of `length` bytes in a body, with its `stm` and separator."""
    return length - format.chop + format.tail_len - (length == format.empty_len)


cdef inline bint seg_is_end_of_file(const Segment* seg) noexcept nogil:
    """Whether the next event of its file would lie behind those of `seg`, and there is a place for its check."""
    return (seg.mapped and not seg_parked(seg) and not seg.file.recovered
            and seg.first + seg.count == seg.file.count and seg.file.count < seg.file.entries)


cdef inline char* ring_place(const Ring* ring, size_t* size) noexcept nogil:
    """The place where the next event will probably lie, so that it can be written there before it is put.

    `size` is the least room that is needed, and becomes the room that there is. NULL if there is no such place.
    """
    cdef const Segment* seg = ring.tail
    cdef const SegFile* file = ring.spare_file
    if (seg != NULL and not seg.sealed and seg.exports == 0 and seg.capacity - seg.used >= size[0]
            and not (ring.in_files and not seg_is_end_of_file(seg))):
        size[0] = seg.capacity - seg.used
        return seg.data + seg.used
    if ring.in_files:
        if file == NULL or file.capacity - ring.format.prefix_len < size[0]:
            return NULL
        size[0] = file.capacity - ring.format.prefix_len
        return file.data + ring.format.prefix_len
    seg = ring.spare
    if seg != NULL and seg.capacity - ring.format.prefix_len >= size[0]:
        size[0] = seg.capacity - ring.format.prefix_len
        return seg.data + ring.format.prefix_len
    return NULL


cdef inline bint ring_has_file(const Ring* ring, size_t event_bytes) noexcept nogil:
    """Whether a spare file has room for an event."""
    cdef const SegFile* file = ring.spare_file
    while file != NULL:
        if ring.format.prefix_len + event_bytes + 1 <= file.capacity:
            return True
        file = file.next
    return False


cdef inline Segment* seg_map(Ring* ring, size_t event_bytes) noexcept nogil:
    """An empty segment in the first spare file with room for an event. Such a file must exist. NULL without memory."""
    cdef Segment* seg = <Segment*> PyMem_RawMalloc(sizeof(Segment))
    cdef SegFile** link = &ring.spare_file
    cdef SegFile* before = NULL
    cdef SegFile* file
    if seg == NULL:
        return NULL
    while ring.format.prefix_len + event_bytes + 1 > link[0].capacity:
        before = link[0]
        link = &link[0].next
    file = link[0]
    link[0] = file.next
    if ring.last_spare_file == file:
        ring.last_spare_file = before
    ring.spare_files -= 1
    if ring.spare_files < ring.spares_wanted or ring.mapped_files > ring.most_mapped:
        ring.wants_service = True
    file_use(ring, file)
    seg_enter(ring, seg, file)
    return seg


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
            or seg.seq + <int64_t> seg.count != ring.next_seq
            or (ring.in_files and not seg_is_end_of_file(seg))):
        if ring.in_files:
            if not ring_has_file(ring, size):
                return PUT_NO_FILE
            seg = seg_map(ring, size)
        else:
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
    if seg.file == NULL:
        seg.ends[seg.first + seg.count] = <uint32_t> (seg.used + size)
    else:
        file_commit(seg.file, seg.used, length - format.chop, seg.used + size, ring.next_seq)
    seg.used += size
    seg.count += 1
    ring.next_seq += 1
    ring.queued_events += 1
    ring.queued_bytes += size
    return PUT_OK


cdef inline bint ring_merge_second(Ring* ring, size_t limit) noexcept nogil:
    """Copy the second queued segment into the first where both are whole neighbours and fit `limit` bytes."""
    cdef Segment* seg = ring.head
    cdef Segment* other = seg.next
    if (other == NULL or seg.sealed or other.sealed or seg.exports > 0 or seg.file != NULL or other.file != NULL
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


cdef inline bint seg_has_neighbours(const Segment* seg) noexcept nogil:
    """Whether an envelope around a mapped segment may destroy events of its file that must still be sent."""
    return seg.mapped and (seg.file.refs > 1 or seg.file.left)


cdef inline Segment* ring_take(Ring* ring, size_t aim, size_t at_least) noexcept nogil:
    """Move the oldest events to those in flight: what fits a request, or `aim` bytes but `at_least` events.

    NULL if nothing is queued. Also if the oldest are parked, and without memory in a ring with files.
    """
    cdef Segment* seg = ring.head
    cdef Segment* part
    cdef size_t events
    if seg == NULL or seg_parked(seg):
        return NULL
    aim = min(aim, ring.segment_bytes)
    while ring_merge_second(ring, aim):
        pass
    if seg_bytes(seg) > aim and seg.count > at_least:
        events = max(seg_events_within(seg, aim), at_least)
        if events < seg.count:
            # The part that leaves is copied, and not the rest that stays, so a backlog taken in small parts is O(n).
            part = seg_new(ring, ring.segment_bytes)
            if part != NULL and seg_append(part, seg, events):
                seg_part_from(part, seg, events)
                ring.queued_events -= events
                ring.queued_bytes -= seg_bytes(part)
                ring_fly(ring, part)
                ring_note_peak(ring)
                return part
            if part != NULL:
                seg_release(ring, part)
            # Without memory all of it is taken, which needs none.
    if seg_has_neighbours(seg):
        if not seg_leave_map(ring, seg):
            return NULL
    elif seg.mapped and seg.file.cold:
        # To copy it costs less than to meet each page with its first `stm`. Without memory it is sent in its file.
        seg_leave_map(ring, seg)
    ring.head = seg.next
    if ring.head == NULL:
        ring.tail = NULL
    ring.queued_events -= seg.count
    ring.queued_bytes -= seg_bytes(seg)
    ring_fly(ring, seg)
    return seg


cdef inline void seg_part_from(Segment* part, Segment* seg, size_t events) noexcept nogil:
    """Send `part`, a copy of the first `events` of `seg`, in place of these."""
    if seg.file != NULL:
        file_refer(part, seg.file, seg_file_index(seg))
    part.sealed = seg.sealed
    step()
    seg_advance(seg, events)


cdef inline Segment* ring_split(Ring* ring, Segment* seg) noexcept nogil:
    """The first half of a segment in flight as a new segment; `seg` keeps the second. NULL without memory."""
    cdef size_t events = seg.count // 2
    cdef Segment* part
    # In its file the envelope of either half would lie on events of the other.
    if seg.mapped and not seg_leave_map(ring, seg):
        return NULL
    part = seg_new(ring, ring.segment_bytes)
    if part == NULL:
        return NULL
    if not seg_append(part, seg, events):
        seg_release(ring, part)
        return NULL
    seg_part_from(part, seg, events)
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
    if seg.sealed and seg.exports == 0 and not seg.oversize and not seg.mapped:
        seg_shrink(ring, seg)
    if to_the_end:
        seg.seq = ring.next_seq
        ring.next_seq += <int64_t> seg.count
    ring_queue(ring, seg)


cdef inline void ring_settle(Ring* ring, Segment* seg) noexcept nogil:
    ring_land(ring, seg)
    if seg.file != NULL:
        file_settle(seg.file, seg_file_index(seg), seg.count)
    seg_release(ring, seg)
    ring_when_empty(ring)


cdef inline bint ring_drop_oldest(Ring* ring) noexcept nogil:
    """Drop the oldest queued event. False when nothing is queued, or the oldest are parked."""
    cdef Segment* seg = ring.head
    if seg == NULL or seg_parked(seg):
        return False
    if seg.file != NULL:
        file_settle(seg.file, seg_file_index(seg), 1)
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
    """The number of the oldest event that is not settled; next_seq if there is none."""
    cdef int64_t oldest = ring.next_seq
    cdef Segment* seg = ring.flying
    if ring.head != NULL:
        oldest = ring.head.seq
    while seg != NULL:
        oldest = min(oldest, seg.seq)
        seg = seg.next
    return oldest


cdef inline void ring_free_queue(Ring* ring) noexcept nogil:
    """At the end of a ring: free its segments. Nothing is in flight any more."""
    cdef Segment* seg
    ring_trim(ring, 0)
    while ring.head != NULL:
        seg = ring.head
        ring.head = seg.next
        seg_free(ring, seg)
    ring.tail = NULL


cdef inline void files_forget(Ring* ring, SegFile** list_) noexcept nogil:
    cdef SegFile* file
    while list_[0] != NULL:
        file = list_[0]
        list_[0] = file.next
        file.forgotten = True
        file.refs += 1
        file.next = ring.forgotten_file
        ring.forgotten_file = file


cdef inline void ring_forget_files(Ring* ring) noexcept nogil:
    """In a forked child: the files are the parent's, and nothing in them is touched."""
    files_forget(ring, &ring.spare_file)
    files_forget(ring, &ring.used_file)
    files_forget(ring, &ring.finished_file)
    ring.last_spare_file = NULL
    ring.spare_files = 0
    ring.mapped_files = 0
    ring.wants_service = False


cdef inline void ring_start_over(Ring* ring) noexcept nogil:
    """In a forked child: nothing is queued or counted. What is in flight belongs to its Batch from now on."""
    cdef Segment* seg
    ring_forget_files(ring)
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
        file_unrefer(ring, seg)
    ring.tail = NULL
    ring_trim(ring, 0)
    ring.next_seq = 0
    ring.recovered_seq = FIRST_RECOVERED
    ring.peak = 0
    ring.queued_events = ring.queued_bytes = ring.flying_events = ring.flying_bytes = 0
    ring.sent_events = ring.sent_bytes = ring.retried_events = 0
    for reason in range(<int> DROP_REASONS):
        ring.dropped[reason] = 0
