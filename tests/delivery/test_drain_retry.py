"""`drain(timeout, retry=True)` goes on through failures and their backoff until all is settled or the time is up."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter
from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.delivery import DEADLINE, Rig, Running, numbers, put, within
from tests.support.emitters import QUICK, accounted
from tests.support.stores import ListStore, documented

KINDS: dict[str, tuple[type[Emitter], dict[str, Any]]] = {
    "Emitter": (Emitter, {}),
    "AsyncEmitter": (AsyncEmitter, {"thread_count": 3}),
    "background=False": (Emitter, {"background": False}),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
METHODS = pytest.mark.parametrize("method", ["post", "get"])


def make(rig: Rig, kind: str, base: Callable[[type[Emitter]], type[Emitter]] = lambda cls: cls, **settings: Any) -> Any:
    cls, own = KINDS[kind]
    return rig.emitter(base(cls), **{"max_retry_delay_seconds": QUICK, **own, **settings})


@EACH_KIND
@METHODS
@pytest.mark.parametrize("timeout", [DEADLINE, None])
def test_it_goes_on_until_all_is_sent(rig: Rig, kind: str, method: str, timeout: float | None) -> None:
    emitter = make(rig, kind, method=method)
    rig.collector.respond(503, times=4)
    put(emitter, 5)
    assert emitter.drain(timeout, retry=True) is True
    assert sorted(numbers(rig.collector.events)) == list(range(5))
    assert len(rig.collector.requests) == (5 if method == "post" else 9)


@EACH_KIND
def test_without_retry_the_first_failure_ends_it(rig: Rig, kind: str) -> None:
    emitter = make(rig, kind, max_retry_delay_seconds=60)
    rig.collector.respond(503, times=4)
    put(emitter)
    with within(DEADLINE / 2):
        assert emitter.drain(DEADLINE) is False
        assert emitter.drain(DEADLINE, retry=False) is False
    assert len(rig.collector.requests) == 2


@EACH_KIND
@METHODS
def test_it_ends_when_the_time_is_up(rig: Rig, kind: str, method: str) -> None:
    emitter = make(rig, kind, method=method)
    rig.collector.respond(503, times=None)
    put(emitter, 3)
    with within(2.0, at_least=0.3):
        assert emitter.drain(0.3, retry=True) is False
    assert len(rig.collector.requests) > 1
    assert accounted(emitter.stats()) == 3


# By chance the first delay may be so short that there is time for a third request.
@pytest.mark.usefixtures("no_short_delay")
@EACH_KIND
def test_it_begins_at_once_and_then_keeps_to_the_backoff(rig: Rig, kind: str) -> None:
    emitter = make(rig, kind, max_retry_delay_seconds=60)
    put(emitter)
    rig.shut_the_gate(emitter)
    rig.collector.respond(503, times=None)
    with within(2.0, at_least=0.3):
        assert emitter.drain(0.3, retry=True) is False
    # The one before, and one in spite of it: the minute that the first asked for is over for no other.
    assert len(rig.collector.requests) == 2


@EACH_KIND
def test_refused_events_are_settled(rig: Rig, kind: str) -> None:
    emitter = make(rig, kind)
    for status in (503, 500, 400):
        rig.collector.respond(status)
    put(emitter, 2)
    assert emitter.drain(DEADLINE, retry=True) is True
    assert emitter.stats().dropped_events["rejected"] == 2


@EACH_KIND
def test_newer_events_are_not_waited_for(rig: Rig, kind: str) -> None:
    later = threading.Event()

    def tell(_: object) -> None:
        if not later.is_set():
            later.set()
            put(emitter, 1, first=1)

    emitter = make(rig, kind, on_success=tell)
    rig.collector.respond(503)
    put(emitter)
    assert emitter.drain(DEADLINE, retry=True) is True
    assert emitter.stats().queued_events == 1
    assert numbers(rig.collector.events) == [0]


@EACH_KIND
def test_an_event_that_yields_its_place_is_waited_for(rig: Rig, kind: str) -> None:
    emitter = make(rig, kind)
    rig.collector.respond(500, times=9)
    put(emitter)
    assert emitter.drain(DEADLINE, retry=True) is True
    assert len(rig.collector.requests) == 10


@EACH_KIND
def test_a_poisonous_event_is_given_up_only_when_the_time_is_up(rig: Rig, kind: str) -> None:
    emitter = make(rig, kind)
    rig.collector.respond(500, times=None)
    put(emitter)
    assert emitter.drain(0.4, retry=True) is False
    assert accounted(emitter.stats()) == 1
    assert emitter.stats().sent_events == 0
    assert len(rig.collector.requests) > 5


@EACH_KIND
@pytest.mark.parametrize("store", ["ListStore", "DequeStore"])
def test_a_store_of_the_user_s(rig: Rig, kind: str, store: str) -> None:
    emitter = make(rig, kind, event_store=ListStore() if store == "ListStore" else documented(store)())
    rig.collector.respond(503, times=3)
    put(emitter, 4)
    assert emitter.drain(DEADLINE, retry=True) is True
    assert sorted(numbers(rig.collector.events)) == list(range(4))


@EACH_KIND
def test_a_store_that_fails_is_asked_again(rig: Rig, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastemit._stores.books.AFTER_A_FAULT", 0.05)

    class Failing(ListStore):
        failures = 3

        def get_events_batch(self) -> Any:
            if self.failures:
                self.failures -= 1
                raise OSError("no disk")
            return super().get_events_batch()

    emitter = make(rig, kind, event_store=Failing())
    put(emitter, 2)
    assert emitter.drain(DEADLINE, retry=True) is True
    assert numbers(rig.collector.events) == [0, 1]


@EACH_KIND
def test_a_send_events_that_raises_is_called_again(rig: Rig, kind: str) -> None:
    calls: list[None] = []

    def own(cls: type[Emitter]) -> type[Emitter]:
        class Own(cls):  # type: ignore[misc, valid-type]
            def send_events(self, evts: list[dict[str, Any]]) -> None:
                calls.append(None)
                if len(calls) < 4:
                    raise RuntimeError("not yet")
                super().send_events(evts)

        return Own

    emitter = make(rig, kind, own)
    put(emitter, 2)
    assert emitter.drain(DEADLINE, retry=True) is True
    assert (len(calls), numbers(rig.collector.events)) == (4, [0, 1])


@EACH_KIND
def test_an_emitter_that_decides_when_to_send_is_retried_too(rig: Rig, kind: str) -> None:
    def own(cls: type[Emitter]) -> type[Emitter]:
        class Own(cls):  # type: ignore[misc, valid-type]
            def reached_limit(self) -> bool:
                return False

            def flush(self) -> None:
                """Not of its own accord."""

        return Own

    emitter = make(rig, kind, own)
    rig.collector.respond(503, times=3)
    put(emitter, 2)
    assert emitter.drain(DEADLINE, retry=True) is True
    assert numbers(rig.collector.events) == [0, 1]


@EACH_KIND
def test_in_a_callback_it_returns_at_once(rig: Rig, kind: str) -> None:
    answers: list[bool] = []

    def failure(_: int, __: object) -> None:
        with within(1.0):
            answers.append(emitter.drain(None, retry=True))

    emitter = make(rig, kind, on_failure=failure)
    rig.collector.respond(503)
    put(emitter, 2)
    assert emitter.drain(DEADLINE, retry=True) is True
    assert answers == [False]


@EACH_KIND
def test_close_ends_it(rig: Rig, kind: str) -> None:
    emitter = make(rig, kind, max_retry_delay_seconds=60)
    put(emitter)
    rig.collector.respond(503, times=None, headers={"Retry-After": "60"})
    waiting = Running(lambda: emitter.drain(None, retry=True))
    rig.collector.wait_for_requests(1)
    assert waiting.goes_on()
    assert emitter.close(0.1) == 1
    assert waiting.result(5.0) is False


@EACH_KIND
def test_after_it_a_failure_ends_an_ordinary_flush_again(rig: Rig, kind: str) -> None:
    emitter = make(rig, kind, max_retry_delay_seconds=60)
    rig.collector.respond(503, times=None, headers={"Retry-After": "60"})
    put(emitter)
    assert emitter.drain(0.05, retry=True) is False
    assert emitter._delivery._schedule.insist_upto == 0
    with within(2.0):
        assert emitter.drain() is False


def test_several_threads_may_wait_each_for_its_own(rig: Rig) -> None:
    emitter = rig.emitter(max_retry_delay_seconds=QUICK)
    rig.collector.respond(503, times=6)
    put(emitter)
    waiting = [Running(lambda: emitter.drain(DEADLINE, retry=True)) for _ in range(3)]
    assert [each.result() for each in waiting] == [True] * 3


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_retry_is_true_or_false(rig: Rig, value: Any) -> None:
    with pytest.raises(TypeError, match="retry must be True or False"):
        rig.emitter().drain(1, retry=value)


def test_a_redis_emitter_waits_until_redis_takes_the_events(rdb: Any) -> None:
    from fastemit import RedisEmitter

    failures = [3]

    class Failing:
        """The real client, after some failures."""

        def rpush(self, *arguments: Any) -> Any:
            if failures[0]:
                failures[0] -= 1
                raise ConnectionError("refused")
            return rdb.rpush(*arguments)

    with RedisEmitter(Failing(), batch_size=100, max_retry_delay_seconds=QUICK) as emitter:
        emitter.input({"n": "1"})
        assert emitter.drain(DEADLINE, retry=True) is True
        assert [json.loads(event) for event in rdb.lrange("snowplow", 0, -1)] == [{"n": "1"}]


def test_a_celery_emitter_waits_until_the_batch_is_taken(make_emitter: MakeEmitter, collector: Collector) -> None:
    celery = pytest.importorskip("celery")
    from fastemit import CeleryEmitter

    app = celery.Celery("theirs", broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    collector.respond(503, times=3)
    with CeleryEmitter(collector.url, celery_app=app, max_retry_delay_seconds=QUICK) as emitter:
        emitter.input({"n": "1"})
        assert emitter.drain(DEADLINE, retry=True) is True
    assert numbers(collector.events) == [1]
