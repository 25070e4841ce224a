"""`aflush`, `adrain`, `aclose` and `async with`, on the loops of asyncio and uvloop."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fastemit import AsyncEmitter, CeleryEmitter, Emitter, RedisEmitter
from fastemit.testing import Collector
from tests.conftest import MakeEmitter
from tests.support.celery_workers import app_of
from tests.support.delivery import DEADLINE, Rig, numbers, put, within
from tests.support.emitters import QUICK

if sys.platform != "win32":
    import uvloop

    LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop,
        "uvloop": uvloop.new_event_loop,
    }
else:
    LOOPS = {"asyncio": asyncio.new_event_loop}

KINDS: dict[str, tuple[type[Emitter], dict[str, Any]]] = {
    "Emitter": (Emitter, {}),
    "AsyncEmitter": (AsyncEmitter, {"thread_count": 3}),
    "GET": (Emitter, {"method": "get"}),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in a loop of its own, to its end, and then closes the loop."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        loop = LOOPS[request.param]()
        faults: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: faults.append(context))
        try:
            return loop.run_until_complete(asyncio.wait_for(coroutine, 2 * DEADLINE))
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            assert faults == []

    return run


def make(rig: Rig, kind: str, **settings: Any) -> Any:
    cls, own = KINDS[kind]
    return rig.emitter(cls, **{"overflow": "drop_newest", **own, **settings})


def threads() -> int:
    """How many there are, the collector's not counted."""
    return sum(not thread.name.startswith("collector") for thread in threading.enumerate())


def answers_later(rig: Rig) -> threading.Event:
    """The first request is answered once this is set."""
    gate = threading.Event()
    rig.collector.respond(lambda _: 200 if gate.wait(DEADLINE) else 500)
    return gate


async def heart(beats: list[None]) -> None:
    while True:
        beats.append(None)
        await asyncio.sleep(0.001)


async def beside_a_heart(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, int]:
    """The result, and how often the loop came round meanwhile."""
    beats: list[None] = []
    beating = asyncio.ensure_future(heart(beats))
    try:
        return await coroutine, len(beats)
    finally:
        beating.cancel()


@EACH_KIND
def test_it_waits_until_everything_is_sent_and_the_loop_goes_on(rig: Rig, run: Run, kind: str) -> None:
    rig.collector.respond(delay=0.2)
    emitter = make(rig, kind)

    async def program() -> None:
        put(emitter, 5)
        nothing, beats = await beside_a_heart(emitter.aflush())
        assert nothing is None
        assert beats > 20

    run(program())
    assert numbers(rig.collector.events) == list(range(5))


@EACH_KIND
def test_a_failure_that_keeps_events_ends_it(rig: Rig, run: Run, kind: str) -> None:
    rig.collector.respond(503, times=None)
    emitter = make(rig, kind)
    put(emitter, 3)
    with within(DEADLINE / 2):
        assert run(emitter.adrain()) is False
    rig.collector.reset()
    assert run(emitter.adrain(DEADLINE)) is True
    assert numbers(rig.collector.events) == list(range(3))


@EACH_KIND
def test_with_retry_it_goes_on_until_all_is_sent(rig: Rig, run: Run, kind: str) -> None:
    rig.collector.respond(503, times=4)
    emitter = make(rig, kind, max_retry_delay_seconds=QUICK)
    put(emitter, 3)
    assert run(emitter.adrain(DEADLINE, retry=True)) is True
    assert sorted(numbers(rig.collector.events)) == list(range(3))


def test_the_time_is_kept(rig: Rig, run: Run) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = make(rig, "Emitter")
    put(emitter, 3)
    with within(DEADLINE / 2, at_least=0.19):
        assert run(emitter.adrain(0.2)) is False
    with within(DEADLINE / 2, at_least=0.19):
        assert run(emitter.aflush(0.2)) is None


def test_with_nothing_to_wait_for_it_returns_at_once_and_starts_no_thread(rig: Rig, run: Run) -> None:
    emitter = make(rig, "Emitter")
    before = threads()
    assert run(emitter.adrain()) is True
    assert threads() == before


def test_no_thread_is_taken_for_a_thousand_waits(rig: Rig, run: Run) -> None:
    gate = answers_later(rig)
    emitter = make(rig, "Emitter")

    async def program() -> list[bool]:
        put(emitter, 5)
        before = threads()
        waits = [asyncio.ensure_future(emitter.adrain()) for _ in range(1000)]
        await asyncio.sleep(0)
        assert threads() == before
        assert len(emitter._delivery._courier.flushes) == 1000
        gate.set()
        return list(await asyncio.gather(*waits))

    assert run(program()) == [True] * 1000
    assert emitter._delivery._courier.flushes == []


@pytest.mark.parametrize("retry", [False, True])
def test_a_cancelled_wait_leaves_no_trace(rig: Rig, run: Run, retry: bool) -> None:
    gate = answers_later(rig)
    emitter = make(rig, "Emitter")

    async def program() -> None:
        put(emitter, 5)
        wait = asyncio.ensure_future(emitter.adrain(retry=retry))
        await asyncio.sleep(0)
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        assert emitter._delivery._courier.flushes == []
        assert emitter._delivery._schedule.insist_upto == 0
        gate.set()
        assert await emitter.adrain(DEADLINE)

    run(program())
    assert numbers(rig.collector.events) == list(range(5))


def test_a_loop_that_is_closed_before_the_answer_does_no_harm(
    rig: Rig, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    gate = answers_later(rig)
    emitter = make(rig, "Emitter")
    put(emitter, 5)
    loop = asyncio.new_event_loop()
    wait = loop.create_task(emitter.adrain())
    loop.run_until_complete(asyncio.sleep(0))
    assert len(emitter._delivery._courier.flushes) == 1
    loop.close()
    gate.set()
    assert emitter.drain(DEADLINE)
    assert caplog.records == []
    # Python would complain of a task that nobody has ended.
    wait._log_destroy_pending = False  # type: ignore[attr-defined]
    put(emitter, 5, 5)
    assert run(emitter.adrain(DEADLINE)) is True
    assert numbers(rig.collector.events) == list(range(10))


@EACH_KIND
def test_aclose_sends_what_is_left_and_ends_the_threads(rig: Rig, run: Run, kind: str) -> None:
    rig.collector.respond(delay=0.2)
    emitter = make(rig, kind)

    async def program() -> None:
        put(emitter, 5)
        left, beats = await beside_a_heart(emitter.aclose())
        assert left == 0
        assert beats > 20
        assert await emitter.aclose() == 0

    run(program())
    emitter.input({"n": "late"})
    assert emitter.stats().dropped_events["closed"] == 1
    assert numbers(rig.collector.events) == list(range(5))


def test_aclose_keeps_its_time_and_tells_what_is_left(rig: Rig, run: Run) -> None:
    rig.collector.respond(hang=True, times=None)
    emitter = make(rig, "Emitter")
    put(emitter, 5)
    with within(DEADLINE / 2, at_least=0.19):
        assert run(emitter.aclose(0.2)) == 5


def test_a_cancelled_aclose_leaves_the_rest_to_the_senders(rig: Rig, run: Run) -> None:
    gate = answers_later(rig)
    emitter = make(rig, "Emitter", shutdown_timeout=DEADLINE)

    async def program() -> None:
        put(emitter, 5)
        wait = asyncio.ensure_future(emitter.aclose())
        await asyncio.sleep(0)
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait

    run(program())
    assert emitter._delivery._workers.closers == []
    gate.set()
    assert numbers(rig.collector.wait_for(5)) == list(range(5))


def test_async_with_closes(rig: Rig, run: Run) -> None:
    async def program() -> Emitter:
        async with make(rig, "Emitter") as emitter:
            put(emitter, 5)
        return emitter  # type: ignore[no-any-return]

    emitter = run(program())
    assert numbers(rig.collector.events) == list(range(5))
    emitter.input({"n": "late"})
    assert emitter.stats().dropped_events["closed"] == 1


def test_without_background_the_call_sends_and_a_backoff_leaves_the_loop_free(rig: Rig, run: Run) -> None:
    rig.collector.respond(503, times=2)
    emitter = make(rig, "Emitter", background=False, max_retry_delay_seconds=0.3)
    emitter._delivery._schedule.backoff._chance = lambda: 0.999
    before = threads()

    async def program() -> int:
        put(emitter, 5)
        done, beats = await beside_a_heart(emitter.adrain(DEADLINE, retry=True))
        assert done is True
        assert threads() == before
        return int(beats)

    assert run(program()) > 20
    assert numbers(rig.collector.events) == list(range(5))
    assert run(emitter.aclose()) == 0


def test_a_redis_emitter_has_them_too(run: Run, rdb: Any) -> None:
    async def program() -> None:
        async with RedisEmitter(rdb, batch_size=100) as emitter:
            emitter.input({"n": "1"})
            assert await emitter.adrain(DEADLINE)
            assert rdb.llen("snowplow") == 1
            emitter.input({"n": "2"})
            await emitter.aflush()
            assert rdb.llen("snowplow") == 2
            emitter.input({"n": "3"})
        assert rdb.llen("snowplow") == 3

    run(program())


def test_a_celery_emitter_has_them_too(run: Run) -> None:
    async def program() -> None:
        async with CeleryEmitter("collector.example.com", celery_app=app_of("memory://"), batch_size=100) as emitter:
            for number in range(3):
                emitter.input({"n": str(number)})
            assert await emitter.adrain(DEADLINE)
            assert emitter.stats().sent_events == 3
            emitter.input({"n": "3"})
            await emitter.aflush()
            assert emitter.stats().sent_events == 4

    run(program())


def test_wrong_arguments_are_named(rig: Rig, run: Run) -> None:
    emitter = make(rig, "Emitter")
    for call in (emitter.aflush, emitter.adrain, emitter.aclose):
        with pytest.raises(ValueError, match="timeout"):
            run(call(-1))
    with pytest.raises(TypeError, match="retry"):
        run(emitter.adrain(retry="yes"))


def test_an_emitter_that_was_never_made_closes(run: Run) -> None:
    assert run(Emitter.__new__(Emitter).aclose()) == 0


def test_asyncio_is_imported_by_who_waits(make_emitter: MakeEmitter, collector: Collector) -> None:
    from tests.support.environment import output_of

    program = """
import sys
from fastemit import Emitter
Emitter("http://127.0.0.1:1").close()
print("asyncio" in sys.modules)
"""
    assert output_of(program) == "False"
