"""What belongs to the process and not to one emitter: forks, clocks, interpreters, and what is kept for ever."""

from cpython.ref cimport Py_INCREF

from fastemit._clock cimport read_monotonic, read_wall_clock
from fastemit._interpreters cimport is_subinterpreter, register_with_main


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


def keep_for_ever(object value not None):
    """Keep `value` for ever, so that its finalizer never runs, not even at the end of the process.

    For objects that a forked child inherits and must not let go of.
    """
    Py_INCREF(value)


if watch_forks() != 0:
    raise MemoryError("pthread_atfork has no memory left for fastemit's handler")


cdef const long* fork_count() noexcept:
    """Where the number of forks stands."""
    return &forks


def monotonic():
    """Seconds on the clock of `time.monotonic`, even if somebody has replaced that function."""
    cdef double seconds = 0.0
    read_monotonic(&seconds)
    return seconds


def wall_clock():
    """Seconds since 1970 by the clock of `time.time`, even if somebody has replaced that function."""
    cdef double seconds = 0.0
    read_wall_clock(&seconds)
    return seconds


def in_subinterpreter():
    """Whether this is not the main interpreter of the process."""
    return is_subinterpreter()


def end_with_main():
    """In a subinterpreter: let `fastemit._process.lifecycle.end` run when the main interpreter ends."""
    register_with_main()


def refuse_copy(its):
    """`__reduce__` of objects that can be neither copied nor pickled. A subclass may define its own."""
    raise TypeError(
        f"{type(its).__name__} cannot be copied or pickled, because what it holds belongs to this process: "
        "make one in the other process, from the same settings"
    )
