"""`on_lost`: it is called for every event that is never sent, with why, and may do what a callback may."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from fastemit import Emitter, InMemoryEventStore, Snowplow
from fastemit._delivery import leftovers
from fastemit._delivery.reporting import Reporter
from tests.support.delivery import DEADLINE, Rig, numbers, put, within
from tests.support.faulty_stores import Faulty
from tests.support.lost import Lost
from tests.support.stores import ListStore
from tests.support.waiting import until

BACKGROUND = pytest.mark.parametrize("background", [True, False])
METHODS = pytest.mark.parametrize("method", ["post", "get"])
LARGE = {"n": "7", "x": "y" * 3000}


@pytest.fixture
def lost() -> Lost:
    return Lost()


# -- no room ---------------------------------------------------------------------------------------------------------


@METHODS
@BACKGROUND
@pytest.mark.parametrize("overflow", ["drop_newest", "backpressure"])
def test_an_event_without_room_is_lost_in_its_own_thread(
    rig: Rig, lost: Lost, method: str, background: bool, overflow: str
) -> None:
    settings = {"buffer_capacity": 2, "method": method, "batch_size": 2, "background": background}
    emitter = rig.emitter(on_lost=lost, overflow=overflow, **settings)
    put(emitter)
    rig.shut_the_gate(emitter)
    put(emitter, 3, first=1)
    assert lost.by_reason() == {"overflow": [2, 3]}
    assert lost.threads == [threading.current_thread()] * 2
    assert emitter.stats().dropped_events["overflow"] == 2


@METHODS
@BACKGROUND
def test_drop_oldest_loses_the_oldest(rig: Rig, lost: Lost, method: str, background: bool) -> None:
    settings = {"buffer_capacity": 3, "method": method, "batch_size": 3, "background": background}
    emitter = rig.emitter(on_lost=lost, overflow="drop_oldest", **settings)
    put(emitter)
    rig.shut_the_gate(emitter)
    put(emitter, 5, first=1)
    assert lost.by_reason() == {"overflow": [0, 1, 2]}
    assert emitter.stats().dropped_events["overflow"] == 3
    assert emitter.drain(DEADLINE)
    assert numbers(rig.collector.events)[-3:] == [3, 4, 5]


def test_drop_oldest_in_bytes_still_wakes_a_sender(rig: Rig, lost: Lost) -> None:
    emitter = rig.emitter(max_buffer_bytes=2048, overflow="drop_oldest", on_lost=lost)
    for number in range(200):
        emitter.input({"n": str(number), "x": "y" * 500})
    until(lambda: emitter.stats().sent_events)
    assert emitter.drain(DEADLINE)
    arrived = numbers(rig.collector.events)
    assert sorted(arrived + lost.by_reason().get("overflow", [])) == list(range(200))


def test_drop_oldest_loses_the_new_event_where_all_are_in_flight(rig: Rig, lost: Lost) -> None:
    emitter = rig.emitter(buffer_capacity=1, batch_size=1, overflow="drop_oldest", on_lost=lost)
    rig.collector.respond(hang=True)
    put(emitter)
    rig.collector.wait_for_requests(1)
    put(emitter, 1, first=1)
    rig.collector.release()
    assert lost.by_reason() == {"overflow": [1]}


@METHODS
def test_an_event_larger_than_the_buffer_is_lost(rig: Rig, lost: Lost, method: str) -> None:
    emitter = rig.emitter(max_buffer_bytes=2048, method=method, on_lost=lost)
    emitter.input(LARGE)
    assert lost.calls == [("oversize", [LARGE])]


@METHODS
def test_an_event_after_close_is_lost(rig: Rig, lost: Lost, method: str) -> None:
    emitter = rig.emitter(method=method, on_lost=lost)
    emitter.close()
    emitter.input({"n": 1, "stm": "9"})
    assert lost.by_reason() == {"closed": [1]}
    assert "stm" not in lost.calls[0][1][0]


# -- the collector's answer ------------------------------------------------------------------------------------------


@METHODS
@BACKGROUND
def test_what_the_collector_refuses_is_lost_after_on_failure(
    rig: Rig, lost: Lost, method: str, background: bool
) -> None:
    order: list[str] = []
    rig.collector.respond(400, times=None)
    emitter = rig.emitter(
        method=method,
        background=background,
        on_failure=lambda *_: order.append("on_failure"),
        on_lost=lambda *got: (order.append("on_lost"), lost(*got)),
    )
    put(emitter, 3)
    emitter.flush()
    assert order == ["on_failure", "on_lost"]
    assert lost.by_reason() == {"rejected": [0, 1, 2]}
    assert "stm" not in lost.calls[0][1][0]


def test_a_flush_waits_for_on_lost(rig: Rig) -> None:
    told = []
    rig.collector.respond(400)

    def on_lost(reason: str, events: list[Any]) -> None:
        threading.Event().wait(0.05)
        told.append(reason)

    emitter = rig.emitter(on_lost=on_lost)
    put(emitter)
    emitter.flush()
    assert told == ["rejected"]


def test_an_event_larger_than_a_request_that_fails_is_lost(rig: Rig, lost: Lost) -> None:
    rig.collector.respond(500)
    emitter = rig.emitter(max_request_bytes=1024, on_lost=lost)
    emitter.input(LARGE)
    emitter.flush()
    assert lost.by_reason() == {"oversize": [7]}


@BACKGROUND
def test_send_events_loses_what_is_refused(rig: Rig, lost: Lost, background: bool) -> None:
    rig.collector.respond(403)
    emitter = rig.emitter(on_lost=lost, background=background)
    emitter.send_events([{"n": "1"}, {"n": "2"}])
    assert lost.by_reason() == {"rejected": [1, 2]}


def test_an_overridden_send_events_loses_each_once(rig: Rig, lost: Lost) -> None:
    class Own(Emitter):
        def send_events(self, evts: Any) -> None:
            super().send_events(evts)

    rig.collector.respond(403)
    emitter = rig.emitter(Own, on_lost=lost)
    put(emitter, 2)
    emitter.flush()
    assert lost.by_reason() == {"rejected": [0, 1]}


@METHODS
def test_what_is_kept_is_not_lost(rig: Rig, lost: Lost, method: str) -> None:
    rig.collector.respond(500)
    emitter = rig.emitter(on_lost=lost, method=method, max_retry_delay_seconds=0.02)
    put(emitter, 2)
    assert emitter.drain(DEADLINE, retry=True)
    assert lost.calls == []


# -- what a close leaves ---------------------------------------------------------------------------------------------


@METHODS
@BACKGROUND
def test_what_a_close_could_not_send_is_left_and_told_once(rig: Rig, lost: Lost, method: str, background: bool) -> None:
    emitter = rig.emitter(on_lost=lost, method=method, background=background)
    rig.collector.respond(503, times=None)
    put(emitter, 5)
    assert emitter.close(0.1) == 5
    emitter.close(0.1)
    assert lost.by_reason() == {"left": [0, 1, 2, 3, 4]}
    assert emitter.stats().queued_events == 5


def test_what_is_in_a_request_that_is_cut_off_is_left_too(rig: Rig, lost: Lost) -> None:
    emitter = rig.emitter(on_lost=lost, batch_size=2)
    rig.collector.respond(hang=True)
    put(emitter, 2)
    rig.collector.wait_for_requests(1)
    put(emitter, 1, first=2)
    assert emitter.close(0.05) == 3
    assert sorted(lost.by_reason()["left"]) == [0, 1, 2]


def test_a_request_that_nothing_cuts_off_tells_of_its_events_when_it_ends(
    rig: Rig, lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()

    class Stubborn(Emitter):
        def http_post(self, data: str) -> int:
            begun.set()
            let_go.wait(DEADLINE)
            return 503

    begun = threading.Event()
    monkeypatch.setattr("fastemit._process.lifecycle.LAST_STEPS", 0.05)
    emitter = rig.emitter(Stubborn, on_lost=lost, batch_size=2)
    put(emitter, 2)
    assert begun.wait(DEADLINE)
    put(emitter, 1, first=2)
    emitter.close(0.05)
    assert lost.by_reason() == {"left": [2]}
    let_go.set()
    until(lambda: sorted(lost.by_reason()["left"]) == [0, 1, 2])


def test_a_close_in_a_callback_tells_of_what_it_leaves(rig: Rig, lost: Lost) -> None:
    rig.collector.respond(503, times=None)
    emitter = rig.emitter(on_lost=lost, batch_size=2, on_failure=lambda *_: emitter.close(0.01))
    put(emitter, 2)
    until(lambda: lost.by_reason() == {"left": [0, 1]})


@BACKGROUND
def test_what_a_dropped_emitter_gives_up_is_left(
    rig: Rig, lost: Lost, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    # A pool of its own: what other tests have dropped would be given up first.
    monkeypatch.setattr(leftovers, "_pool", leftovers._Pool())
    monkeypatch.setattr(leftovers, "PATIENCE", 0.05)
    monkeypatch.setattr(leftovers, "MOST_EMITTERS", 0)
    rig.collector.respond(503, times=None)
    url = rig.collector.url
    Emitter(url, batch_size=2, on_lost=lost, background=background).input({"n": "1"})
    # One that begins tells of what a finalizer, which may call nothing, has given up.
    put(rig.emitter(batch_size=1, background=background))
    until(lambda: lost.by_reason() == {"left": [1]})


# -- stores ----------------------------------------------------------------------------------------------------------


def test_an_event_that_a_store_refuses_is_lost(rig: Rig, lost: Lost) -> None:
    emitter = rig.emitter(event_store=ListStore(capacity=1), on_lost=lost, overflow="drop_newest")
    put(emitter, 2)
    assert lost.by_reason() == {"overflow": [1]}


def test_an_event_for_which_add_event_raises_is_lost(rig: Rig, lost: Lost) -> None:
    emitter = rig.emitter(event_store=Faulty("add_event", times=1), on_lost=lost)
    put(emitter, 2)
    assert lost.by_reason() == {"overflow": [0]}


def test_what_a_store_holds_at_the_close_is_not_lost(rig: Rig, lost: Lost) -> None:
    emitter = rig.emitter(event_store=ListStore(), on_lost=lost)
    rig.collector.respond(503, times=None)
    put(emitter, 2)
    assert emitter.close(0.05) == 2
    assert lost.calls == []


def test_a_store_that_gives_what_is_no_event_loses_it(rig: Rig, lost: Lost) -> None:
    store = ListStore()
    emitter = rig.emitter(event_store=store, on_lost=lost)
    store.events.append({"n": "5", (): "no name"})  # type: ignore[dict-item]
    put(emitter)
    emitter.flush()
    assert lost.by_reason() == {"rejected": [5]}


def test_stored_events_without_room_in_the_emitter_are_lost(rig: Rig, lost: Lost) -> None:
    store = InMemoryEventStore()
    for number in range(4):
        store.add_event({"n": str(number), "x": "y" * 500})
    rig.emitter(event_store=store, max_buffer_bytes=1100, on_lost=lost)
    assert lost.by_reason() == {"overflow": [2, 3]}


# -- what it may do --------------------------------------------------------------------------------------------------


@BACKGROUND
@pytest.mark.parametrize("name", ["flush", "sync_flush", "drain", "close", "stats", "async_flush"])
def test_it_may_call_anything_on_its_emitter(rig: Rig, background: bool, name: str) -> None:
    called: list[str] = []

    def on_lost(reason: str, events: list[Any]) -> None:
        getattr(emitter, name)()
        called.append(reason)

    settings = {"buffer_capacity": 1, "background": background, "shutdown_timeout": 0.1}
    emitter = rig.emitter(overflow="drop_newest", on_lost=on_lost, **settings)
    rig.collector.respond(503, times=None)
    with within(2.0):
        put(emitter, 2)
    assert called[0] == "overflow"


@BACKGROUND
def test_what_it_gives_back_in_vain_is_counted_and_not_told_again(rig: Rig, background: bool) -> None:
    calls: list[str] = []

    def on_lost(reason: str, events: list[Any]) -> None:
        calls.append(reason)
        for event in events:
            emitter.input(event)

    emitter = rig.emitter(buffer_capacity=1, overflow="block", on_lost=on_lost, background=background)
    emitter.close()
    put(emitter, 3)
    assert calls == ["closed"] * 3
    assert emitter.stats().dropped_events["closed"] == 6


def test_what_it_raises_is_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def on_lost(reason: str, events: list[Any]) -> None:
        raise LookupError("not today")

    emitter = rig.emitter(on_lost=on_lost)
    emitter.close()
    with caplog.at_level(logging.WARNING, "fastemit"):
        put(emitter)
    assert "on_lost: LookupError: not today" in caplog.text


def test_no_lock_is_held_while_it_runs(rig: Rig) -> None:
    results: list[bool] = []

    def on_lost(reason: str, events: list[Any]) -> None:
        other = threading.Thread(target=lambda: results.append(emitter.stats().queued_events >= 0), daemon=True)
        other.start()
        other.join(DEADLINE)

    emitter = rig.emitter(buffer_capacity=1, overflow="drop_newest", on_lost=on_lost)
    rig.collector.respond(400, times=None)
    put(emitter, 2)
    emitter.flush()
    emitter.close()
    put(emitter)
    assert results == [True] * 3


def test_without_it_nothing_is_decoded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def spy(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            made.extend(method(*arguments))
            return []

        return called

    for name in ("lost_of", "lost_event"):
        monkeypatch.setattr(Reporter, name, spy(getattr(Reporter, name)))
    emitter = rig.emitter(buffer_capacity=1, overflow="drop_oldest")
    rig.collector.respond(400, times=None)
    put(emitter, 2)
    emitter.flush()
    emitter.close()
    put(emitter)
    assert sum(emitter.stats().dropped_events.values()) == 3
    assert made == []


@pytest.mark.usefixtures("no_trackers")
def test_create_tracker_passes_it_on(rig: Rig, lost: Lost) -> None:
    from fastemit import EmitterConfiguration

    tracker = Snowplow.create_tracker("ns", rig.collector.url, emitter_config=EmitterConfiguration(on_lost=lost))
    emitter: Any = tracker.emitters[0]
    emitter.close()
    emitter.input({"n": "1"})
    assert lost.by_reason() == {"closed": [1]}


def test_it_may_be_assigned_and_is_checked(rig: Rig, lost: Lost) -> None:
    emitter = rig.emitter()
    emitter.on_lost = lost
    assert emitter.on_lost is lost
    with pytest.raises(TypeError, match="on_lost must be callable or None"):
        emitter.on_lost = "lost"  # type: ignore[assignment]


def test_an_async_emitter_has_it_too(rig: Rig, lost: Lost) -> None:
    emitter = rig.async_emitter(on_lost=lost)
    emitter.close()
    put(emitter)
    assert lost.by_reason() == {"closed": [0]}
