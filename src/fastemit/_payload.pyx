"""The native part of `Tracker`: the payload of an event, built as snowplow_tracker builds it.

The steps of `snowplow_tracker.Tracker.track` are done here only if nobody has replaced a function that it would call.
`original` tells that for each event. Attributes of an event or of its class are checked where they would be used. If
anything is not as expected, the code of snowplow_tracker runs, before this module does anything that this code would do
again.

Thread safety: `track` may be called from any thread at any time. Threads share a block of random bytes and one piece of
memory here. Each is taken in lines of C that run no Python code. The GIL is the lock, because no other thread and no
signal handler can take it away between these lines.
"""

cimport cython
from cpython.dict cimport PyDict_Copy, PyDict_Next, PyDict_SetItem, PyDict_Update
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from fastemit._ascii cimport UUID_BYTES, UUID_LETTERS, base64_size, base64_write, uuid_write
from fastemit._system cimport fork_count
from fastemit._json cimport Text, write_raw, write_string, write_value
from fastemit._pairs cimport Pairs, add, add_dict, add_kept
from fastemit._text cimport fill_forms
from fastemit._watch cimport UNKNOWN_VERSION, look_from_here, more_unchanged, unchanged, version_of, watch_changes

import base64
import inspect
import json
import os
import time
import types
import uuid

import snowplow_tracker.contracts as contracts_module
import snowplow_tracker.events as events_module
import snowplow_tracker.events.event as event_module
import snowplow_tracker.events.self_describing as self_describing_module
import snowplow_tracker.payload as payload_module
import snowplow_tracker.self_describing_json as documents_module
import snowplow_tracker.subject as subject_module
import snowplow_tracker.tracker as tracker_module


cdef extern from "Python.h":
    void PyMem_RawFree(void* pointer) nogil
    # All on borrowed references, because these run for each event.
    PyObject* PyDict_GetItemWithError(PyObject* members, PyObject* name) noexcept
    Py_ssize_t PyDict_GET_SIZE(object members) noexcept
    object PyObject_GenericGetDict(object o, void* context)
    int PyUnicode_Compare(PyObject* a, PyObject* b) noexcept
    PyObject* PyType_Lookup "_PyType_Lookup" (PyTypeObject* type, PyObject* name) noexcept
    PyTypeObject* Py_TYPE(object o) noexcept
    bint PyMethod_Check(object o) noexcept
    PyObject* PyMethod_GET_FUNCTION(object method) noexcept
    PyObject* PyMethod_GET_SELF(object method) noexcept
    bint PyUnicode_CheckExact(PyObject* o) noexcept
    bint PyList_CheckExact(PyObject* o) noexcept
    Py_ssize_t PyList_GET_SIZE(PyObject* o) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* o) noexcept
    object PyLong_FromDouble(double value)
    bint PyDict_CheckExact(object o) noexcept
    str PyUnicode_New(Py_ssize_t size, unsigned int largest)
    void* PyUnicode_DATA(object o) noexcept
    str PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)

cdef extern from *:
    """
    #include <time.h>
    /* `time.time()` without an object for it, by the same steps. Less than 0 where it is to be asked. */
    static inline double fastemit_time(void) {
    #if defined(CLOCK_REALTIME) && !defined(_WIN32)
        struct timespec now;
        if (clock_gettime(CLOCK_REALTIME, &now) == 0)
            return (double) ((int64_t) now.tv_sec * 1000000000 + now.tv_nsec) / 1e9;
    #endif
        return -1;
    }
    static inline PyObject* fastemit_members(PyObject* o) {
        return PyType_Check(o) ? ((PyTypeObject*) o)->tp_dict : PyModule_GetDict(o);
    }
    static inline int fastemit_plain_attributes(PyObject* o) {
        return Py_TYPE(o)->tp_getattro == PyObject_GenericGetAttr;
    }
    """
    double system_time "fastemit_time" () noexcept
    # The dict of a class or module, which it keeps for as long as it lives.
    PyObject* members_of "fastemit_members" (object owner) noexcept
    bint plain_attributes "fastemit_plain_attributes" (object o) noexcept


# -- what must be in place ---------------------------------------------------------------------------------------------

# The functions of snowplow_tracker and Python whose work is done here, by the names that snowplow_tracker looks up.
# When one of the modules and classes that hold them changes, all are compared again.

cdef object ABSENT = object()


cdef object genuine(object owner, str name):
    """What a class or module has by this name, if that is the original; else an object that is nowhere.

    A patch that is active while this module is imported must not be taken for the original.
    """
    cdef object found = inspect.getattr_static(owner, name, None)
    cdef object code = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    cdef object home = inspect.getmodule(owner)
    cdef bint own
    if inspect.ismodule(code):
        own = code.__name__.rpartition(".")[2] == name
    elif inspect.isclass(code):
        # `json.encoder` has one that is written in C, in `_json`.
        own = code.__module__ in (home.__name__, "_" + home.__name__.partition(".")[0])
    elif inspect.isfunction(code):
        own = code.__globals__ is vars(home) and code.__code__.co_name == name
    else:
        own = inspect.isbuiltin(code)
    return found if own else object()


cdef object PARENT = tracker_module.Tracker
cdef object TRACK = genuine(PARENT, "track")
cdef object COMPLETE_PAYLOAD = genuine(PARENT, "complete_payload")
cdef object PAYLOAD = genuine(payload_module, "Payload")
cdef object SUBJECT = genuine(subject_module, "Subject")
cdef object COMBINE = genuine(subject_module.Subject, "combine_subject")
cdef object DOCUMENT = genuine(documents_module, "SelfDescribingJson")
cdef object EVENT = event_module.Event
cdef object CONTEXT = genuine(EVENT, "context")
cdef object EVENT_SUBJECT = genuine(EVENT, "event_subject")
cdef object TRUE_TIMESTAMP = genuine(EVENT, "true_timestamp")
cdef object BUILD = genuine(EVENT, "build_payload")
cdef object SELF_DESCRIBING = self_describing_module.SelfDescribing
cdef object EVENT_JSON = genuine(SELF_DESCRIBING, "event_json")
cdef object BUILD_SELF_DESCRIBING = genuine(SELF_DESCRIBING, "build_payload")
# The table of `_text.pxd` is one for each extension.
fill_forms()

cdef object clock = time.time
cdef object urandom = os.urandom
cdef object dumps = json.dumps
cdef dict OF_EVENT = vars(event_module)
cdef dict OF_SELF_DESCRIBING = vars(self_describing_module)
cdef dict OF_TRACKER = vars(tracker_module)
cdef object NUMBERS = (int, float)
# Classes of events that `original` has checked, so that it need not check them for each event.
cdef enum:
    EVENT_CLASSES = 5

cdef tuple EVENTS = (
    events_module.PageView, events_module.StructuredEvent, SELF_DESCRIBING, events_module.PagePing, EVENT
)
cdef PyObject* event_classes[EVENT_CLASSES]  # the same
# What an event keeps in its own dict. No class may have any of it, as a property would be.
cdef tuple ATTRIBUTES = ("payload", "_context", "_event_subject", "_true_timestamp", "_event_json")
# The same of a tracker.
cdef tuple OF_A_TRACKER = ("emitters", "subject", "encode_base64", "json_encoder", "standard_nv_pairs")

# Modules and classes whose functions are called only for a document or a context.
cdef tuple FOR_JSON = (
    json, json.encoder, json.encoder.JSONEncoder, base64, payload_module, documents_module, DOCUMENT, event_module,
    self_describing_module, SELF_DESCRIBING,
)

cdef object OUR_TRACKER = None         # what `serve` was given
cdef object OUR_GET_UUID               # its own
cdef object OUR_COMPLETE_PAYLOAD       # the method here
cdef list originals = []               # a class or module, a name, and what that stands for there
cdef bint watching = False             # whether Python tells changes, so that `found_in_place` holds until one comes
cdef bint found_in_place = False
cdef str context_schema = None         # of the envelopes, which are variables of modules
cdef str event_schema = None


def serve(cls not None):
    """Begin to work for `cls`, the class that users know as `Tracker`.

    snowplow_tracker calls `get_uuid` and `get_timestamp` by the name of its class. A function that replaces one of them
    in `cls` is called in the same places.
    """
    global OUR_TRACKER, OUR_GET_UUID, OUR_COMPLETE_PAYLOAD, watching
    OUR_TRACKER = cls
    OUR_GET_UUID = vars(cls)["get_uuid"]
    OUR_COMPLETE_PAYLOAD = vars(PayloadMaker)["complete_payload"]
    originals.clear()
    for i in range(EVENT_CLASSES):
        event_classes[i] = <PyObject*> EVENTS[i]
    for owner, names in (
        (PARENT, ("track", "complete_payload", "get_uuid", "get_timestamp")),
        (tracker_module, ("time", "uuid")),
        (time, ("time",)),
        (uuid, ("uuid4", "UUID")),
        (os, ("urandom",)),
        (PAYLOAD, ("add", "add_dict", "add_json")),
        (payload_module, ("json", "base64")),
        (SUBJECT, ("combine_subject",)),
        (DOCUMENT, ("__init__", "schema", "to_json")),
        (EVENT, ("build_payload", "context", "event_subject", "true_timestamp")),
        (SELF_DESCRIBING, ("build_payload", "event_json")),
        (json, ("dumps",)),
        (json.encoder, ("JSONEncoder", "c_make_encoder", "encode_basestring")),
        (json.encoder.JSONEncoder, ("__init__", "encode", "iterencode")),
        (base64, ("urlsafe_b64encode", "b64encode")),
    ):
        for name in names:
            originals.append((owner, name, genuine(owner, name)))
    originals.extend((
        (cls, "get_uuid", OUR_GET_UUID),
        (cls, "get_timestamp", ABSENT),
        (cls, "complete_payload", ABSENT),
        (event_module, "SelfDescribingJson", DOCUMENT),
        (self_describing_module, "SelfDescribingJson", DOCUMENT),
        (documents_module, "non_empty_string", genuine(contracts_module, "non_empty_string")),
        (json, "JSONEncoder", genuine(json.encoder, "JSONEncoder")),
    ))
    for event in EVENTS:
        for name in ATTRIBUTES + ("build_payload", "context", "event_subject", "true_timestamp", "event_json"):
            if name not in vars(event) or name in ATTRIBUTES:
                originals.append((event, name, ABSENT))
    for owner, names in (
        (cls, OF_A_TRACKER),
        (PARENT, OF_A_TRACKER),
        (SUBJECT, ("standard_nv_pairs",)),
        (PAYLOAD, ("nv_pairs",)),
    ):
        for name in names:
            originals.append((owner, name, ABSENT))
    for owner in (cls, PARENT, SUBJECT, PAYLOAD, *EVENTS):
        originals.append((owner, "__getattribute__", ABSENT))
    for owner, _, _ in originals:
        if not isinstance(owner, (type, types.ModuleType)):
            # A class was patched while this was imported: nothing is built here.
            originals[:] = [(cls, "get_uuid", None)]
            break
    try:
        for owner, _, _ in originals:
            watch_changes(members_of(owner), owner in FOR_JSON)
        watching = True
    except (RuntimeError, OverflowError):
        # Other programs use all watchers that Python allows. Then all is compared for each event.
        watching = False


cdef bint all_in_place() except -1:
    """Compare again, and remember. Nothing is allocated meanwhile, so no other thread runs."""
    global found_in_place, context_schema, event_schema
    cdef PyObject* named = value_of(OF_TRACKER, "Tracker")
    cdef PyObject* found
    cdef tuple entry
    look_from_here()
    found_in_place = False
    if OUR_TRACKER is None or (named != <PyObject*> PARENT and named != <PyObject*> OUR_TRACKER):
        return False
    for entry in originals:
        found = PyDict_GetItemWithError(members_of(entry[0]), <PyObject*> entry[1])
        if found != <PyObject*> entry[2] and not (found == NULL and entry[2] is ABSENT):
            return False
    context_schema = schema_in(OF_EVENT, "CONTEXT_SCHEMA")
    event_schema = schema_in(OF_SELF_DESCRIBING, "UNSTRUCT_EVENT_SCHEMA")
    found_in_place = context_schema is not None and event_schema is not None
    return found_in_place


cdef inline PyObject* value_of(object members, str name) noexcept:
    """Borrowed; NULL if there is none."""
    return PyDict_GetItemWithError(<PyObject*> members, <PyObject*> name)


cdef str schema_in(dict module, str name):
    """The schema of an envelope. None if it is none."""
    cdef PyObject* schema = value_of(module, name)
    if schema == NULL or not PyUnicode_CheckExact(schema) or PyUnicode_GET_LENGTH(schema) == 0:
        return None
    return <str> schema


cdef inline bint original() except -1:
    """Whether everything that is done here is what snowplow_tracker would do, except for what is FOR_JSON."""
    if watching and unchanged() and (found_in_place or more_unchanged()):
        return found_in_place
    return all_in_place()


cdef inline bint original_for_json() except -1:
    """The same, including what is FOR_JSON."""
    return found_in_place if watching and more_unchanged() and unchanged() else all_in_place()


cdef bint is_own(object method, object function, object owner) noexcept:
    """Whether `method` is `function` bound to its owner: neither a subclass, nor the object itself, has another."""
    return (
        PyMethod_Check(method)
        and PyMethod_GET_FUNCTION(method) == <PyObject*> function
        and PyMethod_GET_SELF(method) == <PyObject*> owner
    )


cdef inline bint has(object owner, str name, PyObject* expected) noexcept:
    """Whether the class of `owner` has, or inherits, exactly this; NULL for nothing."""
    return PyType_Lookup(Py_TYPE(owner), <PyObject*> name) == expected


# -- ids ---------------------------------------------------------------------------------------------------------------

cdef enum:
    # The number of ids for which random bytes are taken at once: few at first, and after a rest.
    FEW_IDS = 16
    MANY_IDS = 256

cdef const long* forks = fork_count()
cdef uint8_t[MANY_IDS * UUID_BYTES] block
cdef Py_ssize_t ids_left = 0           # at the block's start; the last of them is the next
cdef long forks_at_fill = 0            # a child has its parent's block, and must not use it
# A process may also be cloned with its memory, by a snapshot of a virtual machine. So a block is used for a second.
cdef double filled_at = 0
cdef double OLDEST = 1.0


cdef str next_id(double now):
    """A random UUID of version 4. `now` is in seconds, by any clock that goes on while a snapshot is not running."""
    global ids_left, forks_at_fill, filled_at
    cdef str text = PyUnicode_New(UUID_LETTERS, 127)
    cdef bytes fresh
    cdef Py_ssize_t count
    if ids_left == 0 or forks_at_fill != forks[0] or not 0 <= now - filled_at <= OLDEST:
        count = MANY_IDS if ids_left == 0 and 0 <= now - filled_at <= OLDEST else FEW_IDS
        fresh = urandom(count * UUID_BYTES)
        if len(fresh) != count * UUID_BYTES:
            raise OSError(f"os.urandom gave {len(fresh)} bytes of {count * UUID_BYTES}")
        # Another thread may have filled the block meanwhile, or have forked. From here nothing else runs.
        memcpy(block, <const char*> fresh, count * UUID_BYTES)
        ids_left = count
        forks_at_fill = forks[0]
        filled_at = now
    ids_left -= 1
    uuid_write(<char*> PyUnicode_DATA(text), block + ids_left * UUID_BYTES)
    return text


cdef inline double seconds() except? -1:
    """`time.time()`."""
    cdef double now = system_time()
    return clock() if now < 0 else now


def new_id():
    """A random UUID of version 4; from `snowplow_tracker.Tracker.get_uuid` where that, or what it calls, is patched."""
    if original():
        return next_id(seconds())
    return PARENT.get_uuid()


# -- payloads and subjects ---------------------------------------------------------------------------------------------


cdef inline PyObject* only_attribute(object owner, str name) except? NULL:
    """The value of an object's only attribute, if it has this name. Then the object has no own method. Borrowed."""
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    cdef object members = PyObject_GenericGetDict(owner, NULL)
    if PyDict_GET_SIZE(members) == 1 and PyDict_Next(members, &at, &key, &value) and key == <PyObject*> name:
        return value
    return NULL


cdef inline dict plain_pairs(object made):
    """The pairs of a payload, if adding to it only means putting pairs there. None for any other."""
    cdef PyObject* pairs
    if type(made) is not PAYLOAD:
        return None
    pairs = only_attribute(made, "nv_pairs")
    return <dict> pairs if pairs != NULL and PyDict_CheckExact(<object> pairs) else None


cdef object pairs_of_subjects(object subject, object event_subject):
    """The pairs of both subjects; those of the event replace the others. None if it is not as simple as that."""
    cdef object pairs = None
    cdef object own
    cdef PyObject* found
    cdef dict both
    if subject is not None:
        pairs = subject.standard_nv_pairs
        if not PyDict_CheckExact(pairs):
            return None
    if event_subject is None:
        return {} if pairs is None else pairs
    if type(event_subject) is SUBJECT:
        found = only_attribute(event_subject, "standard_nv_pairs")
        own = <object> found if found != NULL else None
    else:
        own = event_subject.standard_nv_pairs if is_own(event_subject.combine_subject, COMBINE, event_subject) else None
    if not PyDict_CheckExact(own):
        return None
    if pairs is None:
        return own
    both = PyDict_Copy(pairs)
    PyDict_Update(both, own)
    return both


# -- JSON --------------------------------------------------------------------------------------------------------------

cdef enum:
    # More is not kept for the next event.
    LARGEST_KEPT = 256 * 1024

# The memory for JSON. An event takes it and puts it back. An event that finds nothing here allocates its own.
cdef char* spare = NULL
cdef size_t spare_size = 0


cdef Text new_text(object json_encoder) noexcept:
    global spare, spare_size
    cdef Text text = Text(
        start=spare, at=spare, limit=spare + spare_size, surrogates=False,
        encoder=<PyObject*> json_encoder, dumps=<PyObject*> dumps,
    )
    spare = NULL
    spare_size = 0
    return text


cdef void free_text(Text* text) noexcept:
    global spare, spare_size
    if spare == NULL and text.limit - text.start <= LARGEST_KEPT:
        spare = text.start
        spare_size = text.limit - text.start
    else:
        PyMem_RawFree(text.start)


cdef int write_document(Text* text, object document) except -1:
    """What `to_json` of a plain document would return."""
    write_raw(text, b'{"schema": ', 11)
    write_value(text, document._schema, NULL)
    write_raw(text, b', "data": ', 10)
    write_value(text, document.data, NULL)
    return write_raw(text, b"}", 1)


cdef str text_of(Text* text, object encode_base64):
    """The JSON, as `Payload.add_json` puts it into a payload."""
    cdef str made
    cdef size_t length = text.at - text.start
    if not encode_base64 or text.surrogates:
        made = PyUnicode_DecodeUTF8(text.start, length, b"surrogatepass")
        if encode_base64:
            # An error, and it is told where in the JSON.
            made.encode("utf-8")
        return made
    made = PyUnicode_New(base64_size(length), 127)
    base64_write(<char*> PyUnicode_DATA(made), <const uint8_t*> text.start, length)
    return made


cdef bint is_plain(object document) except -1:
    """Whether it is a `SelfDescribingJson` that has only the attributes of which `to_json` is made."""
    cdef object members
    if type(document) is not DOCUMENT:
        return False
    members = PyObject_GenericGetDict(document, NULL)
    return PyDict_GET_SIZE(members) == 2 and value_of(members, "_schema") != NULL and value_of(members, "data") != NULL


cdef str document_in_envelope(str schema, object document, object encode_base64, object json_encoder):
    """The JSON of an event's own document."""
    cdef object returned = None if is_plain(document) else document.to_json()
    cdef Text text = new_text(json_encoder)
    try:
        write_raw(&text, b'{"schema": ', 11)
        write_string(&text, schema)
        write_raw(&text, b', "data": ', 10)
        if returned is None:
            write_document(&text, document)
        else:
            write_value(&text, returned, NULL)
        write_raw(&text, b"}", 1)
        return text_of(&text, encode_base64)
    finally:
        free_text(&text)


cdef str context_in_envelope(str schema, list context, object encode_base64, object json_encoder):
    """The JSON of the documents that are an event's context."""
    cdef Text text
    cdef list returned = None
    cdef bint first = True
    for document in context:
        if not is_plain(document):
            # All are asked before the first is written.
            # Not by a comprehension, because without memory the C of Cython 3.3 drops the item twice.
            returned = []
            for each in context:
                returned.append(each.to_json())
            break
    text = new_text(json_encoder)
    try:
        write_raw(&text, b'{"schema": ', 11)
        write_string(&text, schema)
        write_raw(&text, b', "data": ', 10)
        if returned is not None:
            write_value(&text, returned, NULL)
        else:
            write_raw(&text, b"[", 1)
            for document in context:
                if not first:
                    write_raw(&text, b", ", 2)
                first = False
                write_document(&text, document)
            write_raw(&text, b"]", 1)
        write_raw(&text, b"}", 1)
        return text_of(&text, encode_base64)
    finally:
        free_text(&text)


# -- what trackers have ------------------------------------------------------------------------------------------------


cdef struct Known:
    uint64_t version            # of the dict of a tracker; what follows is borrowed from it, while it has this version
    PyObject* emitters
    PyObject* subject
    PyObject* encode_base64
    PyObject* json_encoder
    PyObject* standard_nv_pairs
    uint64_t subject_version    # of the dict of its subject, for which the next line holds
    PyObject* subject_pairs
    Pairs of_tracker
    Pairs of_subject


cdef enum:
    # For so many trackers something is kept, by the address of the tracker's dict.
    TRACKERS = 16

cdef Known known_trackers[TRACKERS]


cdef inline bint holds(const Known* known, object members) noexcept:
    """Whether this is what is known of the tracker with the dict `members`, as that is now."""
    return known.version == version_of(<PyObject*> members) and known.version != UNKNOWN_VERSION


cdef inline Known* known_of(object members) noexcept:
    """What is known of the tracker with this dict, until it changes. NULL if the dict is not like that of most."""
    cdef Known* known = &known_trackers[(<size_t> <PyObject*> members >> 6) % TRACKERS]
    return known if holds(known, members) or look_at_tracker(known, members) else NULL


cdef bint look_at_tracker(Known* known, object members) noexcept:
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    known.version = known.subject_version = UNKNOWN_VERSION
    known.emitters = known.subject = known.encode_base64 = known.json_encoder = known.standard_nv_pairs = NULL
    while PyDict_Next(members, &at, &key, &value):
        # Python makes one object of each such name.
        if key == <PyObject*> "emitters":
            known.emitters = value
        elif key == <PyObject*> "subject":
            known.subject = value
        elif key == <PyObject*> "encode_base64":
            known.encode_base64 = value
        elif key == <PyObject*> "json_encoder":
            known.json_encoder = value
        elif key == <PyObject*> "standard_nv_pairs":
            known.standard_nv_pairs = value
        elif not PyUnicode_CheckExact(key) or PyUnicode_Compare(key, <PyObject*> "complete_payload") == 0:
            return False
    if (
        known.emitters == NULL
        or known.subject == NULL
        or known.encode_base64 == NULL
        or known.json_encoder == NULL
        or known.standard_nv_pairs == NULL
        or not PyDict_CheckExact(<object> known.standard_nv_pairs)
    ):
        return False
    known.version = version_of(<PyObject*> members)
    return True


cdef inline bint add_subject(dict pairs, Known* known) except -1:
    """Add the pairs of a tracker's subject. False, and nothing done, if it is not as simple as that."""
    cdef object subject = <object> known.subject
    cdef object members
    cdef PyObject* found
    if subject is None:
        return True
    if type(subject) is not SUBJECT:
        return False
    members = PyObject_GenericGetDict(subject, NULL)
    if known.subject_version != version_of(<PyObject*> members) or known.subject_version == UNKNOWN_VERSION:
        found = only_attribute(subject, "standard_nv_pairs")
        if found == NULL or not PyDict_CheckExact(<object> found):
            return False
        known.subject_pairs = found
        known.subject_version = version_of(<PyObject*> members)
    add_kept(pairs, <dict> known.subject_pairs, &known.of_subject)
    return True


# -- events ------------------------------------------------------------------------------------------------------------


# What an event consists of, borrowed from its dict; NULL for what is not there.
cdef struct Parts:
    PyObject* payload
    PyObject* context
    PyObject* event_subject
    PyObject* true_timestamp
    PyObject* event_json


cdef inline bint take_apart(object event, Parts* parts) except -1:
    """Look up an event's attributes. False if it has a `build_payload` of its own."""
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    cdef object members = PyObject_GenericGetDict(event, NULL)
    cdef Py_ssize_t left = PyDict_GET_SIZE(members)
    while left and PyDict_Next(members, &at, &key, &value):
        left -= 1
        # Python makes one object of each such name.
        if key == <PyObject*> "payload":
            parts.payload = value
        elif key == <PyObject*> "_context":
            parts.context = value
        elif key == <PyObject*> "_event_subject":
            parts.event_subject = value
        elif key == <PyObject*> "_true_timestamp":
            parts.true_timestamp = value
        elif key == <PyObject*> "_event_json":
            parts.event_json = value
        elif not PyUnicode_CheckExact(key) or PyUnicode_Compare(key, <PyObject*> "build_payload") == 0:
            return False
    return True


cdef bint is_usual(object event) except -1:
    """Whether the class of an event, none of EVENTS, leaves its attributes to `Event` and `SelfDescribing`."""
    if not (
        isinstance(event, EVENT)
        and plain_attributes(event)
        and has(event, "context", <PyObject*> CONTEXT)
        and has(event, "event_subject", <PyObject*> EVENT_SUBJECT)
        and has(event, "true_timestamp", <PyObject*> TRUE_TIMESTAMP)
    ):
        return False
    for name in ATTRIBUTES:
        if not has(event, name, NULL):
            return False
    return not isinstance(event, SELF_DESCRIBING) or (
        has(event, "event_json", <PyObject*> EVENT_JSON)
        and is_own(super(SELF_DESCRIBING, event).build_payload, BUILD, event)
    )


cdef enum Building:
    AS_EVENT            # by `Event.build_payload`
    AS_SELF_DESCRIBING  # by that of `SelfDescribing`
    IN_ITS_OWN_WAY
    FAILED


cdef inline Building way_of(object event) except FAILED:
    """By which function an event's payload is built."""
    cdef PyObject* building
    cdef int i
    for i in range(EVENT_CLASSES):
        if <PyObject*> Py_TYPE(event) == event_classes[i]:
            return AS_SELF_DESCRIBING if event_classes[i] == <PyObject*> SELF_DESCRIBING else AS_EVENT
    building = PyType_Lookup(Py_TYPE(event), <PyObject*> "build_payload")
    if (building == <PyObject*> BUILD or building == <PyObject*> BUILD_SELF_DESCRIBING) and is_usual(event):
        return AS_EVENT if building == <PyObject*> BUILD else AS_SELF_DESCRIBING
    return IN_ITS_OWN_WAY


cdef dict build(object event, object self, Known* known):
    """Do what `Event.build_payload`, or that of `SelfDescribing`, does; the pairs of the event's payload.

    None, and nothing done, if the event has another, or is not as these know it. `known` may be NULL.
    """
    cdef Building way = way_of(event)
    cdef Parts parts = Parts(NULL, NULL, NULL, NULL, NULL)
    cdef dict pairs
    if way == IN_ITS_OWN_WAY or not take_apart(event, &parts):
        return None
    if parts.payload == NULL or parts.context == NULL or parts.event_subject == NULL or parts.true_timestamp == NULL:
        return None
    pairs = plain_pairs(<object> parts.payload)
    if pairs is None or not PyList_CheckExact(parts.context):
        return None
    if (
        known != NULL
        and way == AS_EVENT
        and PyList_GET_SIZE(parts.context) == 0
        and parts.event_subject == <PyObject*> None
        and parts.true_timestamp == <PyObject*> None
    ):
        return pairs if add_subject(pairs, known) else None
    return build_fully(pairs, self, way, parts)


cdef dict build_fully(dict pairs, object self, Building way, Parts parts):
    """The same with a document, a context, a subject or a time of the event's own."""
    cdef list context = <list> parts.context
    cdef object true_timestamp = <object> parts.true_timestamp
    cdef object event_subject = <object> parts.event_subject
    cdef object event_json = None
    cdef object subjects, encode_base64 = None, json_encoder = None
    cdef str written
    if (way == AS_SELF_DESCRIBING or context) and not original_for_json():
        return None
    if way == AS_SELF_DESCRIBING:
        if parts.event_json == NULL:
            return None
        event_json = <object> parts.event_json
    try:
        subjects = pairs_of_subjects(self.subject, event_subject)
        if way == AS_SELF_DESCRIBING or context:
            encode_base64 = self.encode_base64
            json_encoder = self.json_encoder
    except AttributeError:
        # What is missing raises where it is needed.
        return None
    if subjects is None:
        return None
    if way == AS_SELF_DESCRIBING:
        written = document_in_envelope(event_schema, event_json, encode_base64, json_encoder)
        pairs["ue_px" if encode_base64 else "ue_pr"] = written
    if context:
        written = context_in_envelope(context_schema, context, encode_base64, json_encoder)
        pairs["cx" if encode_base64 else "co"] = written
    # As a variable. A constant would be compared with the type, and a mock would not be asked what it stands for.
    if true_timestamp is not None and isinstance(true_timestamp, NUMBERS):
        add(pairs, "ttm", int(true_timestamp))
    add_dict(pairs, subjects)
    return pairs


cdef object built_by_itself(object event, object self):
    """`event.build_payload`, whatever that is."""
    return event.build_payload(
        encode_base64=self.encode_base64, json_encoder=self.json_encoder, subject=self.subject
    )


# -- trackers ----------------------------------------------------------------------------------------------------------


cdef inline object finish(dict pairs, object self, object members):
    """What `Tracker.complete_payload` adds to what an event has built. The id, or None if another may have replaced it.

    `members` is the dict of a tracker that is of our class itself.
    """
    cdef double now = seconds()
    cdef str event_id = next_id(now)
    cdef Known* known
    PyDict_SetItem(pairs, "eid", event_id)
    PyDict_SetItem(pairs, "dtm", PyLong_FromDouble(now * 1000))
    known = NULL if members is None else known_of(members)
    if known == NULL:
        add_dict(pairs, self.standard_nv_pairs)
        return None
    return event_id if add_kept(pairs, <dict> known.standard_nv_pairs, &known.of_tracker) else None


cdef object complete(object event, object self):
    """`Tracker.complete_payload`, when all is `original`, of an event that `build` does not know."""
    cdef object made = built_by_itself(event, self)
    cdef dict pairs = plain_pairs(made)
    cdef double now
    if pairs is not None:
        finish(pairs, self, None)
        return made
    now = seconds()
    made.add("eid", next_id(now))
    made.add("dtm", PyLong_FromDouble(now * 1000))
    made.add_dict(self.standard_nv_pairs)
    return made


cdef bint inherits(object self, str name, object function) except -1:
    """Whether the class after `PayloadMaker` has this method from `snowplow_tracker.Tracker`."""
    return type(self) is OUR_TRACKER or is_own(getattr(super(PayloadMaker, self), name), function, self)


cdef bint completes(object self) except -1:
    """Whether `complete_payload` is what is here."""
    return (
        is_own(self.complete_payload, OUR_COMPLETE_PAYLOAD, self)
        and inherits(self, "complete_payload", COMPLETE_PAYLOAD)
    )


cdef bint replaced_in_ours(str name):
    """Whether somebody has put a function in place of this one of our class."""
    return vars(OUR_TRACKER).get(name) is not (OUR_GET_UUID if name == "get_uuid" else None)


cdef object complete_with_replaced(object self, object event):
    """`Tracker.complete_payload`, with what replaces functions of our class in place of those of the parent's."""
    cdef object named = OF_TRACKER["Tracker"]
    cdef object made = built_by_itself(event, self)
    made.add("eid", (OUR_TRACKER if replaced_in_ours("get_uuid") else named).get_uuid())
    made.add("dtm", (OUR_TRACKER if replaced_in_ours("get_timestamp") else named).get_timestamp())
    made.add_dict(self.standard_nv_pairs)
    return made


@cython.auto_pickle(False)
cdef class PayloadMaker:
    """The way of each event. `Tracker` inherits it, so that it is one call in C."""

    def track(self, event):
        """Complete the event's payload and give it to each emitter.

        Args:
            event: a `PageView`, `StructuredEvent`, or any other event of snowplow_tracker or of your own.

        Returns:
            The event's id (`eid`), a random UUID. None if the payload has none.

        Raises:
            What the event or an emitter raises. Emitters that come after one that raises do not get the event.
        """
        cdef object made = None
        cdef object members = None
        cdef object emitters
        cdef Known* known = NULL
        cdef dict pairs = None
        cdef object event_id = None
        cdef PyObject* found
        cdef uint64_t version
        if not (original() and (type(self) is OUR_TRACKER or inherits(self, "track", TRACK))):
            return super().track(event)
        if type(self) is OUR_TRACKER:
            members = PyObject_GenericGetDict(self, NULL)
            known = known_of(members)
        if known != NULL or completes(self):
            pairs = build(event, self, known)
            if pairs is None:
                made = complete(event, self)
            else:
                event_id = finish(pairs, self, members)
        else:
            made = self.complete_payload(event=event)
        if pairs is None:
            for emitter in self.emitters:
                emitter.input(made.nv_pairs)
            return made.nv_pairs["eid"] if "eid" in made.nv_pairs.keys() else None
        version = version_of(<PyObject*> pairs)
        known = NULL if members is None else known_of(members)
        emitters = self.emitters if known == NULL else <object> known.emitters
        for emitter in emitters:
            emitter.input(pairs)
        if event_id is not None and version == version_of(<PyObject*> pairs) and version != UNKNOWN_VERSION:
            return event_id
        found = value_of(pairs, "eid")
        return None if found == NULL else <object> found

    def complete_payload(self, event):
        """Build the event's payload, and add an id, the time of creation and the tracker's own fields.

        Args:
            event: as for `track`, which calls this.

        Returns:
            The event's `snowplow_tracker.payload.Payload`.

        Raises:
            What the event raises.
        """
        if inherits(self, "complete_payload", COMPLETE_PAYLOAD):
            if original():
                pairs = build(event, self, NULL)
                if pairs is None:
                    return complete(event, self)
                finish(pairs, self, None)
                return event.payload
            if replaced_in_ours("get_uuid") or replaced_in_ours("get_timestamp"):
                return complete_with_replaced(self, event)
        return super().complete_payload(event=event)
