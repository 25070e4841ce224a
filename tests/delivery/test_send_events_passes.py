"""`send_events` with GET goes in passes, as the sender: up to 100 events, each callback once, until one is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import snowplow_tracker

from fastemit import AsyncEmitter, Emitter
from tests.support.delivery import DEADLINE, Rig, numbers
from tests.support.emitters import Recorder, accounted
from tests.support.stores import ListStore

KINDS: dict[str, tuple[type[Emitter], dict[str, Any]]] = {
    "Emitter": (Emitter, {}),
    "AsyncEmitter": (AsyncEmitter, {"thread_count": 2}),
    "background=False": (Emitter, {"background": False}),
    "a store": (Emitter, {}),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


def by_hand(emitter: Any, events: list[dict[str, Any]]) -> None:
    emitter.send_events(events)


def by_an_override(emitter: Any, events: list[dict[str, Any]]) -> None:
    for event in events:
        emitter.input(event)
    emitter.drain(DEADLINE)


def by_an_override_of_http_get(emitter: Any, events: list[dict[str, Any]]) -> None:
    emitter.send_events(events)
    assert emitter.requests_of_its_own > 0


class SendEvents:
    def send_events(self, evts: list[dict[str, Any]]) -> None:
        super().send_events(evts)  # type: ignore[misc]


class HttpGet:
    requests_of_its_own = 0

    def http_get(self, payload: dict[str, Any]) -> int:
        self.requests_of_its_own += 1
        return super().http_get(payload)  # type: ignore[misc, no-any-return]


DOORS: dict[Callable[..., None], Any] = {
    by_hand: None,
    by_an_override: SendEvents,
    by_an_override_of_http_get: HttpGet,
}
EACH_DOOR = pytest.mark.parametrize("door", DOORS)


def make(rig: Rig, kind: str, door: Callable[..., None], recorder: Recorder, **settings: Any) -> Any:
    cls, own = KINDS[kind]
    mixin = DOORS[door]
    cls = cls if mixin is None else type("Own", (mixin, cls), {})
    if kind == "a store":
        settings["event_store"] = ListStore()
    return rig.emitter(
        cls, **{**own, "method": "get", "on_success": recorder.success, "on_failure": recorder.failure, **settings}
    )


def events(count: int) -> list[dict[str, str]]:
    return [{"n": str(number)} for number in range(count)]


def told(recorder: Recorder) -> tuple[list[list[int]], list[tuple[int, list[int]]]]:
    return [numbers(got) for got in recorder.successes], [(sent, numbers(got)) for sent, got in recorder.failures]


@EACH_KIND
@EACH_DOOR
def test_each_callback_is_called_once_for_a_pass(rig: Rig, kind: str, door: Callable[..., None]) -> None:
    recorder = Recorder()
    emitter = make(rig, kind, door, recorder)
    for status in (200, 400, 200, 410, 200):
        rig.collector.respond(status)
    door(emitter, events(5))
    assert told(recorder) == ([[0, 2, 4]], [(3, [1, 3])])


@EACH_KIND
@EACH_DOOR
def test_a_pass_ends_at_the_first_event_that_is_kept(rig: Rig, kind: str, door: Callable[..., None]) -> None:
    recorder = Recorder()
    emitter = make(rig, kind, door, recorder, max_retry_delay_seconds=60)
    for status in (200, 400, 503):
        rig.collector.respond(status, headers={"Retry-After": "60"} if status == 503 else {})
    door(emitter, events(5))
    assert told(recorder) == ([[0]], [(1, [1, 2])])
    assert len(rig.collector.requests) == 3
    stats = emitter.stats()
    assert stats.queued_events == 3
    assert emitter.drain(DEADLINE) is True
    assert sorted(numbers(rig.collector.events)) == [0, 2, 3, 4]


@EACH_KIND
def test_a_pass_has_a_hundred_events_at_the_most(rig: Rig, kind: str) -> None:
    recorder = Recorder()
    make(rig, kind, by_hand, recorder).send_events(events(230))
    assert [len(got) for got in recorder.successes] == [100, 100, 30]
    assert numbers(rig.collector.events) == list(range(230))


def test_none_at_all_calls_nobody(rig: Rig) -> None:
    recorder = Recorder()
    make(rig, "Emitter", by_hand, recorder).send_events([])
    assert told(recorder) == ([], [])


def test_several_threads_each_hear_of_their_own(rig: Rig) -> None:
    heard: dict[int, list[int]] = {}

    def success(got: list[dict[str, Any]]) -> None:
        heard[threading.get_ident()] = numbers(got)

    emitter = rig.emitter(method="get", on_success=success)
    sent: dict[int, list[int]] = {}

    def send(first: int) -> None:
        sent[threading.get_ident()] = list(range(first, first + 20))
        emitter.send_events([{"n": str(number)} for number in range(first, first + 20)])

    threads = [threading.Thread(target=send, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert heard == sent


def test_after_close_a_pass_is_still_a_pass(rig: Rig) -> None:
    recorder = Recorder()
    emitter = make(rig, "Emitter", by_hand, recorder)
    emitter.close()
    emitter.send_events(events(3))
    assert told(recorder) == ([[0, 1, 2]], [])


@pytest.mark.parametrize("method", ["post", "get"])
@EACH_KIND
def test_the_caller_s_dicts_and_list_are_left_as_they_are(rig: Rig, kind: str, method: str) -> None:
    cls, own = KINDS[kind]
    given = [{"n": "1", "stm": "mine"}, {"n": "2"}]
    before = [dict(event) for event in given]
    emitter = rig.emitter(cls, method=method, on_failure=lambda _, got: got[0].clear(), **own)
    rig.collector.respond(503)
    emitter.send_events(given)
    assert given == before
    assert emitter.drain(DEADLINE) is True
    assert sorted(numbers(rig.collector.events)) == [1, 2]
    assert all(len(event["stm"]) == 13 for event in rig.collector.events)
    assert given == before
    assert accounted(emitter.stats()) == 2


@pytest.mark.parametrize("method", ["post", "get"])
def test_snowplow_tracker_writes_stm_into_them(rig: Rig, method: str) -> None:
    given: list[dict[str, Any]] = [{"n": "1", "stm": "mine"}, {"n": "2"}]
    snowplow_tracker.Emitter(rig.collector.url, method=method).send_events(given)  # type: ignore[arg-type]
    assert [event["n"] for event in given] == ["1", "2"]
    assert all(len(event["stm"]) == 13 for event in given)


def test_snowplow_tracker_tries_each_event_of_a_get(rig: Rig) -> None:
    failures: list[tuple[int, int]] = []
    emitter = snowplow_tracker.Emitter(
        rig.collector.url, method="get", on_failure=lambda sent, got: failures.append((sent, len(got)))
    )
    rig.collector.respond(503, times=1)
    emitter.send_events([{"n": "1"}, {"n": "2"}, {"n": "3"}])
    assert failures == [(2, 1)]
    assert len(rig.collector.requests) == 3
