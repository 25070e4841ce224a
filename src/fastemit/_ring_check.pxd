"""Checks the invariants of a ring. This is slow, so it is for tests and debug builds only."""

from libc.stdint cimport INT64_MIN, int64_t

from fastemit._ring_files cimport file_start, text_length
from fastemit._segment cimport IN_FLIGHT, QUEUED, Ring, SPARE, Segment, seg_bytes, seg_parked
from fastemit._segment_file cimport SegFile, file_check


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


cdef inline int seg_wrong(const Ring* ring, const Segment* seg) noexcept nogil:
    """Like `ring_wrong`, for what a queued segment records about its own bytes and its file."""
    cdef const SegFile* file = seg.file
    cdef size_t i, index = seg.file_base + seg.first
    if ring.in_files != (file != NULL):
        return 14
    if ring.left_to_others:
        return 0
    if seg_parked(seg):
        return 0 if seg.mapped and file.memory == NULL and file.refs == 1 else 15
    if seg.first + seg.count > seg.ends_capacity:
        return 3
    if seg.ends[seg.first + seg.count - 1] != seg.used or (
        seg.data[seg.used - 1] != ring.format.tail[ring.format.tail_len - 1]
    ):
        return 4
    for i in range(seg.first + 1, seg.first + seg.count):
        if seg.ends[i] <= seg.ends[i - 1]:
            return 5
    if file == NULL:
        return 0
    if file.memory == NULL or file.count != file.header.count or index + seg.count > file.count:
        return 16
    if seg.mapped and (seg.data != file.data or seg.ends != file.ends or seg.file_base != 0):
        return 16
    for i in range(seg.count):
        # The bytes of each queued event are in the file. Otherwise a crash would lose it.
        if file.checks[index + i] != file_check(file, file_start(file, &ring.format, index + i), text_length(
            &ring.format, file.ends[index + i] - file_start(file, &ring.format, index + i)
        )):
            return 17
    return 0


cdef inline int files_wrong(const Ring* ring) noexcept nogil:
    """Like `ring_wrong`, for the lists of files."""
    cdef const SegFile* file = ring.spare_file
    cdef const SegFile* last = NULL
    cdef size_t spare = 0, mapped = 0
    while file != NULL:
        if file.refs != 0 or file.memory == NULL or file.count != 0:
            return 18
        spare += 1
        last = file
        file = file.next
    if spare != ring.spare_files or last != ring.last_spare_file:
        return 19
    file = ring.used_file
    last = NULL
    while file != NULL:
        if file.refs == 0 or file.previous != last:
            return 20
        mapped += file.memory != NULL
        last = file
        file = file.next
    if spare + mapped != ring.mapped_files:
        return 21
    file = ring.finished_file
    while file != NULL:
        if file.refs != 0:
            return 22
        file = file.next
    return 0


cdef inline int ring_wrong(const Ring* ring) noexcept nogil:
    """0 when every invariant holds, otherwise the number of the first that does not. Slow: for tests and debugging."""
    cdef size_t events = 0, size = 0, spare = 0
    cdef int wrong
    cdef int64_t seq = INT64_MIN
    cdef Segment* seg = ring.head
    cdef Segment* last = NULL
    while seg != NULL:
        if seg.state != QUEUED or seg.count == 0:
            return 1
        if seg.seq <= seq:
            return 2
        if seg.start < ring.format.prefix_len or seg.used + 1 > seg.capacity:
            return 3
        wrong = seg_wrong(ring, seg)
        if wrong != 0:
            return wrong
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
    return files_wrong(ring)
