"""Requests as the collector keeps them, and the reader that takes them from a connection.

`http.server` would do, but its header parser, which is that of `email`, costs more than the rest of a small request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from io import BufferedReader
from typing import Any

from fastemit._time import monotonic
from fastemit.testing._payload import Decoded, carries_events, decode

MAX_REQUEST_LINE = 64 * 1024
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 200
MAX_BODY = 256 * 1024 * 1024

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(r"(?:https?://[^/?#]*)?(/[^?]*|\*)?(?:\?(.*))?", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")


class BadRequest(Exception):
    """The collector does not understand what was read. It answers with `status`, and the connection ends."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class ConnectionEnded(Exception):
    """The client went away in the middle of a request."""


class Headers(Mapping[str, str]):
    """The header fields of a request, by names in any case. The values of a repeated field are joined by ", ".

    Iterating gives the names as they were sent. It is immutable, so threads may share it.
    """

    __slots__ = ("_by_name", "pairs")

    def __init__(self, pairs: tuple[tuple[str, str], ...]) -> None:
        self.pairs = pairs
        by_name: dict[str, tuple[str, ...]] = {}
        for name, value in pairs:
            lower = name.lower()
            by_name[lower] = (*by_name[lower], value) if lower in by_name else (value,)
        self._by_name = by_name

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._by_name[name.lower()])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._by_name

    def __iter__(self) -> Iterator[str]:
        seen = set()
        for name, _ in self.pairs:
            if name.lower() not in seen:
                seen.add(name.lower())
                yield name

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"Headers({self.pairs!r})"

    def getlist(self, name: str) -> tuple[str, ...]:
        """Every value of a header, in the order sent; empty if it was not sent."""
        return self._by_name.get(name.lower(), ())


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request as it arrived.

    Thread safety: only the collector writes to it. It sets `status` once, just before it answers.
    """

    method: str
    #: The request target as sent: a path with a query, or a whole URL when the client takes the collector for
    #: a proxy.
    target: str
    path: str
    #: What follows the "?", still encoded; empty when there is none.
    query: str
    version: str
    headers: Headers
    #: Empty when the collector keeps no bodies.
    body: bytes = field(repr=False)
    #: The length of the body in bytes, without any chunk framing, also when it was not kept.
    size: int
    #: `time.monotonic()` when the last byte of it had been read.
    arrived: float
    #: The number of the TCP connection it came on, from 1; requests with the same number shared a connection.
    connection: int
    #: The status answered; None while there is no answer, and for ever if there never is one.
    status: int | None = None
    #: Whether its method and path are a tracker's.
    carries_events: bool = False
    _decoded: Decoded | None = field(default=None, init=False, repr=False)

    @property
    def decoded(self) -> Decoded:
        """Its content, which is decoded once and kept."""
        decoded = self._decoded
        if decoded is None:
            decoded = decode(self.method, self.path, self.query, self.body)
            object.__setattr__(self, "_decoded", decoded)
        return decoded

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events it carries as dicts, good or bad; empty when it cannot be decoded or is not a tracker's.

        The last value counts where a GET repeats a name, as in a collector; `query` has them all.
        """
        return [item for item in self.decoded.items if isinstance(item, dict)]

    @property
    def keeps_connection(self) -> bool:
        """Whether the client wants to use the connection again."""
        if self.version == "HTTP/1.0":
            return False
        return not any("close" in value.lower() for value in self.headers.getlist("Connection"))

    def answered(self, status: int) -> None:
        """Note the status that is about to be sent. Only the collector calls this."""
        object.__setattr__(self, "status", status)


def read_request(
    reader: BufferedReader[Any], send: Callable[[bytes], object], connection: int, scratch: bytearray | None
) -> Request | None:
    """Read one request. None if the client closed the connection instead of sending another.

    `send` gets the interim answer to `Expect: 100-continue`. With `scratch`, bodies are read into that and not kept.
    Raises `BadRequest`, `ConnectionEnded` and `OSError`.
    """
    line = reader.readline(MAX_REQUEST_LINE + 1)
    if line == b"\r\n":  # RFC 9112, 2.2: ignore an empty line before a request
        line = reader.readline(MAX_REQUEST_LINE + 1)
    if not line:
        return None
    # Short request lines repeat, such as that of a POST. A long one is a GET with an event in it.
    parse = _parse_request_line if len(line) > 120 else _cached_request_line
    method, target, path, query, version = parse(line)
    headers = _read_headers(reader)
    if version == "HTTP/1.1" and len(headers.getlist("Host")) != 1:
        raise BadRequest(400, "exactly one Host header is expected")
    body, size = _read_body(reader, send, method, headers, scratch)
    arrived, ours = monotonic(), carries_events(method, path)
    return Request(method, target, path, query, version, headers, body, size, arrived, connection, None, ours)


def _parse_request_line(line: bytes) -> tuple[str, str, str, str, str]:
    if not line.endswith(b"\r\n"):
        if len(line) > MAX_REQUEST_LINE:
            raise BadRequest(414, f"the request line is longer than {MAX_REQUEST_LINE} bytes")
        if not line.endswith(b"\n"):
            raise ConnectionEnded
        raise BadRequest(400, "the request line does not end in CR LF")
    parts = line[:-2].split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not parts[1]:
        raise BadRequest(400, "the request line is not method, target and version")
    try:
        method, target, version = (part.decode("ascii") for part in parts)
    except UnicodeDecodeError:
        raise BadRequest(400, "the request line is not ASCII") from None
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(505 if version.startswith("HTTP/") else 400, "the version is not HTTP/1.1 or HTTP/1.0")
    match = _TARGET.fullmatch(target)
    if match is None or (match[1] is None and not target.lower().startswith("http")):
        raise BadRequest(400, "the request target is neither a path nor an http URL")
    return method, target, match[1] or "/", match[2] or "", version


_cached_request_line = lru_cache(maxsize=64)(_parse_request_line)


def _read_headers(reader: BufferedReader[Any]) -> Headers:
    """Read header (or trailer) lines to the empty one that ends them."""
    pairs: list[tuple[str, str]] = []
    size = 0
    while (line := reader.readline(MAX_HEADER_BYTES + 1)) != b"\r\n":
        size += len(line)
        if size > MAX_HEADER_BYTES or len(pairs) == MAX_HEADERS:
            raise BadRequest(431, f"more than {MAX_HEADER_BYTES} bytes or {MAX_HEADERS} lines of headers")
        if not line.endswith(b"\r\n"):
            if not line.endswith(b"\n"):
                raise ConnectionEnded
            raise BadRequest(400, "a header line does not end in CR LF")
        pairs.append(_parse_header_line(line) if len(line) > 200 else _cached_header_line(line))
    return Headers(tuple(pairs))


def _parse_header_line(line: bytes) -> tuple[str, str]:
    name, colon, value = line[:-2].partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        raise BadRequest(400, "a header line is not a name, a colon and a value")
    if b"\0" in value or b"\r" in value:
        raise BadRequest(400, "a header value contains a control character")
    return name.decode("ascii"), value.strip(b" \t").decode("latin-1")


# A client sends the same lines with every request. To look them up costs a tenth of taking them apart.
_cached_header_line = lru_cache(maxsize=512)(_parse_header_line)


def _read_body(
    reader: BufferedReader[Any],
    send: Callable[[bytes], object],
    method: str,
    headers: Headers,
    scratch: bytearray | None,
) -> tuple[bytes, int]:
    lengths = headers.getlist("Content-Length")
    encodings = headers.getlist("Transfer-Encoding")
    if encodings:
        if lengths:
            raise BadRequest(400, "both Content-Length and Transfer-Encoding")
        if len(encodings) != 1 or encodings[0].lower() != "chunked":
            raise BadRequest(501, "a Transfer-Encoding other than chunked")
    elif not lengths:
        if method in ("POST", "PUT", "PATCH"):
            raise BadRequest(411, "neither Content-Length nor Transfer-Encoding")
        return b"", 0
    elif len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdigit()) or len(lengths[0]) > 18:
        raise BadRequest(400, "Content-Length is not one number")
    elif int(lengths[0]) > MAX_BODY:
        raise BadRequest(413, f"a body of more than {MAX_BODY} bytes")
    for expectation in headers.getlist("Expect"):
        if expectation.lower() != "100-continue":
            raise BadRequest(417, "an Expect other than 100-continue")
        send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if encodings:
        body = _read_chunked(reader)
        return (body if scratch is None else b""), len(body)
    size = int(lengths[0])
    if scratch is None:
        return _read_exactly(reader, size), size
    _read_into(reader, size, scratch)
    return b"", size


def _read_chunked(reader: BufferedReader[Any]) -> bytes:
    chunks: list[bytes] = []
    total = 0
    while True:
        line = reader.readline(1024)
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            if len(line) < 1024 and not line.endswith(b"\n"):
                raise ConnectionEnded
            raise BadRequest(400, "a malformed chunk size")
        size = int(match[1], 16)
        if size == 0:
            _read_headers(reader)
            return b"".join(chunks)
        total += size
        if total > MAX_BODY:
            raise BadRequest(413, f"a body of more than {MAX_BODY} bytes")
        chunks.append(_read_exactly(reader, size))
        if _read_exactly(reader, 2) != b"\r\n":
            raise BadRequest(400, "a chunk is not as long as its size says")


def _read_exactly(reader: BufferedReader[Any], size: int) -> bytes:
    # BufferedReader reads what is larger than its buffer straight into the result, so a large body is not copied.
    data = reader.read(size)
    if len(data) != size:
        raise ConnectionEnded
    return data


def _read_into(reader: BufferedReader[Any], size: int, scratch: bytearray) -> None:
    if len(scratch) < size:
        scratch.extend(bytes(size - len(scratch)))
    with memoryview(scratch) as view, view[:size] as target:
        if reader.readinto(target) != size:
            raise ConnectionEnded
