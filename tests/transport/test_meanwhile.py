"""What a transport lets its owner do while the collector works on a request."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from fastemit._interfaces import Cutoff, Outcome
from fastemit._transport import HttpTransport, parse_endpoint
from tests.support.bad_network import Certified
from tests.support.delivery import DEADLINE, OK, RawServer, answering
from tests.support.ports import free_port


def to(url: str, seconds: float, ca_certs: str | None = None) -> HttpTransport:
    return HttpTransport(parse_endpoint(url), (DEADLINE, seconds), ca_certs=ca_certs)


def of_a_delivery(request: Callable[[], Outcome]) -> int | None:
    """The status."""
    return Cutoff().within(request).status


@contextlib.contextmanager
def answering_when_told(told: threading.Event, context: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    def handle(sock: socket.socket, _number: int) -> None:
        while server.read(sock) and told.wait(DEADLINE):
            sock.sendall(OK)

    with RawServer(handle, context) as server:
        yield server


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("method", ["post", "get"])
def test_it_is_called_between_a_request_and_its_answer(certified: Certified, method: str, secure: bool) -> None:
    told = threading.Event()
    with answering_when_told(told, certified.context() if secure else None) as server:
        client = to(server.url, DEADLINE, ca_certs=certified.path if secure else None)
        client.meanwhile = told.set
        # urllib3 makes the first request, and not the others.
        for _ in range(3):
            told.clear()
            assert of_a_delivery(lambda: client.post(b"{}") if method == "post" else client.get("e=pv")) == 200
        client.close()


def test_the_collector_has_its_whole_time_afterwards() -> None:
    told, never = threading.Event(), threading.Event()

    def takes_longer_than_an_answer_may() -> None:
        never.wait(0.8)
        told.set()

    with answering_when_told(told) as server:
        client = to(server.url, 0.5)
        client.meanwhile = takes_longer_than_an_answer_may
        assert [of_a_delivery(lambda: client.post(b"{}")) for _ in range(2)] == [200, 200]
        client.close()


def test_it_is_not_called_if_nothing_was_sent() -> None:
    calls: list[int] = []
    client = to(f"http://127.0.0.1:{free_port()}", DEADLINE)
    client.meanwhile = lambda: calls.append(1)
    assert of_a_delivery(lambda: client.post(b"{}")) is None
    assert calls == []


def test_it_is_not_called_for_a_request_by_hand() -> None:
    """A signal handler may make one, while the work that is called here is under way in the same thread."""
    calls: list[int] = []
    with answering() as server:
        client = to(server.url, DEADLINE)
        client.meanwhile = lambda: calls.append(1)
        assert [client.post(b"{}").status, client.get("e=pv").status] == [200, 200]
        client.close()
    assert calls == []
