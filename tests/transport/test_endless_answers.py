"""Answers without end: next to nothing of them is read, and no call hangs."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import requests
import urllib3

from tests.support.delivery import RawServer, Rig, put, within

GIB = 1 << 30


pytestmark = pytest.mark.usefixtures("no_short_delay")


def sender(kind: str) -> dict[str, Any]:
    return {"urllib3": {}, "session": {"session": requests.Session()}, "pool": {"pool_manager": urllib3.PoolManager()}}[
        kind
    ]


@pytest.mark.parametrize("kind", ["urllib3", "session", "pool"])
@pytest.mark.parametrize("framing", [b"Content-Length: %d\r\n" % GIB, b"Transfer-Encoding: chunked\r\n", b""])
@pytest.mark.parametrize("status", [200, 500])
def test_hardly_anything_of_an_answer_of_a_gigabyte_is_read(rig: Rig, kind: str, framing: bytes, status: int) -> None:
    piece = b"x" * 65536
    if b"chunked" in framing:
        piece = b"10000\r\n" + piece + b"\r\n"
    sent: list[int] = []

    def handle(sock: socket.socket, _number: int) -> None:
        while server.read(sock):
            sock.sendall(b"HTTP/1.1 %d Whatever\r\n%s\r\n" % (status, framing))
            while sum(sent) < GIB and not server.over.is_set():
                sock.sendall(piece)
                sent.append(len(piece))

    settings = sender(kind)
    with RawServer(handle) as server:
        emitter = rig.emitter(endpoint=server.url, custom_retry_codes={500: False}, **settings)
        put(emitter, 3)
        with within(5):
            assert emitter.drain() is True
        emitter.close()
        stats = emitter.stats()
    for each in settings.values():
        getattr(each, "close", getattr(each, "clear", None))()
    assert (stats.sent_events, stats.dropped_events["rejected"]) == ((3, 0) if status == 200 else (0, 3))
    # What fits the sockets' buffers, and not more.
    assert sum(sent) < 16 << 20


@pytest.mark.parametrize("what", ["status line", "header", "headers", "chunk size", "trailers", "interim"])
def test_an_answer_whose_head_has_no_end_is_given_up(rig: Rig, what: str) -> None:
    begin, piece = {
        "status line": (b"HTTP/1.1 200 ", b"x" * 65536),
        "header": (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536),
        "headers": (b"HTTP/1.1 200 OK\r\n", b"X: yyyyyyyy\r\n" * 5000),
        "chunk size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;", b"x" * 65536),
        "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: yyyyyyyy\r\n" * 5000),
        "interim": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3000),
    }[what]
    sent: list[int] = []

    def handle(sock: socket.socket, number: int) -> None:
        if number > 1:
            server.answer_all(sock)
        server.read(sock)
        sock.sendall(begin)
        while sum(sent) < GIB and not server.over.is_set():
            sock.sendall(piece)
            sent.append(len(piece))

    with RawServer(handle) as server:
        emitter = rig.emitter(endpoint=server.url, request_timeout=5)
        put(emitter, 3)
        with within(4):
            # The status counts where there was one.
            assert emitter.drain() is (what not in ("status line", "interim"))
            assert emitter.drain() is True
        emitter.close()
    assert sum(sent) < 16 << 20
