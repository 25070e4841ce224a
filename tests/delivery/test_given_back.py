"""Events that a callback gives back to `input`: new ones, unless they are kept for a retry anyway."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter
from tests.support.delivery import DEADLINE, Rig, Running, numbers, put
from tests.support.emitters import QUICK, accounted
from tests.support.stores import ListStore, documented
from tests.support.waiting import until

Failure = Callable[[int, list[dict[str, Any]]], None]


KINDS: dict[str, tuple[type[Emitter], dict[str, Any]]] = {
    "Emitter": (Emitter, {}),
    "AsyncEmitter": (AsyncEmitter, {"thread_count": 4}),
    "background=False": (Emitter, {"background": False}),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
METHODS = pytest.mark.parametrize("method", ["post", "get"])


class Lost:
    """An emitter with an `on_failure` that does with each event what `give_back(emitter, event)` does."""

    def __init__(
        self,
        rig: Rig,
        give_back: Callable[[Any, dict[str, Any]], object] = lambda emitter, event: emitter.input(event),
        kind: str = "Emitter",
        base: Callable[[type[Emitter]], type[Emitter]] = lambda cls: cls,
        **settings: Any,
    ) -> None:
        cls, own = KINDS[kind]
        self.failures = 0
        self._give_back = give_back
        self.emitter: Any = rig.emitter(
            base(cls), on_failure=self.failure, **{"max_retry_delay_seconds": QUICK, **own, **settings}
        )

    def failure(self, _: int, events: list[dict[str, Any]]) -> None:
        self.failures += 1
        for event in events:
            self._give_back(self.emitter, event)

    def drained(self, rig: Rig) -> list[int]:
        """What has arrived in the end, in order."""
        assert self.emitter.drain(DEADLINE, retry=True) is True
        return sorted(numbers(rig.collector.events))


@EACH_KIND
@METHODS
def test_kept_events_are_not_queued_twice(rig: Rig, kind: str, method: str) -> None:
    lost = Lost(rig, kind=kind, method=method)
    rig.collector.respond(503, times=4)
    put(lost.emitter, 6)
    assert lost.drained(rig) == list(range(6))
    assert lost.failures == 4
    assert accounted(lost.emitter.stats()) == 6


WAYS: dict[str, Callable[[Any, dict[str, Any]], object]] = {
    "without stm": lambda emitter, event: emitter.input({k: v for k, v in event.items() if k != "stm"}),
    "a copy": lambda emitter, event: emitter.input(dict(event)),
    "in another order": lambda emitter, event: emitter.input(dict(reversed(event.items()))),
    "through JSON": lambda emitter, event: emitter.input(json.loads(json.dumps(event))),
    "with another stm": lambda emitter, event: emitter.input({**event, "stm": "1"}),
    "twice": lambda emitter, event: [emitter.input(event), emitter.input(event)],
    "the number as it was given": lambda emitter, event: emitter.input({**event, "k": int(event["k"])}),
}


@METHODS
@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_same_event_in_whatever_way_it_is_given_back(rig: Rig, method: str, way: str) -> None:
    lost = Lost(rig, WAYS[way], method=method)
    rig.collector.respond(503, times=2)
    for number in range(2):
        lost.emitter.input({"n": str(number), "k": number, "list": ["a", "b"], "text": "Zo\xeb \u2603 & \"='"})
    assert lost.drained(rig) == [0, 1]


def test_a_lone_surrogate_is_compared_too(rig: Rig) -> None:
    lost = Lost(rig)
    rig.collector.respond(503, times=2)
    lost.emitter.input({"n": "0", "x": "\ud800"})
    assert lost.drained(rig) == [0]


@EACH_KIND
@METHODS
def test_one_that_the_callback_changed_is_a_new_event(rig: Rig, kind: str, method: str) -> None:
    def change(emitter: Emitter, event: dict[str, Any]) -> None:
        event["n"] = str(int(event["n"]) + 10)
        emitter.input(event)

    lost = Lost(rig, change, kind=kind, method=method)
    rig.collector.respond(503)
    put(lost.emitter, 1)
    assert lost.emitter.drain(DEADLINE, retry=True) is True
    assert sorted(lost.drained(rig)) == [0, 10]
    assert accounted(lost.emitter.stats()) == 2


@EACH_KIND
@METHODS
def test_a_rejected_event_that_is_given_back_is_a_new_one(rig: Rig, kind: str, method: str) -> None:
    lost = Lost(rig, kind=kind, method=method)
    rig.collector.respond(400)
    put(lost.emitter, 1)
    lost.emitter.drain(DEADLINE)
    assert lost.drained(rig) == [0]
    stats = lost.emitter.stats()
    assert (stats.sent_events, stats.dropped_events["rejected"]) == (1, 1)


def test_a_pass_of_get_may_have_both(rig: Rig) -> None:
    lost = Lost(rig, method="get")
    rig.collector.respond(400)
    rig.collector.respond(503)
    put(lost.emitter, 2)
    assert lost.drained(rig) == [0, 1]
    assert lost.failures == 1
    assert lost.emitter.stats().dropped_events["rejected"] == 1


@EACH_KIND
def test_a_sent_event_that_is_given_back_by_on_success_is_a_new_one(rig: Rig, kind: str) -> None:
    lost = Lost(rig, kind=kind)
    again = [True]

    def success(events: list[dict[str, Any]]) -> None:
        if again:
            again.clear()
            lost.emitter.input(events[0])

    lost.emitter.on_success = success
    put(lost.emitter, 1)
    lost.emitter.drain(DEADLINE)
    assert lost.drained(rig) == [0, 0]


@EACH_KIND
@pytest.mark.parametrize("store", ["ListStore", "DequeStore"])
def test_with_a_store_of_the_user_s(rig: Rig, kind: str, store: str) -> None:
    own = ListStore() if store == "ListStore" else documented(store)()
    lost = Lost(rig, kind=kind, event_store=own)
    rig.collector.respond(503, times=3)
    put(lost.emitter, 5)
    assert lost.drained(rig) == list(range(5))
    assert own.size() == 0


@EACH_KIND
def test_with_an_input_that_a_subclass_overrides(rig: Rig, kind: str) -> None:
    def own(cls: type[Emitter]) -> type[Emitter]:
        class Own(cls):  # type: ignore[misc, valid-type]
            def input(self, payload: Any) -> None:
                super().input({**payload, "extra": "1"})

        return Own

    lost = Lost(rig, kind=kind, base=own)
    rig.collector.respond(503, times=3)
    put(lost.emitter, 3)
    assert lost.drained(rig) == [0, 1, 2]


@EACH_KIND
@METHODS
def test_with_send_events_by_hand(rig: Rig, kind: str, method: str) -> None:
    lost = Lost(rig, kind=kind, method=method)
    rig.collector.respond(503, times=2)
    lost.emitter.send_events([{"n": "0"}, {"n": "1"}])
    assert lost.failures == 1
    assert lost.emitter.stats().queued_events == 2
    assert lost.drained(rig) == [0, 1]


@EACH_KIND
@METHODS
def test_with_a_send_events_that_a_subclass_overrides(rig: Rig, kind: str, method: str) -> None:
    def own(cls: type[Emitter]) -> type[Emitter]:
        class Own(cls):  # type: ignore[misc, valid-type]
            def send_events(self, evts: list[dict[str, Any]]) -> None:
                super().send_events([{**event, "extra": "1"} for event in evts])

        return Own

    lost = Lost(rig, kind=kind, base=own, method=method)
    rig.collector.respond(503, times=3)
    put(lost.emitter, 2)
    assert lost.drained(rig) == [0, 1]


@EACH_KIND
def test_a_callback_within_a_callback_leaves_the_outer_one_as_it_was(rig: Rig, kind: str) -> None:
    outer: list[dict[str, Any]] = []

    def by_hand(emitter: Any, event: dict[str, Any]) -> None:
        if event["n"] == "77":
            emitter.input(event)
        elif not outer:
            outer.append(event)
            emitter.send_events([{"n": "77"}])
            emitter.input(event)

    lost = Lost(rig, by_hand, kind=kind)
    rig.collector.respond(503, times=2)
    put(lost.emitter, 1)
    lost.emitter.drain(DEADLINE)
    assert lost.drained(rig) == [0, 77]


def test_the_warning_comes_once_for_an_emitter(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    lost = Lost(rig)
    rig.collector.respond(503, times=3)
    put(lost.emitter, 3)
    lost.drained(rig)
    told = [message for message in caplog.messages if message.startswith("on_failure gave back events")]
    assert told == [
        "on_failure gave back events that are kept, and sent again anyway: they are left out; "
        "your on_failure no longer needs to do that"
    ]


def test_it_is_not_said_where_nothing_is_given_back(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    lost = Lost(rig, lambda *_: None)
    rig.collector.respond(503, times=3)
    put(lost.emitter, 3)
    lost.drained(rig)
    assert "gave back" not in caplog.text


def test_what_is_no_event_raises_as_ever(rig: Rig) -> None:
    raised: list[str] = []

    def wrong(emitter: Any, _: object) -> None:
        for payload in (None, {("a", 1): "tuple"}):
            with pytest.raises(TypeError) as caught:
                emitter.input(payload)
            raised.append(str(caught.value))

    lost = Lost(rig, wrong)
    rig.collector.respond(503)
    put(lost.emitter)
    assert lost.drained(rig) == [0]
    assert raised[0] == "payload must be a mapping of names to values, not NoneType"
    assert len(raised) == 2


@METHODS
def test_an_equal_event_of_another_thread_is_a_new_one(rig: Rig, method: str) -> None:
    inside, leave = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        leave.wait(DEADLINE)

    lost = Lost(rig, wait, method=method)
    rig.collector.respond(503)
    put(lost.emitter)
    waiting = Running(lambda: lost.emitter.drain(DEADLINE, retry=True))
    assert inside.wait(DEADLINE)
    put(lost.emitter)
    leave.set()
    assert waiting.result() is True
    assert lost.drained(rig) == [0, 0]


def test_several_senders_call_back_at_once_and_input_is_free_again_after_the_last(rig: Rig) -> None:
    inside = threading.Barrier(3)

    def meet(emitter: Any, event: dict[str, Any]) -> None:
        if lost.failures <= 3:
            inside.wait(DEADLINE)
        emitter.input(event)

    lost = Lost(rig, meet, kind="AsyncEmitter", batch_size=1, max_request_bytes=1024)
    rig.collector.respond(503, times=3, delay=0.3)
    for number in range(3):
        lost.emitter.input({"n": str(number), "x": "y" * 700})
    assert lost.drained(rig) == [0, 1, 2]
    assert lost.emitter._delivery._hooks.given_back._in_the_way is False


def test_input_costs_nothing_more_while_no_such_callback_runs(rig: Rig) -> None:
    seen: list[Any] = []
    lost = Lost(rig, lambda emitter, _: seen.append(emitter._delivery._hooks.given_back._in_the_way))
    rig.collector.respond(400)
    rig.collector.respond(503)
    for number in range(2):
        put(lost.emitter, 1, number)
        lost.emitter.drain(DEADLINE)
    assert seen == [False, True]
    assert lost.emitter._delivery._hooks.given_back._in_the_way is False


def test_what_the_callback_raises_leaves_input_free(rig: Rig) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("not mine")

    lost = Lost(rig, fail)
    rig.collector.respond(503)
    put(lost.emitter)
    lost.emitter.drain(DEADLINE)
    put(lost.emitter)
    assert lost.drained(rig) == [0, 0]
    assert lost.emitter._delivery._hooks.given_back._in_the_way is False


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_is_forked_meanwhile_takes_an_equal_event(rig: Rig) -> None:
    inside, leave = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        leave.wait(DEADLINE)

    lost = Lost(rig, wait)
    rig.collector.respond(503)
    put(lost.emitter)
    waiting = Running(lambda: lost.emitter.drain(DEADLINE, retry=True))
    assert inside.wait(DEADLINE)
    child = os.fork()
    if child == 0:
        try:
            put(lost.emitter)
            free = not lost.emitter._delivery._hooks.given_back._in_the_way
            os._exit(0 if free and lost.emitter.drain(DEADLINE) else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    leave.set()
    assert status == 0
    assert waiting.result() is True
    assert lost.drained(rig) == [0, 0]


def test_a_redis_worker_leaves_them_out_too(rig: Rig, rdb: Any) -> None:
    from fastemit import RedisWorker

    lost = Lost(rig)
    rig.collector.respond(503, times=3)
    rdb.rpush("snowplow", *[json.dumps({"n": str(number)}) for number in range(3)])
    worker = RedisWorker(lost.emitter, rdb, poll_interval=0.01)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        until(lambda: worker.stats().sent_events == 3)
    finally:
        worker.request_shutdown()
        thread.join(DEADLINE)
    assert lost.failures == 3
    assert lost.drained(rig) == [0, 1, 2]
    assert accounted(lost.emitter.stats()) == 0
