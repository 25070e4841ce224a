"""A fork in whatever state the parent is. Both deliver their own events, each once, and neither hangs."""

from __future__ import annotations

import os
import sys

import pytest

from tests.support.delivery import Rig
from tests.support.processes import WatchedScript
from tests.support.slow import slow

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")

#: Forks of the loop; the second number is that of `make test-slow`.
FORKS = [20, slow(int(os.environ.get("FASTEMIT_FORKS", "200")))]


# What the parent is at when it forks, with the events 0, 1 and 2.
IN_FLIGHT = """
threading.Thread(target=emitter.flush).start()
until(lambda: emitter.stats().in_flight_events > 0)
"""

STATES = {
    "idle": "put(emitter); assert emitter.drain(10)",
    "queued": "put(emitter)",
    "in-flight": "put(emitter)" + IN_FLIGHT,
    "in-flight-and-queued": "put(emitter, 2)" + IN_FLIGHT + "put(emitter, 1, 2)",
    "backoff": "put(emitter); assert not emitter.drain(10); assert emitter.retry_delay > 0",
    "probe": "put(emitter); assert not emitter.drain(10)" + IN_FLIGHT,
    "closing": "put(emitter)" + IN_FLIGHT.replace("emitter.flush", "emitter.close"),
    # Those in flight fill it up.
    "waiting-for-room": "put(emitter)" + IN_FLIGHT + "threading.Thread(target=put, args=(emitter, 1, 3)).start()",
}

KINDS = ["background=False", "method='get'", "flush_interval=5", "event_store=Store()"]

CASES = [(state, "") for state in STATES] + [slow("in-flight", kind) for kind in KINDS]

CHILD = """
forked_at = time.monotonic()
child = os.fork()
if child == 0:
    assert time.monotonic() - forked_at < 1
    if CLOSING:
        # The close that the parent has begun holds here too.
        put(emitter, 3, 50)
        assert emitter.stats().dropped_events["closed"] == 3
        emitter = Emitter(URL)
    stats = emitter.stats()
    assert (stats.queued_events, stats.in_flight_events, stats.requests, stats.retry_delay) == (0, 0, 0, 0)
    put(emitter, 3, 10)
    assert emitter.drain(10)
    put(emitter, 3, 13)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize(("state", "kind"), CASES, ids=[*STATES, *KINDS])
def test_parent_and_child_deliver_their_own_events_once(rig: Rig, run: WatchedScript, state: str, kind: str) -> None:
    if state in ("backoff", "probe"):
        rig.collector.respond(503)
    if state not in ("idle", "queued", "backoff"):
        rig.collector.respond(delay=0.25)
    full = state == "waiting-for-room"
    script = f"""
from fastemit import InMemoryEventStore
class Store(InMemoryEventStore):
    pass
CLOSING = {state == "closing"}
settings = dict({kind})
settings.setdefault("batch_size", 1000)
emitter = Emitter(URL, buffer_capacity={3 if full else 1000}, overflow="block", max_retry_delay_seconds=0.2, **settings)
{STATES[state]}
{CHILD}
"""
    assert run(script).well
    assert run.arrived == [0, 1, 2, *([3] if full else []), *range(10, 16)]


@pytest.mark.parametrize("forks", FORKS)
def test_forks_in_a_loop_under_load_lose_and_double_nothing(run: WatchedScript, forks: int) -> None:
    script = f"""
    FORKS = {forks}
    emitter = AsyncEmitter(URL, thread_count=2, overflow="block")
    over = threading.Event()
    def load(first):
        number = first
        while not over.is_set():
            put(emitter, 1, number)
            number += 1
            over.wait(0.001)
        counts.append(number - first)
    counts = []
    threads = [threading.Thread(target=load, args=(1_000_000 * n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    running = []
    for number in range(FORKS):
        child = os.fork()
        if child == 0:
            put(emitter, 2, 2 * number)
            left = emitter.close()
            os._exit(left)
        running.append(child)
        if len(running) == 4:
            assert os.waitpid(running.pop(0), 0)[1] == 0
    for child in running:
        assert os.waitpid(child, 0)[1] == 0
    over.set()
    for thread in threads:
        thread.join()
    print(*sorted(counts))
    the_end()
    """
    ended = run(script)
    assert ended.well
    arrived = run.arrived
    assert len(arrived) == len(set(arrived))
    assert [number for number in arrived if number < 1_000_000] == list(range(2 * forks))
    counts = [sum(first <= number < first + 1_000_000 for number in arrived) for first in (1_000_000, 2_000_000)]
    assert sorted(counts) == [int(count) for count in ended.lines[0].split()]


def test_threads_that_fork_at_once_lose_and_double_nothing(run: WatchedScript) -> None:
    assert run("""
    emitter = Emitter(URL, batch_size=3)
    failures = []
    start = threading.Barrier(5)
    def forking(thread):
        start.wait()
        for number in range(5):
            put(emitter, 1, 1000 + 10 * thread + number)
            child = os.fork()
            if child == 0:
                put(emitter, 1, 10 * thread + number)
                emitter.flush()
                os._exit(0)
            failures.append(os.waitpid(child, 0)[1])
    threads = [threading.Thread(target=forking, args=(thread,)) for thread in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [0] * 25
    """).well
    assert run.arrived == [start + 10 * t + n for start in (0, 1000) for t in range(5) for n in range(5)]


@pytest.mark.slow
def test_the_memory_of_a_parent_that_forks_on_and_on_stays_where_it_is(run: WatchedScript) -> None:
    assert run("""
    def memory():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    emitter = Emitter(URL)
    def round(count):
        for number in range(count):
            put(emitter, 20)
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            emitter.flush()
    round(50)
    before = memory()
    round(150)
    assert memory() - before < 1 << 20, memory() - before
    """).well


def test_children_of_children_that_fork_in_flight_keep_at_most_one_request_s_memory_each(
    rig: Rig, run: WatchedScript
) -> None:
    """A thread that the fork has ended never lets go of what it was at, Python's own frames neither."""
    rig.collector.respond(delay=0.05, times=None)
    assert run("""
    def memory():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    emitter = AsyncEmitter(URL, batch_size=10_000)
    started = memory()
    GENERATIONS = 20
    for generation in range(GENERATIONS):
        for number in range(100):
            emitter.input({"n": 0, "text": "x" * 8000})
        emitter.async_flush()
        until(lambda: emitter.stats().in_flight_events == 100)
        child = os.fork()
        if child:
            status = os.waitpid(child, 0)[1]
            os._exit(os.waitstatus_to_exitcode(status))
    grown = memory() - started
    assert grown < (GENERATIONS + 2) * 900_000 + (4 << 20)
    os._exit(0)
    """).well
