"""The native event buffer: `EventBuffer` takes events in, `Batch` hands them out.

It knows JSON, bytes, counts and memory; nothing of HTTP, threads or policy. `_ring.pxd` is the C below it.

Thread safety: every method may be called from any thread at any time. The one lock is `critical_section(self)`
on the `EventBuffer` ("the ring lock"): free-threaded builds take a real lock there; elsewhere it is the GIL, which
costs nothing and which no other thread and no signal handler can take away between two lines of C. It covers copies
and counters only: `str()`, orjson and every allocation of a Python object, which may run the garbage collector and
with it any code at all, come before it or after it. Nothing is raised under it either, and no last reference dropped.
`tests/project/test_ring_lock.py` reads the C for that.

No list is made by a comprehension: where it finds no memory to grow, the C of Cython 3.3 drops the item twice.

A method that calls out (to `str()`, to an inbox) holds its own reference to what it goes on with: the code that it
calls may call `__init__` or `after_fork`, which replace attributes.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_Next, PyDict_SetItem
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t
from libc.string cimport memcpy, memset

from fastemit._clock cimport read_monotonic, read_wall_clock
from fastemit._flat cimport FLAT_MARGIN, FLAT_NO_ROOM, flat_event
from fastemit._interpreters cimport is_subinterpreter, register_with_main
from fastemit._line cimport line_event
from fastemit._quote cimport quote_plus
from fastemit._ring cimport (
    CLOSED,
    Format,
    IN_FLIGHT,
    LIMBO,
    OVERFLOW,
    OVERSIZE,
    PUT_FULL,
    PUT_NO_MEMORY,
    PUT_OK,
    REJECTED,
    PutResult,
    Ring,
    Segment,
    event_size,
    ring_drop_oldest,
    ring_full,
    ring_give_back,
    ring_oldest,
    ring_place,
    ring_put,
    ring_settle,
    ring_split,
    ring_start_over,
    ring_take,
    ring_trim,
    ring_wrong,
    seg_bytes,
    seg_enclose,
    seg_free,
    seg_release,
    seg_stamp,
    verify,
)
from fastemit._text cimport fill_forms

import json
from collections.abc import Mapping

import orjson


cdef extern from "Python.h":
    void* PyMem_RawMalloc(size_t size) nogil
    void PyMem_RawFree(void* pointer) nogil
    # Declared on PyObject*, so that a walk over a dict takes no references.
    bint PyUnicode_CheckExact(PyObject* o) noexcept
    bint PyLong_CheckExact(PyObject* o) noexcept
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False
    bint PyDict_CheckExact(object o) noexcept
    PyObject* PyDict_GetItemWithError(object d, object key) except? NULL
    # For under the ring lock: what fails there is looked at afterwards, and nothing is raised. The keys are ints.
    int dict_put "PyDict_SetItem" (dict d, object key, object value) noexcept
    int dict_drop "PyDict_DelItem" (dict d, object key) noexcept
    PyObject* dict_get "PyDict_GetItemWithError" (dict d, object key) noexcept
    PyObject* list_item "PyList_GET_ITEM" (list items, Py_ssize_t at) noexcept
    void list_set "PyList_SET_ITEM" (list items, Py_ssize_t at, PyObject* item) noexcept
    void PyErr_Clear() noexcept


cdef extern from * nogil:
    """
    /* Counts the forks that this process is the child of, also those that run no Python hook (uWSGI forks in C).
       Reading it costs a load, where asking for the process id costs a system call on every event. */
    static long fastemit_forks = 0;
    #ifdef _WIN32
    static int fastemit_watch_forks(void) { return 0; }
    #else
    #include <pthread.h>
    static void fastemit_in_child(void) { fastemit_forks++; }
    static int fastemit_watch_forks(void) { return pthread_atfork(NULL, NULL, fastemit_in_child); }
    #endif
    """
    long forks "fastemit_forks"
    int watch_forks "fastemit_watch_forks" ()


cdef extern from * nogil:
    """
    #define FASTEMIT_PREFIX \
        "{\\"schema\\":\\"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4\\",\\"data\\":["
    #define FASTEMIT_JSON_TAIL ",\\"stm\\":\\"0000000000000\\"},"
    #define FASTEMIT_QUERY_TAIL "&stm=0000000000000&"
    """
    const char* JSON_PREFIX "FASTEMIT_PREFIX"
    const size_t JSON_PREFIX_LEN "(sizeof(FASTEMIT_PREFIX) - 1)"
    const char* JSON_TAIL "FASTEMIT_JSON_TAIL"
    const size_t JSON_TAIL_LEN "(sizeof(FASTEMIT_JSON_TAIL) - 1)"
    const char* QUERY_TAIL "FASTEMIT_QUERY_TAIL"
    const size_t QUERY_TAIL_LEN "(sizeof(FASTEMIT_QUERY_TAIL) - 1)"


cdef Format json_format() noexcept:
    """A POST: JSON objects in the self-describing envelope, each with an `stm` before its brace."""
    return Format(
        prefix=JSON_PREFIX, prefix_len=JSON_PREFIX_LEN, tail=JSON_TAIL, tail_len=JSON_TAIL_LEN,
        chop=1, empty_len=2, stm_from_end=16, enclosed=True,
    )


cdef Format query_format() noexcept:
    """A GET: query strings, each with an `stm` behind it."""
    return Format(
        prefix=b"", prefix_len=0, tail=QUERY_TAIL, tail_len=QUERY_TAIL_LEN,
        chop=0, empty_len=0, stm_from_end=14, enclosed=False,
    )


def monotonic():
    """Seconds on the clock of `time.monotonic`, read past everything that replaces that function."""
    cdef double seconds = 0.0
    read_monotonic(&seconds)
    return seconds


def wall_clock():
    """Seconds since 1970 by the clock of `time.time`, read past everything that replaces that function."""
    cdef double seconds = 0.0
    read_wall_clock(&seconds)
    return seconds


def in_subinterpreter():
    """Whether this is not the main interpreter of the process."""
    return is_subinterpreter()


def end_with_main():
    """In a subinterpreter that is left: have `fastemit._process.lifecycle.end` run when the main interpreter ends."""
    register_with_main()


fill_forms()
if watch_forks() != 0:
    raise MemoryError("pthread_atfork has no memory left for fastemit's handler")


def keep_for_ever(object value not None):
    """Take a reference that is never given back: no finalizer of `value` ever runs, at the end of the process neither.

    For what a forked child inherits and must not let go of.
    """
    Py_INCREF(value)


cdef const long* fork_count() noexcept:
    """Where the number of forks stands, for another extension of this package to read."""
    return &forks


cdef object orjson_dumps = orjson.dumps
cdef object orjson_loads = orjson.loads
# What the reference sends with: its rules for keys, and ASCII escapes, which carry lone surrogates.
cdef object json_encode = json.JSONEncoder(separators=(",", ":")).encode
cdef object json_loads = json.loads
cdef str STM_KEY = "stm"

cdef extern from "Python.h":
    const Py_ssize_t NO_LIMIT "PY_SSIZE_T_MAX"

cdef enum:
    DROP_REASON_COUNT = 4

# What `append` has to tell its caller; see `EventBuffer.notify`. The C names are for the path of every event, where a
# look at a module's variable is a dictionary lookup.
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

cdef object STORED = 0
cdef object CALL = 1

MIN_REQUEST_BYTES = 1024
MAX_REQUEST_BYTES = 1 << 30


cdef bytes dump(dict strings):
    """JSON of a dict whose values are strings. Raises what `json.dumps` raises for the keys that it refuses."""
    try:
        return orjson_dumps(strings)
    except TypeError:
        return json_encode(strings).encode("ascii")


cdef bytes encode_payload(object payload):
    """JSON of one event, each value as `str(value)`, without an `stm` of the caller's."""
    return dump(strings_of(payload))


cdef dict captured(object payload):
    """The names and values of a payload as they are now, in a dict of its own.

    Everything after that works on this dict: encoding may run Python code, and so other threads, which may change the
    caller's.
    """
    if PyDict_CheckExact(payload):
        return PyDict_Copy(payload)
    if not is_mapping(payload):
        raise TypeError(f"payload must be a mapping of names to values, not {type(payload).__name__}")
    return {name: payload[name] for name in list(names_of(payload))}


cdef dict strings_of(object payload):
    """A copy of a payload with each value as `str(value)`, without an `stm` of the caller's."""
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    cdef dict strings = captured(payload)
    while PyDict_Next(strings, &at, &key, &value):
        if not PyUnicode_CheckExact(value):
            # Allowed during the walk, since the key is there already.
            PyDict_SetItem(strings, <object> key, str(<object> value))
    if PyDict_GetItemWithError(strings, STM_KEY) != NULL:
        del strings[STM_KEY]
    return strings


def is_plain(dict payload not None):
    """Whether every value is exactly a str, an int, a bool or None: what every encoder of JSON writes alike."""
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    while PyDict_Next(payload, &at, &key, &value):
        if not (PyUnicode_CheckExact(value) or PyLong_CheckExact(value) or value == Py_None
                or value == Py_True or value == Py_False):
            return False
    return True


cdef dict captured_query(object payload):
    """As `captured`, with lists of its own in place of the caller's, and of what can be read only once.

    A list in a list is a list in the query string too; deeper ones are sent as their `str`.
    """
    cdef dict values = captured(payload)
    for name, value in values.items():
        if type(value) is not str:
            values[name] = own_values(value, 1)
    return values


cdef object own_values(object value, int deeper):
    """`value`, or a copy of it if it has values that can change."""
    cdef object own
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return value
    if type(value) is dict:
        # Its names are sent; a callback gets all of it.
        return PyDict_Copy(value)
    if deeper:
        own = []
        for each in list(value):
            own.append(own_values(each, 0))
    elif hasattr(value, "__len__"):
        own = list(value)
    else:
        # It is sent as its `str`, not read.
        return value
    return tuple(own) if type(value) is tuple else own


cdef bytes encode_query(dict payload):
    """The query string that `requests` makes of `payload` as its `params`: None left out, a list repeats its name.

    Raises `UnicodeEncodeError` for lone surrogates, as `requests` does.
    """
    cdef list members = []
    for name, values in payload.items():
        if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
            values = (values,)
        for value in values:
            if value is not None:
                members.append(encode_member(name, value))
    # An empty list in a list is no member at all.
    return b"&".join(filter(None, members))


cdef bytes encode_member(object name, object value):
    """One `name=value` of a query string, or more where the value is a list."""
    cdef bytes left = quotable(name)
    cdef bytes right = quotable(value)
    if left is not None and right is not None:
        return quote_plus(left) + b"=" + quote_plus(right)
    if isinstance(name, str):
        name = name.encode("utf-8")
    if isinstance(value, str):
        value = value.encode("utf-8")
    # Here, since who sends by POST needs none of it; `parse_endpoint` has imported it before the first event.
    from urllib.parse import urlencode
    return urlencode([(name, value)], doseq=True).encode("ascii")


cdef bytes quotable(object value):
    """What of a simple value is to be percent-encoded; None for others, whose rules `urlencode` knows."""
    if type(value) is str:
        return (<str> value).encode("utf-8")
    if type(value) is int or type(value) is float or type(value) is bool:
        return str(value).encode("ascii")
    return None


cdef bint is_mapping(object payload):
    return isinstance(payload, Mapping) or (
        hasattr(payload, "keys") and hasattr(payload, "__getitem__") and not isinstance(payload, type)
    )


cdef object names_of(object payload):
    return payload if isinstance(payload, Mapping) else payload.keys()


def refuse_copy(its):
    """`__reduce__` of what can be neither copied nor pickled. A subclass may define one of its own."""
    raise TypeError(
        f"{type(its).__name__} cannot be copied or pickled, since what it holds belongs to this process: "
        "make one in the other process, from the same settings"
    )


@cython.final
cdef class KeptEvent:
    """An encoded event together with what it was made from; see `EventBuffer`'s `keep`."""

    cdef readonly bytes encoded
    cdef readonly object original

    def __cinit__(self, bytes encoded not None, original):
        self.encoded = encoded
        self.original = original

    def __reduce__(self):
        refuse_copy(self)


cdef bytes encoded_of(object event):
    if type(event) is KeptEvent:
        return (<KeptEvent> event).encoded
    return event


cdef list load_events(object document):
    """The dicts of a JSON array of events."""
    try:
        return orjson_loads(document)
    except ValueError:
        # A lone surrogate, which orjson refuses to read as it refuses to write it.
        return json_loads(bytes(document))


@cython.final
cdef class EventBuffer:
    """Events as ready-made JSON, within bounds of number and bytes.

    Args:
        capacity: most events queued and in flight together.
        max_bytes: most bytes that these take in request bodies, `stm` and comma included.
        max_request_bytes: most bytes of one request body, envelope included (1 KiB to 1 GiB).
        batch_size: queued events at which a sender is due.
        byte_limit: queued bytes at which a sender is due; None for no such limit.
        query: events are query strings, for GET, in place of JSON objects for POST; each is taken by itself.
        keep: keep the dict that each event was made from, and hand it out by `Batch.decode`. A refused event is a
            `KeptEvent` then where it is `bytes` otherwise.

    The arguments are those that `Emitter` has checked; here only what would break the ring raises `ValueError`.
    Thread safety: see the module.
    """

    cdef Ring ring
    cdef char* scratch             # SCRATCH_BYTES, where `flat_event` writes; the ring lock is held meanwhile
    cdef object __weakref__
    # Inboxes of the senders that sleep, in the order in which they lay down, and None in the slots behind them.
    # `append` takes one out and puts a note into it: once for each sleep. There is a slot for each inbox that sleeps or
    # has been taken out and is being told, so that one that cannot be told is put back without an allocation.
    cdef list sleepers
    cdef Py_ssize_t sleeping       # inboxes in `sleepers`
    cdef Py_ssize_t telling        # inboxes that were taken out, and whose `put` has not returned
    cdef dict originals            # by number, what each event was made from; None unless `keep`
    cdef readonly bint query
    cdef readonly object left_in   # where events stay that a close leaves behind: nowhere, with this buffer
    cdef readonly double recheck_at  # when to look again although nothing is queued: never, with this buffer
    cdef Py_ssize_t _batch_size
    cdef Py_ssize_t _byte_limit
    cdef long _forks               # value of `forks` in the process that this buffer works for
    cdef bint _closed
    cdef bint _pressed             # an event was refused for want of room since the last take
    cdef readonly Py_ssize_t max_request_bytes
    cdef readonly int64_t signals  # calls of `signal`: `arm` compares it to see that none was missed
    cdef public int notify         # when `append` returns 1: NOTIFY_NEVER, NOTIFY_WHEN_DUE, NOTIFY_ALWAYS
    cdef public bint hold          # True while nobody should be woken by an event: a backoff runs
    cdef public bint linger        # True for a while after a request: a sender waits for more than `due`, see `wanted`
    cdef public int starving       # threads that have waited long for room: only `urgent` events are taken

    def __cinit__(self, Py_ssize_t capacity, Py_ssize_t max_bytes, Py_ssize_t max_request_bytes,
                  Py_ssize_t batch_size, object byte_limit=None, *, bint query=False, bint keep=False):
        memset(&self.ring, 0, sizeof(Ring))
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
        self.query = query
        self.recheck_at = float("inf")
        self.left_in = None
        self.originals = {} if keep else None
        self.max_request_bytes = max_request_bytes
        self.sleepers = []
        self._batch_size = batch_size
        self.byte_limit = byte_limit
        self._forks = forks
        self.notify = C_NOTIFY_ALWAYS

    def __reduce__(self):
        refuse_copy(self)

    def __dealloc__(self):
        # No Batch is left, since each holds a reference; so nothing is in flight.
        cdef Segment* seg
        PyMem_RawFree(self.scratch)
        ring_trim(&self.ring, 0)
        while self.ring.head != NULL:
            seg = self.ring.head
            self.ring.head = seg.next
            seg_free(&self.ring, seg)

    # -- in ----------------------------------------------------------------------------------------------------------

    @staticmethod
    def encode(payload):
        """The JSON object of one event as bytes, each value as `str(value)`, without its `stm`.

        Raises `TypeError` for what is no mapping and for keys that JSON has no form for, and whatever the `__str__`
        of a value raises.
        """
        return encode_payload(payload)

    @staticmethod
    def encode_query(payload):
        """The query string of one event, just as it is."""
        return encode_query(captured_query(payload)).decode("ascii")

    def prepare(self, payload):
        """One event in the form that this buffer queues: bytes, or with `keep` a `KeptEvent`. Raises as `encode`."""
        cdef dict original
        cdef bytes encoded
        if self.query:
            original = captured_query(payload)
            original.pop(STM_KEY, None)
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
            # Outside the lock. Another thread may change the event meanwhile, so it is written anew.
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
        """Queue what `encode`, or with `keep` `prepare`, returned; answers and raises as `append` does.

        `urgent` goes ahead of the starving. Bytes are a `TypeError` with `keep`: what they were made from is not known.
        """
        if <size_t> PyBytes_GET_SIZE(encoded_of(event)) < self.ring.format.empty_len:
            raise ValueError(f"event must be an encoded JSON object, not {event!r}")
        return self._put(event, urgent)

    def append_line(self, bytes line not None):
        """Queue an event that is a line of JSON; answers as `append` does, and None for a line that is not so simple.

        Then nothing has changed, and the line is to be parsed, and given in as a payload or refused. A number is sent
        as its own text, true and false as they are written, and the name of a null is left out.
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
        if self._closed or self._forks != forks:
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
        return self._refused(result, self._flat(event, line)) if length > FLAT_NO_ROOM else None

    cdef object _put(self, event, bint urgent):
        cdef bytes encoded = encoded_of(event)
        cdef object original = None, number = None
        cdef bint keep = self.originals is not None
        cdef bint placed = False
        cdef int64_t seq = 0
        cdef PyObject* woken = NULL
        cdef PutResult result = PUT_FULL
        if keep:
            if type(event) is not KeptEvent:
                raise TypeError("event must be the KeptEvent that prepare() returned, since this buffer keeps what its "
                                f"events were made from, not {type(event).__name__}")
            original = (<KeptEvent> event).original
        if self._closed or self._forks != forks:
            return event
        while not placed:
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
        return self._stored() if result == PUT_OK else self._refused(result, event)

    cdef inline PutResult _store(self, const char* event, size_t length, bint urgent) noexcept:
        """Queue an encoded event; the ring lock is held."""
        cdef PutResult result
        if self.starving and not urgent:
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
        # First, since it takes memory, and is undone without.
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
        """Drop queued events, oldest first, until `event` has room; the number dropped, counted as overflow."""
        cdef size_t size = self._size_of(event)
        cdef int64_t seq
        cdef bint again, gone
        cdef Py_ssize_t dropped = 0
        cdef dict originals
        cdef object number
        if self.originals is None:
            with cython.critical_section(self):
                while self._dropping_helps(size) and ring_drop_oldest(&self.ring):
                    dropped += 1
                verify(ring_wrong(&self.ring))
            return dropped
        while True:
            # One by one, since the number of each is made an object outside the lock.
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
        """Whether an event of `size` bytes has no room, and would have it if enough of what is queued were gone."""
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
        """Hand out the oldest queued events as a `Batch`, or None when nothing is queued.

        Args:
            max_bytes: bytes of events to aim at; None for as much as a request may carry.
            min_events: take so many even if they are more bytes than that, up to a request.
        """
        cdef size_t aim = self.ring.segment_bytes if max_bytes is None else max(<Py_ssize_t> max_bytes, 1)
        cdef size_t at_least = max(min_events, 1)
        cdef Batch batch = Batch.__new__(Batch, self)
        batch.kept = self.originals
        with cython.critical_section(self):
            batch.seg = ring_take(&self.ring, aim, at_least)
            self._pressed = False
            verify(ring_wrong(&self.ring))
        return None if batch.seg == NULL else batch

    def snapshot(self):
        """The queued events as a list of dicts, oldest first; those in flight are not among them."""
        cdef Segment* seg
        cdef size_t room = 0, needed = 0, at = 0, i
        cdef bytes copy = None
        cdef char* out = NULL
        cdef int64_t* numbers
        cdef list events = []
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
            for i in range(len(events)):
                events[i] = dict(events[i])
            return events
        while True:
            with cython.critical_section(self):
                needed = self.ring.queued_bytes
                if 0 < needed <= room:
                    at = 1
                    seg = self.ring.head
                    while seg != NULL:
                        memcpy(out + at, seg.data + seg.start, seg_bytes(seg))
                        at += seg_bytes(seg)
                        seg = seg.next
                    out[0] = b"["
                    out[at - 1] = b"]"
            if needed == 0:
                return []
            if needed <= room:
                return load_events(copy[:at])
            room = needed
            copy = PyBytes_FromStringAndSize(NULL, room + 1)
            out = PyBytes_AS_STRING(copy)

    # -- waking ------------------------------------------------------------------------------------------------------

    cdef inline bint _due(self) noexcept:
        return self.ring.queued_events > 0 and (
            <Py_ssize_t> self.ring.queued_events >= self._batch_size
            or <Py_ssize_t> self.ring.queued_bytes >= self._byte_limit
            or self._pressed
            or ring_full(&self.ring))

    cdef inline bint _wanted(self) noexcept:
        return self._due() and (
            not self.linger
            or self._pressed
            or self.ring.queued_bytes >= self.ring.segment_bytes
            or 2 * (self.ring.queued_events + self.ring.flying_events) >= self.ring.max_events
            or 2 * (self.ring.queued_bytes + self.ring.flying_bytes) >= self.ring.max_bytes)

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
                if room and self.signals == seen and (self.hold or not self._wanted()):
                    self._lay_down(inbox)
                    armed = True
            if room:
                return armed
            self.sleepers.append(None)

    def disarm(self, inbox):
        """After a wait that timed out. False when somebody has taken the mark: a note is on its way to `inbox`."""
        cdef Py_ssize_t at
        with cython.critical_section(self):
            at = self._place_of(inbox)
            if at >= 0:
                # No last reference: the caller has one.
                Py_DECREF(<object> self._take_out(at))
        return at >= 0

    def signal(self, bint everyone=False):
        """Have one sleeping sender, or each of them, look at what there is to do.

        What an inbox raises is raised once all have been told; it sleeps on.
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
        if self.sleeping and not self.hold and self._wanted():
            return self._take_out_to_tell(self.sleeping - 1)
        return NULL

    cdef int _tell(self, PyObject* taken_out) except -1:
        """Put a note into an inbox. What that raises passes through, and the inbox sleeps on, for the next one."""
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

        The event is queued by now, so a note for which there is no memory is no reason to say that it is not.
        """
        try:
            self._tell(taken_out)
        except MemoryError:
            pass
        return 0

    # -- state -------------------------------------------------------------------------------------------------------

    def close(self):
        """From here on `append` queues nothing."""
        self._closed = True

    @property
    def closed(self):
        return self._closed

    @property
    def forked(self):
        """Whether this process is a child that has not called `after_fork` yet."""
        return self._forks != forks

    def after_fork(self):
        """In a forked child: start empty. What the parent had queued and in flight is the parent's to send."""
        cdef list sleepers = []
        cdef dict originals = None if self.originals is None else {}
        # To be dropped last: what they refer to may run code when it goes, which finds a buffer that has started over.
        cdef tuple dropped_last = (self.sleepers, self.originals)
        with cython.critical_section(self):
            self._forks = forks
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
        del dropped_last

    def trim(self, Py_ssize_t keep=1):
        """Give the memory of spare segments back to the system, but for `keep` of them."""
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
        """Most bytes of events in one request."""
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
        """Queued and in flight together."""
        return self.ring.queued_events + self.ring.flying_events

    @property
    def next_seq(self):
        """Number that the next event will get; events are numbered in the order of `append`, from 0."""
        return self.ring.next_seq

    @property
    def head_seq(self):
        """Number of the oldest queued event; `next_seq` when none is queued."""
        return self.ring.head.seq if self.ring.head != NULL else self.ring.next_seq

    @property
    def oldest_seq(self):
        """Number of the oldest event that is queued or in flight; `next_seq` when there is none."""
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
        """One consistent look: (queued events, queued bytes, in flight, sent, sent bytes, retried, dropped dict)."""
        cdef Ring ring
        with cython.critical_section(self):
            ring = self.ring
        dropped = {reason: ring.dropped[index] for reason, index in DROPPED_FOR.items()}
        return (ring.queued_events, ring.queued_bytes, ring.flying_events, ring.sent_events, ring.sent_bytes,
                ring.retried_events, dropped)

    def check(self):
        """For tests: 0 when the ring's invariants hold, else the number of the first that does not."""
        return ring_wrong(&self.ring)


DROPPED_FOR = {
    "overflow": <int> OVERFLOW,
    "rejected": <int> REJECTED,
    "oversize": <int> OVERSIZE,
    "closed": <int> CLOSED,
}


cdef class Intake:
    """The way in for every event: what `Emitter` inherits `input` from, so that it is one call in C.

    Thread safety: as `EventBuffer`'s.
    """

    cdef EventBuffer _into         # None for a buffer of another kind
    cdef object _append            # that one's method; None for an EventBuffer
    cdef object _answer

    def __reduce__(self):
        refuse_copy(self)

    def _open_intake(self, buffer not None, answer not None):
        """Say where events go, and what to call with an answer of `EventBuffer.append` that is not 0."""
        # To be dropped last: what goes with them may run code, which finds the new ones in place.
        cdef tuple dropped_last = (self._into, self._append, self._answer)
        cdef object append = None if type(buffer) is EventBuffer else buffer.append
        self._into = buffer if type(buffer) is EventBuffer else None
        self._append = append
        self._answer = answer
        del dropped_last

    def input(self, payload):
        """Take an event: it is encoded and queued, and a sender woken if there is enough to send.

        The event is captured at the call; the caller's mapping is neither kept nor changed. A value is sent as
        `str(value)`. An `stm` among them is replaced.

        Args:
            payload: a mapping of names to values.

        Raises:
            TypeError: `payload` is no mapping, or has a key that JSON has no form for. What the `str()` of a value
                raises passes through. Nothing is queued then, and the emitter goes on working.
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
        """Take an event that is a line of JSON. False for a line that is to be parsed, and given to `input` then."""
        cdef EventBuffer into = self._into
        cdef object respond = self._answer
        cdef object answer = None if into is None else into.append_line(line)
        if answer is None:
            return False
        if answer is not STORED:
            respond(answer)
        return True


# What becomes of a batch.
cdef enum Fate:
    SENT
    DROPPED
    KEPT
    RETRIED
    YIELDED


# no_gc_clear: __dealloc__ gives the events back to `buffer`, which must still be there.
@cython.final
@cython.no_gc_clear
cdef class Batch:
    """Events on their way: one request's worth, owned until it is settled.

    It is settled once, by `sent`, `dropped`, `give_back` or `yield_place`; `split` leaves two to settle. One that is
    garbage collected unsettled gives its events back, so that an error nobody thought of loses none.

    Thread safety: for one thread at a time, the one that sends; the buffer behind it is shared.
    """

    cdef EventBuffer buffer
    cdef dict kept             # the buffer's `originals`, as they were when it was taken: a forked child has others
    cdef Segment* seg          # NULL once settled

    def __cinit__(self, EventBuffer buffer not None):
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
        """Settle the batch, with what its events were made from; when it raises, nothing has changed."""
        cdef Ring* ring = &self.buffer.ring
        cdef Segment* seg
        cdef int64_t seq, next_seq, events = 0
        cdef list numbers = None, fresh = None
        cdef object number
        cdef bint same = False, done = True
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
                    done = fresh is None or self._enter_anew(numbers, fresh)
                    if done:
                        self._finish(fate, reason)
        if not done:
            raise MemoryError(f"no memory to give {events} events new numbers")
        if numbers is not None:
            for number in numbers:
                # What the event was made from may run code when it goes, so this is done last.
                if dict_drop(self.kept, number) < 0:
                    PyErr_Clear()
        return 0

    cdef void _finish(self, Fate fate, int reason) noexcept:
        """Give up the segment, and count; the ring lock is held.

        Here alone is decided whether it is this process's: one from before a fork is the parent's, whatever its fate.
        """
        cdef Segment* seg = self.seg
        cdef Ring* ring = &self.buffer.ring
        cdef bint ours = seg.state == IN_FLIGHT
        cdef int64_t events = <int64_t> seg.count
        cdef int64_t size = <int64_t> seg_bytes(seg)
        self.seg = NULL
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
        """Keep what the events were made from under fresh numbers as well. False without memory: nothing has changed.

        The ring lock is held. Of a batch from before a fork it is the parent's copy that changes, which does no harm.
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

    # -- what is in it -----------------------------------------------------------------------------------------------

    def __len__(self):
        return self._open().count

    @property
    def nbytes(self):
        """Bytes that the events take in the body, as they are counted against the bounds."""
        return seg_bytes(self._open())

    @property
    def seq(self):
        """Number of the first event; see `EventBuffer.next_seq`."""
        return self._open().seq

    @property
    def ours(self):
        """Whether it is this process's to settle; False for one that was taken before a fork, which is the parent's."""
        return self._open().state == IN_FLIGHT

    @property
    def oversize(self):
        """Whether it is one event that is larger than a request should be."""
        return self._open().oversize

    @property
    def server_errors(self):
        """How often it was answered with a server error; kept with the events when they are given back."""
        return self._open().server_errors

    @server_errors.setter
    def server_errors(self, int value):
        self._open().server_errors = value

    def stamp(self, int64_t milliseconds):
        """Set the `stm` of every event, in milliseconds since 1970 (0 to 9,999,999,999,999)."""
        cdef Segment* seg = self._open()
        if not 0 <= milliseconds < 10_000_000_000_000:
            raise ValueError(f"milliseconds must be from 0 to 9999999999999, not {milliseconds}")
        seg_stamp(&self.buffer.ring.format, seg, milliseconds)

    def body(self):
        """The whole request body as a read-only memoryview of the buffer's own memory.

        It stays readable as long as the view lives, whatever becomes of the batch; once the batch is settled, what
        it reads is no longer defined if the events were kept.
        """
        return memoryview(self)

    def __getbuffer__(self, Py_buffer* view, int flags):
        cdef Segment* seg = self._open()
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
        with cython.critical_section(self.buffer):
            seg.exports -= 1
            if seg.exports == 0 and seg.state == LIMBO:
                seg_release(&self.buffer.ring, seg)

    def decode(self):
        """The events as a list of dicts, `stm` included: with string values, or as they were given in with `keep`."""
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
        body = memoryview(self)
        try:
            # From the bracket that ends the envelope's start to the one that its end begins with.
            return load_events(body[JSON_PREFIX_LEN - 1:-1])
        finally:
            body.release()

    def originals(self):
        """What the events were made from, with `keep`."""
        cdef Segment* seg = self._open()
        cdef int64_t number, seq = seg.seq, count = <int64_t> seg.count
        cdef list events = []
        for number in range(seq, seq + count):
            events.append(self.kept[number])
        return events

    # -- what becomes of it ------------------------------------------------------------------------------------------

    def split(self):
        """Halve a batch of two or more: returns the first half, keeps the second. `MemoryError` changes nothing."""
        cdef Batch half = Batch.__new__(Batch, self.buffer)
        # After that: to allocate one may run any code.
        cdef Segment* seg = self._open()
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
        """Keep these events in a request of their own: nothing is added to them when they are given back."""
        self._open().sealed = True

    def sent(self):
        """Settle: the collector has them."""
        self._settle(SENT)

    def dropped(self, str reason not None):
        """Settle: nobody will have them. `reason` is "rejected", "oversize" or "overflow"."""
        self._settle(DROPPED, DROPPED_FOR[reason])

    def give_back(self, bint retried=True):
        """Settle: they go back to the place in the queue that they came from. `retried` counts them as such."""
        self._settle(RETRIED if retried else KEPT)

    def yield_place(self):
        """Settle: they go to the end of the queue, with new numbers."""
        self._settle(YIELDED)
