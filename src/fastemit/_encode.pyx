"""Encodes an event of any kind: as the JSON of a POST, or as the query string of a GET.

It knows mappings, `str()`, orjson and urllib, but nothing of the buffer or its lock. Nearly every event is a dict of
plain values. `_flat.pxd` writes these, so they do not come here.
"""

cimport cython
from cpython.dict cimport PyDict_Copy, PyDict_Next, PyDict_SetItem
from cpython.object cimport PyObject

from fastemit._quote cimport quote_plus

import json
from collections.abc import Mapping

import orjson

from fastemit._system import refuse_copy


cdef extern from "Python.h":
    # Declared on PyObject*, so that a walk over a dict takes no references.
    bint PyUnicode_CheckExact(PyObject* o) noexcept
    bint PyLong_CheckExact(PyObject* o) noexcept
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False
    bint PyDict_CheckExact(object o) noexcept
    PyObject* PyDict_GetItemWithError(object d, object key) except? NULL


cdef object orjson_dumps = orjson.dumps
cdef object orjson_loads = orjson.loads
# The encoder of snowplow_tracker: its rules for keys, and ASCII escapes, which can contain lone surrogates.
cdef object json_encode = json.JSONEncoder(separators=(",", ":")).encode
cdef object json_loads = json.loads
cdef str STM_KEY = "stm"


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
    """A new dict with the names and values of a payload as they are now.

    All later steps use this dict, because the encoding may run Python code. Other threads may run then, and change the
    caller's dict.
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
            # Allowed during the walk, because the key is there already.
            PyDict_SetItem(strings, <object> key, str(<object> value))
    leave_out_stm(strings)
    return strings


cdef int leave_out_stm(dict payload) except -1:
    """Drop an `stm` of the caller's, because the time of sending is written in its place."""
    if PyDict_GetItemWithError(payload, STM_KEY) != NULL:
        del payload[STM_KEY]
    return 0


def is_plain(dict payload not None):
    """Whether every value is exactly a str, an int, a bool or None, which all encoders of JSON write alike."""
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t at = 0
    while PyDict_Next(payload, &at, &key, &value):
        if not (PyUnicode_CheckExact(value) or PyLong_CheckExact(value) or value == Py_None
                or value == Py_True or value == Py_False):
            return False
    return True


cdef dict captured_query(object payload):
    """As `captured`, but with copies of the caller's lists, and lists of what can be read only once.

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
    # Imported here, because POST does not need it. `parse_endpoint` has imported it before the first event.
    from urllib.parse import urlencode
    return urlencode([(name, value)], doseq=True).encode("ascii")


cdef bytes quotable(object value):
    """The text of a simple value before it is percent-encoded. None for other values, which `urlencode` must write."""
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


@cython.final
cdef class KeptEvent:
    """An encoded event, together with the object that it was made from; see `keep` of `EventBuffer`."""

    def __cinit__(self, bytes encoded not None, original):
        self.encoded = encoded
        self.original = original

    def __reduce__(self):
        refuse_copy(self)


cdef list load_events(object document):
    """The dicts of a JSON array of events."""
    try:
        return orjson_loads(document)
    except ValueError:
        # A lone surrogate, which orjson refuses to read and to write.
        return json_loads(bytes(document))


cdef list queries_in(bytes run):
    """The query strings that follow each other in a segment, each with its `stm` behind it."""
    cdef list texts = [], members = []
    for member in run.split(b"&"):
        if member.startswith(b"stm="):
            texts.append(b"&".join(members))
            members = []
        else:
            members.append(member)
    return texts


cdef list events_of_queries(list texts, str stm=None):
    """The dicts of some query strings, as whoever gets them reads them; with this `stm`, if there is one."""
    # Imported here, because POST does not need it. `parse_endpoint` has imported it before the first event.
    from urllib.parse import parse_qsl
    cdef list events = []
    cdef dict event
    for text in texts:
        event = {}
        for name, value in parse_qsl(text.decode("ascii"), keep_blank_values=True):
            if name not in event:
                event[name] = value
            elif type(event[name]) is list:
                event[name].append(value)
            else:
                event[name] = [event[name], value]
        if stm is not None:
            event["stm"] = stm
        events.append(event)
    return events
