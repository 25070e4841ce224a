"""Children of fork and of multiprocessing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.delivery import Rig, Script

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


@pytest.fixture
def run(rig: Rig, tmp_path: Path) -> Script:
    return Script(rig, tmp_path)


# -- children of multiprocessing and of fork -------------------------------------------------------------------------


@pytest.mark.parametrize("method", [pytest.param("fork", marks=needs_fork), "spawn"])
def test_a_child_of_multiprocessing_delivers_when_it_ends(run: Script, method: str) -> None:
    script = f"""
    import multiprocessing

    def child(url):
        emitter = Emitter(url)
        put(emitter, 3, 10)

    if __name__ == "__main__":
        process = multiprocessing.get_context("{method}").Process(target=child, args=(URL,))
        process.start()
        process.join()
        assert process.exitcode == 0
    """
    # A spawned child gets no arguments.
    assert run(script, "import sys\nsys.argv += ['']\n").well
    assert run.arrived == [10, 11, 12]


@needs_fork
def test_a_forked_child_of_multiprocessing_uses_its_parent_s_emitter(run: Script) -> None:
    assert run("""
    import multiprocessing
    emitter = Emitter(URL)
    put(emitter)
    process = multiprocessing.get_context("fork").Process(target=put, args=(emitter, 3, 10))
    process.start()
    process.join()
    """).well
    assert run.arrived == [0, 1, 2, 10, 11, 12]


@needs_fork
@pytest.mark.parametrize("settings", ["", "batch_size=2", "background=False", "flush_interval=0.05"])
def test_a_forked_child_starts_empty_and_sends_its_own(run: Script, settings: str) -> None:
    assert run(f"""
    emitter = Emitter(URL, {settings})
    put(emitter)
    child = os.fork()
    if child == 0:
        stats = emitter.stats()
        assert (stats.queued_events, stats.in_flight_events, stats.sent_events, stats.requests) == (0, 0, 0, 0)
        put(emitter, 3, 10)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """).well
    assert run.arrived == [0, 1, 2, 10, 11, 12]


@needs_fork
def test_a_timer_holds_in_a_forked_child(run: Script) -> None:
    assert run("""
    emitter = Emitter(URL, flush_interval=0.05)
    put(emitter)
    emitter.flush()
    child = os.fork()
    if child == 0:
        put(emitter, 3, 10)
        until(lambda: emitter.stats().sent_events == 3)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """).well
    assert run.arrived == [0, 1, 2, 10, 11, 12]


@needs_fork
def test_a_forked_child_has_connections_of_its_own(run: Script) -> None:
    assert run("""
    emitter = Emitter(URL)
    put(emitter, 1, 0)
    emitter.flush()
    child = os.fork()
    if child == 0:
        put(emitter, 1, 1)
        assert emitter.drain()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    put(emitter, 1, 2)
    assert emitter.drain()
    """).well
    # The parent's goes on as if nothing had happened.
    assert [request.connection for request in run.collector.requests] == [1, 2, 1]


@needs_fork
def test_a_fork_does_not_wait_for_a_request_in_flight(run: Script) -> None:
    assert run("""
    import socket
    silent = socket.create_server(("127.0.0.1", 0))
    stuck = Emitter("http://127.0.0.1:%d" % silent.getsockname()[1], batch_size=1, shutdown_timeout=0.3)
    emitter = Emitter(URL)
    put(stuck, 1)
    until(lambda: stuck.stats().in_flight_events == 1)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        assert time.monotonic() - started < 0.5
        assert stuck.stats().in_flight_events == 0
        put(emitter, 3, 10)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    stuck.close(0)
    """).well
    assert run.arrived == [10, 11, 12]


@needs_fork
def test_a_callback_may_fork(run: Script) -> None:
    assert run("""
    children = []
    def fork(events):
        if not children:
            children.append(os.fork())
            if children[0] == 0:
                put(emitter, 3, 10)
                assert emitter.drain(5)
                assert emitter.close(5) == 0
                os._exit(0)
    emitter = Emitter(URL, on_success=fork)
    put(emitter)
    emitter.flush()
    put(emitter, 2, 3)
    assert emitter.drain(5)
    assert os.waitpid(children[0], 0)[1] == 0
    """).well
    assert run.arrived == [0, 1, 2, 3, 4, 10, 11, 12]


@needs_fork
def test_a_child_that_comes_back_from_the_callback_that_forked_it_sends_nothing_twice(run: Script) -> None:
    assert run("""
    import logging
    logging.basicConfig()
    children = []
    def fork(events):
        if not children:
            children.append(os.fork())
    emitter = Emitter(URL, on_success=fork, batch_size=2)
    put(emitter, 20)
    assert emitter.drain(5)
    os.waitpid(children[0], 0)
    """).well
    assert run.arrived == list(range(20))


@needs_fork
def test_a_child_that_comes_back_from_a_callback_in_the_calling_thread_goes_on(run: Script) -> None:
    assert run("""
    children = []
    def fork(events):
        if not children:
            children.append(os.fork())
    emitter = Emitter(URL, on_success=fork, background=False)
    put(emitter)
    emitter.flush()
    if children[0] == 0:
        put(emitter, 3, 10)
        assert emitter.drain()
        os._exit(0)
    assert os.waitpid(children[0], 0)[1] == 0
    """).well
    assert run.arrived == [0, 1, 2, 10, 11, 12]


@needs_fork
def test_many_children_and_their_children_deliver(run: Script) -> None:
    assert run("""
    emitter = Emitter(URL, batch_size=1)
    put(emitter, 1, 0)
    number = 0
    for generation in range(3):
        child = os.fork()
        if child == 0:
            number += 1 << generation
            put(emitter, 1, number)
        else:
            put(emitter, 1, 100 + 10 * generation + number)
    while True:
        try:
            assert os.wait()[1] == 0
        except ChildProcessError:
            break
    """).well
    parents = [100, 110, 111, 120, 121, 122, 123]
    assert run.arrived == [*range(8), *parents]
