"""An event store of the user's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fastemit
from fastemit.testing import Collector, Request
from tests.conftest import MakeEmitter
from tests.support.delivery import Running
from tests.support.emitters import QUICK, Recorder, feed, join, numbered, numbers, requests_of, threads_of
from tests.support.slow import slow
from tests.support.stores import ForgetfulStore, FrontStore, ListStore, PeekStore, SilentStore, Watched, documented
from tests.support.waiting import until

MANY = 1000
Make = Callable[[], Any]


def sqlite_store(path: Path) -> Any:
    return documented("SQLiteStore")(path / "events.db")


STORES = ("deque", "sqlite", "end", "front", "peek", "silent")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    """Each kind of store, watched; at the end the emitter has done nothing to it that it must not do."""
    makers: dict[str, Make] = {
        "deque": documented("DequeStore"),
        "sqlite": lambda: sqlite_store(tmp_path),
        "end": ListStore,
        "front": FrontStore,
        "peek": PeekStore,
        "silent": SilentStore,
    }
    inner = makers[request.param]()
    store = Watched(inner)
    yield store
    if request.param == "sqlite":
        inner.db.close()
    assert store.wrong == []


# -- every kind of store -----------------------------------------------------------------------------------------------


def test_events_go_through_the_store_in_order(store: Watched, collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(event_store=store, batch_size=5)
    feed(emitter, *numbered(*range(20)))
    assert emitter.drain(10)
    assert numbers(collector.events) == store.told(False) == list(range(20))
    assert store.told(True) == []
    assert emitter.event_store is store


def test_what_was_kept_is_told_and_sent_again(store: Watched, collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(event_store=store, batch_size=MANY)
    collector.respond(503, headers={"Retry-After": "60"})
    feed(emitter, *numbered(0, 1, 2))
    assert emitter.drain(10) is False
    assert store.cleaned == [([0, 1, 2], True)]
    assert emitter.stats().queued_events == 3
    feed(emitter, *numbered(3))
    assert emitter.drain(10)
    assert sorted(numbers(collector.events)) == sorted(store.told(False)) == [0, 1, 2, 3]
    stats = emitter.stats()
    assert (stats.sent_events, stats.retried_events, sum(stats.dropped_events.values())) == (4, 3, 0)


def test_what_was_rejected_is_cleaned_up(store: Watched, collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(event_store=store, batch_size=MANY)
    collector.respond(400)
    feed(emitter, *numbered(0, 1))
    assert emitter.drain(10)
    assert store.cleaned == [([0, 1], False)]
    assert emitter.stats().dropped_events["rejected"] == 2
    assert store.size() == 0


@pytest.mark.parametrize("senders", [slow(1), 3])
def test_a_batch_of_many_requests_is_cleaned_up_before_the_next(
    store: Watched, collector: Collector, make_async_emitter: MakeEmitter, senders: int
) -> None:
    emitter = make_async_emitter(
        event_store=store, batch_size=10, max_request_bytes=1024, thread_count=senders, overflow="block"
    )
    threads = threads_of(3, lambda number: feed(emitter, *numbered(*range(number * 100, number * 100 + 100))))
    join(threads)
    assert emitter.drain(10)
    assert sorted(numbers(collector.events)) == sorted(store.told(False)) == list(range(300))
    assert all(len(request.body) <= 1024 for request in collector.requests)


def test_a_failure_in_the_middle_of_a_batch(store: Watched, collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(event_store=store, batch_size=MANY, max_request_bytes=1024)
    collector.respond(200)
    collector.respond(500)
    feed(emitter, *numbered(*range(60)))
    assert emitter.drain(10) is False
    sent = len(collector.events)
    assert 0 < sent < 60
    assert sorted(store.told(True)) == list(range(sent, 60))
    assert emitter.stats().queued_events == 60 - sent
    assert emitter.drain(10)
    assert sorted(numbers(collector.events)) == list(range(60))
    assert sum(emitter.stats().dropped_events.values()) == 0


def test_a_413_is_split(store: Watched, collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(
        lambda request: 413 if len(request.events) > 1 or numbers(request.events) == [2] else 200, times=None
    )
    emitter = make_emitter(event_store=store, batch_size=MANY)
    feed(emitter, *numbered(*range(5)))
    assert emitter.drain(10)
    assert numbers(collector.events) == [0, 1, 3, 4]
    assert store.told(False) == list(range(5))
    assert emitter.stats().dropped_events["rejected"] == 1


def test_a_poisonous_event_does_not_hold_up_the_rest(
    store: Watched, collector: Collector, make_emitter: MakeEmitter
) -> None:
    collector.respond(lambda request: 500 if 3 in numbers(request.events) else 200, times=None)
    emitter = make_emitter(event_store=store, batch_size=10, max_retry_delay_seconds=0.003)
    feed(emitter, *numbered(*range(10)))
    until(lambda: sorted(numbers(collector.events)) == [0, 1, 2, 4, 5, 6, 7, 8, 9], 5)
    feed(emitter, *numbered(*range(10, 20)))
    until(lambda: set(numbers(collector.events)) == set(range(20)) - {3}, 5)


def test_each_event_of_get_is_cleaned_up_by_itself(
    store: Watched, collector: Collector, make_emitter: MakeEmitter
) -> None:
    collector.respond(lambda request: 400 if numbers(request.events) == [1] else 200, times=None)
    recorder = Recorder()
    emitter = make_emitter(
        event_store=store, method="get", batch_size=MANY, on_success=recorder.success, on_failure=recorder.failure
    )
    feed(emitter, *({"n": number, "x": None} for number in range(3)))
    assert emitter.drain(10)
    assert numbers(collector.events) == [0, 2]
    assert store.cleaned == [([0], False), ([1], False), ([2], False)]
    assert [[event["n"] for event in events] for events in recorder.successes] == [[0, 2]]
    assert [(sent, [event["n"] for event in events]) for sent, events in recorder.failures] == [(2, [1])]


def test_get_keeps_the_rest_after_a_failure(store: Watched, collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(200)
    collector.respond(500)
    emitter = make_emitter(event_store=store, method="get", batch_size=MANY)
    feed(emitter, *numbered(*range(4)))
    assert emitter.drain(10) is False
    assert (store.told(False), sorted(store.told(True))) == ([0], [1, 2, 3])
    assert emitter.drain(10)
    assert sorted(numbers(collector.events)) == list(range(4))


def test_events_from_before_are_sent_and_not_counted(
    store: Watched, collector: Collector, make_emitter: MakeEmitter
) -> None:
    for event in numbered(0, 1, 2):
        store.inner.add_event(event)
    emitter = make_emitter(event_store=store, batch_size=4)
    feed(emitter, *numbered(3))
    assert numbers(collector.wait_for(4)) == [0, 1, 2, 3]
    until(lambda: emitter.stats().sent_events == 1)
    assert emitter.stats().queued_events == 0


def test_events_from_before_are_flushed(store: Watched, collector: Collector, make_emitter: MakeEmitter) -> None:
    store.inner.add_event(*numbered(0))
    emitter = make_emitter(event_store=store)
    feed(emitter, *numbered(1))
    assert emitter.drain(10)
    assert numbers(collector.events) == [0, 1]


def test_close_sends_what_is_there(store: Watched, collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(500)
    emitter = make_emitter(event_store=store, batch_size=MANY, max_retry_delay_seconds=QUICK)
    feed(emitter, *numbered(0, 1))
    assert emitter.close(5) == 0
    feed(emitter, *numbered(2))
    assert sorted(numbers(collector.events)) == [0, 1]
    assert emitter.stats().dropped_events["closed"] == 1


def test_close_tells_what_is_left(store: Watched, collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(500, times=None)
    emitter = make_emitter(event_store=store, batch_size=MANY)
    feed(emitter, *numbered(0, 1))
    assert emitter.close(0.2) == 2
    assert store.size() == emitter.stats().queued_events == 2


def test_without_a_thread_of_ours(store: Watched, collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(event_store=store, batch_size=2, background=False)
    collector.respond(500)
    feed(emitter, *numbered(0, 1))
    assert len(collector.requests) == 1
    assert emitter.drain(10)
    feed(emitter, *numbered(2))
    assert emitter.close(5) == 0
    assert sorted(numbers(collector.events)) == [0, 1, 2]


def test_a_timer_flushes(store: Watched, collector: Collector, make_emitter: MakeEmitter) -> None:
    emitter = make_emitter(event_store=store, flush_interval=0.01)
    feed(emitter, *numbered(0))
    assert numbers(collector.wait_for(1)) == [0]
    feed(emitter, *numbered(1))
    assert numbers(collector.wait_for(2)) == [0, 1]


# -- capacity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["drop_newest", "backpressure", "block"])
def test_none_is_no_refusal(collector: Collector, make_emitter: MakeEmitter, overflow: str) -> None:
    emitter = make_emitter(event_store=SilentStore(), overflow=overflow)
    feed(emitter, *numbered(*range(30)))
    assert emitter.drain(10)
    assert len(collector.events) == 30


def test_drop_newest_drops_what_the_store_refuses(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(hang=True)
    emitter = make_emitter(event_store=ListStore(2), overflow="drop_newest", batch_size=2)
    feed(emitter, *numbered(0, 1))
    collector.wait_for_requests(1)
    feed(emitter, *numbered(2, 3, 4))
    assert emitter.stats().dropped_events["overflow"] == 1
    collector.release()
    assert emitter.drain(10)
    assert numbers(collector.events) == [0, 1, 2, 3]


@pytest.mark.parametrize("overflow", ["backpressure", "block"])
def test_a_cleanup_wakes_a_thread_that_waits(collector: Collector, make_emitter: MakeEmitter, overflow: str) -> None:
    collector.respond(hang=True)
    emitter = make_emitter(event_store=PeekStore(2), overflow=overflow, batch_size=2)
    feed(emitter, *numbered(0, 1))
    collector.wait_for_requests(1)
    waiting = Running(lambda: feed(emitter, *numbered(2, 3)))
    assert waiting.goes_on()
    collector.release()
    waiting.result()
    assert emitter.drain(10)
    assert numbers(collector.events) == [0, 1, 2, 3]


def test_backpressure_drops_once_sending_fails(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(503, headers={"Retry-After": "60"})
    emitter = make_emitter(event_store=ListStore(2), batch_size=2)
    feed(emitter, *numbered(0, 1))
    until(lambda: emitter.retry_delay > 0)
    feed(emitter, *numbered(2))
    assert emitter.stats().dropped_events["overflow"] == 1


@pytest.mark.parametrize("overflow", ["backpressure", "block"])
@pytest.mark.parametrize("background", [True, False])
def test_a_small_store_loses_nothing(
    collector: Collector, make_emitter: MakeEmitter, overflow: str, background: bool
) -> None:
    emitter = make_emitter(event_store=PeekStore(3), overflow=overflow, background=background, batch_size=100)
    join(threads_of(3, lambda number: feed(emitter, *numbered(*range(number * 20, number * 20 + 20)))))
    assert emitter.drain(10)
    assert sorted(numbers(collector.events)) == list(range(60))


def test_drop_oldest_is_refused(collector: Collector) -> None:
    with pytest.raises(ValueError, match=r"overflow .*drop_oldest"):
        fastemit.Emitter(collector.url, event_store=ListStore(), overflow="drop_oldest")


def test_what_has_not_the_methods_is_refused(collector: Collector) -> None:
    with pytest.raises(TypeError, match="event_store"):
        fastemit.Emitter(collector.url, event_store=[])  # type: ignore[arg-type]


def test_what_the_store_did_not_take_back_is_counted(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(503, headers={"Retry-After": "60"})
    emitter = make_emitter(event_store=ForgetfulStore(2), batch_size=MANY)
    feed(emitter, *numbered(*range(5)))
    assert emitter.drain(10) is False
    stats = emitter.stats()
    assert (stats.queued_events, stats.dropped_events["overflow"]) == (2, 3)
    assert emitter.drain(10)
    assert numbers(collector.events) == [0, 1]


# -- what is counted, and what wakes -------------------------------------------------------------------------------


def test_byte_limit_wakes(collector: Collector, make_emitter: MakeEmitter) -> None:
    # Of events of 36 bytes the fourth reaches it.
    emitter = make_emitter(event_store=ListStore(), batch_size=MANY, byte_limit=130)
    feed(emitter, *numbered(*range(4)))
    collector.wait_for(4)


def test_a_stamp_of_the_caller_s_is_replaced_and_none_is_left_in_the_store(
    collector: Collector, make_emitter: MakeEmitter
) -> None:
    store = ListStore()
    emitter = make_emitter(event_store=store, batch_size=MANY)
    collector.respond(503, headers={"Retry-After": "60"})
    emitter.input({"n": 1, "stm": "7"})
    emitter.drain(10)
    assert store.events == [{"n": "1"}]
    emitter.drain(10)
    assert collector.events[0]["stm"] != "7"


def test_stats_add_up_at_every_moment(collector: Collector, make_emitter: MakeEmitter) -> None:
    def answer(request: Request) -> int:
        stats = emitter.stats()
        seen.append(
            stats.sent_events + sum(stats.dropped_events.values()) + stats.queued_events + stats.in_flight_events
        )
        return 500 if len(seen) == 2 else 200

    seen: list[int] = []
    emitter = make_emitter(event_store=FrontStore(), batch_size=MANY, max_request_bytes=1024)
    collector.respond(answer, times=None)
    feed(emitter, *numbered(*range(100)))
    emitter.drain(10)
    assert emitter.drain(10)
    assert set(seen) == {100}


def test_flush_returns_after_the_callback_for_what_it_sent(collector: Collector, make_emitter: MakeEmitter) -> None:
    def success(events: list[Any]) -> None:
        entered.set()
        go_on.wait(10)

    entered, go_on = threading.Event(), threading.Event()
    emitter = make_emitter(event_store=ListStore(), batch_size=MANY)
    for _ in range(3):
        collector.respond(503, headers={"Retry-After": "60"})
        feed(emitter, *numbered(0))
        emitter.drain(10)
    emitter.on_success = success
    flush = Running(emitter.flush)
    entered.wait(10)
    assert flush.goes_on()
    go_on.set()
    flush.result()


def test_two_emitters_of_one_store_send_each_event_once(collector: Collector) -> None:
    store = ListStore()
    with (
        fastemit.Emitter(collector.url, event_store=store, batch_size=5) as one,
        fastemit.Emitter(collector.url, event_store=store, batch_size=5) as other,
    ):
        for number in range(20):
            feed((one, other)[number % 2], *numbered(number))
    assert sorted(numbers(collector.events)) == list(range(20))


@pytest.mark.parametrize("background", [True, False])
def test_flush_sends_events_from_before_also_when_there_are_no_others(collector: Collector, background: bool) -> None:
    store = ListStore()
    store.events += numbered(0, 1)
    with fastemit.Emitter(collector.url, event_store=store, background=background) as emitter:
        assert Running(lambda: emitter.drain(3)).result() is True
        assert numbers(collector.events) == [0, 1]


def test_order_of_a_front_store_holds_over_a_failure(collector: Collector, make_emitter: MakeEmitter) -> None:
    collector.respond(500)
    emitter = make_emitter(event_store=FrontStore(), batch_size=MANY, max_request_bytes=1024)
    feed(emitter, *numbered(*range(60)))
    emitter.drain(10)
    assert emitter.drain(10)
    assert numbers(collector.events) == list(range(60))
    assert requests_of(collector)[0] == requests_of(collector)[1]
