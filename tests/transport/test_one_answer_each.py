"""Each request gets its own answer or none, whatever a server sends behind, before or inside of another one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from fastemit._interfaces import Outcome
from fastemit._transport.endpoint import parse_endpoint
from fastemit._transport.http import HttpTransport
from tests.support.bad_network import Certified
from tests.support.delivery import OK, RawServer, answering, within
from tests.support.slow import slow, slow_but

#: What must never be taken for an answer.
DECOY = b"HTTP/1.1 299 Decoy\r\nContent-Length: 0\r\n\r\n"
RST = b"\1\0\0\0\0\0\0\0"


def to(url: str, timeout: tuple[float, float] = (2.0, 0.15), ca_certs: str | None = None) -> HttpTransport:
    return HttpTransport(parse_endpoint(url), timeout, ca_certs=ca_certs)


def send(transport: HttpTransport, method: str = "post") -> Outcome:
    return transport.post(b"{}") if method == "post" else transport.get("e=pv")


def answer(head: bytes, rest: bytes) -> bytes:
    return b"HTTP/1.1 500 Oh\r\n" + head + b"\r\n" + rest


#: Answers of which a client may find the end in the wrong place, with what it would find there.
TRAPS = {
    "two answers": answer(b"Content-Length: 2\r\n", b"ok" + DECOY),
    "one more byte": answer(b"Content-Length: 2\r\n", b"ok!"),
    "a length that is short": answer(b"Content-Length: 1\r\n", b"o" + DECOY),
    "no body where there is one": answer(b"Content-Length: 0\r\n", DECOY),
    "a length that is long": answer(b"Content-Length: 500\r\n", b"ok" + DECOY),
    "two lengths": answer(b"Content-Length: 2\r\nContent-Length: 44\r\n", b"ok" + DECOY),
    "two lengths, the other first": answer(b"Content-Length: 44\r\nContent-Length: 2\r\n", b"ok" + DECOY),
    "two lengths in one": answer(b"Content-Length: 2, 44\r\n", b"ok" + DECOY),
    "a plus": answer(b"Content-Length: +2\r\n", b"ok" + DECOY),
    "a minus": answer(b"Content-Length: -2\r\n", b"ok" + DECOY),
    "hexadecimal": answer(b"Content-Length: 0x2\r\n", b"ok" + DECOY),
    "an underscore": answer(b"Content-Length: 0_2\r\n", b"ok" + DECOY),
    "a length with a space": answer(b"Content-Length: 0 2\r\n", b"ok" + DECOY),
    "digits of another script": answer("Content-Length: \u0662\r\n".encode(), b"ok" + DECOY),
    "superscript": answer(b"Content-Length: \xb2\r\n", b"ok" + DECOY),
    "no digits": answer(b"Content-Length: \r\n", b"ok" + DECOY),
    "a huge length": answer(b"Content-Length: 18446744073709551618\r\n", b"ok" + DECOY),
    "a space before the colon": answer(b"Content-Length : 2\r\n", b"ok" + DECOY),
    "a space before the name": answer(b"X: y\r\n Content-Length: 2\r\n", b"ok" + DECOY),
    "a space before the first name": answer(b" Content-Length: 2\r\n", b"ok" + DECOY),
    "a folded length": answer(b"Content-Length:\r\n 2\r\n", b"ok" + DECOY),
    "a length that is gone on with": answer(b"Content-Length: 0\r\n\t2\r\n", b"ok" + DECOY),
    "a NUL in the name": answer(b"Content-Length\0: 2\r\n", b"ok" + DECOY),
    "a NUL in the length": answer(b"Content-Length: 2\0\r\n", b"ok" + DECOY),
    "a NUL in another header": answer(b"X: \0\r\nContent-Length: 2\r\n", b"ok" + DECOY),
    "a bare CR": answer(b"X: y\rContent-Length: 44\r\nContent-Length: 2\r\n", b"ok" + DECOY),
    "a bare LF": answer(b"X: y\nContent-Length: 44\r\nContent-Length: 2\r\n", b"ok" + DECOY),
    "a vertical tab": answer(b"X: y\x0bContent-Length: 44\r\nContent-Length: 2\r\n", b"ok" + DECOY),
    "a next line of Unicode": answer(b"X: y\x85Content-Length: 44\r\nContent-Length: 2\r\n", b"ok" + DECOY),
    "an empty line of CRs": b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\r\n\r\nok" + DECOY,
    "an empty line of LFs": b"HTTP/1.1 500 Oh\r\nContent-Length: 2\n\nok" + DECOY,
    "chunks and a length": answer(b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + DECOY),
    "a length and chunks": answer(b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"0\r\n\r\n" + DECOY),
    "chunks in disguise": answer(b"Transfer-Encoding: xchunked\r\nContent-Length: 2\r\n", b"ok" + DECOY),
    "chunks and more": answer(b"Transfer-Encoding: chunked\r\n", b"2\r\nok\r\n0\r\n\r\n" + DECOY),
    "no body by its status": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n" + DECOY,
    "no body, and a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 44\r\n\r\n" + DECOY,
    "HTTP/1.0": b"HTTP/1.0 500 Oh\r\nContent-Length: 2\r\n\r\nok" + DECOY,
    "HTTP/1.0 that is kept": b"HTTP/1.0 500 Oh\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok" + DECOY,
    "an interim answer": b"HTTP/1.1 103 Early\r\n\r\n" + answer(b"Content-Length: 2\r\n", b"ok" + DECOY),
    "a switch of protocols": b"HTTP/1.1 101 Switching\r\nContent-Length: 0\r\n\r\n" + DECOY,
    "more than is kept room for": answer(b"Content-Length: 2\r\n", b"ok" + DECOY * 1000),
    "a body that is more than is read": answer(b"Content-Length: 70000\r\n", b"x" * 70_000 + DECOY),
    "a head that is more than is kept room for": answer(
        b"X: %b\r\nContent-Length: 2\r\n" % (b"y" * 20_000), b"ok" + DECOY
    ),
}


@pytest.mark.parametrize("apart", [False, slow(True)], ids=["at once", "apart"])
@pytest.mark.parametrize("kind", slow_but(list(TRAPS)[::3], TRAPS))
def test_the_rest_of_an_answer_is_not_the_next_one(kind: str, apart: bool) -> None:
    """Whether it comes in the same segment or a little later, but before the next request."""
    trap = TRAPS[kind]
    begin, found, rest = trap.partition(DECOY if DECOY in trap else b"!")
    sent = threading.Event()

    def handle(sock: socket.socket, _number: int) -> None:
        # Else the second piece waits for the client to have confirmed the first.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while server.read(sock):
            if len(server.requests) != 2:
                sock.sendall(OK)
                continue
            # The client may have closed in the middle of it.
            with contextlib.suppress(OSError):
                for piece in (begin, found + rest) if apart else (trap,):
                    sock.sendall(piece)
                    time.sleep(0.005)
            sent.set()

    with RawServer(handle) as server:
        client = to(server.url)
        assert send(client).status == 200
        assert send(client).status != 299
        assert sent.wait(5)
        # A busy machine may be slow to give the good answers.
        client.timeout = (5.0, 5.0)
        assert [send(client, method) for method in ("post", "get", "post")] == [Outcome(status=200)] * 3


@pytest.mark.parametrize("surplus", [1, 8192 - 44, 10_000, 16_000, 40_000])
def test_what_tls_has_decrypted_behind_an_answer_is_not_the_next_one(certified: Certified, surplus: int) -> None:
    """One record holds more than one receive takes, and what is left of it is not seen at the socket."""
    context, path = certified.context(), certified.path
    decoys = (DECOY * 1000)[-surplus // len(DECOY) * len(DECOY) :][:surplus]
    with answering(OK, OK + decoys, context=context) as server:
        client = to(server.url, ca_certs=path)
        assert [send(client).status for _ in range(4)] == [200] * 4
        assert server.connections == 2
        client.close()


def test_an_answer_in_pieces_is_read_and_its_connection_used_again() -> None:
    def handle(sock: socket.socket, _number: int) -> None:
        while server.read(sock):
            head, _, body = OK.partition(b"\r\n\r\n")
            for piece in (head[:20], head[20:] + b"\r\n\r", b"\n", body):
                sock.sendall(piece)
                time.sleep(0.002)

    with RawServer(handle) as server:
        client = to(server.url, (2.0, 2.0))
        assert [send(client, method).status for method in ("post", "get") * 3] == [200] * 6
        assert server.connections == 1


def test_a_body_that_comes_after_its_head_is_read_to_its_end() -> None:
    body = b"x" * 60_000

    def handle(sock: socket.socket, _number: int) -> None:
        while server.read(sock):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            for at in range(0, len(body), 20_000):
                time.sleep(0.002)
                sock.sendall(body[at : at + 20_000])

    with RawServer(handle) as server:
        client = to(server.url, (2.0, 2.0))
        assert [send(client).status for _ in range(4)] == [200] * 4
        assert server.connections == 1


@pytest.mark.parametrize("end", ["reset", "hang up"])
@pytest.mark.parametrize("begun", [b"", b"H", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_only_a_connection_that_closes_without_a_byte_costs_a_resend(end: str, begun: bytes) -> None:
    """What has begun to answer has had the request."""

    def handle(sock: socket.socket, number: int) -> None:
        if number > 1:
            server.answer_all(sock)
        server.read(sock)
        sock.sendall(OK)
        server.read(sock)
        sock.sendall(begun)
        time.sleep(0.02)
        if end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)

    with RawServer(handle) as server:
        client = to(server.url, (2.0, 2.0))
        assert send(client).status == 200
        with within(1):
            outcome = send(client)
        # The status counts once it is there.
        assert outcome.status == (None if begun and b"OK" not in begun else 200)
        assert len(server.requests) == (3 if not begun else 2)


@pytest.mark.parametrize("method", ["post", "get"])
def test_an_answer_before_the_request_was_read_counts_on_a_connection_that_was_used(method: str) -> None:
    """The server closes then: it has not read the request, and what it would read next is the rest of it."""

    def handle(sock: socket.socket, _number: int) -> None:
        server.read(sock)
        sock.sendall(OK)
        sock.recv(1)
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.05)

    with RawServer(handle) as server:
        client = to(server.url, (2.0, 2.0))
        assert send(client).status == 200
        large = client.post(b"x" * 5_000_000) if method == "post" else client.get("e=" + "x" * 5_000_000)
        assert large.status in (413, None)
        assert send(client).status == 200
