"""Timeouts, answers and connections of `HttpTransport`, against real sockets."""

from __future__ import annotations

import logging
import re
import socket
import struct
import threading
from typing import Any

import pytest

from fastemit._interfaces import Outcome
from fastemit._transport import connections, responses
from fastemit._transport import http as transport
from fastemit._transport.endpoint import parse_endpoint
from fastemit._transport.http import HttpTransport
from fastemit.testing import Collector
from tests.support.delivery import OK, RawServer, Rig, answering, put, silent, within
from tests.support.slow import slow_but

TIMEOUT = (2.0, 0.2)
RST = struct.pack("ii", 1, 0)


@pytest.fixture
def collector(rig: Rig) -> Collector:
    return rig.collector


def to(url: str, timeout: tuple[float, float] | None = TIMEOUT, **settings: Any) -> HttpTransport:
    return HttpTransport(parse_endpoint(url), timeout, **settings)


def post(transport: HttpTransport, body: bytes = b"{}") -> Outcome:
    return transport.post(body)


def used(collector: Collector) -> list[int]:
    """The number of the connection that each request came on."""
    return [request.connection for request in collector.requests]


# -- timeouts --------------------------------------------------------------------------------------------------------


def test_an_answer_that_does_not_come_is_a_timeout(collector: Collector) -> None:
    collector.respond(hang=True)
    with within(0.8, at_least=0.15):
        outcome = post(to(collector.url))
    assert (outcome.status, outcome.timed_out) == (None, True)
    assert "timed out" in (outcome.error or "")


def test_a_cap_shortens_the_timeout(collector: Collector) -> None:
    collector.respond(hang=True)
    with within(0.5):
        assert to(collector.url, None).post(b"{}", cap=0.1).timed_out


@pytest.mark.parametrize(("given", "pair"), [(0.25, (0.25, 0.25)), ((1, 0.25), (1, 0.25)), (None, None)])
def test_the_emitter_s_timeout_is_a_number_or_a_pair(rig: Rig, given: Any, pair: Any) -> None:
    emitter = rig.emitter(request_timeout=given)
    assert emitter._transport.timeout == pair
    emitter.request_timeout = (3, 0.2)
    rig.collector.respond(hang=True)
    put(emitter)
    with within(1):
        assert emitter.drain() is False
    assert transport.DEFAULT_TIMEOUT == (10.0, 30.0)


def test_a_connection_that_does_not_come_about_is_no_read_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        # Nobody accepts: the kernel drops what comes once its queue is full.
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        with within(0.8, at_least=0.15):
            outcome = post(to(f"http://127.0.0.1:{full.getsockname()[1]}", (0.2, 5)))
        for sock in waiting:
            sock.close()
    assert (outcome.status, outcome.timed_out) == (None, False)


def test_a_refused_connection_is_an_error(collector: Collector) -> None:
    collector.close()
    outcome = post(to(collector.url))
    assert (outcome.status, outcome.timed_out) == (None, False)
    assert outcome.error


def test_a_body_that_is_not_taken_in_time_is_a_timeout() -> None:
    with silent() as server, within(1.5, at_least=0.15):
        outcome = post(to(server.url), b"x" * 30_000_000)
    assert outcome.timed_out


def test_an_answer_that_drips_is_bounded_as_a_whole(collector: Collector) -> None:
    collector.respond(drip=0.02)
    with within(0.8, at_least=0.15):
        outcome = post(to(collector.url))
    assert (outcome.status, outcome.timed_out) == (None, True)


def test_the_status_counts_also_when_the_rest_of_the_answer_drips() -> None:
    def handle(sock: socket.socket, _number: int) -> None:
        server.read(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not server.over.wait(0.02):
            sock.sendall(b"x")

    with RawServer(handle) as server:
        client = to(server.url)
        for number in (1, 2):
            with within(0.8, at_least=0.15):
                assert post(client) == Outcome(status=200)
            assert server.connections == number


def test_a_late_answer_is_not_taken_for_the_next_request_s(collector: Collector) -> None:
    collector.respond(400, hang=True)
    client = to(collector.url)
    assert post(client).timed_out
    collector.release()
    assert post(client).status == 200
    assert used(collector) == [1, 2]


def test_a_timeout_halves_the_requests_and_a_success_doubles_them_back(rig: Rig) -> None:
    rig.collector.respond(hang=True, times=2)
    emitter = rig.emitter(request_timeout=0.15, max_retry_delay_seconds=0.01)
    put(emitter, 64)
    emitter.batch_size = 2
    rig.collector.wait_for(64)
    sizes = [len(events) for events in rig.requests()]
    # What was taken apart is not put together again, so it is the request after the next that shows the doubling.
    assert (sizes[:3], sizes[-1]) == ([64, 32, 16], 32)
    assert rig.collector.events == sorted(rig.collector.events, key=lambda event: str(event["n"]))


def test_requests_are_not_halved_below_the_batch_size(rig: Rig) -> None:
    rig.collector.respond(hang=True, times=2)
    emitter = rig.emitter(request_timeout=0.15, max_retry_delay_seconds=0.01)
    put(emitter, 64)
    emitter.batch_size = 30
    rig.collector.wait_for(64)
    assert [len(events) for events in rig.requests()][:3] == [64, 32, 30]


def test_a_failure_that_is_no_timeout_halves_nothing(rig: Rig) -> None:
    rig.collector.respond(500)
    rig.collector.respond(hang_up=True)
    emitter = rig.emitter(max_retry_delay_seconds=0.01)
    put(emitter, 64)
    emitter.flush()
    rig.collector.wait_for(64)
    assert [len(events) for events in rig.requests()] == [64, 64, 64]


# -- answers ---------------------------------------------------------------------------------------------------------


def test_a_huge_answer_is_not_read_and_its_connection_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = responses._UntilDeadline.readinto

    def readinto(self: Any, buffer: Any) -> int | None:
        count = original(self, buffer)
        read.append(count or 0)
        return count

    monkeypatch.setattr(responses._UntilDeadline, "readinto", readinto)
    huge = b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 30_000_000
    with answering(huge) as server:
        client = to(server.url)
        assert post(client) == Outcome(status=200)
        assert sum(read) <= 64 * 1024 + 2 * 8192
        assert post(client) == Outcome(status=200)
        assert server.connections == 2


@pytest.mark.parametrize("interim", [(100,), (103,), (100, 103, 102), (103,) * 50])
@pytest.mark.parametrize("status", [200, 500])
def test_interim_answers_are_skipped_and_their_connection_not_used_again(
    collector: Collector, interim: tuple[int, ...], status: int
) -> None:
    collector.respond(status, interim=interim)
    client = to(collector.url)
    assert [post(client).status, post(client).status] == [status, 200]
    assert used(collector) == [1, 2]


def test_interim_answers_without_end_are_an_error() -> None:
    with answering(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000) as server:
        outcome = post(to(server.url))
    assert (outcome.status, outcome.timed_out) == (None, False)


GARBAGE = {
    "no status line": b"garbage\r\n\r\n",
    "no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "a large number": b"HTTP/1.1 99999 OK\r\n\r\n",
    "binary": bytes(range(128, 256)) + b"\r\n\r\n",
    "a long line": b"x" * 200_000 + b"\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_what_is_no_answer_is_an_error_and_not_used_again(kind: str) -> None:
    with answering(GARBAGE[kind]) as server:
        client = to(server.url)
        with within(1):
            outcome = post(client)
        assert (outcome.status, outcome.timed_out) == (None, False)
        assert outcome.error
        assert post(client) == Outcome(status=200)
        assert server.connections == 2


ODD = {
    "too long": b"Content-Length: 100\r\n\r\nok",
    "not a number": b"Content-Length: many\r\n\r\nok",
    "negative": b"Content-Length: -5\r\n\r\nok",
    "no length": b"\r\nok",
    "a broken chunk": b"Transfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
    "an unfinished chunk": b"Transfer-Encoding: chunked\r\n\r\n5\r\nok",
    "too short": b"Content-Length: 1\r\n\r\nok",
    "a second answer": b"Content-Length: 2\r\n\r\nokHTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "not what it is encoded as": b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("kind", slow_but(list(ODD)[::2], ODD))
def test_the_status_counts_whatever_the_body_is_like(kind: str) -> None:
    with answering(b"HTTP/1.1 500 Oh\r\n" + ODD[kind]) as server:
        client = to(server.url)
        with within(1.2):
            assert post(client) == Outcome(status=500)
        assert post(client) == Outcome(status=200)


def test_a_chunked_answer_is_read_and_its_connection_used_again() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n") as server:
        client = to(server.url)
        assert [post(client), post(client)] == [Outcome(status=200)] * 2
        assert server.connections == 1


def test_an_answer_that_is_cut_off_counts(collector: Collector) -> None:
    collector.respond(200, close_after_headers=True)
    client = to(collector.url)
    assert [post(client).status, post(client).status] == [200, 200]
    assert used(collector) == [1, 2]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_that_names_the_location(
    rig: Rig, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    rig.collector.respond(status, headers={"Location": rig.collector.url + "/elsewhere?secret=1"})
    emitter = rig.emitter()
    put(emitter, 2)
    with caplog.at_level(logging.WARNING, "fastemit"):
        assert emitter.drain() is False
    assert [request.method for request in rig.collector.requests] == ["POST"]
    assert (emitter.stats().queued_events, emitter.stats().last_status) == (2, status)
    assert re.search(r"/elsewhere\b", caplog.text)
    assert "secret" not in caplog.text


# -- connections -----------------------------------------------------------------------------------------------------


def test_a_connection_is_kept_alive(collector: Collector) -> None:
    client = to(collector.url)
    assert [post(client).status for _ in range(5)] == [200] * 5
    assert used(collector) == [1] * 5


def test_a_connection_that_the_server_closed_while_it_was_idle_costs_nothing(rig: Rig) -> None:
    emitter = rig.emitter()
    for number in range(3):
        put(emitter, first=number)
        assert emitter.drain() is True
        rig.collector.drop_connections()
    stats = emitter.stats()
    assert (stats.failed_requests, stats.retried_events, stats.retry_delay) == (0, 0, 0)
    assert rig.requests() == [[0], [1], [2]]


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_closes_as_the_second_request_comes_costs_one_resend(rig: Rig, reset: bool) -> None:
    def handle(sock: socket.socket, number: int) -> None:
        if number > 1:
            server.answer_all(sock)
        server.read(sock)
        sock.sendall(OK)
        server.read(sock)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)

    with RawServer(handle) as server:
        emitter = rig.emitter(endpoint=server.url)
        for number in range(3):
            put(emitter, first=number)
            with within(1):
                assert emitter.drain() is True
        stats = emitter.stats()
        emitter.close()
    assert (stats.failed_requests, stats.retried_events, stats.retry_delay) == (0, 0, 0)
    assert (server.connections, len(server.requests)) == (2, 4)


@pytest.mark.parametrize("how", [{"hang_up": True}, {"reset": True}])
def test_a_new_connection_that_is_closed_is_a_failure(collector: Collector, how: dict[str, bool]) -> None:
    collector.respond(**how)  # type: ignore[arg-type]
    outcome = post(to(collector.url))
    assert (outcome.status, outcome.timed_out) == (None, False)
    assert len(collector.requests) == 1


def test_a_request_is_resent_once(collector: Collector) -> None:
    client = to(collector.url)
    post(client)
    collector.respond(hang_up=True, times=None)
    assert post(client).status is None
    assert used(collector) == [1, 1, 2]


def test_every_stale_connection_of_the_pool_costs_a_resend_and_no_failure(collector: Collector) -> None:
    client = to(collector.url, connections=4)
    collector.respond(hang=True, times=4)
    threads = [threading.Thread(target=post, args=(client,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    collector.wait_for_requests(4)
    collector.release()
    for thread in threads:
        thread.join()
    assert collector.connections == 4
    collector.drop_connections()
    assert [post(client).status for _ in range(4)] == [200] * 4


def test_an_answer_that_began_is_not_asked_for_again() -> None:
    with answering(OK, b"HTTP/1.1 2") as server:
        client = to(server.url)
        assert post(client) == Outcome(status=200)
        assert post(client).status is None
        assert len(server.requests) == 2


@pytest.mark.parametrize(("limit", "expected"), [(-1.0, [1, 2]), (50.0, [1, 1])])
def test_a_connection_that_was_idle_for_too_long_is_replaced(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, limit: float, expected: list[int]
) -> None:
    assert connections.IDLE_LIMIT == 50.0
    monkeypatch.setattr(connections, "IDLE_LIMIT", limit)
    client = to(collector.url)
    post(client)
    post(client)
    assert used(collector) == expected


def test_a_server_that_closes_after_each_answer_gets_a_connection_for_each(collector: Collector) -> None:
    collector.respond(close=True, times=3)
    client = to(collector.url)
    assert [post(client).status for _ in range(3)] == [200] * 3
    assert used(collector) == [1, 2, 3]


def test_more_senders_than_usual_get_a_connection_each(rig: Rig) -> None:
    rig.collector.respond(hang=True, times=20)
    emitter = rig.async_emitter(thread_count=20, max_request_bytes=1024)
    put(emitter, 2000)
    emitter.flush()
    rig.collector.wait_for_requests(20)
    rig.collector.release()
    rig.collector.wait_for(2000)
    assert rig.collector.connections == 20
