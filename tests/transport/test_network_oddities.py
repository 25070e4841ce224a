"""What a name server, a handshake or an answer at an odd time may do: no event is lost to it and no call hangs."""

from __future__ import annotations

import datetime
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bad_network import Certified, events_of
from tests.support.delivery import OK, RawServer, Rig, answering, numbers, put, run_script, within

pytestmark = pytest.mark.usefixtures("no_short_delay")


# -- names -------------------------------------------------------------------------------------------------------------

NAME = "collector.localhost"


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
        emitter = Emitter("http://collector.localhost", batch_size=1, shutdown_timeout=0.3)
        put(emitter)
        the_end()
        """,
        rig.collector.url,
    )
    assert ended.status == 0
    assert 0.2 <= ended.seconds < 0.3 + 0.5 + 0.5  # the deadline, what is promised beyond it, and the process's end


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
