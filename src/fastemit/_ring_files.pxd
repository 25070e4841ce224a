"""The files of a ring: lent, finished, parked and attached again, and those of earlier processes.

A ring makes no system call. Its owner makes, maps and lends files, and is told which ones are finished.
"""

from libc.stdint cimport int64_t, uint8_t

from fastemit._ring cimport ring_note_peak

from fastemit._segment cimport (
    Format,
    PyMem_RawFree,
    PyMem_RawMalloc,
    QUEUED,
    Ring,
    Segment,
    file_use,
    seg_bytes,
    seg_enter,
    seg_free,
    seg_parked,
)
from fastemit._segment_file cimport SegFile, file_lay_out


cdef enum Verdict:
    SETTLED_EVENT          # must not be sent any more
    DAMAGED_EVENT
    GOOD_EVENT
    UNSURE_EVENT           # its bytes are as they were written; a parser has to say whether they are an event


cdef inline SegFile* file_in(SegFile* file, int64_t number) noexcept nogil:
    while file != NULL and file.number != number:
        file = file.next
    return file


cdef inline bint ring_knows_file(const Ring* ring, int64_t number) noexcept nogil:
    return (file_in(ring.spare_file, number) != NULL or file_in(ring.used_file, number) != NULL
            or file_in(ring.finished_file, number) != NULL)


cdef inline void ring_lend(Ring* ring, SegFile* file) noexcept nogil:
    """Put an empty file at the end of those that are filled next."""
    file.next = NULL
    if ring.spare_file == NULL:
        ring.spare_file = file
    else:
        ring.last_spare_file.next = file
    ring.last_spare_file = file
    ring.spare_files += 1
    ring.mapped_files += 1


cdef inline SegFile* ring_pop_finished(Ring* ring) noexcept nogil:
    """A file that nothing refers to any more, for the caller to free. NULL when there is none."""
    cdef SegFile* file = ring.finished_file
    if file != NULL:
        ring.finished_file = file.next
    return file


cdef inline SegFile* ring_pop_spare(Ring* ring) noexcept nogil:
    """The spare file that was lent first, for the caller to free. NULL when there is none."""
    cdef SegFile* file = ring.spare_file
    if file != NULL:
        ring.spare_file = file.next
        ring.spare_files -= 1
        ring.mapped_files -= 1
        if ring.spare_file == NULL:
            ring.last_spare_file = NULL
    return file


cdef inline void* ring_pop_forgotten(Ring* ring) noexcept nogil:
    """The object that keeps a file of the parent mapped, for the caller to release. NULL when none is left."""
    cdef SegFile* file
    cdef void* owner = NULL
    while owner == NULL and ring.forgotten_file != NULL:
        file = ring.forgotten_file
        ring.forgotten_file = file.next
        owner = file.owner
        file.owner = NULL
        file.refs -= 1
        if file.refs == 0:
            PyMem_RawFree(file)
    return owner


# -- parked files ----------------------------------------------------------------------------------------------------

cdef inline bint seg_may_park(const Ring* ring, const Segment* seg) noexcept nogil:
    """Whether only this queued segment needs the bytes of its file, and does not need them soon."""
    return (seg.mapped and not seg_parked(seg) and seg.exports == 0 and seg.file.refs == 1 and seg != ring.tail)


cdef inline SegFile* ring_park(Ring* ring, size_t keep) noexcept nogil:
    """Forget where a file in the middle of the queue is mapped. Returns the file, or NULL when none is left.

    The files of the first `keep` segments stay mapped, because they are sent next.
    """
    cdef Segment* seg = ring.head
    cdef SegFile* file
    while seg != NULL and keep > 0:
        seg = seg.next
        keep -= 1
    while seg != NULL and not seg_may_park(ring, seg):
        seg = seg.next
    if seg == NULL:
        return NULL
    file = seg.file
    seg.data = NULL
    seg.ends = NULL
    file.memory = NULL
    file.header = NULL
    file.ends = NULL
    file.checks = NULL
    file.data = NULL
    ring.mapped_files -= 1
    return file


cdef inline SegFile* ring_missing(const Ring* ring) noexcept nogil:
    """The parked file that is needed first: that of the oldest queued events. NULL when that file is mapped."""
    cdef const Segment* seg = ring.head
    return seg.file if seg != NULL and seg_parked(seg) else NULL


cdef inline Segment* ring_parked_in(Ring* ring, int64_t number) noexcept nogil:
    """The queued segment whose file is this parked one. NULL when there is none."""
    cdef Segment* seg = ring.head
    while seg != NULL and not (seg_parked(seg) and seg.file.number == number):
        seg = seg.next
    return seg


cdef inline void ring_attach(Ring* ring, Segment* seg, char* memory) noexcept nogil:
    """Say where the file of a parked segment is mapped now."""
    file_lay_out(seg.file, memory)
    seg.file.cold = True
    seg.data = seg.file.data
    seg.ends = seg.file.ends
    ring.mapped_files += 1


cdef inline void ring_forget_parked(Ring* ring, int64_t number, size_t* events, size_t* size) noexcept nogil:
    """Take the events of a parked file out of the queue, and say how many there were."""
    cdef Segment* seg = ring_parked_in(ring, number)
    cdef Segment** link = &ring.head
    cdef Segment* before = NULL
    if seg == NULL:
        return
    while link[0] != seg:
        before = link[0]
        link = &link[0].next
    link[0] = seg.next
    if ring.tail == seg:
        ring.tail = before
    events[0] = seg.count
    size[0] = seg_bytes(seg)
    ring.queued_events -= seg.count
    ring.queued_bytes -= seg_bytes(seg)
    seg_free(ring, seg)


# -- files of earlier processes --------------------------------------------------------------------------------------

cdef inline size_t file_start(const SegFile* file, const Format* format, size_t index) noexcept nogil:
    """Where an event begins, if the end that is recorded for the one before it is right."""
    return format.prefix_len if index == 0 else file.ends[index - 1]


cdef inline size_t text_length(const Format* format, size_t size) noexcept nogil:
    """How many of the `size` bytes of an event come before its tail; `size` when it cannot be an event."""
    cdef size_t least = format.empty_len - format.chop
    if size == least + format.tail_len - 1:
        return least
    return size - format.tail_len if size > least + format.tail_len else size


cdef struct Entered:
    size_t events          # that were queued
    size_t bytes           # that they take in a body
    size_t left            # good events that had no room
    bint no_memory         # some are left because memory was short, not room


cdef inline Segment* ring_recovered_segment(Ring* ring, SegFile* file, size_t index, size_t start) noexcept nogil:
    """Queue an empty segment at this place of a file, behind the events recovered earlier. NULL when out of memory."""
    cdef Segment** link = &ring.head
    cdef Segment* seg = <Segment*> PyMem_RawMalloc(sizeof(Segment))
    if seg == NULL:
        return NULL
    seg_enter(ring, seg, file)
    seg.first = index
    seg.start = start
    seg.used = start
    seg.seq = ring.recovered_seq
    seg.state = QUEUED
    while link[0] != NULL and link[0].seq < seg.seq:
        link = &link[0].next
    seg.next = link[0]
    link[0] = seg
    if seg.next == NULL:
        ring.tail = seg
    return seg


cdef inline Entered ring_recover(Ring* ring, SegFile* file, const uint8_t* verdicts) noexcept nogil:
    """Queue the good events of a file before all of this process's own, as many as there is room for.

    When none is queued, the file still belongs to the caller.
    """
    cdef Entered entered = Entered(0, 0, 0, False)
    cdef Segment* seg = NULL
    cdef size_t i, start, size
    cdef bint full = False
    for i in range(file.count):
        if verdicts[i] != <uint8_t> GOOD_EVENT:
            seg = NULL
            continue
        start = file_start(file, &ring.format, i)
        size = file.ends[i] - start
        full = full or (ring.queued_events + ring.flying_events >= ring.max_events
                        or size > ring.max_bytes - ring.queued_bytes - ring.flying_bytes)
        if full:
            entered.left += 1
            continue
        if seg == NULL or seg_bytes(seg) + size > ring.segment_bytes:
            seg = ring_recovered_segment(ring, file, i, start)
            if seg == NULL:
                full = entered.no_memory = True
                entered.left += 1
                continue
            seg.oversize = size > ring.segment_bytes
            seg.sealed = seg.oversize
        seg.count += 1
        seg.used = file.ends[i]
        ring.recovered_seq += 1
        ring.queued_events += 1
        ring.queued_bytes += size
        entered.events += 1
        entered.bytes += size
    if entered.events > 0:
        file.left = file.left or entered.left > 0
        file_use(ring, file)
        ring.mapped_files += 1
        ring_note_peak(ring)
    return entered
