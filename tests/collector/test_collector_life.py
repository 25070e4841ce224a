"""Waiting for events, and the life of a development collector: reset, close, restart and fork."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import warnings
from typing import Any

import pytest

from fastemit.testing import Collector
from tests.support.collector import EVENT, Client, envelope, event, raw_post

# Waiting.


def test_wait_for_returns_when_the_events_are_there(collector: Collector, client: Client) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(collector.wait_for(2)))
    thread.start()
    client.post(event(1))
    client.post(event(2))
    thread.join(10)
    assert found == [event(1), event(2)]


def test_wait_for_says_how_many_arrived(collector: Collector, client: Client) -> None:
    collector.respond(503)
    client.post(event(1))
    client.post(event(1), event(2))
    with pytest.raises(TimeoutError) as caught:
        collector.wait_for(3, timeout=0.05)
    expected = "2 of 3 events arrived within 0.05 s; requests by answer: 503: 1, 200: 1"
    assert str(caught.value) == expected


def test_wait_for_requests_counts_unanswered_ones(collector: Collector, client: Client) -> None:
    collector.respond(hang_up=True)
    with pytest.raises(http.client.RemoteDisconnected):
        client.post(EVENT)
    assert [r.status for r in collector.wait_for_requests(1)] == [None]
    with pytest.raises(TimeoutError, match=r"^1 of 2 requests arrived .*: no answer: 1$"):
        collector.wait_for_requests(2, timeout=0.01)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"count": -1}, "count=-1: 0 or more"),
        ({"count": "1"}, "count='1': a whole number"),
        ({"count": 1, "timeout": -1}, "timeout=-1: a finite number of seconds, 0 or more"),
        ({"count": 1, "timeout": None}, "timeout=None: a number of seconds"),
    ],
)
def test_wait_for_checks_its_arguments(collector: Collector, arguments: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        collector.wait_for(**arguments)


# Starting and stopping.


def test_reset_forgets(collector: Collector, client: Client) -> None:
    client.post(EVENT)
    collector.respond(500)
    assert collector.good == [EVENT]
    collector.reset()
    assert (collector.events, collector.requests, collector.good, collector.bad) == ([], [], [], [])
    assert client.post(EVENT) == 200
    assert collector.events == [EVENT]
    assert collector.connections == 1


def test_close_leaves_no_threads_and_no_sockets() -> None:
    fds = f"/proc/{os.getpid()}/fd"
    threads = set(threading.enumerate())
    before = len(os.listdir(fds)) if os.path.isdir(fds) else 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collector = Collector()
        with collector:
            clients = [Client(collector) for _ in range(10)]
            for client in clients:
                client.post(EVENT)
            assert collector.open_connections == 10
        assert set(threading.enumerate()) == threads
        collector.close()
    for client in clients:
        client.connection.close()
    assert collector.open_connections == 0
    assert len(collector.events) == 10
    if os.path.isdir(fds):
        assert len(os.listdir(fds)) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((collector.host, collector.port), timeout=10)


def test_the_port_is_unknown_before_the_start() -> None:
    with pytest.raises(RuntimeError, match=r"before start\(\)"):
        _ = Collector().url


def test_a_collector_can_go_down_and_come_back() -> None:
    with Collector() as collector:
        port = collector.port
        with Client(collector) as client:
            client.post(event(1))
            collector.close()
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                client.post(event(2))
        collector.start()
        assert collector.start() is collector
        with Client(collector) as client:
            client.post(event(3))
        assert collector.port == port
        assert collector.events == [event(1), event(3)]


def test_a_port_in_use_is_named(collector: Collector) -> None:
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{collector.port}: ") as caught:
        Collector(port=collector.port).start()
    assert caught.value.errno is not None


def test_dropped_connections_can_be_replaced(collector: Collector) -> None:
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(raw_post(envelope(EVENT)))
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        collector.drop_connections()
        assert sock.recv(100) == b""
    with Client(collector) as client:
        assert client.post(EVENT) == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_holds_no_connection(collector: Collector) -> None:
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(raw_post(envelope(EVENT)))
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        reader, writer = os.pipe()
        started, starts = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.write(starts, b"x")
            os.read(reader, 1)  # lives until the parent closes its end
            os._exit(0)
        try:
            assert os.read(started, 1) == b"x"  # what it inherited has been closed by then
            collector.respond(reset=True)
            sock.sendall(raw_post(envelope(EVENT)))
            with pytest.raises(ConnectionResetError):  # the child's copy of the socket would prevent it
                sock.recv(100)
            collector.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((collector.host, collector.port), timeout=10)
        finally:
            os.close(writer)
            for end in (reader, started, starts):
                os.close(end)
            os.waitpid(child, 0)
