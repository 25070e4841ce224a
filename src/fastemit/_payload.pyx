"""The native part of `Tracker`: the payload of an event, built as snowplow_tracker builds it.

The steps of `snowplow_tracker.Tracker.track` are done here only while nobody has replaced a function that it would
call: `original` tells, for each event, whether all are in place, and what an event or its class has of its own is
looked at where it would be used. What is not as expected goes to the code of snowplow_tracker itself, before anything
is done that this code would do again.

Thread safety: `track` may be called from any thread at any time. What threads share here is a block of random bytes and
one piece of memory, each taken in lines of C that run no Python code: the GIL, which no other thread and no signal
handler can take away between them, is the lock.
"""

cimport cython
from cpython.dict cimport PyDict_Copy, PyDict_Next, PyDict_SetItem, PyDict_Size, PyDict_Update
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from fastemit._ascii cimport UUID_BYTES, UUID_LETTERS, base64_size, base64_write, uuid_write
from fastemit._buffer cimport fork_count
from fastemit._json cimport Text, write_raw, write_string, write_value
from fastemit._text cimport fill_forms
from fastemit._watch cimport look_from_here, unchanged, watch_changes

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
    # All on borrowed references: these run for each event.
    PyObject* PyDict_GetItemWithError(PyObject* members, PyObject* name) noexcept
    object PyObject_GenericGetDict(object o, void* context)
    int PyUnicode_Compare(PyObject* a, PyObject* b) noexcept
    PyObject* PyType_Lookup "_PyType_Lookup" (PyTypeObject* type, PyObject* name) noexcept
    PyTypeObject* Py_TYPE(object o) noexcept
    bint PyMethod_Check(object o) noexcept
    PyObject* PyMethod_GET_FUNCTION(object method) noexcept
    PyObject* PyMethod_GET_SELF(object method) noexcept
    bint PyUnicode_CheckExact(PyObject* o) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* o) noexcept
    bint PyLong_CheckExact(PyObject* o) noexcept
    bint PyBool_Check(PyObject* o) noexcept
    bint PyFloat_CheckExact(PyObject* o) noexcept
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

# The functions of snowplow_tracker and Python whose work is done here, looked up by name where that would look them up.
# When one of the modules and classes that hold them changes, all are compared again.

cdef object ABSENT = object()


cdef object genuine(object owner, str name):
    """What a class or module has by this name, if that is its own; else an object that is nowhere.

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
# Classes of events that `original` looks at, so that it is not done for each event.
cdef tuple EVENTS = (
    events_module.PageView, events_module.StructuredEvent, SELF_DESCRIBING, events_module.PagePing, EVENT
)
# What an event keeps in its own dict. No class may have any of it, as a property would be.
cdef tuple ATTRIBUTES = ("payload", "_context", "_event_subject", "_true_timestamp", "_event_json")

cdef object OUR_TRACKER = None         # what `serve` was given
cdef object OUR_GET_UUID               # its own
cdef object OUR_COMPLETE_PAYLOAD       # the method here
cdef list originals = []               # a class or module, a name, and what that stands for there
cdef bint watching = False             # whether changes are told, so that `found_in_place` holds for a while
cdef bint found_in_place = False
cdef str context_schema = None         # of the envelopes, which are variables of modules
cdef str event_schema = None


def serve(cls not None):
    """Begin to work for `cls`, the class that users know as `Tracker`.

    Who replaces its `get_uuid` or `get_timestamp` has replaced that of `snowplow_tracker.Tracker`, where it is called
    by the name of the class.
    """
    global OUR_TRACKER, OUR_GET_UUID, OUR_COMPLETE_PAYLOAD, watching
    OUR_TRACKER = cls
    OUR_GET_UUID = vars(cls)["get_uuid"]
    OUR_COMPLETE_PAYLOAD = vars(PayloadMaker)["complete_payload"]
    originals.clear()
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
        for name in (*ATTRIBUTES, "build_payload", "context", "event_subject", "true_timestamp", "event_json"):
            if name not in vars(event) or name in ATTRIBUTES:
                originals.append((event, name, ABSENT))
    for owner, _, _ in originals:
        if not isinstance(owner, (type, types.ModuleType)):
            # A class was patched while this was imported: nothing is built here.
            originals[:] = [(cls, "get_uuid", None)]
            break
    try:
        for owner, _, _ in originals:
            watch_changes(members_of(owner))
        watching = True
    except (RuntimeError, OverflowError):
        # Others watch as much as Python allows: all is compared for each event, then.
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


cdef inline PyObject* value_of(dict members, str name) noexcept:
    """Borrowed; NULL if there is none."""
    return PyDict_GetItemWithError(<PyObject*> members, <PyObject*> name)


cdef str schema_in(dict module, str name):
    """The schema of an envelope. None if it is none."""
    cdef PyObject* schema = value_of(module, name)
    if schema == NULL or not PyUnicode_CheckExact(schema) or PyUnicode_GET_LENGTH(schema) == 0:
        return None
    return <str> schema


cdef inline bint original() except -1:
    """Whether all that is done here is what snowplow_tracker would do."""
    if watching and unchanged():
        return found_in_place
    return all_in_place()


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
    # Ids for which random bytes are taken at once: few at first, and after a rest.
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
    """A random UUID of version 4. `now` is the time in seconds, of any clock that goes on while a snapshot lies."""
    global ids_left, forks_at_fill, filled_at
    cdef str text = PyUnicode_New(UUID_LETTERS, 127)
    cdef bytes fresh
    cdef Py_ssize_t count
    if ids_left == 0 or forks_at_fill != forks[0] or not 0 <= now - filled_at <= OLDEST:
        count = MANY_IDS if ids_left == 0 and 0 <= now - filled_at <= OLDEST else FEW_IDS
        fresh = urandom(count * UUID_BYTES)
        if len(fresh) != count * UUID_BYTES:
            raise OSError(f"os.urandom gave {len(fresh)} bytes of {count * UUID_BYTES}")
        # Another thread may have filled the block meanwhile, or have forked. From here on nothing else runs.
        memcpy(block, <const char*> fresh, count * UUID_BYTES)
        ids_left = count
        forks_at_fill = forks[0]
        filled_at = now
    ids_left -= 1
    uuid_write(<char*> PyUnicode_DATA(text), block + ids_left * UUID_BYTES)
    return text


cdef double seconds() except? -1:
    """`time.time()`."""
    cdef double now = system_time()
    return clock() if now < 0 else now


def new_id():
    """A random UUID of version 4; from `snowplow_tracker.Tracker.get_uuid` where that, or what it calls, is patched."""
    if original():
        return next_id(seconds())
    return PARENT.get_uuid()


# -- names and values --------------------------------------------------------------------------------------------------


cdef inline int add(dict pairs, object name, object value) except -1:
    """`Payload.add`."""
    cdef PyObject* v = <PyObject*> value
    if PyUnicode_CheckExact(v):
        if PyUnicode_GET_LENGTH(v) == 0:
            return 0
    elif value is None:
        return 0
    elif not (PyLong_CheckExact(v) or PyFloat_CheckExact(v) or PyBool_Check(v)) and value == "":
        return 0
    return PyDict_SetItem(pairs, name, value)


cdef int add_dict(dict pairs, object more) except -1:
    """`Payload.add_dict`."""
    cdef PyObject* name = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t size
    if not PyDict_CheckExact(more):
        for key in more:
            add(pairs, key, more[key])
        return 0
    size = PyDict_Size(more)
    while PyDict_Next(more, &at, &name, &value):
        add(pairs, <object> name, <object> value)
        if PyDict_Size(more) != size:
            raise RuntimeError("dictionary changed size during iteration")
    return 0


cdef PyObject* only_attribute(object owner, str name) except? NULL:
    """The value of an object's only attribute, if that is its name: it has no method of its own, then. Borrowed."""
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    cdef dict members = PyObject_GenericGetDict(owner, NULL)
    if PyDict_Size(members) == 1 and PyDict_Next(members, &at, &key, &value) and key == <PyObject*> name:
        return value
    return NULL


cdef dict plain_pairs(object made):
    """The pairs of a payload to which adding means nothing else than putting them there. None for any other."""
    cdef PyObject* pairs
    if type(made) is not PAYLOAD:
        return None
    pairs = only_attribute(made, "nv_pairs")
    return <dict> pairs if pairs != NULL and PyDict_CheckExact(<object> pairs) else None


cdef object pairs_of_subjects(object subject, object event_subject):
    """The pairs of both subjects, where the event's own count more. None if it is not as simple as that."""
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

# Where JSON is written: taken by an event, and put back. An event that finds nothing here has memory of its own.
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
    """Whether it is a `SelfDescribingJson`, and has nothing of its own but what `to_json` gives."""
    cdef dict members
    if type(document) is not DOCUMENT:
        return False
    members = PyObject_GenericGetDict(document, NULL)
    return PyDict_Size(members) == 2 and value_of(members, "_schema") != NULL and value_of(members, "data") != NULL


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
            returned = [document.to_json() for document in context]
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


# -- events ------------------------------------------------------------------------------------------------------------


# What an event consists of, borrowed from its dict; NULL for what is not there.
cdef struct Parts:
    PyObject* payload
    PyObject* context
    PyObject* event_subject
    PyObject* true_timestamp
    PyObject* event_json


cdef bint take_apart(object event, Parts* parts) except -1:
    """Look up an event's attributes. False if it has a `build_payload` of its own."""
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    cdef dict members = PyObject_GenericGetDict(event, NULL)
    while PyDict_Next(members, &at, &key, &value):
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
    """Whether the class of an event leaves its attributes to `Event` and `SelfDescribing`."""
    cdef object known
    for known in EVENTS:
        if type(event) is known:
            return True
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


cdef dict build(object event, object self, dict own):
    """Do what `Event.build_payload`, or that of `SelfDescribing`, does; the pairs of the event's payload.

    None, and nothing done, if the event has another, or is not as these know it.
    """
    cdef PyObject* building = PyType_Lookup(Py_TYPE(event), <PyObject*> "build_payload")
    cdef bint describes = building == <PyObject*> BUILD_SELF_DESCRIBING
    cdef Parts parts = Parts(NULL, NULL, NULL, NULL, NULL)
    cdef object context, true_timestamp, subjects, event_json, encode_base64 = None, json_encoder = None
    cdef dict pairs
    cdef str written
    if not (describes or building == <PyObject*> BUILD) or not is_usual(event) or not take_apart(event, &parts):
        return None
    if parts.payload == NULL or parts.context == NULL or parts.event_subject == NULL or parts.true_timestamp == NULL:
        return None
    context = <object> parts.context
    true_timestamp = <object> parts.true_timestamp
    pairs = plain_pairs(<object> parts.payload)
    if pairs is None or type(context) is not list or (describes and parts.event_json == NULL):
        return None
    event_json = <object> parts.event_json if describes else None
    try:
        subjects = pairs_of_subjects(attribute(self, own, "subject"), <object> parts.event_subject)
        if describes or <list> context:
            encode_base64 = attribute(self, own, "encode_base64")
            json_encoder = attribute(self, own, "json_encoder")
    except AttributeError:
        # What is missing is missed at its time.
        return None
    if subjects is None:
        return None
    if describes:
        written = document_in_envelope(event_schema, event_json, encode_base64, json_encoder)
        pairs["ue_px" if encode_base64 else "ue_pr"] = written
    if <list> context:
        written = context_in_envelope(context_schema, context, encode_base64, json_encoder)
        pairs["cx" if encode_base64 else "co"] = written
    # As a variable: a constant would be compared with the type, without asking a mock what it stands for.
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


cdef dict own_attributes(object self):
    """A tracker's attributes. None if its class may have more, and so they are to be asked for one by one."""
    return PyObject_GenericGetDict(self, NULL) if type(self) is OUR_TRACKER else None


cdef inline object attribute(object self, dict own, str name):
    cdef PyObject* found = NULL if own is None else value_of(own, name)
    return getattr(self, name) if found == NULL else <object> found


cdef int finish(dict pairs, object self, dict own) except -1:
    """What `Tracker.complete_payload` adds to what an event has built."""
    cdef double now = seconds()
    PyDict_SetItem(pairs, "eid", next_id(now))
    PyDict_SetItem(pairs, "dtm", PyLong_FromDouble(now * 1000))
    add_dict(pairs, attribute(self, own, "standard_nv_pairs"))
    return 0


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


cdef bint completes(object self, dict own) except -1:
    """Whether `complete_payload` is what is here."""
    if own is not None:
        return value_of(own, "complete_payload") == NULL
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
    """What `Tracker` inherits the way of each event from, so that it is one call in C."""

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
        cdef PyObject* event_id
        cdef dict own
        cdef dict pairs = None
        if not (original() and inherits(self, "track", TRACK)):
            return super().track(event)
        own = own_attributes(self)
        if completes(self, own):
            pairs = build(event, self, own)
            if pairs is None:
                made = complete(event, self)
            else:
                finish(pairs, self, own)
        else:
            made = self.complete_payload(event=event)
        if pairs is not None:
            for emitter in attribute(self, own, "emitters"):
                emitter.input(pairs)
            event_id = value_of(pairs, "eid")
            return None if event_id == NULL else <object> event_id
        for emitter in self.emitters:
            emitter.input(made.nv_pairs)
        return made.nv_pairs["eid"] if "eid" in made.nv_pairs.keys() else None

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
                pairs = build(event, self, None)
                if pairs is None:
                    return complete(event, self)
                finish(pairs, self, None)
                return event.payload
            if replaced_in_ours("get_uuid") or replaced_in_ours("get_timestamp"):
                return complete_with_replaced(self, event)
        return super().complete_payload(event=event)
