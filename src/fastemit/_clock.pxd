"""The clocks of the system, read in C, so that a test that replaces the functions of `time` does not change them."""


cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030D0000
    static int fastemit_monotonic(double *seconds) {
        PyTime_t now;
        if (PyTime_Monotonic(&now) < 0) return -1;
        *seconds = PyTime_AsSecondsDouble(now);
        return 0;
    }
    static int fastemit_wall_clock(double *seconds) {
        PyTime_t now;
        if (PyTime_Time(&now) < 0) return -1;
        *seconds = PyTime_AsSecondsDouble(now);
        return 0;
    }
    #elif defined(_WIN32)
    #include <windows.h>
    #include <time.h>
    static int fastemit_monotonic(double *seconds) {
        /* The clock that time.monotonic used until Python 3.13. It cannot fail. */
        *seconds = (double) GetTickCount64() * 1e-3;
        return 0;
    }
    static int fastemit_wall_clock(double *seconds) {
        struct timespec now;
        timespec_get(&now, TIME_UTC);
        *seconds = (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
        return 0;
    }
    #else
    #include <time.h>
    #ifdef __APPLE__
    /* The clock of time.monotonic. It stops while the machine sleeps; CLOCK_MONOTONIC does not. */
    #define FASTEMIT_MONOTONIC CLOCK_UPTIME_RAW
    #else
    #define FASTEMIT_MONOTONIC CLOCK_MONOTONIC
    #endif
    static int fastemit_read_clock(clockid_t clock, double *seconds) {
        struct timespec now;
        if (clock_gettime(clock, &now) != 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        *seconds = (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
        return 0;
    }
    static int fastemit_monotonic(double *seconds) { return fastemit_read_clock(FASTEMIT_MONOTONIC, seconds); }
    static int fastemit_wall_clock(double *seconds) { return fastemit_read_clock(CLOCK_REALTIME, seconds); }
    #endif
    """
    int read_monotonic "fastemit_monotonic" (double* seconds) except -1
    int read_wall_clock "fastemit_wall_clock" (double* seconds) except -1
