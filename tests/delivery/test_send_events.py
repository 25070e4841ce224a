"""An overridden `send_events`: what it returns from is sent, but for what `super().send_events` settled otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import snowplow_tracker

from fastemit import AsyncEmitter, Emitter
from tests.support.delivery import DEADLINE, Rig, numbers, put
from tests.support.emitters import QUICK, Recorder, accounted
from tests.support.waiting import until

Hook = Callable[[Callable[[list[dict[str, Any]]], None], list[dict[str, Any]]], object]


KINDS: dict[str, tuple[type[Emitter], dict[str, Any]]] = {
    "Emitter": (Emitter, {}),
    "AsyncEmitter": (AsyncEmitter, {}),
    "background=False": (Emitter, {"background": False}),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
METHODS = pytest.mark.parametrize("method", ["post", "get"])


def make(rig: Rig, kind: str, hook: Hook, **settings: Any) -> Any:
    """An emitter whose `send_events(evts)` is `hook(super().send_events, evts)`."""
    base, own = KINDS[kind]

    class Own(base):  # type: ignore[misc, valid-type]
        def send_events(self, evts: list[dict[str, Any]]) -> None:
            hook(super().send_events, evts)

    return rig.emitter(Own, **{**own, **settings})


def told(emitter: Any) -> tuple[int, int, int]:
    """Sent, rejected and queued, when nothing is in flight."""
    until(lambda: emitter.stats().in_flight_events == 0)
    stats = emitter.stats()
    return stats.sent_events, stats.dropped_events["rejected"], stats.queued_events


def respond(rig: Rig, *statuses: int) -> None:
    for status in statuses:
        rig.collector.respond(status)


@EACH_KIND
@METHODS
def test_it_gets_the_events_and_without_super_they_count_as_sent(rig: Rig, kind: str, method: str) -> None:
    got: list[dict[str, Any]] = []
    emitter = make(rig, kind, lambda _, events: got.extend(events), method=method)
    put(emitter, 3)
    assert emitter.drain() is True
    assert got == [{"n": "000000"}, {"n": "000001"}, {"n": "000002"}]
    assert rig.collector.requests == []
    assert told(emitter) == (3, 0, 0)


@EACH_KIND
@METHODS
@pytest.mark.parametrize(("status", "counts"), [(200, (4, 0, 0)), (400, (0, 4, 0)), (503, (0, 0, 4))])
def test_super_with_all_of_them_settles_as_ever(
    rig: Rig, kind: str, method: str, status: int, counts: tuple[int, int, int]
) -> None:
    rig.collector.respond(status, times=None)
    recorder = Recorder()
    emitter = make(
        rig,
        kind,
        lambda send, events: send(events),
        method=method,
        on_success=recorder.success,
        on_failure=recorder.failure,
    )
    put(emitter, 4)
    assert emitter.drain() is (status != 503)
    assert told(emitter) == counts
    assert (emitter.retry_delay > 0) is (status == 503)
    if method == "post":
        assert rig.requests() == [[0, 1, 2, 3]]
        assert [numbers(events) for events in recorder.successes] == ([[0, 1, 2, 3]] if status == 200 else [])
        assert [numbers(events) for _, events in recorder.failures] == ([] if status == 200 else [[0, 1, 2, 3]])


def chunks(send: Callable[[list[dict[str, Any]]], None], events: list[dict[str, Any]]) -> None:
    for first in range(0, len(events), 2):
        send(events[first : first + 2])


@EACH_KIND
def test_super_with_a_part_after_another_settles_each(rig: Rig, kind: str) -> None:
    respond(rig, 200, 400, 503)
    emitter = make(rig, kind, chunks)
    put(emitter, 6)
    assert emitter.drain() is False
    assert told(emitter) == (2, 2, 2)
    assert emitter.drain() is True
    assert rig.requests() == [[0, 1], [2, 3], [4, 5], [4, 5]]
    assert told(emitter) == (4, 2, 0)


@EACH_KIND
@pytest.mark.parametrize(("status", "counts"), [(200, (4, 0, 0)), (400, (2, 2, 0)), (503, (2, 0, 2))])
def test_super_with_some_of_them_counts_the_others_as_sent(
    rig: Rig, kind: str, status: int, counts: tuple[int, int, int]
) -> None:
    rig.collector.respond(status)
    emitter = make(rig, kind, lambda send, events: send([event for event in events if int(event["n"]) % 2]))
    put(emitter, 4)
    emitter.drain()
    assert told(emitter) == counts
    assert rig.requests() == [[1, 3]]


@EACH_KIND
@pytest.mark.parametrize(("status", "counts"), [(200, (3, 0, 0)), (400, (0, 3, 0)), (503, (0, 0, 3))])
def test_super_with_changed_copies_of_all(rig: Rig, kind: str, status: int, counts: tuple[int, int, int]) -> None:
    rig.collector.respond(status)
    emitter = make(rig, kind, lambda send, events: send([{**event, "extra": "1"} for event in events]))
    put(emitter, 3)
    emitter.drain()
    assert told(emitter) == counts
    emitter.drain()
    assert all(event["extra"] == "1" for request in rig.collector.requests for event in request.events)


@EACH_KIND
@pytest.mark.parametrize("status", [200, 400, 503])
def test_super_with_changed_copies_of_some_still_adds_up(rig: Rig, kind: str, status: int) -> None:
    rig.collector.respond(status)
    emitter = make(rig, kind, lambda send, events: send([{**event, "extra": "1"} for event in events[:2]]))
    put(emitter, 4)
    emitter.drain()
    assert told(emitter)[2] == (2 if status == 503 else 0)
    assert accounted(emitter.stats()) == 4


@EACH_KIND
def test_super_with_events_changed_in_place(rig: Rig, kind: str) -> None:
    def change(send: Any, events: list[dict[str, Any]]) -> None:
        for event in events:
            event["extra"] = "1"
        send(events)

    respond(rig, 503)
    emitter = make(rig, kind, change)
    put(emitter, 2)
    assert emitter.drain() is False
    assert told(emitter) == (0, 0, 2)
    assert emitter.drain() is True
    assert [event["extra"] for event in rig.collector.events] == ["1", "1"]
    assert told(emitter) == (2, 0, 0)


@EACH_KIND
@METHODS
def test_what_it_raises_keeps_the_events_and_begins_a_backoff(rig: Rig, kind: str, method: str) -> None:
    failing = [True]

    def hook(send: Any, events: list[dict[str, Any]]) -> None:
        if failing:
            raise RuntimeError("not now")
        send(events)

    emitter = make(rig, kind, hook, method=method)
    put(emitter, 3)
    assert emitter.drain() is False
    assert told(emitter) == (0, 0, 3)
    assert emitter.retry_delay > 0
    failing.clear()
    assert emitter.drain() is True
    assert numbers(rig.collector.events) == [0, 1, 2]
    assert emitter.retry_delay == 0


def test_kept_events_are_sent_again_by_themselves(rig: Rig) -> None:
    respond(rig, 503, 503)
    emitter = make(rig, "Emitter", lambda send, events: send(events), batch_size=2, max_retry_delay_seconds=QUICK)
    put(emitter, 2)
    assert numbers(rig.collector.wait_for(2)) == [0, 1]
    assert rig.requests() == [[0, 1]] * 3


def test_a_batch_that_is_too_large_is_halved_under_super(rig: Rig) -> None:
    respond(rig, 413, 200, 503)
    emitter = make(rig, "Emitter", lambda send, events: send(events))
    put(emitter, 4)
    assert emitter.drain() is False
    assert told(emitter) == (2, 0, 2)
    assert emitter.drain() is True
    assert rig.requests() == [[0, 1, 2, 3], [0, 1], [2, 3], [2, 3]]


@EACH_KIND
@pytest.mark.parametrize("where", ["instance", "class"])
def test_a_patch_is_used_while_it_lasts(rig: Rig, kind: str, where: str) -> None:
    base, own = KINDS[kind]
    emitter: Any = rig.emitter(type("Own", (base,), {}), **own)
    put(emitter)
    assert emitter.drain() is True
    with mock.patch.object(emitter if where == "instance" else type(emitter), "send_events") as send:
        put(emitter, 2, first=1)
        assert emitter.drain() is True
    send.assert_called_once_with([{"n": "000001"}, {"n": "000002"}])
    put(emitter, first=3)
    assert emitter.drain() is True
    assert rig.requests() == [[0], [3]]
    assert told(emitter) == (4, 0, 0)


@METHODS
@pytest.mark.parametrize(("batch_size", "count"), [(1, 2), (3, 6)])
def test_it_gets_the_same_lists_as_the_reference_s(rig: Rig, method: str, batch_size: int, count: int) -> None:
    def lists(base: Any) -> list[list[str]]:
        got: list[list[str]] = []

        class Own(base):  # type: ignore[misc]
            def send_events(self, evts: list[dict[str, Any]]) -> None:
                got.append([event["n"] for event in evts])

        emitter = Own(rig.collector.url, method=method, batch_size=batch_size)
        for number in range(count):
            emitter.input({"n": str(number)})
            if (number + 1) % batch_size == 0 and base is Emitter:
                assert emitter.drain(DEADLINE)
        getattr(emitter, "close", lambda: None)()
        return got

    assert lists(Emitter) == lists(snowplow_tracker.Emitter)


@EACH_KIND
@METHODS
def test_it_may_be_called_by_hand(rig: Rig, kind: str, method: str) -> None:
    base, own = KINDS[kind]
    emitter: Any = rig.emitter(base, method=method, **own)
    emitter.send_events([{"n": "1"}, {"n": "2"}])
    assert numbers(rig.collector.events) == [1, 2]
    emitter.send_events([])
    rig.collector.respond(503)
    emitter.send_events([{"n": "3"}])
    assert emitter.stats().queued_events == 1
    assert emitter.drain() is True
    assert numbers(rig.collector.events) == [1, 2, 3]
