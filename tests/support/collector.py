"""What the tests of the development collector share: bodies, a client, and bytes on a socket."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from fastemit.testing import Collector
from tests.support.emitters import TP2

SCHEMA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"

EVENT = {"e": "pv", "p": "srv", "tv": "py-1.1.0"}


def envelope(*events: Any) -> bytes:
    return json.dumps({"schema": SCHEMA, "data": list(events)}).encode()


def event(number: int) -> dict[str, str]:
    return {**EVENT, "eid": str(number)}


class Client:
    """One keep-alive connection."""

    def __init__(self, collector: Collector, timeout: float = 10.0) -> None:
        self.connection = http.client.HTTPConnection(collector.host, collector.port, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def post(self, *events: Any) -> int:
        return self.request("POST", TP2, envelope(*events))[0]


def talk(collector: Collector, data: bytes) -> bytes:
    """Send bytes on a connection of their own, end the sending side, and return all that comes back."""
    with socket.create_connection((collector.host, collector.port), timeout=10) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    answer = b""
    while data := sock.recv(65536):
        answer += data
    return answer


def raw_post(body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {TP2} HTTP/{version}", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
