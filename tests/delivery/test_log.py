"""The log: how much is said, and what is never said."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fastemit.stats import ThrottledLog
from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.emitters import QUICK, feed, numbered
from tests.support.environment import output_of
from tests.support.waiting import until


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def lines(log: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [
        record.getMessage()
        for record in log.get_records("call")
        if record.name == "fastemit" and record.levelno == level
    ]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttled(clock: Clock) -> ThrottledLog:
    return ThrottledLog(clock=clock)


def test_the_first_of_a_kind_is_written_at_once(throttled: ThrottledLog, log: pytest.LogCaptureFixture) -> None:
    throttled.add("request failed", "status 500")
    assert lines(log) == ["request failed: status 500"]


def test_more_of_a_kind_waits_ten_seconds(throttled: ThrottledLog, clock: Clock, log: pytest.LogCaptureFixture) -> None:
    throttled.add("request failed", "status 500")
    clock.now += 9.99
    throttled.add("request failed", "status 500", 5)
    assert len(lines(log)) == 1


def test_a_line_tells_how_many_it_stands_for(
    throttled: ThrottledLog, clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    throttled.add("request failed", "status 500", 3)
    throttled.add("request failed", "status 501", 5)
    throttled.add("request failed", "status 502")
    clock.now += 10
    throttled.add("request failed", "status 503", 7)
    assert lines(log) == [
        "request failed (3 so far): status 500",
        "request failed (13 since the last such line): status 503",
    ]


def test_kinds_do_not_hold_each_other_back(throttled: ThrottledLog, log: pytest.LogCaptureFixture) -> None:
    throttled.add("request failed", "a")
    throttled.add("events dropped (overflow)", "b")
    throttled.add("events dropped (rejected)", "c")
    assert len(lines(log)) == 3


def test_what_is_held_back_is_written_at_the_end(throttled: ThrottledLog, log: pytest.LogCaptureFixture) -> None:
    throttled.add("request failed", "a")
    throttled.add("request failed", "b", 2)
    throttled.flush()
    throttled.flush()
    assert lines(log)[1:] == ["request failed (2 since the last such line): b"]


def test_many_failures_are_one_warning_and_the_number_at_the_close(
    collector: Collector, make_emitter: MakeEmitter, log: pytest.LogCaptureFixture
) -> None:
    collector.respond(500, times=4)
    emitter = make_emitter(batch_size=1, max_retry_delay_seconds=QUICK)
    feed(emitter, *numbered(0))
    collector.wait_for(1)
    before = lines(log)
    emitter.close()
    after = lines(log)[1:]
    size = emitter.stats().sent_bytes
    assert before == [f"request failed: status 500 (1 event, {size} bytes)"]
    assert after == [f"request failed (3 since the last such line): status 500 (1 event, {size} bytes)"]


def test_many_drops_are_one_warning_and_the_number_at_the_close(
    collector: Collector, make_emitter: MakeEmitter, log: pytest.LogCaptureFixture
) -> None:
    collector.respond(hang=True)
    emitter = make_emitter(batch_size=1, buffer_capacity=1, overflow="drop_newest")
    feed(emitter, *numbered(*range(100)))
    before = lines(log)
    collector.wait_for_requests(1)
    collector.release()
    emitter.close()
    assert before == ["events dropped (overflow): the buffer is full"]
    assert lines(log)[1:] == ["events dropped (overflow) (98 since the last such line): the buffer is full"]


@pytest.mark.parametrize("reason", ["rejected", "oversize", "closed"])
def test_each_reason_for_a_drop_is_named(
    collector: Collector, make_emitter: MakeEmitter, log: pytest.LogCaptureFixture, reason: str
) -> None:
    collector.respond(400)
    emitter = make_emitter(batch_size=1, max_buffer_bytes=1024)
    if reason == "closed":
        emitter.close()
    feed(emitter, {"x": "y" * (5000 if reason == "oversize" else 1)})
    until(lambda: emitter.stats().dropped_events[reason] == 1)
    until(lambda: any(line.startswith(f"events dropped ({reason}): ") for line in lines(log)))


def test_one_debug_line_a_request(
    collector: Collector, make_emitter: MakeEmitter, log: pytest.LogCaptureFixture
) -> None:
    collector.respond(503, headers={"Retry-After": "60"})
    emitter = make_emitter(batch_size=100)
    for number in range(3):
        feed(emitter, *numbered(*range(number + 1)))
        emitter.flush()
    told = [line.partition(" bytes")[0].rpartition(",")[0] for line in lines(log, logging.DEBUG)]
    assert told == ["request: 1 event", "request: 3 events", "request: 3 events"]


def test_success_writes_nothing_above_debug(
    collector: Collector, make_emitter: MakeEmitter, log: pytest.LogCaptureFixture
) -> None:
    with make_emitter(batch_size=1) as emitter:
        feed(emitter, *numbered(*range(20)))
    assert [record for record in log.get_records("call") if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_its_location_named_without_the_query(
    collector: Collector, make_emitter: MakeEmitter, log: pytest.LogCaptureFixture, status: int
) -> None:
    location = f"{collector.url}/elsewhere?token=hush"
    collector.respond(status, headers={"Location": location})
    emitter = make_emitter(batch_size=1, max_retry_delay_seconds=QUICK)
    feed(emitter, *numbered(0))
    collector.wait_for(1)
    assert {request.path for request in collector.requests} == {"/com.snowplowanalytics.snowplow/tp2"}
    assert f"{collector.url}/elsewhere" in lines(log)[0]
    assert "hush" not in log.text
    assert "hush" not in str(emitter.stats().last_error)


@pytest.mark.parametrize("location", ["http://user:hush@example.com/", "//user:hush@host/?hush"])
def test_nothing_secret_of_a_location_is_told(
    collector: Collector, make_emitter: MakeEmitter, log: pytest.LogCaptureFixture, location: str
) -> None:
    collector.respond(302, headers={"Location": location})
    emitter = make_emitter(batch_size=100)
    feed(emitter, *numbered(0))
    emitter.flush()
    assert "hush" not in log.text
    assert "hush" not in str(emitter.stats().last_error)


def test_the_location_of_a_2xx_is_not_told(
    collector: Collector, make_emitter: MakeEmitter, log: pytest.LogCaptureFixture
) -> None:
    collector.respond(201, headers={"Location": "http://example.com/elsewhere"})
    emitter = make_emitter(batch_size=100)
    feed(emitter, *numbered(0))
    emitter.flush()
    assert "elsewhere" not in log.text


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"status": 400},
        {"status": 413},
        {"status": 500},
        {"reset": True},
        {"hang_up": True},
        {"close_after_headers": True},
    ],
    ids=str,
)
def test_no_payload_is_ever_told(
    collector: Collector, make_emitter: MakeEmitter, log: pytest.LogCaptureFixture, answer: dict[str, Any]
) -> None:
    collector.respond(times=None, **answer)
    emitter = make_emitter(batch_size=100, max_buffer_bytes=4096)
    feed(emitter, {"u": "hush"}, {"hush": 1}, {"x": "hush" * 2000})
    emitter.flush()
    emitter.close(0.02)
    feed(emitter, {"u": "hush"})
    assert "hush" not in log.text
    assert "hush" not in repr(emitter.stats())


def test_no_payload_is_told_by_a_callback_that_raises(
    collector: Collector, make_emitter: MakeEmitter, log: pytest.LogCaptureFixture
) -> None:
    emitter = make_emitter(batch_size=100, on_success=lambda events: events["missing"])
    feed(emitter, {"u": "hush"})
    emitter.flush()
    assert lines(log)[0].startswith("callback raised: on_success: TypeError: ")
    assert "hush" not in log.text


def test_no_password_of_a_proxy_is_ever_told(
    collector: Collector, make_emitter: MakeEmitter, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:hush@127.0.0.1:1")
    emitter = make_emitter(batch_size=100)
    feed(emitter, *numbered(0))
    emitter.flush()
    assert emitter.stats().failed_requests >= 1
    assert "hush" not in log.text
    assert "hush" not in str(emitter.stats().last_error)


def test_a_program_that_configures_no_logging_sees_nothing_and_has_no_root_handler() -> None:
    program = """
import logging
from fastemit import Emitter
from fastemit.testing import Collector
with Collector() as collector:
    collector.respond(500, times=None)
    emitter = Emitter(collector.url, batch_size=1, buffer_capacity=1, overflow="drop_newest")
    for _ in range(5):
        emitter.input({"e": "pv"})
    emitter.flush()
    emitter.close(0)
print(logging.getLogger().handlers, [type(h).__name__ for h in logging.getLogger("fastemit").handlers])
"""
    assert output_of(program) == "[] ['NullHandler']"
