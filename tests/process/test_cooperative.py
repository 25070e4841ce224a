"""What shares one thread among many, gevent and asyncio, is not held up. A heartbeat tells.

Another process may take the core from a heart for long, so a stall counts only when it comes in every round: a call
that blocks does so each time, as the last two tests show.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time

import pytest

from fastemit import AsyncEmitter, Emitter
from tests.support.delivery import Rig, put
from tests.support.hosts import needs_host
from tests.support.processes import WatchedScript
from tests.support.slow import slow_but

#: Seconds that a heart may stand still.
STALL = 0.05
ROUNDS = 6
ANSWERED_AFTER = 0.15

needs_gevent = needs_host("gevent")


PATCH = """
from gevent import monkey
monkey.patch_all()
import gevent
"""
HEART = f"""
def calmest_of(rounds, work):
    stalls = []
    for _ in range(rounds):
        beats = [time.monotonic()]
        def beat():
            while True:
                gevent.sleep(0.002)
                beats.append(time.monotonic())
        heart = gevent.spawn(beat)
        gevent.sleep(0.01)
        work()
        gevent.sleep(0.01)
        heart.kill()
        assert len(beats) > 2
        stalls.append(max(after - before for before, after in zip(beats, beats[1:])))
        if stalls[-1] < {STALL}:
            break
    return min(stalls)
"""

#: What is done with an emitter whose requests are answered after `ANSWERED_AFTER`.
WORK = {
    "send": """
        put(emitter, 20)
        until(lambda: emitter.stats().queued_events + emitter.stats().in_flight_events == 0)
        """,
    "flush": "put(emitter); emitter.flush()",
    "sync-flush-of-many-threads": "put(several, 30); several.sync_flush()",
    "retry": """
        put(failing)
        assert not failing.drain()
        until(lambda: failing.stats().failed_requests > seen[0] + 1)
        seen[0] = failing.stats().failed_requests
        """,
    "wait-for-room": "put(small, 5)",
    "close": """
        emitter = Emitter(URL)
        put(emitter)
        assert emitter.close() == 0
        """,
    "close-in-a-backoff": """
        emitter = Emitter("http://127.0.0.1:1")
        put(emitter)
        emitter.drain()
        assert emitter.close(0.2) == 3
        """,
    "flush-from-a-callback": """
        emitter = Emitter(URL, on_success=lambda _: emitter.flush())
        put(emitter)
        emitter.flush()
        emitter.close()
        """,
}


@needs_gevent
@pytest.mark.parametrize("work", slow_but(["send", "flush", "close"], WORK))
def test_a_greenlet_s_heart_does_not_stand_still(rig: Rig, run: WatchedScript, work: str) -> None:
    rig.collector.respond(delay=ANSWERED_AFTER, times=None)
    lines = "".join(f"    {line.strip()}\n" for line in WORK[work].strip().splitlines())
    assert run(
        f"""
emitter = Emitter(URL)
several = AsyncEmitter(URL, thread_count=3)
small = Emitter(URL, overflow="block", buffer_capacity=2)
failing = Emitter("http://127.0.0.1:1", max_retry_delay_seconds=0.1, shutdown_timeout=0)
seen = [0]
{HEART}
def work(emitter=emitter):
{lines}
stall = calmest_of({ROUNDS}, work)
assert stall < {STALL}, stall
""",
        PATCH,
    ).well


@needs_gevent
def test_events_of_many_greenlets_arrive_once(rig: Rig, run: WatchedScript) -> None:
    assert run(
        """
        emitter = Emitter(URL)
        jobs = [gevent.spawn(put, emitter, 100, 100 * job) for job in range(10)]
        gevent.joinall(jobs, raise_error=True)
        """,
        PATCH,
    ).well
    assert run.arrived == list(range(1000))


@needs_gevent
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_child_of_a_gevent_process_delivers(run: WatchedScript) -> None:
    assert run(
        """
        emitter = Emitter(URL)
        put(emitter)
        emitter.flush()
        child = os.fork()
        if child == 0:
            put(emitter, 3, 10)
            emitter.flush()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        PATCH,
    ).well
    assert run.arrived == [0, 1, 2, 10, 11, 12]


@needs_gevent
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_the_sender_of_a_parent_ends_in_its_child_without_a_word(run: WatchedScript) -> None:
    # Under gevent a child goes on with the greenlets of its parent. An idle sender sleeps until its timer.
    assert run(
        """
        import gc, gevent
        emitter = Emitter(URL)
        emitter.set_flush_timer(0.2)
        put(emitter)
        emitter.flush()
        senders = lambda: [g for g in gc.get_objects() if issubclass(type(g), gevent.Greenlet) and not g.ready()]
        assert len(senders()) == 1
        child = os.fork()
        if child == 0:
            for _ in range(100):
                if not senders():
                    break
                time.sleep(0.1)
            assert not senders()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        PATCH,
    ).well


@needs_gevent
def test_a_heart_stands_still_where_nothing_is_patched(rig: Rig, run: WatchedScript) -> None:
    rig.collector.respond(delay=ANSWERED_AFTER, times=None)
    assert run(f"""
import gevent
emitter = Emitter(URL)
{HEART}
def work():
    put(emitter)
    emitter.flush()
assert calmest_of(2, work) > {STALL}
""").well


# -- asyncio ---------------------------------------------------------------------------------------------------------


async def calmest_of(rounds: int, work: object) -> float:
    """The shortest of the longest stalls, one for each round, of a heart that beats while `work` runs."""
    stalls: list[float] = []
    for _ in range(rounds):
        beats = [time.monotonic()]

        async def beat(beats: list[float] = beats) -> None:
            while True:
                await asyncio.sleep(0.002)
                beats.append(time.monotonic())

        heart = asyncio.create_task(beat())
        await asyncio.sleep(0.01)
        await work()  # type: ignore[operator]
        await asyncio.sleep(0.01)
        heart.cancel()
        assert len(beats) > 2
        stalls.append(max(after - before for before, after in itertools.pairwise(beats)))
        if stalls[-1] < STALL:
            break
    return min(stalls)


@pytest.mark.parametrize("cls", [AsyncEmitter, Emitter])
@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
def test_input_under_load_does_not_stall_a_loop_while_the_collector_is_slow(
    rig: Rig, cls: type[Emitter], overflow: str
) -> None:
    rig.collector.respond(delay=ANSWERED_AFTER, times=None)
    emitter = rig.emitter(cls, overflow=overflow, buffer_capacity=500, batch_size=10)

    async def load() -> None:
        until = time.monotonic() + 0.25
        while time.monotonic() < until:
            put(emitter, 50)
            await asyncio.sleep(0)

    assert asyncio.run(calmest_of(ROUNDS, load)) < STALL
    stats = emitter.stats()
    assert stats.dropped_events["overflow"] > 0


def test_a_flush_in_a_thread_does_not_stall_a_loop(rig: Rig) -> None:
    rig.collector.respond(delay=ANSWERED_AFTER, times=None)
    emitter = rig.emitter()

    async def flush() -> None:
        put(emitter, 3)
        await asyncio.to_thread(emitter.flush)
        assert emitter.stats().queued_events == 0

    assert asyncio.run(calmest_of(ROUNDS, flush)) < STALL


def test_a_flush_in_the_loop_itself_stalls_it(rig: Rig) -> None:
    rig.collector.respond(delay=ANSWERED_AFTER, times=None)
    emitter = rig.emitter()

    async def flush() -> None:
        put(emitter, 3)
        emitter.flush()

    assert asyncio.run(calmest_of(2, flush)) > STALL
