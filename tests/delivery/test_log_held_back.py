"""What the log holds back after a first line is told within its interval, which is short here, by whoever there is."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter, RedisWorker
from fastemit.celery.worker import Destination, Part, Relay
from fastemit.stats import ThrottledLog
from tests.support.delivery import A_WHILE, DEADLINE, Rig, put
from tests.support.emitters import QUICK
from tests.support.environment import environment
from tests.support.waiting import until

#: Seconds between two lines of a kind.
INTERVAL = 0.3


Lines = Callable[[], list[str]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    caplog.set_level(logging.WARNING, "fastemit")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "fastemit"]


def hasty(emitter: Any) -> Any:
    emitter._report.log.interval = INTERVAL
    return emitter


def oversize(emitter: Any, count: int) -> None:
    """Give in events that are dropped, without waking a sender."""
    for _ in range(count):
        emitter.input({"x": "y" * 2000})


SMALL: dict[str, Any] = {"max_buffer_bytes": 1024}
TOLD = "events dropped (oversize)"


@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
@pytest.mark.parametrize("method", ["post", "get"])
def test_an_idle_sender_tells_the_rest_of_a_burst(rig: Rig, lines: Lines, cls: type[Emitter], method: str) -> None:
    emitter = hasty(rig.emitter(cls, method=method, **SMALL))
    put(emitter)
    assert emitter.drain(DEADLINE) is True
    oversize(emitter, 50)
    assert [line.partition(": ")[0] for line in lines()] == [TOLD]
    until(lambda: len(lines()) == 2, INTERVAL + 2)
    assert lines()[1].startswith(f"{TOLD} (49 since the last such line): ")


def test_several_sender_threads_tell_it_once(rig: Rig, lines: Lines) -> None:
    emitter = hasty(rig.async_emitter(thread_count=4, **SMALL))
    put(emitter, 20)
    assert emitter.drain(DEADLINE) is True
    oversize(emitter, 50)
    until(lambda: len(lines()) == 2, INTERVAL + 2)
    threading.Event().wait(A_WHILE)
    assert len(lines()) == 2


def test_each_emitter_tells_its_own(rig: Rig, lines: Lines) -> None:
    for _ in range(3):
        emitter = hasty(rig.emitter(**SMALL))
        put(emitter)
        assert emitter.drain(DEADLINE) is True
        oversize(emitter, 10)
    until(lambda: len(lines()) == 6, INTERVAL + 2)
    assert sum("(9 since the last such line)" in line for line in lines()) == 3


def test_it_is_told_though_requests_go_on(rig: Rig, lines: Lines) -> None:
    emitter = hasty(rig.async_emitter(batch_size=1, **SMALL))
    oversize(emitter, 30)
    until = time.monotonic() + INTERVAL + 2
    while len(lines()) < 2:
        assert time.monotonic() < until
        put(emitter)
        emitter.drain(DEADLINE)
    assert f"{TOLD} (29 since the last such line): " in lines()[1]


def test_failed_requests_are_told_while_a_long_backoff_runs(rig: Rig, lines: Lines) -> None:
    emitter = hasty(rig.emitter())
    put(emitter)
    rig.collector.respond(500, times=5)
    for _ in range(5):
        assert emitter.drain(DEADLINE) is False
    assert emitter.retry_delay > 1
    until(lambda: len(lines()) == 2, INTERVAL + 0.7)
    assert lines()[1].startswith("request failed (4 since the last such line): status 500")


def test_an_idle_sender_wakes_no_more_once_all_is_told(rig: Rig, lines: Lines) -> None:
    emitter = hasty(rig.emitter(**SMALL))
    put(emitter)
    assert emitter.drain(DEADLINE) is True
    oversize(emitter, 3)
    until(lambda: len(lines()) == 2, INTERVAL + 2)
    looks: list[None] = []
    plan = emitter._delivery._schedule.plan
    emitter._delivery._schedule.plan = lambda now: (looks.append(None), plan(now))[1]
    # Longer than an idle sender waits until it gives memory back.
    threading.Event().wait(2 * INTERVAL)
    looks.clear()
    threading.Event().wait(2 * INTERVAL)
    assert len(looks) <= 2


def test_what_an_emitter_holds_back_that_is_dropped_is_told_as_its_sender_ends(rig: Rig, lines: Lines) -> None:
    emitter = AsyncEmitter(rig.collector.url, **SMALL)
    put(emitter)
    assert emitter.drain(DEADLINE) is True
    oversize(emitter, 5)
    del emitter
    gc.collect()
    until(lambda: len(lines()) == 2)
    assert f"{TOLD} (4 since the last such line): " in lines()[1]


def test_without_a_thread_the_next_request_tells_it(rig: Rig, lines: Lines) -> None:
    emitter = hasty(rig.emitter(background=False, batch_size=2, **SMALL))
    put(emitter, 2)
    oversize(emitter, 5)
    threading.Event().wait(INTERVAL)
    put(emitter)
    assert len(lines()) == 1
    put(emitter)
    assert f"{TOLD} (4 since the last such line): " in lines()[1]


def test_a_redis_worker_tells_what_it_holds_back_though_it_has_nothing_to_send(rig: Rig, lines: Lines) -> None:
    pytest.importorskip("redis")

    class Down:
        """A client of a Redis that nobody reaches."""

        def execute_command(self, *_: Any, **__: Any) -> Any:
            raise ConnectionError("refused")

        def __getattr__(self, _: str) -> Any:
            return self.execute_command

    worker = RedisWorker(rig.emitter(), Down(), poll_interval=0.01, takeover_after=0.04)
    hasty(worker)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        until(lambda: len(lines()) >= 3)
    finally:
        worker.request_shutdown()
        thread.join(DEADLINE)
    assert lines()[0].startswith("Redis failed: ")
    assert all("since the last such line" in line for line in lines()[1:])


def test_a_task_of_a_celery_worker_tells_what_those_before_it_held_back(rig: Rig, lines: Lines) -> None:
    from fastemit._transport.endpoint import parse_endpoint

    rig.collector.respond(400, times=4)
    relay, to = Relay(), Destination(parse_endpoint(rig.collector.url), "post")
    relay._log.interval = INTERVAL
    part = Part(b'{"data":[{"n":"1","stm":"0000000000000"}]}')
    for _ in range(4):
        assert relay.carry(part, to) is None
    assert len(lines()) == 1
    threading.Event().wait(INTERVAL)
    assert relay.carry(part, to) is None
    assert "events dropped (rejected) (3 since the last such line): " in lines()[1]


def test_what_nobody_has_told_is_told_at_the_end_of_the_process() -> None:
    program = """
import logging, os
logging.basicConfig(format="%(message)s")
from fastemit import AsyncEmitter
emitter = AsyncEmitter("http://127.0.0.1:9")
emitter.close()
for _ in range(8):
    emitter.input({"e": "pv"})
# In a child it is not, since it is the parent's.
if hasattr(os, "fork") and os.fork() == 0:
    raise SystemExit
if hasattr(os, "fork"):
    os.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, env=environment(), check=True
    )
    assert done.stderr.splitlines() == [
        "events dropped (closed): given in after close",
        "events dropped (closed) (7 since the last such line): given in after close",
    ]


def test_at_the_end_of_the_process_a_handler_whose_stream_is_closed_is_no_matter() -> None:
    """As in a test suite: pytest closes what it captures with before the process ends."""
    program = """
import io, logging
stream = io.StringIO()
logging.basicConfig(stream=stream)
from fastemit import AsyncEmitter
emitter = AsyncEmitter("http://127.0.0.1:9")
emitter.close()
for _ in range(8):
    emitter.input({"e": "pv"})
stream.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, env=environment(), check=True
    )
    assert done.stderr == ""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_when_something_is_due_is_that_of_the_kind_that_has_waited_longest(lines: Lines) -> None:
    clock, woken = Clock(), []
    log = ThrottledLog(clock=clock, wake=lambda: woken.append(clock.now))
    for now, kind in [(1.0, "a"), (2.0, "b"), (3.0, "b"), (4.0, "a"), (5.0, "b"), (6.0, "a")]:
        clock.now = now
        log.add(kind, "")
        assert log.due_at() == {1.0: float("inf"), 2.0: float("inf"), 3.0: 12.0}.get(now, 11.0)
    # Once for each kind: whoever looks then looks at all of them.
    assert woken == [3.0, 4.0]
    clock.now = log.due_at()
    log.write()
    assert (lines()[2:], log.due_at()) == (["a (2 since the last such line): "], 12.0)
    clock.now = 12.0
    log.write()
    assert (lines()[3:], log.due_at()) == (["b (2 since the last such line): "], float("inf"))


def test_what_is_counted_while_another_thread_writes_is_due_later(lines: Lines) -> None:
    clock, woken = Clock(), []
    log = ThrottledLog(clock=clock, wake=lambda: woken.append(None))
    with log._busy:
        log.add("dropped", "full")
        assert (lines(), len(woken)) == ([], 1)
    assert log.due_at() <= clock.now
    log.write()
    assert (lines(), log.due_at()) == (["dropped: full"], float("inf"))


def test_a_log_that_can_be_written_no_more_keeps_nobody_busy() -> None:
    log = ThrottledLog(clock=Clock())
    with log._busy:
        log.add("dropped", "full")
        assert log.due_at() >= 1.0


def test_a_burst_that_many_threads_drop_is_told_to_the_last(rig: Rig, lines: Lines) -> None:
    emitter = hasty(rig.async_emitter(**SMALL))
    put(emitter)
    assert emitter.drain(DEADLINE) is True
    threads = [threading.Thread(target=oversize, args=(emitter, 500)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    def told() -> int:
        return sum(int(line.partition("(oversize) (")[2].partition(" ")[0] or 1) for line in lines())

    until(lambda: told() == 4000, 3 * INTERVAL + 2)
    assert emitter.stats().dropped_events["oversize"] == 4000


def test_a_retry_that_succeeds_late_is_no_reason_to_say_more(rig: Rig, lines: Lines) -> None:
    emitter = hasty(rig.emitter(batch_size=1, max_retry_delay_seconds=QUICK))
    rig.collector.respond(500, times=3)
    put(emitter)
    rig.collector.wait_for(1)
    until(lambda: len(lines()) == 2, INTERVAL + 2)
    threading.Event().wait(2 * INTERVAL)
    assert len(lines()) == 2
