"""Batches: the events of a request, which go back to their ring or leave it.

The only lock is `critical_section` on the owner of the ring, an `EventBuffer` ("the ring lock"). `_buffer.pyx` says
what it covers, and why.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from fastemit._due cimport Load, NO_LIMIT, load_due, load_worth
from fastemit._encode cimport events_of_queries, load_events
from fastemit._recovery cimport text_length
from fastemit._ring cimport ring_free_queue, ring_give_back, ring_land, ring_settle, ring_split
from fastemit._ring_check cimport ring_wrong, verify
from fastemit._segment cimport (
    CLOSED,
    Format,
    IN_FLIGHT,
    LIMBO,
    ORPHAN,
    OVERFLOW,
    OVERSIZE,
    REJECTED,
    Ring,
    Segment,
    seg_bytes,
    seg_enclose,
    seg_free,
    seg_leave_map,
    seg_release,
    seg_stamp,
)
from fastemit._segment_file cimport set_steps
from fastemit._system cimport fork_count
from fastemit._wire cimport JSON_DATA, JSON_SCHEMA, JSON_STM, NO_STM_TIME, QUERY_STM

from fastemit._system import refuse_copy


cdef const long* forks = fork_count()

PAYLOAD_DATA_SCHEMA = JSON_SCHEMA.decode("ascii")
# For code that reads a request: the text before its events, and the end of each event in a POST and in a GET, with the
# digits of its `stm` as they are before it is sent.
NO_TIME = NO_STM_TIME
BEFORE_EVENTS = JSON_DATA
END_OF_EVENT = JSON_STM
END_OF_QUERY = QUERY_STM

DROPPED_FOR = {
    "overflow": <int> OVERFLOW,
    "rejected": <int> REJECTED,
    "oversize": <int> OVERSIZE,
    "closed": <int> CLOSED,
}


def die_at_step(long steps):
    """For tests: kill the process after so many more steps of settling events. False if this is no debug build."""
    return set_steps(steps)


def is_due(
    Py_ssize_t queued, Py_ssize_t in_flight, Py_ssize_t queued_bytes, bint pressed,
    Py_ssize_t batch_size, byte_limit, Py_ssize_t capacity,
):
    """`EventBuffer.due` for another queue, which has no bound of bytes.

    Args:
        queued, in_flight: events that may be taken, and events that were taken and are not settled.
        queued_bytes: bytes of the events that may be taken.
        pressed: an event was refused for want of room since the last take.
        batch_size, byte_limit: as for `EventBuffer`.
        capacity: most events queued and in flight together.
    """
    cdef Load load = Load(queued, queued_bytes, in_flight, 0, capacity, NO_LIMIT, pressed)
    return load_due(&load, batch_size, NO_LIMIT if byte_limit is None else byte_limit)


def is_worth_a_request(
    Py_ssize_t queued, Py_ssize_t in_flight, Py_ssize_t queued_bytes, bint pressed,
    Py_ssize_t request_bytes, Py_ssize_t capacity,
):
    """Whether `EventBuffer.wanted` of another queue is true while it lingers, once it is due.

    Args:
        queued, in_flight, queued_bytes, pressed, capacity: as for `is_due`.
        request_bytes: most bytes of events in one request.
    """
    cdef Load load = Load(queued, queued_bytes, in_flight, 0, capacity, NO_LIMIT, pressed)
    return load_worth(&load, request_bytes)


cdef class RingOwner:
    """A ring and the originals of its events: the part of an `EventBuffer` that its batches know."""

    def __reduce__(self):
        refuse_copy(self)

    def __dealloc__(self):
        # No Batch is left, since each holds a reference; so nothing is in flight.
        ring_free_queue(&self.ring)


# no_gc_clear: __dealloc__ gives the events back to `buffer`, which must still be there.
@cython.final
@cython.no_gc_clear
cdef class Batch:
    """The events of one request. The thread that sends owns them until it has settled them.

    A batch is settled once, by `sent`, `dropped`, `give_back` or `yield_place`. `split` leaves two to settle. If one is
    garbage collected unsettled, its events go back, so that an unexpected error loses none.

    Thread safety: one thread at a time, the one that sends, may use a batch. The buffer behind it is shared.
    """

    def __cinit__(self, RingOwner buffer not None):
        self.buffer = buffer
        self.seg = NULL

    def __reduce__(self):
        refuse_copy(self)

    def __dealloc__(self):
        if self.seg != NULL:
            with cython.critical_section(self.buffer):
                self._finish(KEPT, 0)

    cdef Segment* _open(self) except NULL:
        if self.seg == NULL:
            raise ValueError("the batch is settled already")
        return self.seg

    cdef int _settle(self, Fate fate, int reason=0) except -1:
        """Settle the batch, with the originals of its events. If it raises, nothing has changed."""
        cdef Ring* ring = &self.buffer.ring
        cdef Segment* seg
        cdef int64_t seq, next_seq, events = 0
        cdef list numbers = None, fresh = None
        cdef object number
        cdef bint same = False, done = True, viewed = False
        while not same:
            seg = self._open()
            seq, events, next_seq = seg.seq, <int64_t> seg.count, ring.next_seq
            if self.kept is not None and fate != KEPT and fate != RETRIED:
                numbers = list(range(seq, seq + events))
                if fate == YIELDED:
                    fresh = list(range(next_seq, next_seq + events))
            with cython.critical_section(self.buffer):
                # To make the lists may have run any code.
                same = (self.seg == seg and seg.seq == seq and <int64_t> seg.count == events
                        and ring.next_seq == next_seq)
                if same:
                    viewed = seg.exports > 0
                    done = fresh is None or self._enter_anew(numbers, fresh)
                    if done:
                        self._finish(fate, reason)
        if not done:
            raise MemoryError(f"no memory to give a batch of {events} new numbers")
        if not viewed:
            self.mapped = None
        if numbers is not None:
            for number in numbers:
                # What the event was made from may run code when it goes, so this is done last.
                if dict_drop(self.kept, number) < 0:
                    PyErr_Clear()
        return 0

    cdef void _finish(self, Fate fate, int reason) noexcept:
        """Give up the segment, and count. The ring lock is held.

        Only this decides whose a batch is. A batch from before a fork is the parent's, whatever becomes of it.
        """
        cdef Segment* seg = self.seg
        cdef Ring* ring = &self.buffer.ring
        cdef bint ours
        cdef int64_t events = <int64_t> seg.count
        cdef int64_t size = <int64_t> seg_bytes(seg)
        self.seg = NULL
        if self.buffer.forks != forks[0] and seg.state == IN_FLIGHT:
            # In a child that has not started over yet. Nothing may be written into a file of the parent.
            ring_land(ring, seg)
            seg.state = ORPHAN
        ours = seg.state == IN_FLIGHT
        if not ours:
            if seg.exports == 0:
                seg_free(ring, seg)
            else:
                seg.state = LIMBO
        elif fate == SENT:
            ring_settle(ring, seg)
            ring.sent_events += events
            ring.sent_bytes += size
        elif fate == DROPPED:
            ring_settle(ring, seg)
            ring.dropped[reason] += events
        else:
            ring_give_back(ring, seg, fate == YIELDED)
            if fate != KEPT:
                ring.retried_events += events
        verify(ring_wrong(ring))

    cdef bint _enter_anew(self, list numbers, list fresh) noexcept:
        """Also keep the originals of the events under new numbers. False without memory: then nothing has changed.

        The ring lock is held. For a batch from before a fork the copy of the parent's dict changes, which does no harm.
        """
        cdef Py_ssize_t i, undone
        cdef PyObject* original
        for i in range(PyList_GET_SIZE(numbers)):
            original = dict_get(self.kept, <object> list_item(numbers, i))
            if original != NULL and dict_put(self.kept, <object> list_item(fresh, i), <object> original) < 0:
                PyErr_Clear()
                for undone in range(i):
                    dict_drop(self.kept, <object> list_item(fresh, undone))
                return False
        return True

    cdef Segment* _writable(self) except NULL:
        """The segment. If it lies in a file, a forked child gets a copy, because the file is the parent's."""
        cdef Segment* seg = self._open()
        cdef bint done = True
        with cython.critical_section(self.buffer):
            if seg.mapped and (seg.state == ORPHAN or self.buffer.forks != forks[0]):
                done = seg_leave_map(&self.buffer.ring, seg)
        if not done:
            raise MemoryError("no memory to copy a batch out of its file")
        return seg

    # -- what is in it -----------------------------------------------------------------------------------------------

    def __len__(self):
        return self._open().count

    @property
    def nbytes(self):
        """The bytes of the events in the body, as they count against the bounds."""
        return seg_bytes(self._open())

    @property
    def seq(self):
        """The number of the first event; see `EventBuffer.next_seq`."""
        return self._open().seq

    @property
    def query(self):
        """Whether the body is the query string of one event, for GET."""
        return not self.buffer.ring.format.enclosed

    @property
    def ours(self):
        """Whether this process settles it. False if it was taken before a fork: then the parent does."""
        return self._open().state == IN_FLIGHT

    @property
    def oversize(self):
        """Whether it is one event that is larger than a request should be."""
        return self._open().oversize

    @property
    def server_errors(self):
        """How many server errors it got as an answer. The number stays with the events when they are given back."""
        return self._open().server_errors

    @server_errors.setter
    def server_errors(self, int value):
        self._open().server_errors = value

    def stamp(self, int64_t milliseconds):
        """Set the `stm` of every event, in milliseconds since 1970 (0 to 9,999,999,999,999)."""
        cdef Segment* seg = self._writable()
        if not 0 <= milliseconds < 10_000_000_000_000:
            raise ValueError(f"milliseconds must be from 0 to 9999999999999, not {milliseconds}")
        seg_stamp(&self.buffer.ring.format, seg, milliseconds)

    def body(self):
        """The whole request body as a read-only memoryview of the buffer's own memory.

        It stays readable as long as the view lives, whatever becomes of the batch. If the events were kept, its content
        is not defined after the batch is settled.
        """
        return memoryview(self)

    def __getbuffer__(self, Py_buffer* view, int flags):
        cdef Segment* seg = self._writable()
        cdef const Format* format = &self.buffer.ring.format
        cdef size_t length = seg_enclose(format, seg)
        if flags & PyBUF_WRITABLE:
            raise BufferError("the body of a batch is read-only")
        # By hand: PyBuffer_FillInfo would leak the None that Cython has put into view.obj.
        view.buf = seg.data + seg.start - format.prefix_len
        view.obj = self
        view.len = length
        view.readonly = True
        view.itemsize = 1
        view.format = NULL
        if flags & PyBUF_FORMAT:
            view.format = b"B"
        view.ndim = 1
        view.shape = &view.len if flags & PyBUF_ND else NULL
        view.strides = &view.itemsize if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = seg
        seg.exports += 1

    def __releasebuffer__(self, Py_buffer* view):
        cdef Segment* seg = <Segment*> view.internal
        cdef bint last
        with cython.critical_section(self.buffer):
            seg.exports -= 1
            last = seg.exports == 0 and seg.state == LIMBO
            if last:
                seg_release(&self.buffer.ring, seg)
        if last and self.seg == NULL:
            self.mapped = None

    def decode(self):
        """The events as a list of dicts with their `stm`. The values are strings, or with `keep` the original ones."""
        cdef Segment* seg = self._open()
        cdef const char* digits
        cdef list events
        cdef Py_ssize_t at
        if self.kept is not None:
            digits = seg.data + seg.ends[seg.first] - self.buffer.ring.format.stm_from_end
            stm = digits[:13].decode("ascii")
            events = self.originals()
            for at in range(len(events)):
                events[at] = dict(events[at], stm=stm)
            return events
        if not self.buffer.ring.format.enclosed:
            digits = seg.data + seg.ends[seg.first] - self.buffer.ring.format.stm_from_end
            return events_of_queries(self.texts(), digits[:13].decode("ascii"))
        body = memoryview(self)
        try:
            # From the bracket that ends the envelope's start to the one that its end begins with.
            return load_events(body[self.buffer.ring.format.prefix_len - 1:-1])
        finally:
            body.release()

    @property
    def in_files(self):
        """Whether its buffer keeps events in files."""
        return self.buffer.ring.in_files

    def texts(self):
        """The encoded events, without their `stm`."""
        cdef Segment* seg = self._open()
        cdef const Format* format = &self.buffer.ring.format
        cdef size_t i, start = seg.start, end
        cdef list texts = []
        for i in range(seg.first, seg.first + seg.count):
            end = seg.ends[i]
            text = seg.data[start:start + text_length(format, end - start)]
            texts.append(text + b"}" if format.enclosed else text)
            start = end
        return texts

    def originals(self):
        """With `keep`, the objects that the events were made from."""
        cdef Segment* seg = self._open()
        cdef int64_t number, seq = seg.seq, count = <int64_t> seg.count
        cdef list events = []
        for number in range(seq, seq + count):
            events.append(self.kept[number])
        return events

    # -- what becomes of it ------------------------------------------------------------------------------------------

    def split(self):
        """Halve a batch of two or more: return the first half, keep the second. `MemoryError` changes nothing."""
        cdef Batch half = Batch.__new__(Batch, self.buffer)
        # Checked after the allocation, because that may run any code.
        cdef Segment* seg = self._writable()
        if seg.count < 2:
            raise ValueError(f"a batch of {seg.count} cannot be split")
        half.kept = self.kept
        with cython.critical_section(self.buffer):
            half.seg = ring_split(&self.buffer.ring, seg)
            verify(ring_wrong(&self.buffer.ring))
        if half.seg == NULL:
            raise MemoryError("no memory to split a batch")
        return half

    def seal(self):
        """Keep these events in their own request: they are not merged with others when they are given back."""
        self._open().sealed = True

    def sent(self):
        """Settle: the collector has them."""
        self._settle(SENT)

    def dropped(self, str reason not None):
        """Settle: they are dropped. `reason` is "rejected", "oversize" or "overflow"."""
        self._settle(DROPPED, DROPPED_FOR[reason])

    def give_back(self, bint retried=True):
        """Settle: they go back to their place in the queue. They count as retried if `retried` is true."""
        self._settle(RETRIED if retried else KEPT)

    def yield_place(self):
        """Settle: they go to the end of the queue, with new numbers."""
        self._settle(YIELDED)
