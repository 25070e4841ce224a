"""Whether a JSON object has only plain strings in it, 64 bytes in one step.

Nearly all events that are taken over are such objects, and each is checked before it is sent. The check has no branch
for a quote or a colon, because the processor could not foresee it. It works on numbers with a bit for each byte: where
the quotes are, which bytes are inside a string, and which are between two.
"""

from libc.stdint cimport uint8_t


cdef extern from * nogil:
    """
    #include <string.h>

    #if !defined(FASTEMIT_NO_VECTORS) && (defined(__SSE2__) || defined(_M_X64))
    #include <emmintrin.h>

    /* One bit for each of the 64 bytes that is equal to `wanted`. */
    static inline uint64_t fastemit_equal64(const __m128i *block, __m128i wanted) {
        const uint64_t a = (uint32_t) _mm_movemask_epi8(_mm_cmpeq_epi8(block[0], wanted));
        const uint64_t b = (uint32_t) _mm_movemask_epi8(_mm_cmpeq_epi8(block[1], wanted));
        const uint64_t c = (uint32_t) _mm_movemask_epi8(_mm_cmpeq_epi8(block[2], wanted));
        const uint64_t d = (uint32_t) _mm_movemask_epi8(_mm_cmpeq_epi8(block[3], wanted));
        return a | b << 16 | c << 32 | d << 48;
    }

    /* Whether all 64 bytes are ASCII without control characters and backslashes. Bytes beyond ASCII are negative. */
    static inline int fastemit_usual64(const __m128i *block) {
        const __m128i backslash = _mm_set1_epi8('\\\\'), space = _mm_set1_epi8(' ');
        __m128i odd = _mm_setzero_si128();
        int i;
        for (i = 0; i < 4; i++)
            odd = _mm_or_si128(odd, _mm_or_si128(_mm_cmplt_epi8(block[i], space), _mm_cmpeq_epi8(block[i], backslash)));
        return _mm_movemask_epi8(odd) == 0;
    }

    /* Bit i of the result: whether the number of bits up to i, and i itself, is odd. */
    static inline uint64_t fastemit_odd_so_far(uint64_t bits) {
        bits ^= bits << 1;
        bits ^= bits << 2;
        bits ^= bits << 4;
        bits ^= bits << 8;
        bits ^= bits << 16;
        return bits ^ bits << 32;
    }

    /* Whether this is "name":"value","name":"value" and so on, with at least one member, and without escapes and
       characters beyond ASCII. No means that it has to be looked at in another way. */
    static inline int fastemit_plain_members(const uint8_t *text, size_t length) {
        uint64_t inside = 0, odd = 0;  /* all bits are set, if the block before has ended so */
        uint64_t closed = 0;           /* whether its last byte has ended a string */
        while (1) {
            __m128i block[4];
            uint64_t valid = ~0ULL, quotes, in, closing, gaps, colons;
            if (length >= 64) {
                memcpy(block, text, 64);
            } else {
                uint8_t rest[64];
                memset(rest, 'x', 64);
                memcpy(rest, text, length);
                memcpy(block, rest, 64);
                valid = (1ULL << length) - 1;
            }
            if (!fastemit_usual64(block)) return 0;
            quotes = fastemit_equal64(block, _mm_set1_epi8('"'));
            in = fastemit_odd_so_far(quotes) ^ inside;
            closing = quotes & ~in;
            gaps = ~in & ~quotes & valid;
            /* What is in no string comes right after a string, so there is one byte between two, and none before. */
            if (gaps != ((closing << 1 | closed) & valid)) return 0;
            colons = fastemit_odd_so_far(gaps) ^ odd;
            if (gaps & colons & ~fastemit_equal64(block, _mm_set1_epi8(':'))) return 0;
            if (gaps & ~colons & ~fastemit_equal64(block, _mm_set1_epi8(','))) return 0;
            if (length <= 64) return length > 0 && closing >> (length - 1) & 1 && colons >> (length - 1) & 1;
            inside = (uint64_t) 0 - (in >> 63);
            odd = (uint64_t) 0 - (colons >> 63);
            closed = closing >> 63;
            text += 64;
            length -= 64;
        }
    }
    #else
    static inline int fastemit_plain_members(const uint8_t *text, size_t length) { return 0; }
    #endif
    """
    bint plain_members "fastemit_plain_members" (const uint8_t* text, size_t length)
