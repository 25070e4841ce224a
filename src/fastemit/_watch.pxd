"""Whether one of some dicts, of modules and classes, has changed since it was last asked. Costs a few loads."""

from cpython.object cimport PyObject


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
    static int fastemit_watch(PyObject* dict) {
        if (fastemit_watcher < 0 && (fastemit_watcher = PyDict_AddWatcher(fastemit_on_change)) < 0) return -1;
        return PyDict_Watch(fastemit_watcher, dict);
    }
    static inline int fastemit_unchanged(void) { return !fastemit_changed; }
    static inline void fastemit_look_from_here(void) { fastemit_changed = 0; }
    #else
    /* Before, each has the number of its last change (PEP 509). */
    static PyDictObject* fastemit_watched[FASTEMIT_MOST_HOLDERS];
    static uint64_t fastemit_tags[FASTEMIT_MOST_HOLDERS];
    static int fastemit_watched_count = 0;
    static int fastemit_watch(PyObject* dict) {
        for (int i = 0; i < fastemit_watched_count; i++) if (fastemit_watched[i] == (PyDictObject*) dict) return 0;
        if (fastemit_watched_count == FASTEMIT_MOST_HOLDERS) {
            PyErr_SetString(PyExc_OverflowError, "FASTEMIT_MOST_HOLDERS is too small");
            return -1;
        }
        fastemit_watched[fastemit_watched_count++] = (PyDictObject*) dict;
        return 0;
    }
    static inline int fastemit_unchanged(void) {
        uint64_t differs = 0;
        for (int i = 0; i < fastemit_watched_count; i++)
            differs |= fastemit_tags[i] ^ fastemit_watched[i]->ma_version_tag;
        return !differs;
    }
    static inline void fastemit_look_from_here(void) {
        for (int i = 0; i < fastemit_watched_count; i++) fastemit_tags[i] = fastemit_watched[i]->ma_version_tag;
    }
    #endif
    """
    int watch_changes "fastemit_watch" (PyObject* members) except -1
    bint unchanged "fastemit_unchanged" () noexcept
    void look_from_here "fastemit_look_from_here" () noexcept
