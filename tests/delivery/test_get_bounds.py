"""GET: sizes, capacity, the overflow policies, and the end."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.delivery import DEADLINE, Rig, Running, Script, numbers, put, within
from tests.support.emitters import QUICK, accounted
from tests.support.waiting import until

BACKGROUND = pytest.mark.parametrize("background", [True, False])


# -- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [414, 413, 500, 503])
def test_an_event_larger_than_a_request_is_sent_once_and_dropped_on_any_failure(rig: Rig, status: int) -> None:
    rig.collector.respond(status)
    emitter = rig.emitter(method="get", max_request_bytes=1024)
    emitter.input({"n": "0", "a": "x" * 2000})
    emitter.input({"n": "1"})
    assert emitter.drain() is True
    assert [int(request.events[0]["n"]) for request in rig.collector.requests] == [0, 1]
    assert sum(emitter.stats().dropped_events.values()) == 1


def test_an_event_larger_than_the_buffer_is_dropped_as_oversize(rig: Rig) -> None:
    emitter = rig.emitter(method="get", max_buffer_bytes=4096)
    emitter.input({"a": "x" * 5000})
    assert emitter.stats().dropped_events["oversize"] == 1


def test_bytes_queued_are_those_of_the_query_strings(rig: Rig) -> None:
    emitter = rig.emitter(method="get", byte_limit=10_000)
    payloads: list[dict[str, Any]] = [{"a": "é"}, {"a": [1, 2], "b": None}, {}]
    for payload in payloads:
        emitter.input(payload)
    queued = emitter.bytes_queued
    assert emitter.drain() is True
    assert queued == sum(len("?" + request.query) for request in rig.collector.requests)
    assert queued == emitter.stats().sent_bytes


def test_byte_limit_wakes_the_sender(rig: Rig) -> None:
    emitter = rig.emitter(method="get", byte_limit=100)
    put(emitter, 3)
    assert emitter.reached_limit() is False
    put(emitter, 3, first=3)
    assert numbers(rig.collector.wait_for(6)) == list(range(6))


def test_drop_oldest_makes_room(rig: Rig) -> None:
    rig.collector.respond(503, headers={"Retry-After": "60"})
    emitter = rig.emitter(method="get", batch_size=1, buffer_capacity=3, overflow="drop_oldest")
    put(emitter)
    until(lambda: emitter.retry_delay)
    put(emitter, 4, first=1)
    assert emitter.stats().dropped_events["overflow"] == 2
    assert emitter.drain() is True
    assert numbers(rig.collector.events) == [2, 3, 4]


@pytest.mark.parametrize("overflow", ["drop_newest", "backpressure"])
def test_without_room_and_a_collector_the_new_event_is_dropped(rig: Rig, overflow: str) -> None:
    rig.collector.respond(503, headers={"Retry-After": "60"})
    emitter = rig.emitter(method="get", batch_size=1, buffer_capacity=2, overflow=overflow)
    put(emitter)
    until(lambda: emitter.retry_delay)
    put(emitter, 3, first=1)
    assert emitter.stats().dropped_events["overflow"] == 2
    assert emitter.drain() is True
    assert numbers(rig.collector.events) == [0, 1]


@pytest.mark.parametrize("overflow", ["block", "backpressure"])
@BACKGROUND
def test_a_waiting_policy_loses_nothing(rig: Rig, overflow: str, background: bool) -> None:
    emitter = rig.emitter(method="get", batch_size=1, buffer_capacity=2, overflow=overflow, background=background)
    put(emitter, 50)
    assert emitter.drain() is True
    assert numbers(rig.collector.events) == list(range(50))


def test_a_waiting_input_is_woken_by_room(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(method="get", batch_size=1, buffer_capacity=1)
    put(emitter)
    rig.collector.wait_for_requests(1)
    waiting = Running(lambda: put(emitter, first=1))
    assert waiting.goes_on()
    rig.collector.release()
    waiting.result()
    assert numbers(rig.collector.wait_for(2)) == [0, 1]


# -- the end ---------------------------------------------------------------------------------------------------------


@BACKGROUND
def test_close_sends_what_is_left_with_retries(rig: Rig, background: bool) -> None:
    for status in (200, 500, 500):
        rig.collector.respond(status)
    emitter = rig.emitter(method="get", background=background, max_retry_delay_seconds=QUICK)
    put(emitter, 150)
    assert emitter.close(DEADLINE) == 0
    assert numbers(rig.collector.events) == list(range(150))


@BACKGROUND
def test_close_keeps_its_deadline_in_the_middle_of_a_pass(rig: Rig, background: bool) -> None:
    rig.collector.respond(delay=0.05, times=None)
    emitter = rig.emitter(method="get", background=background)
    put(emitter, 100)
    with within(1.0):
        left = emitter.close(0.2)
    assert 80 < left < 100


def test_the_end_of_the_process_sends_what_is_left(rig: Rig, tmp_path: Any) -> None:
    script = Script(rig, tmp_path)
    assert script("put(Emitter(URL, method='get', batch_size=100), 3)").well
    assert script.arrived == [0, 1, 2]


def test_threads_that_put_at_once_lose_nothing(rig: Rig) -> None:
    emitter = rig.async_emitter(method="get", batch_size=1, thread_count=3)
    threads = [threading.Thread(target=put, args=(emitter, 50, first)) for first in (0, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert emitter.drain(DEADLINE) is True
    assert sorted(numbers(rig.collector.events)) == list(range(150))
    assert accounted(emitter.stats()) == 150
