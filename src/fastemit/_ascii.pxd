"""Bytes as text: URL-safe base64, and a random UUID of version 4 (RFC 9562, 5.4). Plain C, without Python."""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy


cdef extern from * nogil:
    """
    /* 32 hex digits of 16 bytes: a loop that compilers turn into a few instructions on all of them at once. */
    static inline void fastemit_hex16(uint8_t* out, const uint8_t* some) {
        for (int i = 0; i < 16; i++) {
            const uint8_t high = some[i] >> 4, low = some[i] & 15;
            out[2 * i] = (uint8_t) (high + (high > 9 ? 'a' - 10 : '0'));
            out[2 * i + 1] = (uint8_t) (low + (low > 9 ? 'a' - 10 : '0'));
        }
    }
    """
    const char* BASE64_DIGITS "\"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_\""
    const char* VARIANT_DIGITS "\"89ab\""
    void hex16 "fastemit_hex16" (uint8_t* out, const uint8_t* some)


cdef enum:
    UUID_BYTES = 16
    UUID_LETTERS = 36


cdef inline size_t base64_size(size_t length) noexcept nogil:
    return (length + 2) // 3 * 4


cdef inline void base64_write(char* out, const uint8_t* some, size_t length) noexcept nogil:
    """`base64.urlsafe_b64encode`: `base64_size(length)` characters, with `=` at the end."""
    while length >= 3:
        out[0] = BASE64_DIGITS[some[0] >> 2]
        out[1] = BASE64_DIGITS[((some[0] & 3) << 4) | (some[1] >> 4)]
        out[2] = BASE64_DIGITS[((some[1] & 15) << 2) | (some[2] >> 6)]
        out[3] = BASE64_DIGITS[some[2] & 63]
        out += 4
        some += 3
        length -= 3
    if length == 0:
        return
    out[0] = BASE64_DIGITS[some[0] >> 2]
    if length == 1:
        out[1] = BASE64_DIGITS[(some[0] & 3) << 4]
        out[2] = b"="
    else:
        out[1] = BASE64_DIGITS[((some[0] & 3) << 4) | (some[1] >> 4)]
        out[2] = BASE64_DIGITS[(some[1] & 15) << 2]
    out[3] = b"="


cdef inline void uuid_write(char* out, const uint8_t* random) noexcept nogil:
    """UUID_LETTERS characters from UUID_BYTES random bytes: version 4, and the variant of the RFC."""
    cdef uint8_t[32] digits
    hex16(digits, random)
    memcpy(out, digits, 8)
    memcpy(out + 9, digits + 8, 4)
    memcpy(out + 14, digits + 12, 4)
    memcpy(out + 19, digits + 16, 4)
    memcpy(out + 24, digits + 20, 12)
    out[8] = out[13] = out[18] = out[23] = b"-"
    out[14] = b"4"
    # Two bits of this digit are random, the others name the format.
    out[19] = VARIANT_DIGITS[(random[8] >> 4) & 3]
