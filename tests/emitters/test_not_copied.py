"""What holds events, threads or connections is neither copied nor pickled; what holds settings is."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import fastemit
from fastemit import AsyncEmitter, EmitterConfiguration, InMemoryEventStore
from fastemit._buffer import EventBuffer
from tests.support.hosts import needs_host

MakeEmitter = Callable[..., Any]
COPIES = pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
NOWHERE = "http://127.0.0.1:9"


def refuses(duplicate: Callable[[Any], Any], thing: Any) -> None:
    name = type(thing).__name__
    with pytest.raises(TypeError, match=f"^{name} cannot be copied or pickled, .* make one in the other process"):
        duplicate(thing)


@COPIES
@pytest.mark.parametrize("cls", [fastemit.Emitter, AsyncEmitter])
def test_an_emitter_is_not_copied(duplicate: Any, cls: Any) -> None:
    for settings in ({}, {"method": "get"}, {"background": False}, {"event_store": InMemoryEventStore()}):
        refuses(duplicate, cls(NOWHERE, **settings))


@COPIES
def test_an_emitter_at_work_is_not_copied_and_works_on(
    make_emitter: MakeEmitter, collector: Any, duplicate: Any
) -> None:
    emitter = make_emitter(batch_size=1)
    emitter.input({"n": "1"})
    refuses(duplicate, emitter)
    emitter.input({"n": "2"})
    assert emitter.drain(10)
    assert len(collector.events) == 2


@COPIES
def test_an_event_store_a_buffer_and_a_batch_are_not_copied(duplicate: Any) -> None:
    store = InMemoryEventStore()
    store.add_event({"n": "1"})
    buffer = EventBuffer(10, 2048, 1024, 1)
    buffer.append({"n": "1"})
    for thing in (store, buffer, buffer.take()):
        refuses(duplicate, thing)


@COPIES
def test_what_moves_events_through_redis_is_not_copied(duplicate: Any) -> None:
    redis = pytest.importorskip("redis")
    client = redis.Redis(port=9)
    for thing in (fastemit.RedisEmitter(client), fastemit.RedisWorker(fastemit.Emitter(NOWHERE), client)):
        refuses(duplicate, thing)


@needs_host("celery")
@COPIES
def test_a_celery_emitter_is_not_copied(duplicate: Any) -> None:
    refuses(duplicate, fastemit.CeleryEmitter(NOWHERE))


class Remade(AsyncEmitter):
    def __reduce__(self) -> Any:
        return (Remade, (NOWHERE,))


class RemadeByProtocol(AsyncEmitter):
    def __reduce_ex__(self, _protocol: Any) -> Any:
        return (RemadeByProtocol, (NOWHERE,))


@pytest.mark.parametrize("cls", [Remade, RemadeByProtocol])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_subclass_that_says_how_it_is_made_again_is_made_so(duplicate: Any, cls: Any) -> None:
    emitter = cls(NOWHERE)
    again = duplicate(emitter)
    assert type(again) is cls
    assert again is not emitter
    again.input({"n": "1"})
    assert (again.stats().queued_events, emitter.stats().queued_events) == (1, 0)
    again.close(0)


@COPIES
def test_settings_and_counters_are_copied(duplicate: Any) -> None:
    duplicate(EmitterConfiguration(batch_size=3))
    duplicate(fastemit.Emitter(NOWHERE).stats())
