"""`__init__` called again: on an emitter in use it is refused, and before the first event the last call holds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import fastemit
from fastemit import AsyncEmitter, Emitter, InMemoryEventStore
from fastemit.testing import Collector
from tests.support.emitters import numbered, numbers
from tests.support.waiting import until

NOBODY = "http://127.0.0.1:9"


def redis_emitter() -> Any:
    pytest.importorskip("redis")
    return fastemit.RedisEmitter


def celery_emitter() -> Any:
    pytest.importorskip("celery")
    return fastemit.CeleryEmitter


#: For each class, how it is made so that an event stays queued; nothing is connected to.
CLASSES: dict[str, tuple[Callable[[], Any], tuple[Any, ...], dict[str, Any]]] = {
    "Emitter": (lambda: Emitter, (NOBODY,), {}),
    "Emitter, GET": (lambda: Emitter, (NOBODY,), {"method": "get"}),
    "Emitter, a store": (lambda: Emitter, (NOBODY,), {"event_store": Ellipsis}),
    "AsyncEmitter": (lambda: AsyncEmitter, (NOBODY,), {"thread_count": 3}),
    "RedisEmitter": (redis_emitter, (), {}),
    "CeleryEmitter": (celery_emitter, (NOBODY,), {}),
}


class Store:
    """A store of a user's."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def add_event(self, payload: Any) -> bool:
        self.events.append(payload)
        return True

    def get_events_batch(self) -> list[Any]:
        batch, self.events = self.events, []
        return batch

    def cleanup(self, batch: list[Any], need_retry: bool) -> None:
        if need_retry:
            self.events += batch

    def size(self) -> int:
        return len(self.events)


@pytest.fixture(params=[True, False], ids=["threads", "inline"])
def background(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen


@pytest.fixture(params=CLASSES)
def made(request: pytest.FixtureRequest, background: bool) -> Iterator[tuple[Any, Callable[..., None]]]:
    """An emitter, and how to call its `__init__` again."""
    find, arguments, settings = CLASSES[request.param]
    settings = {"batch_size": 50, "background": background, "shutdown_timeout": 0, **settings}
    if settings.get("event_store") is Ellipsis:
        settings["event_store"] = Store()
    emitter = find()(*arguments, **settings)
    yield emitter, lambda **changed: emitter.__init__(*arguments, **{**settings, **changed})
    emitter.close(0)


def test_an_emitter_in_use_refuses_and_goes_on_as_it_was(made: tuple[Any, Callable[..., None]]) -> None:
    emitter, again = made
    emitter.input({"a": 1})
    before = vars(emitter).copy()
    with pytest.raises(RuntimeError, match=f"{type(emitter).__name__}.__init__ was called again.*close"):
        again(batch_size=7)
    assert vars(emitter) == before
    emitter.input({"a": 2})
    assert (emitter.stats().queued_events, emitter.batch_size) == (2, 50)


def test_before_the_first_event_the_last_call_holds(made: tuple[Any, Callable[..., None]]) -> None:
    emitter, again = made
    threads = threading.active_count()
    again(batch_size=7)
    emitter.input({"a": 1})
    assert (emitter.stats().queued_events, emitter.batch_size) == (1, 7)
    assert threading.active_count() <= threads + 3


def test_after_close_it_begins_anew(made: tuple[Any, Callable[..., None]]) -> None:
    emitter, again = made
    emitter.input({"a": 1})
    emitter.close(0)
    again(batch_size=7)
    emitter.input({"a": 2})
    stats = emitter.stats()
    assert (emitter.batch_size, sum(stats.dropped_events.values())) == (7, 0)
    # A store of the user's has the first event as well.
    assert stats.queued_events == 1


def test_a_wrong_argument_leaves_the_emitter_as_it_was(made: tuple[Any, Callable[..., None]], background: bool) -> None:
    emitter, again = made
    with pytest.raises(ValueError, match="batch_size"):
        again(batch_size=0)
    emitter.input({"a": 1})
    assert (emitter.stats().queued_events, emitter.batch_size) == (1, 50)


def test_authorities_that_are_not_there_leave_the_emitter_as_it_was(collector: Collector) -> None:
    with Emitter(collector.url) as emitter:
        with pytest.raises((OSError, ValueError)):
            emitter.__init__("https://localhost", ca_certs="/nowhere/at/all.pem")  # type: ignore[misc]
        assert emitter.endpoint.startswith(collector.url)
        emitter.input({"e": "pv"})
        emitter.flush()
    assert len(collector.events) == 1


def test_what_an_emitter_in_use_had_is_sent(collector: Collector, background: bool) -> None:
    with Emitter(collector.url, batch_size=50, background=background) as emitter:
        for payload in numbered(0, 1, 2):
            emitter.input(payload)
        with pytest.raises(RuntimeError):
            emitter.__init__(NOBODY)  # type: ignore[misc]
    assert numbers(collector.events) == [0, 1, 2]


def test_a_class_of_two_emitters_may_initialise_each(collector: Collector, background: bool) -> None:
    class Left(Emitter):
        def __init__(self, url: str) -> None:
            Emitter.__init__(self, url, background=background)

    class Right(Emitter):
        def __init__(self, url: str) -> None:
            Emitter.__init__(self, url, background=background, batch_size=4)

    class Both(Left, Right):
        def __init__(self) -> None:
            Left.__init__(self, NOBODY)
            Right.__init__(self, collector.url)

    with Both() as emitter:
        assert emitter.batch_size == 4
        for payload in numbered(0, 1, 2, 3):
            emitter.input(payload)
        assert numbers(collector.wait_for(4)) == [0, 1, 2, 3]
        until(lambda: emitter.stats().sent_events == 4)


@pytest.mark.parametrize("store", [None, InMemoryEventStore, Store])
def test_a_subclass_that_calls_it_twice_sends_each_event_once(
    collector: Collector, background: bool, store: Any
) -> None:
    class Twice(Emitter):
        def __init__(self, **settings: Any) -> None:
            super().__init__(collector.url, **settings)
            super().__init__(collector.url, **settings)

    given = None if store is None else store()
    with Twice(event_store=given, background=background, batch_size=2) as emitter:
        for payload in numbered(0, 1, 2, 3):
            emitter.input(payload)
        emitter.flush()
        assert (emitter.stats().sent_events, emitter.stats().queued_events) == (4, 0)
    assert numbers(collector.events) == [0, 1, 2, 3]


def test_a_store_that_outlives_a_closed_emitter_hands_its_events_to_the_next_call(collector: Collector) -> None:
    store = InMemoryEventStore()
    emitter = Emitter(NOBODY, event_store=store, batch_size=50, background=False)
    emitter.input({"n": "1"})
    assert emitter.close(0) == 1
    emitter.__init__(collector.url, event_store=store, background=False)  # type: ignore[misc]
    emitter.flush()
    emitter.close()
    assert numbers(collector.events) == [1]


# -- in the middle of input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [None, Store])
def test_a_value_that_calls_it_loses_nothing_in_silence(collector: Collector, background: bool, store: Any) -> None:
    class Value:
        def __str__(self) -> str:
            emitter.__init__(collector.url, event_store=given, background=background)  # type: ignore[misc]
            return "x" * 70_000

    given = None if store is None else store()
    emitter = Emitter(collector.url, event_store=given, background=background)
    with emitter:
        with pytest.raises(RuntimeError, match="called again during this input"):
            emitter.input({"a": Value()})
        emitter.input({"n": "1"})
        with pytest.raises(RuntimeError, match="in use"):
            emitter.input({"a": Value()})
        emitter.flush()
        assert emitter.stats().sent_events == 1
    assert numbers(collector.events) == [1]


def test_another_thread_that_calls_it_loses_nothing_in_silence(collector: Collector) -> None:
    began, go_on = threading.Event(), threading.Event()
    errors: list[RuntimeError] = []

    class Value:
        def __str__(self) -> str:
            began.set()
            assert go_on.wait(10)
            return "x"

    def give_in() -> None:
        try:
            emitter.input({"a": Value()})
        except RuntimeError as error:
            errors.append(error)

    with Emitter(collector.url) as emitter:
        thread = threading.Thread(target=give_in)
        thread.start()
        assert began.wait(10)
        emitter.__init__(collector.url)  # type: ignore[misc]
        go_on.set()
        thread.join(10)
        assert len(errors) == 1
        emitter.input({"n": "1"})
    assert numbers(collector.events) == [1]


# -- stores --------------------------------------------------------------------------------------------------------


def test_a_store_that_is_in_use_refuses() -> None:
    store = InMemoryEventStore()
    store.__init__(buffer_capacity=5)  # type: ignore[misc]
    store.add_event({"a": 1})
    with pytest.raises(RuntimeError, match=r"holds events \(1\)"):
        store.__init__()  # type: ignore[misc]
    assert (store.size(), store.buffer_capacity) == (1, 5)
    with Emitter(NOBODY, shutdown_timeout=0) as emitter, pytest.raises(RuntimeError, match="an emitter uses"):
        emitter.event_store.__init__()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Redis server")
def test_a_worker_at_work_refuses(rdb: Any, collector: Collector) -> None:
    worker = fastemit.RedisWorker(Emitter(collector.url), rdb)
    worker.__init__(Emitter(collector.url), rdb, "other", poll_interval=0.01)  # type: ignore[misc]
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        rdb.rpush("other", b'{"n": "1"}')
        assert numbers(collector.wait_for(1)) == [1]
        with pytest.raises(RuntimeError, match="while run"):
            worker.__init__(Emitter(collector.url), rdb)  # type: ignore[misc]
        rdb.rpush("other", b'{"n": "2"}')
        assert numbers(collector.wait_for(2)) == [1, 2]
    finally:
        worker.request_shutdown()
        thread.join(20)
    worker.__init__(Emitter(collector.url), rdb)  # type: ignore[misc]
