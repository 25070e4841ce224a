"""Writes strings as JSON: UTF-8, with the escapes of RFC 8259 in the same form as orjson writes them.

There is one loop for each kind of string that CPython has. A run of plain characters is copied whole, 16 bytes in one
step if the processor has vectors (SSE2, NEON). Other characters come from a table. It runs no Python code and
allocates nothing.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef extern from "Python.h":
    # On PyObject*, so that a walk over a dict takes no references.
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* o) noexcept nogil
    void* PyUnicode_DATA(PyObject* o) noexcept nogil
    int PyUnicode_KIND(PyObject* o) noexcept nogil
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* o) noexcept nogil
    enum: PyUnicode_1BYTE_KIND
    enum: PyUnicode_2BYTE_KIND


cdef extern from * nogil:
    """
    /* Before Python 3.12 an old C extension can make a string whose characters are not in their final form yet. Such a
       string looks empty. */
    #if PY_VERSION_HEX < 0x030C0000
    #define fastemit_is_ready(o) PyUnicode_IS_READY(o)
    #else
    #define fastemit_is_ready(o) 1
    #endif
    /* The characters of a string for which PyUnicode_IS_COMPACT_ASCII holds. */
    #define fastemit_ascii(o) ((const uint8_t *) ((PyASCIIObject *) (o) + 1))

    #if defined(_MSC_VER) || (defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
    #define FASTEMIT_LITTLE_ENDIAN
    #endif

    /* ASCII that is written as it is: all except a quote, a backslash and characters below 0x20. */
    static inline int fastemit_plain(uint32_t c) { return c >= 0x20 && c < 0x80 && c != '"' && c != '\\\\'; }

    /* Steps for 16 bytes at once, for each processor. `fastemit_bad` marks the bytes that are not plain. As signed
       numbers, bytes above ASCII are below 0x21. After an exclusive or with 2, the quote is the only one of 0x20 and
       above that is below 0x21. `fastemit_any` turns the marks into a number, FASTEMIT_BITS for each byte.
       FASTEMIT_NO_VECTORS is for tests. */
    #if !defined(FASTEMIT_NO_VECTORS) && (defined(__SSE2__) || defined(_M_X64))
    #include <emmintrin.h>
    #define FASTEMIT_VECTORS
    #define FASTEMIT_BITS 1
    typedef __m128i fastemit_vector;
    static inline fastemit_vector fastemit_load(const void *from) { return _mm_loadu_si128((const __m128i *) from); }
    static inline void fastemit_store(char *to, fastemit_vector v) { _mm_storeu_si128((__m128i *) to, v); }
    static inline fastemit_vector fastemit_bad(fastemit_vector v) {
        return _mm_or_si128(_mm_cmplt_epi8(_mm_xor_si128(v, _mm_set1_epi8(2)), _mm_set1_epi8(0x21)),
                            _mm_cmpeq_epi8(v, _mm_set1_epi8('\\\\')));
    }
    static inline fastemit_vector fastemit_bad4(
        fastemit_vector a, fastemit_vector b, fastemit_vector c, fastemit_vector d) {
        const __m128i two = _mm_set1_epi8(2), backslash = _mm_set1_epi8('\\\\');
        const __m128i least = _mm_min_epu8(_mm_min_epu8(_mm_xor_si128(a, two), _mm_xor_si128(b, two)),
                                           _mm_min_epu8(_mm_xor_si128(c, two), _mm_xor_si128(d, two)));
        return _mm_or_si128(
            _mm_cmplt_epi8(least, _mm_set1_epi8(0x21)),
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(a, backslash), _mm_cmpeq_epi8(b, backslash)),
                         _mm_or_si128(_mm_cmpeq_epi8(c, backslash), _mm_cmpeq_epi8(d, backslash))));
    }
    typedef uint32_t fastemit_mask;
    static inline uint32_t fastemit_any(fastemit_vector bad) { return (uint32_t) _mm_movemask_epi8(bad); }
    /* Wider characters as bytes. A character that is not ASCII becomes a byte that is not plain (0 or 255). */
    static inline fastemit_vector fastemit_narrow2(const uint16_t *text) {
        const __m128i v = fastemit_load(text);
        return _mm_packus_epi16(v, v);
    }
    static inline fastemit_vector fastemit_narrow4(const uint32_t *text) {
        const __m128i v = _mm_packs_epi32(fastemit_load(text), fastemit_load(text + 4));
        return _mm_packus_epi16(v, v);
    }
    /* Whether each of 8 characters takes two bytes at most. */
    static inline int fastemit_two_at_most(const uint16_t *text) {
        const __m128i high = _mm_srli_epi16(fastemit_load(text), 11);
        return _mm_movemask_epi8(_mm_cmpeq_epi16(high, _mm_setzero_si128())) == 0xFFFF;
    }
    static inline void fastemit_store8(char *to, fastemit_vector v) { _mm_storel_epi64((__m128i *) to, v); }
    /* 8 bytes, followed by 8 zeros. */
    static inline fastemit_vector fastemit_load8(const void *from) { return _mm_loadl_epi64((const __m128i *) from); }
    #elif !defined(FASTEMIT_NO_VECTORS) && defined(FASTEMIT_LITTLE_ENDIAN) \\
        && (defined(__aarch64__) || defined(_M_ARM64))
    #include <arm_neon.h>
    #define FASTEMIT_VECTORS
    #define FASTEMIT_BITS 4
    typedef uint8x16_t fastemit_vector;
    static inline fastemit_vector fastemit_load(const void *from) { return vld1q_u8((const uint8_t *) from); }
    static inline void fastemit_store(char *to, fastemit_vector v) { vst1q_u8((uint8_t *) to, v); }
    static inline fastemit_vector fastemit_bad(fastemit_vector v) {
        return vorrq_u8(vcltq_s8(vreinterpretq_s8_u8(veorq_u8(v, vdupq_n_u8(2))), vdupq_n_s8(0x21)),
                        vceqq_u8(v, vdupq_n_u8('\\\\')));
    }
    static inline fastemit_vector fastemit_bad4(
        fastemit_vector a, fastemit_vector b, fastemit_vector c, fastemit_vector d) {
        return vorrq_u8(vorrq_u8(fastemit_bad(a), fastemit_bad(b)), vorrq_u8(fastemit_bad(c), fastemit_bad(d)));
    }
    typedef uint64_t fastemit_mask;
    static inline uint64_t fastemit_any(fastemit_vector bad) {
        return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(bad), 4)), 0);
    }
    static inline fastemit_vector fastemit_narrow2(const uint16_t *text) {
        const uint8x8_t v = vqmovn_u16(vld1q_u16(text));
        return vcombine_u8(v, v);
    }
    static inline fastemit_vector fastemit_narrow4(const uint32_t *text) {
        const uint8x8_t v = vqmovn_u16(vcombine_u16(vqmovn_u32(vld1q_u32(text)), vqmovn_u32(vld1q_u32(text + 4))));
        return vcombine_u8(v, v);
    }
    static inline int fastemit_two_at_most(const uint16_t *text) { return vmaxvq_u16(vld1q_u16(text)) < 0x800; }
    static inline void fastemit_store8(char *to, fastemit_vector v) { vst1_u8((uint8_t *) to, vget_low_u8(v)); }
    static inline fastemit_vector fastemit_load8(const void *from) {
        return vcombine_u8(vld1_u8((const uint8_t *) from), vdup_n_u8(0));
    }
    #endif

    /* Each copy* copies a fixed number of characters, and returns whether all are plain. If not, they are written
       again. */
    #ifdef FASTEMIT_VECTORS
    #ifdef _MSC_VER
    #include <intrin.h>
    #endif
    static inline int fastemit_first(fastemit_mask others) {
    #ifdef _MSC_VER
        unsigned long bit;
        _BitScanForward64(&bit, others);
        return (int) bit / FASTEMIT_BITS;
    #else
        return __builtin_ctzll(others) / FASTEMIT_BITS;
    #endif
    }
    static inline int fastemit_copy16(char *out, const uint8_t *text) {
        const fastemit_vector v = fastemit_load(text);
        fastemit_store(out, v);
        return !fastemit_any(fastemit_bad(v));
    }
    /* Copies 16, and returns how many plain ones come before the one that is not plain: 16 if all are plain, -1 if
       several are not. */
    static inline int fastemit_run16(char *out, const uint8_t *text) {
        const fastemit_vector v = fastemit_load(text);
        const fastemit_mask others = fastemit_any(fastemit_bad(v));
        int run;
        fastemit_store(out, v);
        if (!others) return 16;
        run = fastemit_first(others);
        return others >> FASTEMIT_BITS * run >> FASTEMIT_BITS ? -1 : run;
    }
    /* How many of 8 are plain, counted from the first. The zero behind them is not plain, so the count ends there. */
    static inline int fastemit_run8(const uint8_t *text) {
        return fastemit_first(fastemit_any(fastemit_bad(fastemit_load8(text))));
    }
    /* For long strings that are all ASCII. */
    static inline int fastemit_copy64(char *out, const uint8_t *text) {
        const fastemit_vector a = fastemit_load(text), b = fastemit_load(text + 16);
        const fastemit_vector c = fastemit_load(text + 32), d = fastemit_load(text + 48);
        fastemit_store(out, a);
        fastemit_store(out + 16, b);
        fastemit_store(out + 32, c);
        fastemit_store(out + 48, d);
        return !fastemit_any(fastemit_bad4(a, b, c, d));
    }
    static inline int fastemit_copy8_2(char *out, const uint16_t *text) {
        const fastemit_vector v = fastemit_narrow2(text);
        fastemit_store8(out, v);
        return !fastemit_any(fastemit_bad(v));
    }
    static inline int fastemit_copy8_4(char *out, const uint32_t *text) {
        const fastemit_vector v = fastemit_narrow4(text);
        fastemit_store8(out, v);
        return !fastemit_any(fastemit_bad(v));
    }
    /* Whether the `length` bytes before `end`, 0 to 15 of them, are plain. It reads the 16 bytes before `end`. */
    static inline int fastemit_plain_end(const uint8_t *end, Py_ssize_t length) {
        const uint64_t others = fastemit_any(fastemit_bad(fastemit_load(end - 16)));
        return others >> (FASTEMIT_BITS * (16 - length) - 1) >> 1 == 0;
    }
    #else
    #define FASTEMIT_COPY(count) { \\
        int n; \\
        for (n = 0; n < count; n++) { \\
            if (!fastemit_plain(text[n])) return 0; \\
            out[n] = (char) text[n]; \\
        } \\
        return 1; \\
    }
    static inline int fastemit_copy16(char *out, const uint8_t *text) FASTEMIT_COPY(16)
    static inline int fastemit_copy64(char *out, const uint8_t *text) FASTEMIT_COPY(64)
    static inline int fastemit_run16(char *out, const uint8_t *text) { return fastemit_copy16(out, text) ? 16 : -1; }
    static inline int fastemit_run8(const uint8_t *text) {
        int run = 0;
        while (run < 8 && fastemit_plain(text[run])) run++;
        return run;
    }
    static inline int fastemit_two_at_most(const uint16_t *text) {
        return (text[0] | text[1] | text[2] | text[3] | text[4] | text[5] | text[6] | text[7]) < 0x800;
    }
    static inline int fastemit_copy8_2(char *out, const uint16_t *text) FASTEMIT_COPY(8)
    static inline int fastemit_copy8_4(char *out, const uint32_t *text) FASTEMIT_COPY(8)
    static inline int fastemit_plain_end(const uint8_t *end, Py_ssize_t length) {
        while (length && fastemit_plain(end[-length])) length--;
        return !length;
    }
    #endif

    /* Copies the `length` bytes before `end`, 0 to 15 of them, in at most two steps. It reads the 8 bytes before `end`
       and the one behind it, and writes 8 or more. */
    static inline void fastemit_copy_end(char *out, const uint8_t *end, Py_ssize_t length) {
    #ifdef FASTEMIT_LITTLE_ENDIAN
        uint64_t first, last;
        if (length >= 8) {
            memcpy(&first, end - length, 8);
            memcpy(&last, end - 8, 8);
            memcpy(out, &first, 8);
            memcpy(out + length - 8, &last, 8);
        } else {
            memcpy(&last, end - 7, 8);
            last >>= 8 * (7 - length);
            memcpy(out, &last, 8);
        }
    #else
        memcpy(out, end - length, length);
    #endif
    }

    /* How each character below 0x800 is written: at most 6 bytes, and their number in the eighth byte. So each
       character costs the same, and there is no branch that a processor may guess wrong. */
    static unsigned char fastemit_forms[0x800][8];
    static void fastemit_fill_forms(void) {
        unsigned c;
        for (c = 0; c < 0x800; c++) {
            unsigned char *form = fastemit_forms[c];
            const char *letter = c < 0x20 ? strchr("\\bb\\tt\\nn\\ff\\rr", (int) c) : NULL;
            form[7] = 2;
            if (c >= 0x80) {
                form[0] = (unsigned char) (0xC0 | c >> 6);
                form[1] = (unsigned char) (0x80 | (c & 0x3F));
            } else if (fastemit_plain(c)) {
                form[0] = (unsigned char) c;
                form[7] = 1;
            } else if (c >= 0x20 || (c && letter)) {
                form[0] = '\\\\';
                form[1] = (unsigned char) (c >= 0x20 ? c : (unsigned) letter[1]);
            } else {
                memcpy(form, "\\\\u00", 4);
                form[4] = (unsigned char) ('0' + (c >> 4));
                form[5] = (unsigned char) "0123456789abcdef"[c & 15];
                form[7] = 6;
            }
        }
    }
    static inline char *fastemit_form(char *out, uint32_t c) {
        memcpy(out, fastemit_forms[c], 8);
        return out + fastemit_forms[c][7];
    }
    /* A character from 0x800 to 0xFFFF, and one from 0x10000 on. Each is written in at most 4 bytes. */
    static inline char *fastemit_three(char *out, uint32_t c) {
    #ifdef FASTEMIT_LITTLE_ENDIAN
        const uint32_t bytes = 0x8080E0 | c >> 12 | (c & 0xFC0) << 2 | (c & 0x3F) << 16;
        memcpy(out, &bytes, 4);
    #else
        out[0] = (char) (0xE0 | c >> 12);
        out[1] = (char) (0x80 | (c >> 6 & 0x3F));
        out[2] = (char) (0x80 | (c & 0x3F));
    #endif
        return out + 3;
    }
    static inline char *fastemit_four(char *out, uint32_t c) {
        out[0] = (char) (0xF0 | c >> 18);
        out[1] = (char) (0x80 | (c >> 12 & 0x3F));
        out[2] = (char) (0x80 | (c >> 6 & 0x3F));
        out[3] = (char) (0x80 | (c & 0x3F));
        return out + 4;
    }
    """
    bint is_ready "fastemit_is_ready" (PyObject* text)
    const uint8_t* ascii_of "fastemit_ascii" (PyObject* text)
    bint copy16 "fastemit_copy16" (char* out, const uint8_t* text)
    bint two_at_most "fastemit_two_at_most" (const uint16_t* text)
    int run16 "fastemit_run16" (char* out, const uint8_t* text)
    int run8 "fastemit_run8" (const uint8_t* text)
    bint copy64 "fastemit_copy64" (char* out, const uint8_t* text)
    bint copy8_2 "fastemit_copy8_2" (char* out, const uint16_t* text)
    bint copy8_4 "fastemit_copy8_4" (char* out, const uint32_t* text)
    bint plain_end "fastemit_plain_end" (const uint8_t* end, Py_ssize_t length)
    void copy_end "fastemit_copy_end" (char* out, const uint8_t* end, Py_ssize_t length)
    void fill_forms "fastemit_fill_forms" ()
    char* form "fastemit_form" (char* out, uint32_t c)
    char* three "fastemit_three" (char* out, uint32_t c)
    char* four "fastemit_four" (char* out, uint32_t c)


cdef enum:
    # A shorter string is written without a check of the room that is left.
    TEXT_STEP = 16
    # Most bytes that are written from one check to the next: this many characters of 6 bytes each, two quotes, and the
    # bytes that are copied beyond the end.
    TEXT_MARGIN = 6 * TEXT_STEP + 2 + 64


cdef inline char* text_end(char* out, const uint8_t* end, Py_ssize_t length) noexcept nogil:
    """The last characters of an ASCII string, fewer than 16.

    The 16 bytes before `end` may begin in the string's header. The header is in front of the characters and longer than
    16 bytes, so nothing outside the string's memory is read.
    """
    if plain_end(end, length):
        copy_end(out, end, length)
        return out + length
    while length > 0:
        out = form(out, end[-length])
        length -= 1
    return out


cdef inline char* text_block(char* out, const uint8_t* text) noexcept nogil:
    """16 characters below 0x100. There must be 16 more behind them.

    The start of the next block does not depend on the content of this one, so a processor works on several at once.
    """
    cdef int run = run16(out, text)
    cdef int i
    if run == 16:
        return out + 16
    if run < 0:
        for i in range(16):
            out = form(out, text[i])
        return out
    out = form(out + run, text[run])
    copy16(out, text + run + 1)
    return out + (15 - run)


cdef inline char* text_latin(char* out, const char* limit, const uint8_t* text, Py_ssize_t length) noexcept nogil:
    """A string of characters below 0x100. NULL when there is no room for it."""
    cdef const uint8_t* end = text + length
    cdef int i
    while end - text >= 32:
        if out > limit:
            return NULL
        out = text_block(out, text)
        text += 16
    if out > limit:
        return NULL
    if end - text >= 16:
        if copy16(out, text):
            out += 16
        else:
            for i in range(16):
                out = form(out, text[i])
        text += 16
        if out > limit:
            return NULL
    if length >= 16:
        return text_end(out, end, end - text)
    while text < end:
        out = form(out, text[0])
        text += 1
    return out


cdef inline char* text_ascii(char* out, const char* limit, const uint8_t* text, Py_ssize_t length) noexcept nogil:
    """An ASCII string. NULL when there is no room for it."""
    cdef const uint8_t* end = text + length
    cdef const uint8_t* stop
    if length > limit - out:
        return NULL
    while end - text >= 80:
        if out > limit:
            return NULL
        if copy64(out, text):
            out += 64
            text += 64
            continue
        stop = text + 64
        while text < stop:
            if out > limit:
                return NULL
            out = text_block(out, text)
            text += 16
    return text_latin(out, limit, text, end - text)


# The width of the characters of a string, if at least one of them is 256 or above.
ctypedef fused Wide:
    uint16_t
    uint32_t


cdef inline char* text_chars(char* out, const char* limit, const Wide* text, Py_ssize_t length) noexcept nogil:
    """A string of wide characters. NULL for a lone surrogate, and when there is no room for it."""
    cdef const Wide* end = text + length
    cdef const Wide* stop
    cdef bint copied
    cdef uint32_t c
    while text < end:
        if out > limit:
            return NULL
        stop = text + 8
        if stop > end:
            stop = end
        else:
            if Wide is uint16_t:
                copied = copy8_2(out, text)
            else:
                copied = copy8_4(out, text)
            if copied:
                out += 8
                text += 8
                continue
            if Wide is uint16_t:
                if two_at_most(text):
                    while text < stop:
                        out = form(out, text[0])
                        text += 1
                    continue
        while text < stop:
            c = text[0]
            text += 1
            if c < 0x800:
                out = form(out, c)
            elif c >= 0x10000:
                out = four(out, c)
            elif 0xD800 <= c < 0xE000:
                return NULL
            else:
                out = three(out, c)
    return out


cdef inline char* text_wide(char* out, const char* limit, PyObject* text) noexcept:
    """A string of any kind. NULL for one that is not ready, for a lone surrogate, and when there is no room for it."""
    cdef Py_ssize_t length
    cdef const void* data
    cdef int kind
    # This comes first, because the length of a string that is not ready may not be read.
    if not is_ready(text):
        return NULL
    length = PyUnicode_GET_LENGTH(text)
    if length > limit - out:
        return NULL
    kind = PyUnicode_KIND(text)
    data = PyUnicode_DATA(text)
    if kind == PyUnicode_1BYTE_KIND:
        return text_latin(out, limit, <const uint8_t*> data, length)
    if kind == PyUnicode_2BYTE_KIND:
        return text_chars[uint16_t](out, limit, <const uint16_t*> data, length)
    return text_chars[uint32_t](out, limit, <const uint32_t*> data, length)


cdef inline char* text_string(char* out, const char* limit, PyObject* text) noexcept:
    """A string between quotes. NULL in the same cases as above.

    It checks the room that is left only when the string has 16 characters or more, or is not ASCII.
    """
    cdef Py_ssize_t length
    out[0] = b'"'
    out += 1
    if PyUnicode_IS_COMPACT_ASCII(text):
        length = PyUnicode_GET_LENGTH(text)
        if length < TEXT_STEP:
            out = text_end(out, ascii_of(text) + length, length)
        else:
            out = text_ascii(out, limit, ascii_of(text), length)
    else:
        out = text_wide(out, limit, text)
    if out == NULL:
        return NULL
    out[0] = b'"'
    return out + 1
