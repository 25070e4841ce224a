"""What the tests of bad networks share."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from pathlib import Path
from typing import Any

import trustme

from tests.support.delivery import RawServer, numbers


def events_of(server: RawServer) -> Counter[int]:
    """How often each event came in a whole request."""
    bodies = [request.partition(b"\r\n\r\n")[2] for request in server.requests]
    return Counter(number for body in bodies for number in numbers(json.loads(body)["data"]))


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
