"""A file that holds one segment: its layout, and the checks of what is in it.

    header     4096 bytes: what the file is, and how many events were written to it
    ends       4 bytes an event: offset one past its separator, from the start of the data
    checks     4 bytes an event: a hash of its bytes, or the file's settled mark once it must not be sent any more
    data       room for an envelope's start, the events as they lie in a segment in memory, one spare byte

The memory of a file is a shared mapping, so the kernel keeps what a process has written to it when the process dies.
The order of writing keeps a file readable whenever the process dies: first the bytes, then their end and check, then
the count, which says that the event is there. A settled mark is written once the event is settled. So when a process
dies, events in flight may be sent twice, and none is lost.

The hash leaves out an event's tail, because the `stm` changes at each attempt, and the bytes that an envelope covers.
It finds what a power loss leaves: pages that were not written, or that are from an earlier use of the file. A salt, new
for each use, goes into the hashes and makes the settled mark. A check of 0 was never written.

Numbers are in the machine's byte order, and the header says which. Nothing here uses a ring or a Python object.
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset


cdef extern from * nogil:
    """
    #include <stddef.h>
    #if defined(__GNUC__)
    #define FASTEMIT_RELEASE(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELEASE)
    #define FASTEMIT_ACQUIRE(place) __atomic_load_n(&(place), __ATOMIC_ACQUIRE)
    #define FASTEMIT_FENCE() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    typedef uint64_t fastemit_pair __attribute__((vector_size(16)));
    #else
    /* Files are for systems whose compilers are gcc and clang. */
    #define FASTEMIT_RELEASE(place, value) ((place) = (value))
    #define FASTEMIT_ACQUIRE(place) (place)
    #define FASTEMIT_FENCE() ((void)0)
    #endif

    /* `die_at_step` tells a debug build to die at its n-th step from here. */
    #ifdef FASTEMIT_ASSERT
    #include <signal.h>
    #include <unistd.h>
    static long fastemit_steps_left = 0;
    #define FASTEMIT_SET_STEPS(steps) (fastemit_steps_left = (steps), 1)
    #define FASTEMIT_STEP() \
        do { if (fastemit_steps_left > 0 && --fastemit_steps_left == 0) kill(getpid(), SIGKILL); } while (0)
    #else
    #define FASTEMIT_SET_STEPS(steps) ((void)(steps), 0)
    #define FASTEMIT_STEP() ((void)0)
    #endif

    static inline uint64_t fastemit_mixed(uint64_t hash, uint64_t value) {
        hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL;
        return hash ^ (hash >> 32);
    }

    /* Sums, and sums of the sums, of 8 bytes at a time in two lanes, so that a word's place counts. */
    static inline uint64_t fastemit_hash(const char *text, size_t length, uint64_t seed) {
        char rest[16] = {0};
    #if defined(__GNUC__)
        fastemit_pair sum = {0, 0}, sums = {0, 0}, words;
    #else
        uint64_t sum[2] = {0, 0}, sums[2] = {0, 0}, words[2];
    #endif
        size_t at = 0;
        uint64_t hash;
    #if defined(__GNUC__)
    #define FASTEMIT_SUM(from) memcpy(&words, (from), 16); sum += words; sums += sum;
    #else
    #define FASTEMIT_SUM(from) memcpy(words, (from), 16); \
        sum[0] += words[0]; sum[1] += words[1]; sums[0] += sum[0]; sums[1] += sum[1];
    #endif
        for (; at + 64 <= length; at += 64) {
            FASTEMIT_SUM(text + at) FASTEMIT_SUM(text + at + 16)
            FASTEMIT_SUM(text + at + 32) FASTEMIT_SUM(text + at + 48)
        }
        for (; at + 16 <= length; at += 16) { FASTEMIT_SUM(text + at) }
        if (at < length) {
            /* The last 16 bytes again, or all if there are fewer. */
            if (length >= 16) memcpy(rest, text + length - 16, 16);
            else memcpy(rest, text, length);
            FASTEMIT_SUM(rest)
        }
        hash = fastemit_mixed(seed, length);
        hash = fastemit_mixed(hash, sum[0]);
        hash = fastemit_mixed(hash, sum[1]);
        hash = fastemit_mixed(hash, sums[0]);
        return fastemit_mixed(hash, sums[1]);
    #undef FASTEMIT_SUM
    }
    """
    void release "FASTEMIT_RELEASE"(uint64_t place, uint64_t value)
    uint64_t acquire "FASTEMIT_ACQUIRE"(uint64_t place)
    void fence "FASTEMIT_FENCE"()
    void step "FASTEMIT_STEP"()
    bint set_steps "FASTEMIT_SET_STEPS"(long steps)
    uint64_t mixed "fastemit_mixed"(uint64_t hash, uint64_t value)
    uint64_t hash_of "fastemit_hash"(const char* text, size_t length, uint64_t seed)


cdef enum:
    FILE_VERSION = 1
    BYTE_ORDER = 0x01020304
    HEADER_BYTES = 4096
    # There is one entry for this many bytes of data, because no useful event is shorter.
    BYTES_AN_ENTRY = 64
    FEWEST_ENTRIES = 16

cdef enum FileKind:
    KIND_JSON = 1          # for POST
    KIND_QUERY = 2         # for GET

cdef enum FileFault:
    FILE_FINE
    FILE_BLANK             # not formatted, or the process died while it did that: nothing is in it
    FILE_FOREIGN           # not a file of this kind at all
    FILE_BYTE_ORDER        # written on another kind of machine
    FILE_NEWER             # written by a version that this one does not know
    FILE_TRUNCATED         # shorter than its header says
    FILE_DAMAGED           # its header contradicts itself


cdef struct SegHeader:
    char[8] magic          # written last when a file is formatted
    uint32_t version
    uint32_t byte_order
    uint32_t kind          # FileKind
    uint32_t entries       # places in `ends` and in `checks`
    uint64_t data_offset   # of the data, from the start of the file
    uint64_t capacity      # bytes of data, with the room for an envelope's start and the spare byte
    int64_t number         # of the file; its owner chose it
    int64_t created        # milliseconds since 1970
    uint64_t salt          # a different one for each use of the file
    uint32_t settled       # the value in `checks` of an event that must not be sent any more; never 0
    uint32_t check         # hash of what is before it
    char[56] apart
    uint64_t count         # events written; never more than `entries`. It has a cache line of its own
    char[56] apart_too
    int64_t first_seq      # number of the first event that was written; set before `count` is more than 0


cdef struct SegFile:
    int64_t number         # unique among the files of a ring
    char* memory           # `size` mapped bytes; NULL while it is parked
    size_t size
    SegHeader* header      # these four point into `memory`
    uint32_t* ends
    uint32_t* checks
    char* data
    size_t capacity        # bytes at `data`
    size_t entries         # places at `ends` and `checks`
    size_t count           # events written; the same as in the header
    uint64_t salt          # as in the header
    uint32_t settled       # as in the header
    bint recovered         # from an earlier process: nothing is added, and its events are older than all others
    bint cold              # it existed before it was mapped, so the first write to each of its pages is slow
    bint left              # it has unsent events that are in no segment, because there was no room to recover them
    size_t refs            # segments that refer to it, and the list of forgotten files; 0 for spare and finished files
    bint forgotten         # in a forked child: it belongs to the parent. The last one to refer to it frees it
    void* owner            # keeps `memory` mapped, for the Python side; the ring does not look at it
    SegFile* next          # in the list that it is in: spare, in use, finished, forgotten
    SegFile* previous      # in the list of those in use only


# -- layout ----------------------------------------------------------------------------------------------------------

cdef inline size_t file_entries(size_t capacity) noexcept nogil:
    return max(capacity // BYTES_AN_ENTRY, <size_t> FEWEST_ENTRIES)


cdef inline size_t file_size_of(size_t capacity) noexcept nogil:
    """Size of a file with `capacity` bytes of data, which is less than 4 GiB."""
    return HEADER_BYTES + 2 * sizeof(uint32_t) * file_entries(capacity) + capacity


cdef inline void file_lay_out(SegFile* file, char* memory) noexcept nogil:
    """Set the pointers into `memory`. The other fields of `file` must be set already."""
    file.memory = memory
    file.header = <SegHeader*> memory
    file.ends = <uint32_t*> (memory + HEADER_BYTES)
    file.checks = file.ends + file.entries
    file.data = memory + HEADER_BYTES + 2 * sizeof(uint32_t) * file.entries


cdef inline uint32_t header_check(const SegHeader* header) noexcept nogil:
    return <uint32_t> hash_of(<const char*> header, <const char*> &header.check - <const char*> header, 0)


cdef inline void file_format(
    char* memory, size_t capacity, FileKind kind, int64_t number, int64_t created, uint64_t unique
) noexcept nogil:
    """Make a file of `file_size_of(capacity)` bytes empty, whatever was in it.

    If the process dies on the way, the file is blank. So it is made blank first, and its magic is written last. The
    fences make the compiler and the processor keep that order.
    """
    cdef SegHeader* header = <SegHeader*> memory
    cdef SegHeader fresh
    cdef size_t entries = file_entries(capacity)
    memset(&fresh, 0, sizeof(SegHeader))
    memcpy(fresh.magic, b"FASTEMIT", 8)
    fresh.version = FILE_VERSION
    fresh.byte_order = BYTE_ORDER
    fresh.kind = kind
    fresh.entries = <uint32_t> entries
    fresh.data_offset = HEADER_BYTES + 2 * sizeof(uint32_t) * entries
    fresh.capacity = capacity
    fresh.number = number
    fresh.created = created
    fresh.salt = mixed(mixed(mixed(unique, <uint64_t> number), <uint64_t> created), unique)
    fresh.settled = <uint32_t> fresh.salt | 1
    fresh.check = header_check(&fresh)
    header.count = 0
    fence()
    step()
    (<uint32_t*> (memory + HEADER_BYTES))[0] = 0
    fence()
    step()
    memset(header.magic, 0, 8)
    fence()
    step()
    memcpy(<char*> header + 8, <const char*> &fresh + 8, sizeof(SegHeader) - 8)
    fence()
    step()
    memcpy(header.magic, fresh.magic, 8)
    fence()
    step()


cdef inline bint all_zero(const char* at, size_t length) noexcept nogil:
    cdef size_t i
    for i in range(length):
        if at[i] != 0:
            return False
    return True


cdef inline FileFault file_open(SegFile* file, char* memory, size_t size) noexcept nogil:
    """Read the header of a file of `size` bytes, mapped at `memory`, into `file`. Each field is checked before use."""
    cdef const SegHeader* header = <const SegHeader*> memory
    memset(file, 0, sizeof(SegFile))
    if size < HEADER_BYTES + sizeof(uint32_t):
        return FILE_TRUNCATED
    if all_zero(header.magic, 8):
        if acquire(header.count) == 0 and all_zero(memory + HEADER_BYTES, sizeof(uint32_t)):
            return FILE_BLANK
        return FILE_DAMAGED
    if memcmp(header.magic, b"FASTEMIT", 8) != 0:
        return FILE_FOREIGN
    if header.byte_order == 0x04030201:
        return FILE_BYTE_ORDER
    if header.byte_order != BYTE_ORDER:
        return FILE_DAMAGED
    if header.version > FILE_VERSION:
        return FILE_NEWER
    if (header.version != FILE_VERSION or header.check != header_check(header)
            or header.kind != KIND_JSON and header.kind != KIND_QUERY
            or header.capacity == 0 or header.capacity > UINT32_MAX
            or header.entries != file_entries(header.capacity)
            or header.data_offset != HEADER_BYTES + 2 * sizeof(uint32_t) * <size_t> header.entries
            or header.settled == 0
            or acquire(header.count) > header.entries):
        return FILE_DAMAGED
    if size < file_size_of(header.capacity):
        return FILE_TRUNCATED
    file.number = header.number
    file.size = size
    file.capacity = header.capacity
    file.entries = header.entries
    file.count = acquire(header.count)
    file.salt = header.salt
    file.settled = header.settled
    file_lay_out(file, memory)
    return FILE_FINE


# -- events ----------------------------------------------------------------------------------------------------------

cdef inline uint32_t file_check(const SegFile* file, size_t start, size_t length) noexcept nogil:
    """The check of an event whose text is `length` bytes at `start` of the data."""
    cdef uint32_t check = <uint32_t> hash_of(file.data + start, length, file.salt + start)
    # Not one of the two values that have another meaning. The settled mark is odd.
    if check == 0 or check == file.settled:
        return check ^ 2
    return check


cdef inline void file_commit(SegFile* file, size_t start, size_t length, size_t end, int64_t seq) noexcept nogil:
    """Record the next event of the file. Its bytes and its tail are written already."""
    cdef size_t index = file.count
    step()
    file.ends[index] = <uint32_t> end
    file.checks[index] = file_check(file, start, length)
    if index == 0:
        file.header.first_seq = seq
    step()
    file.count = index + 1
    release(file.header.count, file.count)
    step()


cdef inline void file_settle(SegFile* file, size_t first, size_t count) noexcept nogil:
    """Mark these events, so that nobody sends them any more."""
    cdef size_t i
    for i in range(first, first + count):
        file.checks[i] = file.settled
        step()


cdef inline size_t file_unsettled(const SegFile* file) noexcept nogil:
    """How many events are not settled, whether or not their bytes are damaged."""
    cdef size_t i, found = 0
    for i in range(file.count):
        found += file.checks[i] != file.settled
    return found
