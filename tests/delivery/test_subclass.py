"""Subclasses and patches of an emitter's methods: called where the reference would call them, nothing lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import snowplow_tracker

from fastemit import AsyncEmitter, Emitter
from tests.support.delivery import DEADLINE, Rig, Running, numbers, put
from tests.support.emitters import QUICK, Recorder, accounted
from tests.support.waiting import until

METHODS = pytest.mark.parametrize("method", ["post", "get"])
KINDS: dict[str, tuple[type[Emitter], dict[str, Any]]] = {
    "Emitter": (Emitter, {}),
    "AsyncEmitter": (AsyncEmitter, {}),
    "background=False": (Emitter, {"background": False}),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


def make(rig: Rig, kind: str, overrides: dict[str, Any], **settings: Any) -> Any:
    """An emitter of a subclass of this kind with these methods."""
    cls, own = KINDS[kind]
    return rig.emitter(type("Own", (cls,), overrides), **{**own, **settings})


class Answer:
    def __init__(self, status_code: Any) -> None:
        self.status_code = status_code

    def __repr__(self) -> str:
        return f"Answer({self.status_code!r})"


class Told(list[Any]):
    """Keeps what a method is called with, and answers."""

    def method(self, answer: Any = None) -> Callable[..., Any]:
        def call(_emitter: Any, *arguments: Any) -> Any:
            self.append(*arguments or (None,))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


# -- http_post and http_get ------------------------------------------------------------------------------------------


@EACH_KIND
@METHODS
@pytest.mark.parametrize("answer", [200, 204, Answer(200)])
def test_an_overridden_request_is_made_in_place_of_ours(rig: Rig, kind: str, method: str, answer: Any) -> None:
    told, recorder = Told(), Recorder()
    emitter = make(rig, kind, {f"http_{method}": told.method(answer)}, method=method, on_success=recorder.success)
    put(emitter, 2)
    assert emitter.drain() is True
    events = told if method == "get" else json.loads(told[0])["data"]
    assert numbers(events) == [0, 1]
    assert all(len(event["stm"]) == 13 for event in events)
    assert recorder.successes == [events]
    assert rig.collector.requests == []
    assert emitter.stats().sent_events == 2


@METHODS
@pytest.mark.parametrize("answer", [400, 410, Answer(422)])
def test_a_status_of_an_overridden_request_rejects(rig: Rig, method: str, answer: Any) -> None:
    recorder = Recorder()
    overrides = {f"http_{method}": Told().method(answer)}
    emitter = make(rig, "Emitter", overrides, method=method, on_failure=recorder.failure)
    put(emitter, 2)
    assert emitter.drain() is True
    assert emitter.stats().dropped_events["rejected"] == 2
    assert [(count, numbers(events)) for count, events in recorder.failures] == [(0, [0, 1])]


@EACH_KIND
@METHODS
@pytest.mark.parametrize(
    "answer", [-1, 0, 500, 302, Answer(-1), None, "200", True, 2.5, b"", Answer(None), RuntimeError("broken")], ids=repr
)
def test_whatever_else_it_returns_or_raises_the_events_are_kept(rig: Rig, kind: str, method: str, answer: Any) -> None:
    emitter = make(rig, kind, {f"http_{method}": Told().method(answer)}, method=method)
    put(emitter, 3)
    assert emitter.drain() is False
    stats = emitter.stats()
    assert (stats.queued_events, stats.in_flight_events) == (3, 0)
    assert stats.last_error is not None
    assert emitter.retry_delay > 0
    assert emitter.retry_timer.is_active()


@METHODS
def test_super_s_request_is_one_request(rig: Rig, method: str) -> None:
    name = f"http_{method}"
    own = {name: lambda self, data: getattr(super(type(self), self), name)(data)}
    emitter = make(rig, "Emitter", own, method=method)
    rig.collector.respond(500)
    put(emitter)
    assert emitter.drain() is False
    assert emitter.drain() is True
    assert numbers(rig.collector.events) == [0]
    assert len(rig.collector.requests) == 2
    assert (emitter.stats().requests, emitter.stats().failed_requests) == (2, 1)


@EACH_KIND
@METHODS
@pytest.mark.parametrize("where", ["instance", "class", "base class"])
def test_a_patch_is_used_while_it_lasts(rig: Rig, kind: str, method: str, where: str) -> None:
    emitter = make(rig, kind, {}, method=method)
    put(emitter)
    assert emitter.drain() is True
    target = {"instance": emitter, "class": type(emitter), "base class": Emitter}[where]
    with mock.patch.object(target, f"http_{method}", return_value=200) as request:
        put(emitter, first=1)
        assert emitter.drain() is True
    assert request.call_count == 1
    put(emitter, first=2)
    assert emitter.drain() is True
    assert rig.requests() == [[0], [2]]


# -- input -----------------------------------------------------------------------------------------------------------


@EACH_KIND
def test_an_overridden_input_takes_the_tracker_s_events(rig: Rig, kind: str) -> None:
    def own(self: Any, payload: Any) -> None:
        if payload["e"] != "pp":
            super(type(self), self).input({**payload, "extra": "1"})

    emitter = make(rig, kind, {"input": own})
    tracker = snowplow_tracker.Tracker("ns", emitter)
    tracker.track(snowplow_tracker.PageView(page_url="https://example.com"))
    tracker.track(snowplow_tracker.PagePing(page_url="https://example.com"))
    tracker.flush()
    assert [(event["e"], event["extra"]) for event in rig.collector.events] == [("pv", "1")]


# -- flush -----------------------------------------------------------------------------------------------------------


@EACH_KIND
def test_input_calls_an_overridden_flush_when_the_limit_is_reached(rig: Rig, kind: str) -> None:
    callers: list[threading.Thread] = []

    def own(self: Any) -> None:
        callers.append(threading.current_thread())
        super(type(self), self).flush()

    emitter = make(rig, kind, {"flush": own}, batch_size=3)
    put(emitter, 2)
    assert callers == []
    put(emitter, first=2)
    assert callers == [threading.current_thread()]
    assert numbers(rig.collector.wait_for(3)) == [0, 1, 2]
    assert emitter.drain() is True


@EACH_KIND
def test_what_an_overridden_flush_raises_comes_out_of_input_and_nothing_is_lost(rig: Rig, kind: str) -> None:
    emitter = make(rig, kind, {"flush": Told().method(RuntimeError("no"))}, batch_size=1)
    with pytest.raises(RuntimeError, match="no"):
        put(emitter)
    assert emitter.drain() is True
    assert rig.requests() == [[0]]


@EACH_KIND
@pytest.mark.parametrize("call", ["sync_flush", "flush"])
def test_sync_flush_and_the_tracker_call_an_overridden_flush(rig: Rig, kind: str, call: str) -> None:
    told = Told()
    emitter = make(rig, kind, {"flush": told.method()})
    put(emitter)
    getattr(emitter, call)()
    assert len(told) == 1
    assert rig.collector.requests == []


@EACH_KIND
def test_a_retry_calls_an_overridden_flush(rig: Rig, kind: str) -> None:
    calls: list[None] = []

    def own(self: Any) -> None:
        calls.append(None)
        super(type(self), self).flush()

    rig.collector.respond(500)
    emitter = make(rig, kind, {"flush": own}, batch_size=1, max_retry_delay_seconds=QUICK)
    put(emitter)
    if kind == "background=False":
        until(lambda: put(emitter, first=len(calls)) or len(calls) > 1)
    until(lambda: emitter.stats().queued_events + emitter.stats().in_flight_events == 0)
    assert len(calls) >= 2


@EACH_KIND
@pytest.mark.parametrize("where", ["instance", "class"])
def test_a_patched_flush_is_called_by_input_while_it_lasts(rig: Rig, kind: str, where: str) -> None:
    emitter = make(rig, kind, {}, batch_size=2)
    put(emitter, 2)
    rig.collector.wait_for(2)
    with mock.patch.object(emitter if where == "instance" else type(emitter), "flush") as flush:
        put(emitter, 2, first=2)
        until(lambda: flush.call_count == 1, 1.0)
    put(emitter, 3, first=4)
    assert numbers(rig.collector.wait_for(7, 2.0)) == list(range(7))


@EACH_KIND
@pytest.mark.parametrize("name", ["flush", "reached_limit"])
def test_a_full_buffer_with_an_override_that_sends_nothing_drops_and_does_not_hang(
    rig: Rig, kind: str, name: str
) -> None:
    emitter = make(rig, kind, {name: Told().method(False)}, batch_size=2, buffer_capacity=3)
    Running(lambda: put(emitter, 5)).result(2.0)
    assert (emitter.stats().queued_events, emitter.stats().dropped_events["overflow"]) == (3, 2)
    assert emitter.drain() is True


# -- reached_limit ---------------------------------------------------------------------------------------------------


@EACH_KIND
def test_an_overridden_reached_limit_decides_when_to_send(rig: Rig, kind: str) -> None:
    asked = Told()
    emitter = make(rig, kind, {"reached_limit": lambda self: asked.append(None) or len(asked) == 3}, batch_size=1)
    put(emitter, 2)
    assert rig.collector.requests == []
    put(emitter, first=2)
    assert numbers(rig.collector.wait_for(3)) == [0, 1, 2]
    assert len(asked) == 3
    assert emitter.drain() is True
    assert rig.requests() == [[0, 1, 2]]


@EACH_KIND
def test_an_overridden_reached_limit_that_says_no_leaves_flush_and_close(rig: Rig, kind: str) -> None:
    emitter = make(rig, kind, {"reached_limit": lambda self: False}, batch_size=1)
    put(emitter, 2)
    assert emitter.drain() is True
    put(emitter, 2, first=2)
    assert emitter.close(DEADLINE) == 0
    assert rig.requests() == [[0, 1], [2, 3]]


# -- side by side with the reference ---------------------------------------------------------------------------------


def calls_of(base: Any, endpoint: str, method: str, batch_size: int, count: int) -> dict[str, int]:
    """How often each method of one subclass of `base` is called for so many events that are all sent."""
    calls: dict[str, int] = {}

    def counted(name: str) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return getattr(super(cls, self), name)(*arguments)

        return call

    names = ("input", "reached_limit", "flush", "send_events", f"http_{method}")
    cls = type("Counted", (base,), {name: counted(name) for name in names})
    emitter = cls(endpoint, method=method, batch_size=batch_size)
    for number in range(count):
        emitter.input({"n": str(number)})
    getattr(emitter, "close", lambda: None)()
    return calls


@METHODS
@pytest.mark.parametrize(("batch_size", "count"), [(1, 3), (3, 6)])
def test_the_same_subclass_is_called_as_often_as_the_reference_s(
    rig: Rig, method: str, batch_size: int, count: int
) -> None:
    ours = calls_of(Emitter, rig.collector.url, method, batch_size, count)
    assert [int(event["n"]) for event in rig.collector.events] == list(range(count))
    rig.collector.reset()
    theirs = calls_of(snowplow_tracker.Emitter, rig.collector.url, method, batch_size, count)
    assert [int(event["n"]) for event in rig.collector.events] == list(range(count))
    assert ours == theirs


@EACH_KIND
def test_an_emitter_that_overrides_something_is_accounted_for(rig: Rig, kind: str) -> None:
    overrides = {"http_post": lambda self, data: 400 if '"000003"' in data else 200}
    emitter = make(rig, kind, overrides, batch_size=2)
    put(emitter, 7)
    assert emitter.drain() is True
    assert accounted(emitter.stats()) == 7
