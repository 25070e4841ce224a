"""Connections that break or are harmed at any byte, with and without TLS: no event is lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import pytest

from tests.support.bad_network import Certified, events_of
from tests.support.delivery import RawServer, Rig, answering, put
from tests.support.faulty_network import LINGER_0
from tests.support.slow import slow

pytestmark = pytest.mark.usefixtures("no_short_delay")


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
            endpoint=f"{scheme}://127.0.0.1:{proxy.port}",
            background=False,
            # A request that times out is sent again, and comes twice. A busy machine needs more than a second.
            request_timeout=1.0 if what == "flip" else 10.0,
            **settings,
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


@pytest.mark.parametrize("what", [slow("flip"), "cut", slow("reset")])
@pytest.mark.parametrize(("way", "step"), [("up", 37), slow("down", 53)])
def test_tls_that_is_harmed_at_any_byte_loses_nothing(
    rig: Rig, certified: Certified, what: str, way: str, step: int
) -> None:
    with answering(context=certified.context()) as server:
        harmed_requests(rig, server, what, way, step, ca_certs=certified.path)
