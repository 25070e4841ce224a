"""Bytes as text: URL-safe base64, and a random UUID of version 4 (RFC 9562, 5.4). Plain C, without Python."""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy


cdef extern from * nogil:
    """
    /* Eight hex digits of four bytes. Each nibble is given a byte of its own, of which more than 9 makes a letter. */
    static inline void fastemit_hex8(char* out, const uint8_t* some) {
        uint64_t spread = (uint64_t) some[0] | (uint64_t) some[1] << 16
                          | (uint64_t) some[2] << 32 | (uint64_t) some[3] << 48;
        uint64_t nibbles = ((spread >> 4) & 0x000F000F000F000FULL) | ((spread & 0x000F000F000F000FULL) << 8);
        uint64_t letters = ((nibbles + 0x0606060606060606ULL) >> 4) & 0x0101010101010101ULL;
        uint64_t digits = nibbles + 0x3030303030303030ULL + letters * ('a' - '0' - 10);
        for (int i = 0; i < 8; i++) out[i] = (char) (digits >> (8 * i));
    }
    """
    const char* BASE64_DIGITS "\"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_\""
    void hex8 "fastemit_hex8" (char* out, const uint8_t* some)


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
    cdef char[32] digits
    cdef uint8_t[UUID_BYTES] bits
    memcpy(bits, random, UUID_BYTES)
    bits[6] = (bits[6] & 0x0F) | 0x40
    bits[8] = (bits[8] & 0x3F) | 0x80
    hex8(digits, bits)
    hex8(digits + 8, bits + 4)
    hex8(digits + 16, bits + 8)
    hex8(digits + 24, bits + 12)
    memcpy(out, digits, 8)
    memcpy(out + 9, digits + 8, 4)
    memcpy(out + 14, digits + 12, 4)
    memcpy(out + 19, digits + 16, 4)
    memcpy(out + 24, digits + 20, 12)
    out[8] = out[13] = out[18] = out[23] = b"-"
