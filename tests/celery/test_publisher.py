"""What a sender of Celery tasks leaves alone in the process around it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.support.hosts import needs_host

pytestmark = needs_host("celery")


@pytest.mark.parametrize("broker", ["memory://", "redis://127.0.0.1:9/0"])
def test_dropping_a_connection_leaves_the_default_timeout_of_sockets_alone(
    monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    """kombu's own way sets it for a moment; of two threads that do so at once one puts back what the other has set."""
    from celery import Celery

    from fastemit.celery.transport import Publisher

    app: Any = Celery(broker=broker)
    connection = app.connection_for_write()
    if broker.startswith("memory"):
        connection.connect()
    producer = app.amqp.Producer(connection, auto_declare=False) if connection.connected else _Producer(connection)

    def set_timeout(timeout: float | None) -> None:
        pytest.fail(f"the default timeout of sockets was set to {timeout}")

    monkeypatch.setattr(socket, "setdefaulttimeout", set_timeout)
    Publisher._drop(producer)
    assert not connection.connected


class _Producer:
    """One whose connection was never made."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
