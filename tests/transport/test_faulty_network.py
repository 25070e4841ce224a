"""The proxy of the matrix does to a connection what its faults say."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from fastemit.testing import Collector
from tests.support.emitters import TP2
from tests.support.faulty_network import NOISE, Fault, FaultyNetwork
from tests.support.waiting import until

BODY = b'{"schema":"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4","data":[{"n":"7"}]}'
HEAD = f"POST {TP2} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def network(collector: Collector) -> Iterator[FaultyNetwork]:
    with FaultyNetwork(collector.port) as network:
        yield network


@pytest.fixture
def client(network: FaultyNetwork) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", network.port), 5.0) as client:
        yield client


def all_that_comes(client: socket.socket) -> bytes:
    data = b""
    while more := client.recv(65536):
        data += more
    return data


def test_without_a_fault_requests_and_answers_pass(
    collector: Collector, network: FaultyNetwork, client: socket.socket
) -> None:
    for _ in range(2):
        client.sendall(HEAD + BODY)
        until(lambda: client.recv(65536).endswith(b"ok"))
    assert [request.body for request in collector.requests] == [BODY, BODY]
    network.client_is_done()
    client.close()
    network.settle()
    assert [(passage.received, passage.answered, passage.numbers) for passage in network.passages] == [
        (True, True, [7])
    ] * 2


@pytest.mark.parametrize("phase", ["headers", "body"])
def test_a_request_that_is_cut_does_not_arrive(
    collector: Collector, network: FaultyNetwork, client: socket.socket, phase: str
) -> None:
    network.arm(Fault("cut", phase))
    client.sendall(HEAD + BODY)
    with pytest.raises((ConnectionError, EOFError)):
        raise EOFError(all_that_comes(client))
    network.settle()
    assert (collector.requests, network.hits, network.passages[0].received) == ([], 1, False)


@pytest.mark.parametrize(
    ("phase", "expected"), [("waiting", b""), ("status", b"HTTP/1.1 20"), ("answer", b"Content-Length: 2\r\n\r\n")]
)
def test_an_answer_that_is_cut_comes_as_far_as_that(
    collector: Collector, network: FaultyNetwork, client: socket.socket, phase: str, expected: bytes
) -> None:
    network.arm(Fault("cut", phase))
    client.sendall(HEAD + BODY)
    assert all_that_comes(client)[-len(expected or b"x") :] == expected
    network.settle()
    assert len(collector.events) == 1
    assert network.passages[0].answer_lost is (phase != "answer")


def test_a_reset_is_one(network: FaultyNetwork, client: socket.socket) -> None:
    network.arm(Fault("reset", "waiting"))
    client.sendall(HEAD + BODY)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_half_closed_connection_still_takes_what_is_sent(network: FaultyNetwork, client: socket.socket) -> None:
    network.arm(Fault("half-close", "waiting"))
    client.sendall(HEAD + BODY)
    assert all_that_comes(client) == b""
    client.sendall(b"x" * 1_000_000)


def test_silence_says_nothing(network: FaultyNetwork, client: socket.socket) -> None:
    network.arm(Fault("silence", "waiting"))
    client.sendall(HEAD + BODY)
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(1)


def test_noise_is_no_answer(network: FaultyNetwork, client: socket.socket) -> None:
    network.arm(Fault("garble", "waiting"))
    client.sendall(HEAD + BODY)
    assert client.recv(65536) == NOISE


def test_a_client_that_leaves_before_the_answer_has_lost_it(
    collector: Collector, network: FaultyNetwork, client: socket.socket
) -> None:
    collector.respond(hang=True)
    client.sendall(HEAD + BODY)
    collector.wait_for_requests(1)
    client.close()
    collector.release()
    network.settle()
    assert (len(collector.events), network.passages[0].answer_lost) == (1, True)


def test_an_uplink_lets_through_as_much_as_it_is_wide(collector: Collector) -> None:
    with (
        FaultyNetwork(collector.port, uplink=10 * len(HEAD + BODY)) as network,
        socket.create_connection(("127.0.0.1", network.port), 5.0) as client,
    ):
        for _ in range(3):
            client.sendall(HEAD + BODY)
            assert client.recv(65536)
        until(lambda: len(collector.requests) == 3)
    first, _, last = collector.requests
    assert 0.19 <= last.arrived - first.arrived < 2
