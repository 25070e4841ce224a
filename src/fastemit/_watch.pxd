"""Tells whether dicts have changed: one of the watched dicts of modules and classes since the last call, or any dict.

This costs a few loads.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t


cdef extern from *:
    """
    #define FASTEMIT_MOST_HOLDERS 40
    #if PY_VERSION_HEX >= 0x030C0000
    /* From Python 3.12 on a dict tells who watches it before it changes. */
    static int fastemit_changed = 1;
    static int fastemit_watcher = -1;
    static int fastemit_on_change(PyDict_WatchEvent event, PyObject* dict, PyObject* key, PyObject* value) {
        fastemit_changed = 1;
        return 0;
    }
    static int fastemit_watch(PyObject* dict, int more) {
        if (fastemit_watcher < 0 && (fastemit_watcher = PyDict_AddWatcher(fastemit_on_change)) < 0) return -1;
        return PyDict_Watch(fastemit_watcher, dict);
    }
    static inline int fastemit_unchanged(void) { return !fastemit_changed; }
    #define fastemit_more_unchanged fastemit_unchanged
    static inline void fastemit_look_from_here(void) { fastemit_changed = 0; }
    #else
    /* Before, each has the number of its last change (PEP 509). */
    static PyDictObject* fastemit_watched[2][FASTEMIT_MOST_HOLDERS];
    static uint64_t fastemit_tags[2][FASTEMIT_MOST_HOLDERS];
    static int fastemit_watched_count[2] = {0, 0};
    static int fastemit_watch(PyObject* dict, int more) {
        for (int i = 0; i < fastemit_watched_count[more]; i++)
            if (fastemit_watched[more][i] == (PyDictObject*) dict) return 0;
        if (fastemit_watched_count[more] == FASTEMIT_MOST_HOLDERS) {
            PyErr_SetString(PyExc_OverflowError, "FASTEMIT_MOST_HOLDERS is too small");
            return -1;
        }
        fastemit_watched[more][fastemit_watched_count[more]++] = (PyDictObject*) dict;
        return 0;
    }
    static inline int fastemit_group_unchanged(int more) {
        uint64_t differs = 0;
        for (int i = 0; i < fastemit_watched_count[more]; i++)
            differs |= fastemit_tags[more][i] ^ fastemit_watched[more][i]->ma_version_tag;
        return !differs;
    }
    static inline int fastemit_unchanged(void) { return fastemit_group_unchanged(0); }
    static inline int fastemit_more_unchanged(void) { return fastemit_group_unchanged(1); }
    static inline void fastemit_look_from_here(void) {
        for (int more = 0; more < 2; more++)
            for (int i = 0; i < fastemit_watched_count[more]; i++)
                fastemit_tags[more][i] = fastemit_watched[more][i]->ma_version_tag;
    }
    #endif

    /* A dict's number of its last change, which no other dict has or had. 3.12 calls it deprecated, 3.14 has none. */
    #if PY_VERSION_HEX < 0x030C0000
    #define fastemit_version_of(dict) (((PyDictObject*) (dict))->ma_version_tag)
    #elif PY_VERSION_HEX < 0x030E0000
    #ifdef _MSC_VER
    #pragma warning(push)
    #pragma warning(disable: 4996)
    #else
    #pragma GCC diagnostic push
    #pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    #endif
    static inline uint64_t fastemit_version_of(PyObject* dict) {
    #if PY_VERSION_HEX >= 0x030D0000
        /* The values of an object's attributes may be set there without being counted. */
        if (((PyDictObject*) dict)->ma_values != NULL) return 0;
    #endif
        return ((PyDictObject*) dict)->ma_version_tag;
    }
    #ifdef _MSC_VER
    #pragma warning(pop)
    #else
    #pragma GCC diagnostic pop
    #endif
    #else
    #define fastemit_version_of(dict) ((uint64_t) 0)
    #endif
    """
    # `more`: of those that few ask about.
    int watch_changes "fastemit_watch" (PyObject* members, bint more) except -1
    bint unchanged "fastemit_unchanged" () noexcept
    # The same of the others. Where it costs nothing more, both tell of all.
    bint more_unchanged "fastemit_more_unchanged" () noexcept
    void look_from_here "fastemit_look_from_here" () noexcept
    uint64_t version_of "fastemit_version_of" (PyObject* members) noexcept


cdef enum:
    # `version_of` returns this if Python counts no changes. Then any dict may have changed.
    UNKNOWN_VERSION = 0
