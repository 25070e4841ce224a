"""Every status from 101 to 599 by the rules for answers, by POST and GET, with and without exceptions to them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.delivery import OK, RawServer, Rig, put, within
from tests.support.slow import slow_but

CODES = range(101, 600)
REJECTED = {400, 401, 403, 410, 422}


pytestmark = pytest.mark.usefixtures("no_short_delay")


class Answering(RawServer):
    """Answers the next request as it is told, and then 200."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.next = OK

    def _answer(self, sock: socket.socket, _number: int) -> None:
        while self.read(sock):
            answer, self.next = self.next, OK
            sock.sendall(answer)


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as server:
        yield server


def answer(status: int, headers: bytes = b"") -> bytes:
    # 1xx, 204 and 304 have no body, whatever their length says.
    return b"HTTP/1.1 %d Whatever\r\n%sContent-Length: 0\r\n\r\n" % (status, headers)


def expected(status: int, events: int, custom: bool | None) -> str:
    if 200 <= status < 300 or (status == 413 and events > 1):
        # What is too large as one is sent in halves at once, and these are answered 200.
        return "sent"
    if custom is not None:
        return "kept" if custom else "rejected"
    if status in REJECTED or (status in (413, 414) and events == 1):
        return "rejected"
    return "kept"


@pytest.mark.parametrize("custom", [None, True, False])
@pytest.mark.parametrize(("method", "events"), [("post", 1), ("post", 2), ("get", 1)])
def test_every_final_status(rig: Rig, server: Answering, method: str, events: int, custom: bool | None) -> None:
    codes = [101, *range(200, 600)]
    told: list[tuple[str, int]] = []
    emitter = rig.emitter(
        endpoint=server.url,
        method=method,
        background=False,
        custom_retry_codes={} if custom is None else dict.fromkeys(codes, custom),
        on_success=lambda events: told.append(("sent", len(events))),
        on_failure=lambda _, events: told.append(("kept or rejected", len(events))),
    )
    for status in codes:
        told.clear()
        before = emitter.stats()
        server.next = answer(status)
        put(emitter, events)
        left_none = emitter.drain()
        after = emitter.stats()
        became = {
            "sent": after.sent_events - before.sent_events,
            "rejected": after.dropped_events["rejected"] - before.dropped_events["rejected"],
            "kept": after.queued_events,
        }
        what = expected(status, events, custom)
        assert {name: count for name, count in became.items() if count} == {what: events}, status
        assert left_none is (what != "kept"), status
        assert (after.retry_delay > 0) is (what == "kept"), status
        assert sum(count for _, count in told) == events, status
        assert {name for name, _ in told} == {"sent" if what == "sent" else "kept or rejected"}, status
        assert emitter.drain() is True, status
    # One for all of them; but after 101 it is no HTTP any more.
    assert server.connections == 2
    emitter.close()


@pytest.mark.parametrize("status", slow_but([102, 103, 199], [each for each in CODES if each < 200 and each != 101]))
def test_every_interim_status_is_passed_over_and_its_connection_not_used_again(
    rig: Rig, server: Answering, status: int
) -> None:
    emitter = rig.emitter(endpoint=server.url, background=False, custom_retry_codes={status: False})
    for number, final in enumerate((200, 500), 1):
        server.next = b"HTTP/1.1 %d Wait\r\nX: y\r\n\r\n" % status + answer(final)
        put(emitter)
        assert emitter.drain() is (final == 200)
        assert (emitter.stats().last_status, server.connections) == (final, number)
    assert emitter.drain() is True
    assert server.connections == 3
    emitter.close()


@pytest.mark.parametrize("status", [100, 102, 199])
def test_an_interim_status_that_nothing_follows_is_a_timeout(rig: Rig, server: Answering, status: int) -> None:
    emitter = rig.emitter(endpoint=server.url, request_timeout=0.15)
    server.next = b"HTTP/1.1 %d Wait\r\n\r\n" % status
    put(emitter)
    with within(2):
        assert emitter.drain() is False
    assert (emitter.stats().last_status, emitter.stats().queued_events) == (None, 1)
    assert emitter.drain() is True
    emitter.close()


@pytest.mark.parametrize("status", [600, 700, 999])
def test_a_number_that_is_no_status_of_http_keeps_the_events(rig: Rig, server: Answering, status: int) -> None:
    emitter = rig.emitter(endpoint=server.url)
    server.next = answer(status)
    put(emitter)
    assert (emitter.drain(), emitter.stats().last_status) == (False, status)
    assert emitter.drain() is True
    emitter.close()


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        (b"Retry-After: 30\r\n", True),
        (b"retry-after:30\r\n", True),
        (b"RETRY-AFTER: \t30 \r\n", True),
        (b"Retry-After: 30\r\nRetry-After: 30\r\n", False),
        (b"Retry-After: 30, 40\r\n", False),
        (b"Retry-After: \xc3\xa9\xff\r\n", False),
        (b"Retry-After: \xd9\xa3\xd9\xa0\r\n", False),
        (b"Retry-After:\r\n", False),
        (b"X-Retry-After: 30\r\n", False),
        (b"Retry-After: 0x1e\r\n", False),
        (b"Retry-After: 3_0\r\n", False),
    ],
)
def test_retry_after_as_it_comes_over_the_wire(
    rig: Rig, server: Answering, method: str, status: int, headers: bytes, asked: bool
) -> None:
    emitter: Any = rig.emitter(endpoint=server.url, method=method, background=False)
    server.next = answer(status, headers)
    put(emitter)
    assert emitter.drain() is False
    assert emitter.retry_delay == 30 if asked else 0 < emitter.retry_delay <= 1
    emitter.close()
