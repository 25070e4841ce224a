"""What a network, a name server or a bad server may do, and that no event is lost to it and no call hangs."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
import urllib3

from tests.support.delivery import OK, RawServer, Rig, answering, numbers, put, run_script, within
from tests.support.faulty_network import LINGER_0

GIB = 1 << 30


pytestmark = pytest.mark.usefixtures("no_short_delay")


def events_of(server: RawServer) -> Counter[int]:
    """How often each event came in a whole request."""
    bodies = [request.partition(b"\r\n\r\n")[2] for request in server.requests]
    return Counter(number for body in bodies for number in numbers(json.loads(body)["data"]))


# -- names -------------------------------------------------------------------------------------------------------------

NAME = "collector.test"


class NameServer:
    """Stands in for the resolver, which cannot be made to fail or to hang without the machine's settings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._resolve = socket.getaddrinfo
        #: Asked, and not answered yet.
        self.waiting = threading.Semaphore(0)
        self.works = threading.Event()
        self.works.set()
        self.error: OSError | None = None
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != NAME:
            return self._resolve(host, *args, **kwargs)
        self.waiting.release()
        self.works.wait(30.0)
        if self.error is not None:
            raise self.error
        return self._resolve("127.0.0.1", *args, **kwargs)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    names = NameServer(monkeypatch)
    yield names
    names.works.set()


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL])
@pytest.mark.parametrize("background", [True, False])
def test_a_name_that_does_not_resolve_keeps_the_events_until_it_does(
    rig: Rig, names: NameServer, code: int, background: bool
) -> None:
    names.error = socket.gaierror(code, "no such luck")
    emitter = rig.emitter(endpoint=f"http://{NAME}:{rig.collector.port}", background=background)
    put(emitter, 3)
    assert emitter.drain() is False
    stats = emitter.stats()
    assert (stats.queued_events, stats.last_status, "no such luck" in (stats.last_error or "")) == (3, None, True)
    assert emitter.retry_delay > 0
    # It is not for want of time that it failed.
    assert emitter._delivery._schedule.aim == emitter._buffer.segment_bytes
    names.error = None
    assert emitter.drain() is True
    assert rig.requests() == [[0, 1, 2]]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_name_that_takes_for_ever_to_resolve_holds_up_no_call_beyond_its_deadline(
    rig: Rig, names: NameServer, threads: int
) -> None:
    names.works.clear()
    emitter = rig.async_emitter(
        endpoint=f"http://{NAME}:{rig.collector.port}", thread_count=threads, batch_size=1, overflow="drop_newest"
    )
    put(emitter)
    assert names.waiting.acquire(timeout=10)
    with within(0.5):
        put(emitter, 100, first=1)
    with within(0.7, at_least=0.2):
        assert emitter.drain(0.2) is False
    names.works.set()
    assert emitter.drain(10) is True
    assert sorted(numbers(rig.collector.events)) == list(range(101))


def test_close_keeps_its_deadline_while_a_name_does_not_resolve(rig: Rig, names: NameServer) -> None:
    names.works.clear()
    emitter = rig.emitter(endpoint=f"http://{NAME}:{rig.collector.port}")
    put(emitter, 3)
    with within(0.8, at_least=0.2):
        assert emitter.close(0.2) == 3
    names.works.set()


def test_the_process_ends_in_time_while_a_name_does_not_resolve(rig: Rig, tmp_path: Path) -> None:
    ended = run_script(
        tmp_path,
        """
        import socket

        socket.getaddrinfo = lambda *_, **__: time.sleep(60)
        emitter = Emitter("http://collector.test", batch_size=1, shutdown_timeout=0.3)
        put(emitter)
        the_end()
        """,
        rig.collector.url,
    )
    assert ended.status == 0
    assert 0.2 <= ended.seconds < 0.3 + 0.5 + 0.5  # the deadline, what is promised beyond it, and the process's end


# -- TLS ---------------------------------------------------------------------------------------------------------------


class Certified:
    """A certificate of a private authority, and that authority in a file."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self.path = str(directory / "ca.pem")
        self._ca.cert_pem.write_to_path(self.path)

    def context(self, **how: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert("127.0.0.1", **how).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return Certified(tmp_path_factory.mktemp("ca"))


def hang_up(_sock: socket.socket) -> None:
    pass


def speak_http(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def alert(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.sendall(b"\x15\x03\x03\x00\x02\x02\x28")  # handshake_failure


def garble(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.sendall(b"\x16\x03\x03\x40\x00" + bytes(range(256)) * 64)


@pytest.mark.parametrize("fail", [hang_up, speak_http, alert, garble])
def test_a_handshake_that_fails_keeps_the_events_until_one_succeeds(
    rig: Rig, certified: Certified, fail: Callable[[socket.socket], None]
) -> None:
    context = certified.context()

    def handle(sock: socket.socket, number: int) -> None:
        if number <= 2:
            fail(sock)
        else:
            with context.wrap_socket(sock, server_side=True) as tls:
                server.answer_all(tls)

    with RawServer(handle) as server:
        emitter = rig.emitter(endpoint=f"https://127.0.0.1:{server.port}", ca_certs=certified.path)
        put(emitter, 3)
        assert [emitter.drain(), emitter.drain()] == [False, False]
        assert (emitter.stats().queued_events, emitter.stats().last_status) == (3, None)
        assert emitter.drain() is True
        emitter.close()
        assert events_of(server) == Counter(range(3))


def test_a_certificate_that_has_expired_is_refused_and_the_events_kept(rig: Rig, certified: Certified) -> None:
    yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    with answering(context=certified.context(not_after=yesterday)) as server:
        emitter = rig.emitter(endpoint=server.url, ca_certs=certified.path)
        put(emitter, 3)
        assert emitter.drain() is False
        stats = emitter.stats()
        assert (stats.queued_events, "expired" in (stats.last_error or ""), server.requests) == (3, True, [])
        emitter.close(0)


class Wire:
    """Passes bytes both ways, and harms the first connections at one byte of one way: "flip", "cut" or "reset"."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.harm: tuple[str, str, int] | None = None  # what, which way, at which byte
        self.harmed = 0

    def __call__(self, sock: socket.socket, _number: int) -> None:
        harm, self.harm = self.harm, None
        with socket.create_connection(("127.0.0.1", self._port), 5) as onward:
            back = threading.Thread(target=self._pump, args=(onward, sock, "down", harm), daemon=True)
            back.start()
            self._pump(sock, onward, "up", harm)
            back.join(5)

    def _pump(self, source: socket.socket, sink: socket.socket, way: str, harm: tuple[str, str, int] | None) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                at = harm[2] - passed if harm is not None and harm[1] == way else -1
                passed += len(data)
                if harm is not None and 0 <= at < len(data):
                    self.harmed += 1
                    if harm[0] == "flip":
                        data = data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
                    else:
                        sink.sendall(data[:at])
                        client, server = (source, sink) if way == "up" else (sink, source)
                        return self._break(harm[0], client, server)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            # One side is gone: so it is for the other.
            self._break("cut", source, sink)

    @staticmethod
    def _break(how: str, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if how == "reset":
                # RST, when it is closed. Not for the server too: ssl leaks a socket that is reset as it wraps it.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
                client.shutdown(socket.SHUT_RD)
            else:
                client.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def harmed_requests(rig: Rig, server: RawServer, what: str, way: str, step: int, **settings: Any) -> None:
    """Events over connections of which each is harmed at another byte; each time all of them arrive."""
    wire = Wire(server.port)
    scheme = "https" if settings else "http"
    with RawServer(wire) as proxy:
        emitter = rig.emitter(
            endpoint=f"{scheme}://127.0.0.1:{proxy.port}", background=False, request_timeout=1.0, **settings
        )
        first = offset = 0
        while True:
            # Each time over a new connection.
            emitter._transport.close()
            server.requests.clear()
            wire.harm, wire.harmed = (what, way, offset), 0
            put(emitter, 3, first=first)
            failed = emitter.stats().failed_requests
            while not emitter.drain(5):
                assert emitter.stats().failed_requests < failed + 3, offset
            if not wire.harmed:
                # That was more than passes that way for one request.
                break
            arrived = events_of(server)
            assert set(arrived) == set(range(first, first + 3)), offset
            # Once where the collector has not had the request whole, or the answer came.
            assert set(arrived.values()) <= ({1} if way == "up" else {1, 2}), offset
            first, offset = first + 3, offset + step
        assert emitter.stats().sent_events == first + 3
        assert first > 50
        emitter.close()


@pytest.mark.parametrize("what", ["cut", "reset"])
@pytest.mark.parametrize(("way", "step"), [("up", 7), ("down", 1)])
def test_a_connection_that_breaks_at_any_byte_loses_nothing(rig: Rig, what: str, way: str, step: int) -> None:
    with answering() as server:
        harmed_requests(rig, server, what, way, step)


@pytest.mark.parametrize("what", ["flip", "cut", "reset"])
@pytest.mark.parametrize(("way", "step"), [("up", 37), ("down", 53)])
def test_tls_that_is_harmed_at_any_byte_loses_nothing(
    rig: Rig, certified: Certified, what: str, way: str, step: int
) -> None:
    with answering(context=certified.context()) as server:
        harmed_requests(rig, server, what, way, step, ca_certs=certified.path)


# -- answers without end -----------------------------------------------------------------------------------------------


def sender(kind: str) -> dict[str, Any]:
    return {"urllib3": {}, "session": {"session": requests.Session()}, "pool": {"pool_manager": urllib3.PoolManager()}}[
        kind
    ]


@pytest.mark.parametrize("kind", ["urllib3", "session", "pool"])
@pytest.mark.parametrize("framing", [b"Content-Length: %d\r\n" % GIB, b"Transfer-Encoding: chunked\r\n", b""])
@pytest.mark.parametrize("status", [200, 500])
def test_of_an_answer_of_a_gigabyte_next_to_nothing_is_read(rig: Rig, kind: str, framing: bytes, status: int) -> None:
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


# -- answers at odd times ----------------------------------------------------------------------------------------------


def test_chunks_with_extensions_and_trailers_are_read_and_the_connection_used_again(rig: Rig) -> None:
    odd = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
        b"1;a=b\r\no\r\n1;c\r\nk\r\n0;d\r\nX: y\r\nZ: z\r\n\r\n"
    )
    with answering(odd) as server:
        emitter = rig.emitter(endpoint=server.url)
        for number in range(2):
            put(emitter, first=number)
            assert emitter.drain() is True
        assert server.connections == 1
        emitter.close()


def test_an_answer_that_comes_before_the_request_was_read_counts(rig: Rig) -> None:
    """As nginx's 413 does, which then closes: the client is in the middle of its body, and gets a reset."""

    def handle(sock: socket.socket, _number: int) -> None:
        while True:
            head = sock.recv(4096, socket.MSG_PEEK)
            if not head:
                return
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            if length > 50_000:
                sock.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                return
            server.read(sock)
            sock.sendall(OK)

    with RawServer(handle) as server:
        emitter = rig.emitter(endpoint=server.url, batch_size=5000)
        for number in range(2500):
            emitter.input({"n": f"{number:05}", "text": "x" * 300})
        assert emitter.drain(10) is True
        emitter.close()
        assert events_of(server) == Counter(range(2500))


def test_a_second_answer_that_comes_late_is_not_taken_for_the_next_one(rig: Rig) -> None:
    second = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    late = threading.Event()

    def handle(sock: socket.socket, number: int) -> None:
        if number > 1:
            server.answer_all(sock)
        server.read(sock)
        sock.sendall(OK)
        time.sleep(0.02)
        sock.sendall(second)
        late.set()
        server.answer_all(sock)

    with RawServer(handle) as server:
        emitter = rig.emitter(endpoint=server.url)
        put(emitter)
        assert emitter.drain() is True
        assert late.wait(5)
        put(emitter, first=1)
        assert emitter.drain() is True
        stats = emitter.stats()
        emitter.close()
    assert (stats.sent_events, stats.dropped_events["rejected"]) == (2, 0)


def test_answers_that_come_byte_by_byte_in_time_are_read_and_past_it_are_not(rig: Rig) -> None:
    pause = [0.002]

    def handle(sock: socket.socket, _number: int) -> None:
        while server.read(sock):
            for at in range(len(OK)):
                sock.sendall(OK[at : at + 1])
                if server.over.wait(pause[0]):
                    return

    with RawServer(handle) as server:
        emitter = rig.emitter(endpoint=server.url, request_timeout=1.0)
        put(emitter)
        assert emitter.drain() is True
        pause[0] = 0.1
        put(emitter, first=1)
        with within(2, at_least=0.9):
            assert emitter.drain() is False
        assert "timed out" in (emitter.stats().last_error or "")
        pause[0] = 0.0
        assert emitter.drain() is True
        emitter.close()
