"""A close whose time is up ends the request under way, whatever that waits for: no thread or socket outlives it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from fastemit import Emitter
from fastemit._interfaces import Cutoff
from tests.support.delivery import RawServer, Rig, Running, put, read_request
from tests.support.slow import slow
from tests.support.waiting import until

#: Seconds after a close that a thread or a socket may live.
SOON = 1.0


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All that a request waited on."""
    things: list[Any] = []
    watch = Cutoff.watch

    def noting(cutoff: Cutoff, thing: Any, end: Callable[[Any], None]) -> None:
        things.append(thing)
        watch(cutoff, thing, end)

    monkeypatch.setattr(Cutoff, "watch", noting)
    return things


class Authority:
    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self.path = str(directory / "authority.pem")
        self._ca.cert_pem.write_to_path(self.path)

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert("127.0.0.1").configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def asleep(sock: socket.socket, server: RawServer) -> None:
    server.over.wait(10)


def says_nothing(sock: socket.socket, server: RawServer) -> None:
    read_request(sock)
    server.over.wait(10)


def drips(sock: socket.socket, server: RawServer) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1")
    # Not past the status, which would decide.
    while not server.over.wait(0.02):
        sock.sendall(b" ")


def opens_a_tunnel(sock: socket.socket, server: RawServer) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    server.over.wait(10)


@contextlib.contextmanager
def serving(handle: Callable[[socket.socket, RawServer], None], context: ssl.SSLContext | None) -> Iterator[RawServer]:
    with RawServer(lambda sock, _: handle(sock, server), context) as server:
        yield server


#: What hangs: (how the server behaves, whether it speaks TLS, scheme of the collector, whether it is a proxy).
HANGING: dict[str, tuple[Callable[[socket.socket, RawServer], None], bool, str, bool]] = {
    "an answer": (says_nothing, False, "http", False),
    "an answer that drips": (drips, False, "http", False),
    "an answer over TLS": (says_nothing, True, "https", False),
    "a TLS handshake": (asleep, False, "https", False),
    "an answer of a proxy": (says_nothing, False, "http", True),
    "a tunnel": (asleep, False, "https", True),
    "a TLS handshake in a tunnel": (opens_a_tunnel, False, "https", True),
    "a TLS handshake with a proxy": (asleep, False, "https", True),
    "a tunnel of a TLS proxy": (says_nothing, True, "https", True),
    "a TLS handshake in a tunnel of a TLS proxy": (opens_a_tunnel, True, "https", True),
}


@pytest.mark.parametrize("method", ["post", slow("get")])
@pytest.mark.parametrize("kind", HANGING)
def test_no_thread_or_socket_outlives_a_close_whose_request_hangs(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, authority: Authority, watched: list[Any], kind: str, method: str
) -> None:
    handle, tls, scheme, is_proxy = HANGING[kind]
    with serving(handle, authority.context() if tls else None) as server:
        endpoint = f"{scheme}://127.0.0.1:{server.port}"
        if is_proxy:
            to_proxy = "https" if tls or "with a proxy" in kind else "http"
            monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"{to_proxy}://127.0.0.1:{server.port}")
            endpoint = f"{scheme}://collector.example.com"
        emitter = rig.emitter(endpoint=endpoint, method=method, ca_certs=authority.path, batch_size=1)
        put(emitter)
        until(lambda: server.connections and emitter.stats().in_flight_events)
        assert emitter.close(0.05) == 1
        until(lambda: not rig.new_threads(), SOON)
        assert watched
        assert [thing for thing in watched if thing.fileno() != -1] == []
        assert emitter.stats().in_flight_events == 0


def test_a_request_that_the_server_does_not_read_is_cut_off(rig: Rig, watched: list[Any]) -> None:
    with serving(asleep, None) as server:
        emitter = rig.emitter(endpoint=server.url, max_request_bytes=50_000_000)
        for _ in range(200):
            emitter.input({"e": "x" * 100_000})
        emitter.async_flush()
        until(lambda: server.connections)
        assert emitter.close(0.2) == 200
        until(lambda: not rig.new_threads(), SOON)
        assert [thing for thing in watched if thing.fileno() != -1] == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog refuses")
def test_a_connection_that_is_not_accepted_is_cut_off(rig: Rig, watched: list[Any]) -> None:
    with socket.socket() as listener, contextlib.ExitStack() as clients:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        emitter = rig.emitter(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}", batch_size=1)
        put(emitter)
        until(lambda: watched)
        assert emitter.close(0.1) == 1
        until(lambda: not rig.new_threads(), SOON)
        assert [thing for thing in watched if thing.fileno() != -1] == []


def test_every_thread_is_cut_off(rig: Rig) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = rig.async_emitter(thread_count=4, batch_size=1)
    for number in range(4):
        put(emitter, 1, number)
        rig.collector.wait_for_requests(number + 1)
    assert emitter.close(0) == 4
    until(lambda: not rig.new_threads(), SOON)


def test_a_connection_that_was_answered_before_is_cut_off_and_not_asked_again(rig: Rig) -> None:
    emitter = rig.emitter(batch_size=1)
    put(emitter)
    assert emitter.drain(5)
    rig.collector.respond(hang=True, times=None)
    put(emitter, 1, 1)
    rig.collector.wait_for_requests(2)
    assert emitter.close(0) == 1
    until(lambda: not rig.new_threads(), SOON)
    assert len(rig.collector.requests) == 2


class Posts(Emitter):
    def http_post(self, data: str) -> int:
        return super().http_post(data)


def test_the_request_of_an_override_is_cut_off(rig: Rig) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = rig.emitter(Posts, batch_size=1)
    put(emitter)
    rig.collector.wait_for_requests(1)
    assert emitter.close(0) == 1
    until(lambda: not rig.new_threads(), SOON)


def test_without_a_sender_thread_the_request_of_another_thread_is_cut_off(rig: Rig) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = rig.emitter(background=False, batch_size=1)
    other = Running(lambda: put(emitter))
    rig.collector.wait_for_requests(1)
    assert emitter.close(0) == 1
    other.result(SOON)


def test_a_close_that_a_callback_asks_for_ends_the_requests_of_the_others_at_its_deadline(rig: Rig) -> None:
    closing = threading.Event()

    def callback(_: Any) -> None:
        rig.collector.wait_for_requests(2)
        emitter.close(0.2)
        closing.set()

    rig.collector.respond(200)
    rig.collector.respond(hang=True, times=None)
    emitter = rig.async_emitter(thread_count=2, batch_size=1, on_success=callback)
    put(emitter)
    rig.collector.wait_for_requests(1)
    put(emitter, 1, 1)
    assert closing.wait(5)
    until(lambda: not rig.new_threads(), 0.2 + SOON)


def test_a_request_by_hand_goes_on_when_the_emitter_is_closed(rig: Rig) -> None:
    emitter = rig.emitter(batch_size=1)
    put(emitter)
    assert emitter.drain(5)
    rig.collector.respond(hang=True)
    by_hand = Running(lambda: emitter.http_post("{}"))
    rig.collector.wait_for_requests(2)
    emitter.close(0)
    assert by_hand.goes_on()
    rig.collector.release()
    assert by_hand.result() == 200
    assert emitter.http_post("{}") == 200
