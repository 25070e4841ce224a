"""Reads the head of a plain answer. Nearly all are plain; http.client reads the others."""

from __future__ import annotations

from typing import Final, NamedTuple

#: The characters of a plain head, but for its line breaks. Letters of other alphabets are left to http.client, and so
#: are the control characters that it takes for the end of a line and others do not.
_PRINTABLE: Final = bytes([9, *range(32, 127)])
#: What a header's name may be made of (RFC 9110).
_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: The headers that say where an answer ends, whether the connection ends, and what the delivery needs.
_ASKED_FOR: Final = frozenset({b"connection", b"content-length", b"location", b"retry-after", b"transfer-encoding"})
#: The most digits of a length. Nobody means a longer one.
_DIGITS: Final = 18
#: Answers that have no body, whatever their headers say.
_BODYLESS: Final = (204, 304)


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: the HTTP status.
        retry_after, location: these headers as they came, or None.
        keeps: the connection can be used again, as far as is known.
        size: bytes of the whole answer, if it is a plain one.
        length: of these, the bytes of the body.
    """

    status: int
    retry_after: str | None
    location: str | None
    keeps: bool
    size: int = 0
    length: int = 0


def read_plain(data: bytes) -> Answer | None:
    """What the head at the beginning of `data` says; None if it is not complete, or not plain.

    A plain head is HTTP/1.1 with a final status. Its lines end in CR and LF, each header is a name, a colon and a value
    on one line, `Content-Length` has only digits, there is no `Transfer-Encoding`, and no header that matters comes
    twice. In doubt a head is not plain: if a client and a proxy do not agree where an answer ends, the client takes the
    rest of one answer for the next.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end]
    # All characters but the line breaks can be printed, and each line break is complete.
    if len(head.translate(None, _PRINTABLE)) != 2 * head.count(b"\r\n"):
        return None
    lines = head.split(b"\r\n")
    first = lines[0]
    code = first[9:12]
    if first[:9] != b"HTTP/1.1 " or not code.isdigit() or len(code) != 3 or first[12:13] not in (b"", b" "):
        return None
    status = int(code)
    if status < 200 or status in _BODYLESS:
        return None
    found: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, _TOKEN):
            return None
        name = name.lower()
        if name in _ASKED_FOR:
            if name in found:
                return None
            found[name] = value.strip(b" \t")
    length = found.get(b"content-length", b"")
    if not length.isdigit() or len(length) > _DIGITS or b"transfer-encoding" in found:
        return None
    retry_after, location = found.get(b"retry-after"), found.get(b"location")
    return Answer(
        status,
        None if retry_after is None else retry_after.decode("ascii"),
        None if location is None else location.decode("ascii"),
        b"close" not in found.get(b"connection", b"").lower(),
        end + 4 + int(length),
        int(length),
    )
