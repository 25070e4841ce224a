"""A ring whose segments may lie in mapped files: the part of an `EventBuffer` that the owner of the files calls.

Files come by `lend`, or by `recover` if an earlier process left them. They go by `finished`. In the middle of a long
queue they need not be mapped (`park`, `attach`). Nothing here opens, maps or removes a file. The owner does that
between two requests, and when the buffer calls it (`more`, `bring`).

The one lock is `critical_section` on the object ("the ring lock"). `_buffer.pyx` says what it covers, and why.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t

from fastemit._batch cimport RingOwner
from fastemit._files cimport MappedFile, damaged_runs, judge, open_file
from fastemit._ring cimport ring_free_queue
from fastemit._ring_check cimport ring_wrong, verify
from fastemit._ring_files cimport (
    Entered,
    ring_attach,
    ring_forget_parked,
    ring_knows_file,
    ring_lend,
    ring_missing,
    ring_park,
    ring_parked_in,
    ring_pop_finished,
    ring_pop_forgotten,
    ring_pop_spare,
    ring_recover,
)
from fastemit._segment cimport FIRST_RECOVERED, Format, PyMem_RawFree, PyMem_RawMalloc, Segment, seg_parked
from fastemit._segment_file cimport SegFile

from collections import namedtuple

from fastemit._batch import DROPPED_FOR

#: What `FiledRing.recover` returns.
Recovered = namedtuple("Recovered", "events bytes left damaged")


cdef class FiledRing(RingOwner):
    """The part of an `EventBuffer` with `files=True` that the owner of the files uses.

    Thread safety: every method may be called from any thread at any time. `more` and `bring` are called without a lock,
    in the thread that calls `append`, `take`, `drop_oldest` or `snapshot`, and may call every method.
    """

    def __cinit__(self):
        self.ring.recovered_seq = FIRST_RECOVERED
        self.ring.spares_wanted = 2
        self.ring.most_mapped = 16

    def __dealloc__(self):
        cdef SegFile* file
        ring_free_queue(&self.ring)
        while True:
            file = ring_pop_finished(&self.ring)
            if file == NULL:
                file = ring_pop_spare(&self.ring)
            if file == NULL:
                return
            self._free_file(file)

    @property
    def in_files(self):
        """Whether events are put into files that were lent."""
        return self.ring.in_files

    @property
    def file_bytes(self):
        """Bytes of data of a file that holds as many events as a request may carry; see `file_size`."""
        return self._data_bytes(self.ring.segment_bytes)

    cdef Py_ssize_t _data_bytes(self, size_t event_bytes):
        """Bytes of data of a file that has room for `event_bytes` bytes of events."""
        return self.ring.format.prefix_len + max(event_bytes, self.ring.segment_bytes) + 1

    def lend(self, int64_t number, memory not None):
        """Add an empty file, made by `format_file`. It is filled after those that were lent before.

        Args:
            number: unique among the files of this buffer.
            memory: the mapped file. It stays exported until `finished` gives the number back.

        Raises:
            SegmentFileError: it is not such a file, or it is for events of the other kind.
            ValueError: it is not empty, or the number is in use.
        """
        cdef MappedFile mapped = self._opened(memory)
        if mapped.file.count > 0 or mapped.file.capacity <= self.ring.format.prefix_len + 1:
            raise ValueError("a file that is lent must be empty and have room for an event")
        cdef SegFile* file = self._new_file(number, mapped)
        with cython.critical_section(self):
            ring_lend(&self.ring, file)
            verify(ring_wrong(&self.ring))

    cdef MappedFile _opened(self, memory):
        if not self.ring.in_files:
            raise ValueError("a buffer takes files only if it was made with files=True")
        return open_file(memory, self.query)

    cdef SegFile* _new_file(self, int64_t number, MappedFile mapped) except NULL:
        """The ring's record of a file. It holds a reference to `mapped`."""
        cdef SegFile* file
        cdef bint known
        with cython.critical_section(self):
            known = ring_knows_file(&self.ring, number)
        if known:
            raise ValueError(f"number {number} is that of a file which the buffer has already")
        file = <SegFile*> PyMem_RawMalloc(sizeof(SegFile))
        if file == NULL:
            raise MemoryError("no memory for a file")
        file[0] = mapped.file
        file.number = number
        Py_INCREF(mapped)
        file.owner = <PyObject*> mapped
        return file

    cdef int64_t _free_file(self, SegFile* file):
        """Free a file that is in no list, and return its number."""
        cdef int64_t number = file.number
        cdef PyObject* owner = <PyObject*> file.owner
        PyMem_RawFree(file)
        if owner != NULL:
            Py_DECREF(<object> owner)
        return number

    cdef int _let_go_of_forgotten(self) except -1:
        """In a forked child: release the parent's files."""
        cdef PyObject* owner
        while True:
            with cython.critical_section(self):
                owner = <PyObject*> ring_pop_forgotten(&self.ring)
            if owner == NULL:
                return 0
            Py_DECREF(<object> owner)

    @property
    def spare_files(self):
        """Files that were lent and are still empty."""
        return self.ring.spare_files

    @property
    def mapped_files(self):
        """Files whose memory the buffer uses: spare ones, and those with events that are not parked."""
        return self.ring.mapped_files

    @property
    def wants_service(self):
        """Whether, since the last call of `finished`, a file was finished, or the use of one has left fewer spare files
        than `spares_wanted` or more mapped files than `most_mapped`. If so, `arm` lets nobody sleep."""
        return self.ring.wants_service

    @property
    def spares_wanted(self):
        return self.ring.spares_wanted

    @spares_wanted.setter
    def spares_wanted(self, Py_ssize_t value):
        self.ring.spares_wanted = max(value, 0)

    @property
    def most_mapped(self):
        return self.ring.most_mapped

    @most_mapped.setter
    def most_mapped(self, Py_ssize_t value):
        self.ring.most_mapped = max(value, 0)

    def finished(self):
        """Numbers of the files that the buffer is done with, each once. It has released their memory.

        All events taken from them are settled, and no view is left. After the call `wants_service` is False.
        """
        cdef SegFile* file
        cdef list numbers = []
        with cython.critical_section(self):
            self.ring.wants_service = False
        while True:
            with cython.critical_section(self):
                file = ring_pop_finished(&self.ring)
            if file == NULL:
                return numbers
            numbers.append(self._free_file(file))

    def take_back(self):
        """Take the spare files from the buffer, and return their numbers."""
        cdef SegFile* file
        cdef list numbers = []
        while True:
            with cython.critical_section(self):
                file = ring_pop_spare(&self.ring)
            if file == NULL:
                return numbers
            numbers.append(self._free_file(file))

    def park(self, Py_ssize_t keep=2):
        """Release the memory of queued files, except the first `keep`, which are sent next, and the last.

        Returns their numbers. The owner attaches them again when `bring` asks for them.
        """
        cdef SegFile* file
        cdef PyObject* owner = NULL
        cdef int64_t number = 0
        cdef list numbers = []
        while True:
            with cython.critical_section(self):
                file = ring_park(&self.ring, max(keep, 0))
                if file != NULL:
                    number = file.number
                    owner = <PyObject*> file.owner
                    file.owner = NULL
                verify(ring_wrong(&self.ring))
            if file == NULL:
                return numbers
            Py_DECREF(<object> owner)
            numbers.append(number)

    def missing(self):
        """Numbers of the parked files that `take` needs first: none or one."""
        cdef SegFile* file
        cdef int64_t number = 0
        with cython.critical_section(self):
            file = ring_missing(&self.ring)
            if file != NULL:
                number = file.number
        return [] if file == NULL else [number]

    def attach(self, int64_t number, memory not None):
        """Say where a parked file is mapped now.

        Raises `SegmentFileError` or `ValueError` when the file has changed; the buffer is then as before. A file that
        is not parked is left as it is.
        """
        cdef MappedFile mapped = open_file(memory, self.query)
        cdef Segment* seg
        cdef bint same = True
        with cython.critical_section(self):
            seg = ring_parked_in(&self.ring, number)
            if seg != NULL:
                same = mapped.file.salt == seg.file.salt and mapped.file.count == seg.file.count
                if same:
                    ring_attach(&self.ring, seg, mapped.file.memory)
                    Py_INCREF(mapped)
                    seg.file.owner = <PyObject*> mapped
            verify(ring_wrong(&self.ring))
        if not same:
            raise ValueError(f"file {number} is not the one that was parked under this number")

    def forget(self, int64_t number, str reason not None="overflow"):
        """Give up a parked file that cannot be mapped any more. Its events count as dropped for `reason`.
        Returns (events, bytes)."""
        cdef int index = DROPPED_FOR[reason]
        cdef size_t events = 0, size = 0
        with cython.critical_section(self):
            ring_forget_parked(&self.ring, number, &events, &size)
            self.ring.dropped[index] += events
            verify(ring_wrong(&self.ring))
        return events, size

    def recover(self, int64_t number, memory not None):
        """Queue the events that an earlier process left in a file, before all events of this process's own.

        Each event is checked first. The events follow those of files that were recovered earlier, and count as if
        `append` had got them. No event is added to the file, but it is marked in the file when one is settled.

        Args:
            number: unique among the files of this buffer.
            memory: the mapped file; nobody else may use it.

        Returns:
            `Recovered`. `events` and `bytes` are what was queued. `left` counts good events that had no room: pass the
            file again once `finished` names it, or later if nothing was queued. `damaged` is a list of (events, first
            byte, one past the last) for the parts that cannot be read, in bytes of the file. If nothing was queued,
            the buffer has released the file, and `finished` does not name it.

        Raises:
            SegmentFileError: it holds no segment that can be read; see its `reason`.
        """
        cdef MappedFile mapped = self._opened(memory)
        cdef const Format* format = &self.ring.format
        cdef bytes verdicts = judge(mapped, format)
        cdef list damaged = damaged_runs(mapped, format, verdicts)
        cdef SegFile* file = self._new_file(number, mapped)
        cdef Entered entered
        file.recovered = True
        file.cold = True
        file.left = len(damaged) > 0
        with cython.critical_section(self):
            entered = ring_recover(&self.ring, file, <const uint8_t*> PyBytes_AS_STRING(verdicts))
            verify(ring_wrong(&self.ring))
        if entered.events == 0:
            self._free_file(file)
        if entered.no_memory:
            raise MemoryError("no memory to queue what is in a file")
        return Recovered(entered.events, entered.bytes, entered.left, damaged)

    def leave_files(self):
        """Leave the queued events to other processes, which may write to their files from now on.

        The counts stay as they are. `take` returns None, and `snapshot` nothing.
        """
        with cython.critical_section(self):
            self.ring.left_to_others = True
            verify(ring_wrong(&self.ring))

    # -- for the buffer --------------------------------------------------------------------------------------------

    cdef bint _more_room(self, size_t event_bytes) except -1:
        """Ask the owner for a file that has room for an event. False when there is none."""
        cdef object more = self.more
        return more is not None and bool(more(self._data_bytes(event_bytes)))

    cdef bint _bring_missing(self) except -1:
        """Ask the owner to attach the parked file that is needed first. False when that is not possible now."""
        cdef object bring = self.bring
        cdef list numbers = self.missing()
        return not numbers or (bring is not None and bool(bring(numbers[0])))

    cdef int _bring_all(self) except -1:
        """Ask the owner to attach each parked file."""
        cdef Segment* seg
        cdef int64_t number = 0
        cdef object bring = self.bring
        while bring is not None:
            with cython.critical_section(self):
                seg = self.ring.head
                while seg != NULL and not seg_parked(seg):
                    seg = seg.next
                if seg != NULL:
                    number = seg.file.number
            if seg == NULL or not bring(number):
                return 0
        return 0
