"""Files that are made, filled with zeros and mapped, several of them in one step without the GIL.

In Python each step would release the GIL. A thread that gets it back only after 5 ms makes files more slowly than
another thread fills them. Zeros are written, which holds the room as `fallocate` would. After `fallocate` the first
write to each page costs a step of ext4's journal, three times as much as all the steps here. This is for Linux. On
other systems the answer is `ENOSYS`.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.buffer cimport PyBuffer_FillInfo

import os


cdef extern from * nogil:
    """
    #include <errno.h>
    #include <stddef.h>
    #ifdef __linux__
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <fcntl.h>
    #include <sys/mman.h>
    #include <unistd.h>
    #ifndef MADV_POPULATE_WRITE
    #define MADV_POPULATE_WRITE 23              /* Linux 5.14 */
    #endif

    enum { FASTEMIT_ZEROS = 1 << 14 };
    static char fastemit_zeros[FASTEMIT_ZEROS];  /* never written to */

    /* Written in pieces, because the kernel keeps each piece as one unit. Once a unit is on the disk, the next write to
       each of its pages costs a step for every page of the unit: 5 us if it is a megabyte. */
    static int fastemit_fill(int file, size_t size) {
        size_t at = 0;
        ssize_t written;
        /* First, so that a file is never shorter on the disk than it says. */
        if (ftruncate(file, (off_t) size) != 0) return errno;
        while (at < size) {
            written = pwrite(file, fastemit_zeros, size - at < FASTEMIT_ZEROS ? size - at : FASTEMIT_ZEROS, (off_t) at);
            if (written > 0) at += (size_t) written;
            else if (written == 0) return EIO;
            else if (errno != EINTR) return errno;
        }
        return 0;
    }

    /* Make each page present and writable now, so that no later write has to wait for a page fault. */
    static int fastemit_populate(char *memory, size_t size) {
        size_t at;
        while (madvise(memory, size, MADV_POPULATE_WRITE) != 0) {
            if (errno == EINTR || errno == EAGAIN) continue;
            if (errno == ENOMEM) return ENOMEM;
            /* A write to it would raise SIGBUS. */
            if (errno == EFAULT || errno == EHWPOISON) return EIO;
            /* An older kernel. */
            for (at = 0; at < size; at += 4096) ((volatile char *) memory)[at] = 0;
            return 0;
        }
        return 0;
    }

    /* If it fails, no file is left. */
    static int fastemit_make(int directory, const char *name, size_t size, char **memory) {
        void *mapped = MAP_FAILED;
        int fault;
        int file = openat(directory, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (file < 0) return errno;
        fault = fastemit_fill(file, size);
        if (fault == 0) {
            mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
            if (mapped == MAP_FAILED) fault = errno;
            else if ((fault = fastemit_populate((char *) mapped, size)) != 0) munmap(mapped, size);
        }
        close(file);
        if (fault != 0) unlinkat(directory, name, 0);
        else *memory = (char *) mapped;
        return fault;
    }

    static void fastemit_unmap(char *memory, size_t size) { munmap(memory, size); }
    static void fastemit_close(int file) { close(file); }
    static int fastemit_duplicate(int file) { return fcntl(file, F_DUPFD_CLOEXEC, 0); }
    #else
    static int fastemit_make(int directory, const char *name, size_t size, char **memory) {
        (void) directory; (void) name; (void) size; (void) memory;
        return ENOSYS;
    }
    static void fastemit_unmap(char *memory, size_t size) { (void) memory; (void) size; }
    static void fastemit_close(int file) { (void) file; }
    static int fastemit_duplicate(int file) { (void) file; errno = ENOSYS; return -1; }
    #endif
    """
    int make_one "fastemit_make" (int directory, const char* name, size_t size, char** memory)
    void unmap "fastemit_unmap" (char* memory, size_t size)
    void close_file "fastemit_close" (int file)
    int duplicate_file "fastemit_duplicate" (int file)
    int errno


cdef enum:
    C_MOST_AT_ONCE = 16

cdef struct Made:
    const char* name
    char* memory                   # where it is mapped, set once that is done

#: The most files that one call of `make_files` makes.
MOST_AT_ONCE = <int> C_MOST_AT_ONCE


cdef class Mapping:
    """A mapped file, as a writable buffer. It is unmapped when neither the object nor a view of it is in use any more.
    """

    cdef char* memory              # `size` bytes; NULL if nothing is mapped
    cdef Py_ssize_t size

    def __dealloc__(self):
        if self.memory != NULL:
            unmap(self.memory, self.size)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if self.memory == NULL:
            raise BufferError("nothing is mapped: make_files makes mappings")
        PyBuffer_FillInfo(buffer, self, self.memory, self.size, 0, flags)

    def __len__(self):
        return self.size


def duplicate(int handle):
    """Another descriptor of the same file. The GIL is kept, because this takes almost no time."""
    cdef int other = duplicate_file(handle)
    if other < 0:
        raise OSError(errno, os.strerror(errno))
    return other


def make_files(int directory, list names not None, Py_ssize_t size):
    """Make files in an open directory, each of `size` bytes of zeros. They have their room on the disk, and are mapped.

    Every page of them is present, so a write to one is only a write to memory. The mode is 0600.

    Args:
        directory: a descriptor, which is closed.
        names: at most `MOST_AT_ONCE`, as bytes. None of them may exist.
        size: at least 1.

    Returns:
        A list of `Mapping`, in the order of the names. It is shorter if the later ones could not be made.

    Raises:
        OSError: not even the first file could be made.
    """
    cdef Made[C_MOST_AT_ONCE] files
    cdef list held = list(names)
    cdef list made = []
    cdef bytes name
    cdef Mapping mapping
    cdef Py_ssize_t i, count = len(held), done = 0
    cdef int fault = 0
    if not 1 <= count <= C_MOST_AT_ONCE:
        raise ValueError(f"names must be from 1 to {MOST_AT_ONCE}, not {count}")
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    for i in range(count):
        name = held[i]
        files[i].name = PyBytes_AS_STRING(name)
        made.append(Mapping())
    with nogil:
        while done < count:
            fault = make_one(directory, files[done].name, size, &files[done].memory)
            if fault != 0:
                break
            done += 1
        close_file(directory)
    for i in range(done):
        mapping = made[i]
        mapping.memory = files[i].memory
        mapping.size = size
    if done == 0:
        raise OSError(fault, os.strerror(fault), os.fsdecode(held[0]))
    del made[done:]
    return made
