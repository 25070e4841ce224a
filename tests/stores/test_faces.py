"""The face that a delivery knows: the native buffer, a store of the user's and the buffer with books all have it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from fastemit import InMemoryEventStore
from fastemit._batch import Batch
from fastemit._buffer import EventBuffer
from fastemit._interfaces import EventBatch, EventQueue
from fastemit._stores import BatchAround, BufferAround, StoreBuffer

#: Those that are written from outside, with another value.
WRITTEN = {"batch_size": 7, "byte_limit": 900, "hold": True, "linger": True, "notify": 1, "starving": 3}


class Around(BatchAround):
    def split(self) -> Around:
        return Around(self._batch.split())


class Wrapped(BufferAround):
    def _around(self, batch: Batch) -> Around:
        return Around(batch)


def native(**settings: Any) -> EventBuffer:
    return EventBuffer(10, 20_000, 2_000, 5, **settings)


def over_a_store() -> StoreBuffer:
    staged = EventBuffer(sys.maxsize, sys.maxsize, 2_000, 1, keep=True)
    return StoreBuffer(InMemoryEventStore(), staged, 5, None, lambda _: None)


def face_of(protocol: type) -> set[str]:
    """The names that a protocol asks for."""
    classes = [cls for cls in protocol.__mro__ if cls.__module__.startswith("fastemit.")]
    named = {name for cls in classes for name in (*vars(cls), *cls.__annotations__)}
    return {name for name in named if not name.startswith("_")}


QUEUES = {"native": native, "store": over_a_store, "around": lambda: Wrapped(native())}


@pytest.fixture(params=QUEUES)
def queue(request: pytest.FixtureRequest) -> EventQueue:
    made: EventQueue = QUEUES[request.param]()
    return made


def test_every_queue_has_the_whole_face(queue: EventQueue) -> None:
    face = face_of(EventQueue)
    assert {"append", "take", "share", "left_in", "starving", "recheck_at"} <= face
    assert {name for name in face if not hasattr(queue, name)} == set()


def test_every_batch_has_the_whole_face(queue: EventQueue) -> None:
    queue.append({"e": "pv"})
    batch = queue.take()
    assert batch is not None
    face = face_of(EventBatch)
    assert {"body", "split", "server_errors", "yield_place"} <= face
    assert {name for name in face if not hasattr(batch, name)} == set()
    batch.sent()


def test_what_is_written_to_a_buffer_with_books_is_the_native_buffer_s() -> None:
    inner = native()
    around = Wrapped(inner)
    for name, value in WRITTEN.items():
        assert getattr(inner, name) != value
        setattr(around, name, value)
    assert {name: getattr(inner, name) for name in WRITTEN} == WRITTEN


def test_a_buffer_with_books_tells_what_the_native_buffer_tells() -> None:
    inner = native(query=True)
    for number in range(6):
        inner.append({"e": str(number)})
    for name, value in WRITTEN.items():
        setattr(inner, name, value)
    taken = inner.take(1)
    around = Wrapped(inner)
    assert taken is not None
    assert around.in_flight_events == 1
    plain = {name for name in face_of(EventQueue) if not callable(getattr(inner, name))}
    assert len(plain) > 20
    assert {name: getattr(around, name) for name in plain} == {name: getattr(inner, name) for name in plain}
    taken.sent()
    assert around.counts() == inner.counts()
    assert around.counts()[3] == 1


def test_a_name_that_the_buffer_does_not_have_is_an_error() -> None:
    with pytest.raises(AttributeError, match="capasity"):
        Wrapped(native()).capasity  # type: ignore[attr-defined]  # noqa: B018


def test_the_queue_over_a_store_takes_only_what_it_has_prepared_itself() -> None:
    queue = over_a_store()
    assert isinstance(queue.append_encoded(queue.prepare({"e": "pv"})), int)
    with pytest.raises(TypeError, match="must be one that this buffer has prepared or refused, not bytes"):
        queue.append_encoded(b'{"e":"pv"}')
    assert queue.unsettled_events == 1


def test_a_half_of_a_batch_with_books_has_books_too() -> None:
    around = Wrapped(native())
    around.append({"e": "1"})
    around.append({"e": "2"})
    batch = around.take()
    assert batch is not None
    first = batch.split()
    assert isinstance(first, Around)
    first.sent()
    batch.sent()
    assert around.unsettled_events == 0
