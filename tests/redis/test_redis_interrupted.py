"""What a signal handler raises while a Redis client pushes comes out of the call, and leaves an emitter that pushes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from fastemit import RedisEmitter

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs a signal of the user's")


class SoftLimit(Exception):
    pass


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    def handler(_number: int, _frame: object) -> None:
        raise SoftLimit

    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


class Client:
    """Takes a signal in the middle of its first push."""

    def __init__(self) -> None:
        self.pushed: list[bytes] = []
        self.armed = True

    def rpush(self, _key: str, *events: bytes) -> int:
        if self.armed:
            self.armed = False
            signal.raise_signal(signal.SIGUSR1)
        self.pushed += events
        return len(self.pushed)


def test_it_comes_out_of_an_input_that_pushes_at_once() -> None:
    client = Client()
    emitter: Any = RedisEmitter(client, background=False)
    with pytest.raises(SoftLimit):
        emitter.input({"n": "0"})
    emitter.input({"n": "1"})
    assert client.pushed == [b'{"n":"1"}']
    assert emitter.close(1) == 0


def test_it_comes_out_of_a_flush_and_the_next_one_pushes_the_events() -> None:
    client = Client()
    emitter: Any = RedisEmitter(client, batch_size=100, background=False)
    for number in range(3):
        emitter.input({"n": str(number)})
    with pytest.raises(SoftLimit):
        emitter.flush()
    assert emitter.stats().failed_requests == 0
    assert emitter.drain(5) is True
    assert client.pushed == [b'{"n":"0"}', b'{"n":"1"}', b'{"n":"2"}']
    emitter.close(1)
