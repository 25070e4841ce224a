"""`close` in a callback, which may not wait for the end: who does, and what ends it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import Any

import pytest

from fastemit import Emitter
from tests.support.delivery import DEADLINE, Rig, Running, numbers, put, senders
from tests.support.environment import environment
from tests.support.processes import watched
from tests.support.waiting import until

BACKGROUND = pytest.mark.parametrize("background", [True, False])


@pytest.fixture
def closing(rig: Rig) -> Any:
    """Makes an emitter whose callback has closed it while there is more to send."""

    def make(**settings: Any) -> Emitter:
        called = threading.Event()

        def on_success(_: list[dict[str, Any]]) -> None:
            emitter.close()
            called.set()

        emitter = rig.emitter(on_success=on_success, max_request_bytes=1024, **settings)
        put(emitter, 100)
        emitter.async_flush()
        assert called.wait(DEADLINE)
        return emitter

    return make


@BACKGROUND
@pytest.mark.parametrize("awaited", [False, True])
def test_the_next_close_waits_for_the_end(rig: Rig, closing: Any, background: bool, awaited: bool) -> None:
    rig.collector.respond(delay=0.05, times=None)
    emitter = closing(background=background)
    assert (asyncio.run(emitter.aclose()) if awaited else emitter.close()) == 0
    assert numbers(rig.collector.events) == list(range(100))


@pytest.mark.parametrize("awaited", [False, True])
def test_only_one_more_waits_and_tells(rig: Rig, closing: Any, awaited: bool, caplog: pytest.LogCaptureFixture) -> None:
    rig.collector.respond()
    rig.collector.respond(hang=True)
    emitter = closing()

    async def twice() -> None:
        await asyncio.gather(emitter.aclose(0.3), emitter.aclose(0.3))

    with caplog.at_level(logging.WARNING):
        if awaited:
            asyncio.run(twice())
        else:
            both = [Running(lambda: emitter.close(0.3)) for _ in range(2)]
            assert [each.result() > 0 for each in both] == [True, True]
    assert sum("closed with" in line for line in caplog.messages) == 1


@BACKGROUND
def test_a_callback_that_closes_at_each_failure_ends_the_close_in_its_time(rig: Rig, background: bool) -> None:
    rig.collector.respond(503, times=None)
    emitter = rig.emitter(background=background, on_failure=lambda *_: emitter.close(0.2))
    put(emitter)
    emitter.async_flush()
    rig.collector.wait_for_requests(1)
    if not background:
        assert emitter.close(0.2) == 1
    until(lambda: not any(each in rig.new_threads() for each in senders()))
    # The attempts before a deadline come faster, but not without a pause.
    assert len(rig.collector.requests) < 20
    assert emitter.stats().queued_events == 1


def test_the_end_of_the_process_ends_a_close_that_nobody_waits_for(rig: Rig) -> None:
    rig.collector.respond(503, times=None)
    script = f"""
import logging, fastemit
logging.basicConfig()
e = fastemit.Emitter({rig.collector.url!r}, background=False, on_failure=lambda *_: e.close(0.2), shutdown_timeout=0.2)
e.input({{"n": 1}})
e.flush()
"""
    with watched([sys.executable, "-c", script], env=environment()) as program:
        done = program.wait()
    assert "closed with 1 event left, which is lost when the process ends" in done.stderr
    assert "were not flushed" not in done.stderr
