"""The native event buffer: `EventBuffer` takes events in, and hands them out as batches (`_batch.pyx`).

It knows JSON, bytes, counts and memory, but nothing of HTTP, threads or policy. `_ring.pxd` is the C below it.

Thread safety: every method may be called from any thread at any time. The one lock is `critical_section(self)`
on the `EventBuffer` ("the ring lock"): free-threaded builds take a real lock there; elsewhere it is the GIL, which
costs nothing and which no other thread and no signal handler can take away between two lines of C. It covers copies
and counters only: `str()`, orjson and every allocation of a Python object, which may run the garbage collector and
with it any code at all, come before it or after it. Nothing is raised under it either, and no last reference dropped.
`tests/project/test_ring_lock.py` reads the C for that.

No list is made by a comprehension, because without memory to grow it the C of Cython 3.3 drops the item twice.

A method that calls other code (`str()`, an inbox) holds its own references to what it needs after that, because this
code may call `__init__` or `after_fork`, which replace attributes.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t
from libc.string cimport memcpy

from fastemit._batch cimport Batch, PyErr_Clear, dict_drop, dict_put, list_item
from fastemit._due cimport Load, NO_LIMIT, load_due, load_worth
from fastemit._encode cimport (
    KeptEvent,
    captured_query,
    dump,
    encode_payload,
    encode_query,
    encoded_of,
    leave_out_stm,
    events_of_queries,
    load_events,
    queries_in,
    strings_of,
)
from fastemit._filed_ring cimport FiledRing
from fastemit._flat cimport FLAT_MARGIN, FLAT_NO_ROOM, flat_event
from fastemit._line cimport line_event
from fastemit._ring cimport (
    event_size,
    ring_drop_oldest,
    ring_oldest,
    ring_place,
    ring_put,
    ring_start_over,
    ring_take,
    ring_trim,
)
from fastemit._ring_check cimport ring_wrong, verify
from fastemit._segment cimport PUT_FULL, PUT_NO_FILE, PUT_NO_MEMORY, PUT_OK, PutResult, Ring, Segment
from fastemit._segment cimport seg_bytes, seg_parked
from fastemit._segment_file cimport set_steps
from fastemit._system cimport fork_count
from fastemit._text cimport fill_forms
from fastemit._wire cimport json_format, query_format

from fastemit._batch import DROPPED_FOR
from fastemit._system import refuse_copy


cdef extern from "Python.h":
    void* PyMem_RawMalloc(size_t size) nogil
    void PyMem_RawFree(void* pointer) nogil
    PyObject* Py_None
    void list_set "PyList_SET_ITEM" (list items, Py_ssize_t at, PyObject* item) noexcept


def die_at_step(long steps):
    """For tests: kill the process after so many more steps of filling files. False if this is no debug build."""
    return set_steps(steps)


fill_forms()

# Where the number of forks stands, so that an event costs no call.
cdef const long* forks = fork_count()

# When `append` asks for a call; see `EventBuffer.notify`. The path of every event uses the C names, because to read a
# module's variable is a dictionary lookup.
cdef enum Notify:
    C_NOTIFY_NEVER = 0
    C_NOTIFY_WHEN_DUE = 1
    C_NOTIFY_ALWAYS = 2

NOTIFY_NEVER = <int> C_NOTIFY_NEVER
NOTIFY_WHEN_DUE = <int> C_NOTIFY_WHEN_DUE
NOTIFY_ALWAYS = <int> C_NOTIFY_ALWAYS

# Longer events are written by orjson. A page that nothing was written to takes no memory.
cdef enum:
    SCRATCH_BYTES = 1024 * 1024
    MOST_TRIES = 8                 # how often an event that finds no file has one made

cdef object STORED = 0, CALL = 1

MIN_REQUEST_BYTES = 1024
MAX_REQUEST_BYTES = 1 << 30


@cython.final
cdef class EventBuffer(FiledRing):
    """Events as ready-made JSON, within bounds of number and bytes.

    Args:
        capacity: most events queued and in flight together.
        max_bytes: most bytes that these take in request bodies, `stm` and comma included.
        max_request_bytes: most bytes of one request body, envelope included (1 KiB to 1 GiB).
        batch_size: a sender is due once so many events are queued.
        byte_limit: a sender is due once so many bytes are queued; None for no such limit.
        query: events are query strings for GET, and not JSON objects for POST; each is taken by itself.
        keep: keep the dict that each event was made from, and hand it out by `Batch.decode`. A refused event is a
            `KeptEvent` then where it is `bytes` otherwise.
        files: events are put into files that `lend` was given, and nowhere else; not with `keep`.

    `Emitter` has checked the arguments. Only values that would break the ring raise a `ValueError` here.
    Thread safety: see the module.
    """

    cdef char* scratch             # SCRATCH_BYTES, where `flat_event` writes; the ring lock is held meanwhile
    cdef object __weakref__
    # Inboxes of the senders that sleep, in the order in which they lay down, and None in the slots behind them.
    # `append` takes one out and puts a note into it: once for each sleep. There is a slot for each inbox that sleeps or
    # has been taken out and is being told, so that one that cannot be told is put back without an allocation.
    cdef list sleepers
    cdef Py_ssize_t sleeping       # inboxes in `sleepers`
    cdef Py_ssize_t telling        # inboxes that were taken out, and whose `put` has not returned
    cdef readonly object left_in   # where events stay that a close leaves behind: nowhere, with this buffer
    cdef readonly double recheck_at  # when to look again although nothing is queued: never, with this buffer
    cdef Py_ssize_t _batch_size
    cdef Py_ssize_t _byte_limit
    cdef bint _closed
    cdef bint _pressed             # an event was refused for want of room since the last take
    cdef readonly Py_ssize_t max_request_bytes
    cdef readonly int64_t signals  # calls of `signal`: `arm` compares it to see that none was missed
    cdef public int notify         # when `append` returns 1: NOTIFY_NEVER, NOTIFY_WHEN_DUE, NOTIFY_ALWAYS
    cdef public bint hold          # True while nobody should be woken by an event: a backoff runs
    cdef public bint linger        # True for a while after a request: a sender waits for more than `due`, see `wanted`
    cdef public int starving       # threads that have waited long for room: only `urgent` events are taken

    def __cinit__(self, Py_ssize_t capacity, Py_ssize_t max_bytes, Py_ssize_t max_request_bytes,
                  Py_ssize_t batch_size, object byte_limit=None, *, bint query=False, bint keep=False,
                  bint files=False):
        self.scratch = <char*> PyMem_RawMalloc(SCRATCH_BYTES)
        if self.scratch == NULL:
            raise MemoryError("no memory for an event buffer")
        if capacity < 1 or max_bytes < 1 or batch_size < 1:
            raise ValueError(f"capacity, max_bytes and batch_size must be at least 1, not "
                             f"{capacity}, {max_bytes}, {batch_size}")
        if not MIN_REQUEST_BYTES <= max_request_bytes <= MAX_REQUEST_BYTES:
            raise ValueError(f"max_request_bytes must be from {MIN_REQUEST_BYTES} to {MAX_REQUEST_BYTES}, "
                             f"not {max_request_bytes}")
        self.ring.max_events = capacity
        self.ring.max_bytes = max_bytes
        self.ring.format = query_format() if query else json_format()
        self.ring.segment_bytes = min(<size_t> max_request_bytes - self.ring.format.prefix_len - 1, <size_t> max_bytes)
        if files and keep:
            raise ValueError("files and keep exclude each other: what an event was made from would stay in memory")
        self.ring.in_files = files
        self.query = query
        self.recheck_at = float("inf")
        self.left_in = None
        self.originals = {} if keep else None
        self.max_request_bytes = max_request_bytes
        self.sleepers = []
        self._batch_size = batch_size
        self.byte_limit = byte_limit
        self.forks = forks[0]
        self.notify = C_NOTIFY_ALWAYS

    def __dealloc__(self):
        PyMem_RawFree(self.scratch)

    # -- in ----------------------------------------------------------------------------------------------------------

    @staticmethod
    def encode(payload):
        """The JSON object of one event as bytes, each value as `str(value)`, without its `stm`.

        Raises `TypeError` for what is no mapping and for keys that JSON cannot have. Raises whatever the `__str__` of a
        value raises.
        """
        return encode_payload(payload)

    @staticmethod
    def encode_query(payload):
        """The query string of one event, with its own `stm` if it has one."""
        return encode_query(captured_query(payload)).decode("ascii")

    def prepare(self, payload):
        """Encode one event for this buffer: to bytes, or with `keep` to a `KeptEvent`. Raises as `encode`."""
        cdef dict original
        cdef bytes encoded
        if self.query:
            original = captured_query(payload)
            leave_out_stm(original)
            encoded = encode_query(original)
            return encoded if self.originals is None else KeptEvent(encoded, original)
        if self.originals is None:
            return encode_payload(payload)
        original = strings_of(payload)
        encoded = self._flat(original)
        return KeptEvent(dump(original) if encoded is None else encoded, original)

    cdef bytes _flat(self, event, bint line=False):
        """`event`, or with `line` a line of JSON, as an event by the native writer; None if it is too much for that."""
        cdef size_t length
        cdef bytes encoded = None
        while True:
            with cython.critical_section(self):
                length = self._write(event, line)
                if length > FLAT_NO_ROOM and encoded is not None and <size_t> PyBytes_GET_SIZE(encoded) == length:
                    memcpy(PyBytes_AS_STRING(encoded), self.scratch, length)
                    return encoded
            if length <= FLAT_NO_ROOM:
                return None
            # Outside the lock. Another thread may change the event meanwhile, so it is written again.
            encoded = PyBytes_FromStringAndSize(NULL, length)

    cdef inline size_t _write(self, event, bint line) noexcept:
        """Write `event` into `scratch`, where the next one is written too; the ring lock is held."""
        if line:
            return line_event(
                <const uint8_t*> PyBytes_AS_STRING(event), PyBytes_GET_SIZE(event), self.scratch, SCRATCH_BYTES
            )
        return flat_event(<PyObject*> event, self.scratch, SCRATCH_BYTES)

    def stage(self, event not None):
        """Queue an event that a store handed out; with `keep`, `Batch.originals` gives that very object.

        Raises as `encode`; then nothing has changed.
        """
        cdef KeptEvent kept
        cdef size_t length = 0
        cdef int64_t seq
        cdef bint placed = self.originals is None or self.query
        cdef PutResult result = PUT_NO_MEMORY
        cdef object number
        while not placed:
            seq = self.ring.next_seq
            number = seq
            with cython.critical_section(self):
                placed = self.ring.next_seq == seq
                if placed:
                    length = self._write(event, False)
                    if length > FLAT_NO_ROOM:
                        result = self._store_kept(self.scratch, length, True, number, event)
        if result != PUT_OK:
            kept = self.prepare(event)
            if self._put(KeptEvent(kept.encoded, event), True) not in (STORED, CALL):
                raise MemoryError("no room for an event that a store handed out")

    def append(self, payload):
        """Encode one event and queue it.

        Returns 0 when it is queued and there is nothing to do, 1 when it is queued and `notify` asks for a call, or
        the encoded event when it is not queued: closed, full, too large, or in a forked child (see `forked`).
        Raises what `encode` raises, and `MemoryError`; then nothing has changed.
        """
        return self._take_in(payload)

    def append_encoded(self, event not None, bint urgent=False):
        """Queue what `encode`, or with `keep` `prepare`, returned. Returns and raises as `append` does.

        With `urgent`, `starving` is ignored. With `keep`, bytes are a `TypeError`, because their original is not known.
        """
        if <size_t> PyBytes_GET_SIZE(encoded_of(event)) < self.ring.format.empty_len:
            raise ValueError(f"event must be an encoded JSON object, not {event!r}")
        return self._put(event, urgent)

    def append_line(self, bytes line not None):
        """Queue an event that is a line of JSON. Returns as `append` does, or None for a line that is not simple.

        After None nothing has changed. The caller must parse the line, and give it in as a payload or refuse it. A
        number is sent as its own text, true and false as they are written, and the name of a null is left out.
        """
        if self.originals is not None or self.query:
            return None
        return self._take_native(line, True)

    cdef object _take_in(self, payload):
        cdef object answer
        if self.originals is not None or self.query:
            return self._put(self.prepare(payload), False)
        answer = self._take_native(payload, False)
        return self._put(encode_payload(payload), False) if answer is None else answer

    cdef inline object _take_native(self, event, bint line):
        """Queue what the native writer can write; None for anything else."""
        cdef char* room = NULL
        cdef size_t size = FLAT_MARGIN
        cdef size_t length = 0
        cdef PyObject* woken = NULL
        cdef PutResult result = PUT_FULL
        if self._closed or self.forks != forks[0]:
            return self._flat(event, line)
        with cython.critical_section(self):
            if not line:
                room = ring_place(&self.ring, &size)
                if room != NULL:
                    length = flat_event(<PyObject*> event, room, size)
            if room == NULL or length == FLAT_NO_ROOM:
                room = self.scratch
                length = self._write(event, line)
            if length > FLAT_NO_ROOM:
                result = self._store(room, length, False)
                woken = self._sleeper()
        if woken != NULL:
            self._wake(woken)
        if result == PUT_OK:
            return self._stored()
        if length <= FLAT_NO_ROOM:
            return None
        event = self._flat(event, line)
        if event is None or result == PUT_NO_FILE:
            return event if event is None else self._put(event, False)
        return self._refused(result, event)

    cdef object _put(self, event, bint urgent):
        cdef bytes encoded = encoded_of(event)
        cdef object original = None, number = None
        cdef bint keep = self.originals is not None
        cdef bint placed = False
        cdef int tries = 0
        cdef int64_t seq = 0
        cdef PyObject* woken = NULL
        cdef PutResult result = PUT_FULL
        if keep:
            if type(event) is not KeptEvent:
                raise TypeError("event must be the KeptEvent that prepare() returned, because this buffer keeps the "
                                f"originals of its events, not {type(event).__name__}")
            original = (<KeptEvent> event).original
        if self._closed or self.forks != forks[0]:
            return event
        # A file that was lent may be taken by another thread first, so this is tried again, but not for ever.
        while not placed or (result == PUT_NO_FILE and tries < MOST_TRIES and self._more_room(self._size_of(event))):
            tries += placed
            if keep:
                seq = self.ring.next_seq
                number = seq
            with cython.critical_section(self):
                placed = not keep or self.ring.next_seq == seq
                if placed:
                    if keep:
                        result = self._store_kept(
                            PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded), urgent, number, original
                        )
                    else:
                        result = self._store(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded), urgent)
                    woken = self._sleeper()
        if woken != NULL:
            self._wake(woken)
        if result == PUT_NO_FILE:
            self._pressed = True
        return self._stored() if result == PUT_OK else self._refused(result, event)

    cdef inline PutResult _store(self, const char* event, size_t length, bint urgent) noexcept:
        """Queue an encoded event; the ring lock is held."""
        cdef PutResult result
        if (self.starving and not urgent) or (self.ring.in_files and self.forks != forks[0]):
            result = PUT_FULL
        else:
            result = ring_put(&self.ring, event, length)
        if result == PUT_FULL:
            self._pressed = True
        verify(ring_wrong(&self.ring))
        return result

    cdef inline PutResult _store_kept(
        self, const char* event, size_t length, bint urgent, number, original
    ) noexcept:
        """Queue an encoded event and keep its original; `number` is the ring's `next_seq`, as an object."""
        cdef PutResult result
        # Done first, because it takes memory. It is undone if the event is not queued.
        if dict_put(self.originals, number, original) < 0:
            PyErr_Clear()
            return PUT_NO_MEMORY
        result = self._store(event, length, urgent)
        if result != PUT_OK:
            dict_drop(self.originals, number)
        return result

    cdef inline object _stored(self):
        """What `append` answers for an event that is queued."""
        if self.notify == C_NOTIFY_NEVER:
            return STORED
        return CALL if self.notify == C_NOTIFY_ALWAYS or self._due() else STORED

    cdef object _refused(self, PutResult result, event):
        """What `append` answers for an event that is not queued."""
        if result == PUT_NO_MEMORY:
            raise MemoryError(f"no memory for an event of {PyBytes_GET_SIZE(encoded_of(event))} bytes")
        return event

    def drop_oldest(self, event not None):
        """Drop queued events, oldest first, until `event` has room. Returns how many; they count as overflow."""
        cdef size_t size = self._size_of(event)
        cdef int64_t seq
        cdef bint again, gone
        cdef Py_ssize_t dropped = 0
        cdef dict originals
        cdef object number
        if self.originals is None:
            while True:
                with cython.critical_section(self):
                    while self._dropping_helps(size) and ring_drop_oldest(&self.ring):
                        dropped += 1
                    again = self._dropping_helps(size) and self.ring.head != NULL
                    verify(ring_wrong(&self.ring))
                if not (again and self._bring_missing()):
                    return dropped
        while True:
            # One by one, because the number of each is made an object outside the lock.
            seq = self.ring.head.seq if self.ring.head != NULL else -1
            number = seq
            originals = self.originals
            with cython.critical_section(self):
                again = self.ring.head != NULL and self.ring.head.seq != seq
                gone = not again and self._dropping_helps(size) and ring_drop_oldest(&self.ring)
                verify(ring_wrong(&self.ring))
            if gone:
                dropped += 1
                if dict_drop(originals, number) < 0:
                    PyErr_Clear()
            elif not again:
                return dropped

    cdef inline bint _dropping_helps(self, size_t size) noexcept:
        """Whether an event of `size` bytes has no room now, but would have room if queued events were dropped."""
        cdef Ring* ring = &self.ring
        if ring.flying_events >= ring.max_events or ring.flying_bytes + size > ring.max_bytes:
            return False
        return (ring.queued_events + ring.flying_events >= ring.max_events
                or ring.queued_bytes + ring.flying_bytes + size > ring.max_bytes)

    cdef size_t _size_of(self, event) except? 0:
        return event_size(&self.ring.format, PyBytes_GET_SIZE(encoded_of(event)))

    def size_of(self, event not None):
        """Bytes that an event, as `prepare` returned it, takes in a request body."""
        return self._size_of(event)

    def count_dropped(self, str reason not None):
        """Count one event that was not queued. `reason` is "overflow", "oversize" or "closed"."""
        cdef int index = DROPPED_FOR[reason]
        with cython.critical_section(self):
            self.ring.dropped[index] += 1

    def too_large(self, event not None):
        """Whether `event` could not be queued even if the buffer were empty."""
        cdef size_t size = self._size_of(event)
        return size > UINT32_MAX - 4096 or size > self.ring.max_bytes

    def has_room_for(self, event not None):
        """Whether `event` could be queued now."""
        cdef size_t size = self._size_of(event)
        return (self.ring.queued_events + self.ring.flying_events < self.ring.max_events
                and self.ring.queued_bytes + self.ring.flying_bytes + size <= self.ring.max_bytes)

    # -- out ---------------------------------------------------------------------------------------------------------

    def take(self, max_bytes=None, Py_ssize_t min_events=1):
        """Hand out the oldest queued events as a `Batch`. None if nothing is queued.

        Args:
            max_bytes: take up to so many bytes of events; None for as many as a request may have.
            min_events: take so many even if they have more bytes than that, as far as they fit into a request.
        """
        cdef size_t aim = self.ring.segment_bytes if max_bytes is None else max(<Py_ssize_t> max_bytes, 1)
        cdef size_t at_least = max(min_events, 1)
        cdef Batch batch = Batch.__new__(Batch, self)
        cdef bint left = False, parked = False
        batch.kept = self.originals
        if self.ring.left_to_others:
            return None
        while True:
            with cython.critical_section(self):
                batch.seg = ring_take(&self.ring, aim, at_least)
                if batch.seg != NULL and batch.seg.mapped:
                    batch.mapped = <object> batch.seg.file.owner
                left = batch.seg == NULL and self.ring.head != NULL
                parked = left and seg_parked(self.ring.head)
                self._pressed = False
                verify(ring_wrong(&self.ring))
            if left and not parked:
                raise MemoryError("no memory to copy the events of a request out of their file")
            if not (left and self._bring_missing()):
                return None if batch.seg == NULL else batch

    def snapshot(self):
        """The queued events as a list of dicts, oldest first, without those in flight."""
        cdef Segment* seg
        cdef size_t room = 0, needed = 0, at = 0, i
        cdef bytes copy = None
        cdef char* out = NULL
        cdef int64_t* numbers
        cdef list events = []
        if self.ring.left_to_others:
            return events
        self._bring_all()
        # Room is allocated outside the lock, so it may be too little by the next look.
        if self.originals is not None:
            while True:
                with cython.critical_section(self):
                    needed = self.ring.queued_events
                    if 0 < needed <= room:
                        numbers = <int64_t*> out
                        seg = self.ring.head
                        while seg != NULL:
                            for i in range(seg.count):
                                numbers[at] = seg.seq + <int64_t> i
                                at += 1
                            seg = seg.next
                if needed <= room:
                    break
                room = needed
                copy = PyBytes_FromStringAndSize(NULL, room * sizeof(int64_t))
                out = PyBytes_AS_STRING(copy)
            numbers = <int64_t*> out
            for i in range(at):
                original = self.originals.get(numbers[i])
                # One that is settled meanwhile is no longer queued.
                if original is not None:
                    events.append(original)
            return list(map(dict, events))
        while True:
            with cython.critical_section(self):
                needed = self.ring.queued_bytes
                if 0 < needed <= room:
                    at = 1
                    seg = self.ring.head
                    while seg != NULL:
                        if not seg_parked(seg):
                            memcpy(out + at, seg.data + seg.start, seg_bytes(seg))
                            at += seg_bytes(seg)
                        seg = seg.next
                    out[0] = b"["
                    out[at - 1] = b"]"
            if needed == 0:
                return []
            if needed <= room:
                return events_of_queries(queries_in(copy[1:at - 1])) if self.query else load_events(copy[:at])
            room = needed
            copy = PyBytes_FromStringAndSize(NULL, room + 1)
            out = PyBytes_AS_STRING(copy)

    # -- waking ------------------------------------------------------------------------------------------------------

    cdef inline Load _load(self) noexcept:
        return Load(
            self.ring.queued_events, self.ring.queued_bytes, self.ring.flying_events, self.ring.flying_bytes,
            self.ring.max_events, self.ring.max_bytes, self._pressed,
        )

    cdef inline bint _due(self) noexcept:
        cdef Load load = self._load()
        return load_due(&load, self._batch_size, self._byte_limit)

    cdef inline bint _wanted(self) noexcept:
        cdef Load load = self._load()
        return load_due(&load, self._batch_size, self._byte_limit) and (
            not self.linger or load_worth(&load, self.ring.segment_bytes))

    @property
    def wanted(self):
        """Whether a sender is wanted: for what is `due`; with `linger`, for a full request or a half full buffer."""
        return self._wanted()

    @property
    def due(self):
        """Whether there is enough to send: `batch_size`, `byte_limit`, or no room for more."""
        return self._due()

    def arm(self, inbox, int64_t seen):
        """Register a sender that is about to wait on `inbox` (anything with `put`). False: look again first.

        Args:
            inbox: gets one `put(None)` from the first event that makes the buffer due, or from `signal`.
            seen: the value of `signals` from before the sender looked at what there is to do.
        """
        cdef bint room, armed = False
        while True:
            with cython.critical_section(self):
                room = self.sleeping + self.telling < PyList_GET_SIZE(self.sleepers)
                if (room and self.signals == seen and not self.ring.wants_service
                        and (self.hold or not self._wanted())):
                    self._lay_down(inbox)
                    armed = True
            if room:
                return armed
            self.sleepers.append(None)

    def disarm(self, inbox):
        """Undo `arm` after a wait that timed out. False if the inbox was taken out: then a note is on its way."""
        cdef Py_ssize_t at
        with cython.critical_section(self):
            at = self._place_of(inbox)
            if at >= 0:
                # No last reference: the caller has one.
                Py_DECREF(<object> self._take_out(at))
        return at >= 0

    def signal(self, bint everyone=False):
        """Wake one sleeping sender, or all of them, so that they look at what there is to do.

        If an inbox raises, it sleeps on, and the exception is raised when all have been told.
        """
        cdef Py_ssize_t left
        cdef PyObject* woken
        cdef object first = None
        with cython.critical_section(self):
            self.signals += 1
            left = self.sleeping if everyone else min(self.sleeping, 1)
        while left > 0:
            left -= 1
            woken = NULL
            with cython.critical_section(self):
                if self.sleeping:
                    # Everyone: the first to lie down first, since one that lies down again meanwhile does so behind.
                    woken = self._take_out_to_tell(0 if everyone else self.sleeping - 1)
            if woken == NULL:
                return
            try:
                self._tell(woken)
            except BaseException as error:
                first = error if first is None else first
        if first is not None:
            raise first

    cdef inline Py_ssize_t _place_of(self, inbox) noexcept:
        """Where an inbox is in `sleepers`; -1 when it does not sleep. The ring lock is held."""
        cdef Py_ssize_t at
        for at in range(self.sleeping):
            if list_item(self.sleepers, at) == <PyObject*> inbox:
                return at
        return -1

    cdef inline void _lay_down(self, inbox) noexcept:
        """Put an inbox behind those that sleep, if it is not among them; there is a slot, and the ring lock is held."""
        if self._place_of(inbox) < 0:
            Py_DECREF(<object> list_item(self.sleepers, self.sleeping))  # None, of which there is never a last one
            Py_INCREF(inbox)
            list_set(self.sleepers, self.sleeping, <PyObject*> inbox)
            self.sleeping += 1

    cdef PyObject* _take_out(self, Py_ssize_t at) noexcept:
        """Take an inbox out of `sleepers`, with the reference to it; the ring lock is held."""
        cdef PyObject* inbox = list_item(self.sleepers, at)
        self.sleeping -= 1
        for at in range(at, self.sleeping):
            list_set(self.sleepers, at, list_item(self.sleepers, at + 1))
        Py_INCREF(None)
        list_set(self.sleepers, self.sleeping, Py_None)
        return inbox

    cdef PyObject* _take_out_to_tell(self, Py_ssize_t at) noexcept:
        """`_take_out`; `_tell` or `_wake` is to follow, once the ring lock is released."""
        self.telling += 1
        return self._take_out(at)

    cdef inline PyObject* _sleeper(self) noexcept:
        """Take out the inbox of a sender that is to be woken, as `_take_out_to_tell` does; NULL if there is none."""
        if self.sleeping and (self.ring.wants_service or (not self.hold and self._wanted())):
            return self._take_out_to_tell(self.sleeping - 1)
        return NULL

    cdef int _tell(self, PyObject* taken_out) except -1:
        """Put a note into an inbox. If that raises, the exception passes, and the inbox sleeps on for the next note."""
        cdef object inbox = <object> taken_out
        Py_DECREF(inbox)
        try:
            inbox.put(None)
        except BaseException:
            self._told(inbox, False)
            raise
        self._told(inbox, True)
        return 0

    cdef void _told(self, inbox, bint told) noexcept:
        with cython.critical_section(self):
            if self.telling:
                # Else this is a child that was forked meanwhile.
                self.telling -= 1
                if not told:
                    self._lay_down(inbox)

    cdef int _wake(self, PyObject* taken_out) except -1:
        """Tell the sender that an event has made the buffer due.

        The event is queued by now. If there is no memory for the note, the caller must not hear that it is not queued.
        """
        try:
            self._tell(taken_out)
        except MemoryError:
            pass
        return 0

    # -- state -------------------------------------------------------------------------------------------------------

    def share(self, lock):
        """Ignore the delivery's lock. This buffer does not need it, because it runs no foreign code under a lock."""

    def close(self):
        """From now on `append` queues nothing."""
        self._closed = True

    @property
    def closed(self):
        return self._closed

    @property
    def forked(self):
        """Whether this process is a child that has not called `after_fork` yet."""
        return self.forks != forks[0]

    def after_fork(self):
        """In a forked child: start empty. The parent sends what it had queued and in flight."""
        cdef list sleepers = []
        cdef dict originals = None if self.originals is None else {}
        # Dropped last, because what they refer to may run code when it goes. That code finds the new state.
        cdef tuple dropped_last = (self.sleepers, self.originals)
        with cython.critical_section(self):
            self.forks = forks[0]
            self.sleepers = sleepers
            self.originals = originals
            self.sleeping = 0
            self.telling = 0
            self.signals = 0
            self._pressed = False
            self.hold = False
            self.linger = False
            self.starving = 0
            self.notify = C_NOTIFY_ALWAYS
            ring_start_over(&self.ring)
        self._let_go_of_forgotten()
        del dropped_last

    def trim(self, Py_ssize_t keep=1):
        """Give the memory of spare segments back to the system, except for `keep` of them."""
        with cython.critical_section(self):
            ring_trim(&self.ring, max(keep, 0))

    @property
    def batch_size(self):
        return self._batch_size

    @batch_size.setter
    def batch_size(self, Py_ssize_t value):
        self._batch_size = value

    @property
    def byte_limit(self):
        return None if self._byte_limit == NO_LIMIT else self._byte_limit

    @byte_limit.setter
    def byte_limit(self, value):
        self._byte_limit = NO_LIMIT if value is None else value

    @property
    def capacity(self):
        return self.ring.max_events

    @property
    def max_bytes(self):
        return self.ring.max_bytes

    @property
    def segment_bytes(self):
        """The most bytes of events in one request."""
        return self.ring.segment_bytes

    @property
    def queued_events(self):
        return self.ring.queued_events

    @property
    def queued_bytes(self):
        return self.ring.queued_bytes

    @property
    def in_flight_events(self):
        return self.ring.flying_events

    @property
    def in_flight_bytes(self):
        return self.ring.flying_bytes

    @property
    def unsettled_events(self):
        """The number of events that are queued or in flight."""
        return self.ring.queued_events + self.ring.flying_events

    @property
    def next_seq(self):
        """The number that the next event will get. Events are numbered in the order of `append`, from 0."""
        return self.ring.next_seq

    @property
    def head_seq(self):
        """The number of the oldest queued event; `next_seq` if none is queued."""
        return self.ring.head.seq if self.ring.head != NULL else self.ring.next_seq

    @property
    def oldest_seq(self):
        """The number of the oldest event that is queued or in flight; `next_seq` if there is none."""
        cdef int64_t oldest
        with cython.critical_section(self):
            oldest = ring_oldest(&self.ring)
        return oldest

    @property
    def spare_segments(self):
        return self.ring.spare_count

    @property
    def segments(self):
        """Segments in memory: spare, queued, in flight, or kept by a view of a settled batch."""
        return self.ring.segment_count

    def counts(self):
        """(queued events, queued bytes, in flight, sent, sent bytes, retried, dropped dict), at one point in time."""
        cdef Ring ring
        with cython.critical_section(self):
            ring = self.ring
        dropped = {reason: ring.dropped[index] for reason, index in DROPPED_FOR.items()}
        return (ring.queued_events, ring.queued_bytes, ring.flying_events, ring.sent_events, ring.sent_bytes,
                ring.retried_events, dropped)

    def check(self):
        """For tests: 0 if the ring's invariants hold, else the number of the first one that does not."""
        return ring_wrong(&self.ring)


cdef class Intake:
    """The way in for every event. `Emitter` inherits `input` from it, so that `input` is one call in C.

    Thread safety: that of `EventBuffer`.
    """

    cdef EventBuffer _into         # None for a buffer of another kind
    cdef object _append            # that one's method; None for an EventBuffer
    cdef object _answer

    def __reduce__(self):
        refuse_copy(self)

    def _open_intake(self, buffer not None, answer not None):
        """Say where events go, and what to call if `EventBuffer.append` returns anything but 0."""
        # Dropped last, because what goes with them may run code. That code finds the new ones in place.
        cdef tuple dropped_last = (self._into, self._append, self._answer)
        cdef object append = None if type(buffer) is EventBuffer else buffer.append
        self._into = buffer if type(buffer) is EventBuffer else None
        self._append = append
        self._answer = answer
        del dropped_last

    def input(self, payload):
        """Take an event: encode and queue it, and wake a sender if there is enough to send.

        The event is encoded at the call. The caller's mapping is neither kept nor changed. A value is sent as
        `str(value)`. An `stm` among the values is replaced.

        Args:
            payload: a mapping of names to values.

        Raises:
            TypeError: `payload` is no mapping, or has a key that JSON cannot have. Whatever the `str()` of a value
                raises comes out, too. Nothing is queued then, and the emitter goes on working.
            RuntimeError: `__init__` has not been called, or was called again during this call.
        """
        cdef object answer
        cdef EventBuffer into = self._into
        cdef object append, respond
        if into is not None:
            respond = self._answer
            answer = into._take_in(payload)
            if answer is not STORED:
                respond(answer)
            return
        append, respond = self._append, self._answer
        if append is None:
            raise RuntimeError(f"{type(self).__name__}.__init__ has not been called")
        answer = append(payload)
        if answer is not STORED:
            respond(answer)

    def _input_line(self, bytes line not None):
        """Take an event that is a line of JSON. False if the caller must parse the line, and give that to `input`."""
        cdef EventBuffer into = self._into
        cdef object respond = self._answer
        cdef object answer = None if into is None else into.append_line(line)
        if answer is None:
            return False
        if answer is not STORED:
            respond(answer)
        return True
