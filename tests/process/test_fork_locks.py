"""A fork while something holds a lock, has to be done once, or keeps a connection: the child is not hurt by it."""

from __future__ import annotations

import sys

import pytest

from tests.support.delivery import Rig
from tests.support.processes import WatchedScript
from tests.support.slow import slow

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


# -- what else holds locks, or has to be done once -------------------------------------------------------------------


def test_a_child_logs_although_a_thread_of_the_parent_was_in_a_log_handler(rig: Rig, run: WatchedScript) -> None:
    assert run("""
    import logging
    entered, leave = threading.Event(), threading.Event()
    class Slow(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())
            if record.threadName == "slow":
                entered.set()
                leave.wait()
    lines = []
    logging.getLogger("fastemit").addHandler(Slow())
    threading.Thread(target=logging.getLogger("fastemit").warning, args=("parent",), name="slow").start()
    assert entered.wait(5)
    emitter = Emitter("http://127.0.0.1:1")
    put(emitter)
    child = os.fork()
    if child == 0:
        lines.clear()
        put(emitter)
        assert not emitter.drain(5)
        assert len(lines) == 1 and "request failed" in lines[0], lines
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    leave.set()
    emitter.close(0)
    """).well


def test_a_fork_while_a_sender_is_in_a_log_handler_hangs_nobody(rig: Rig, run: WatchedScript) -> None:
    rig.collector.respond(500, accept=False)
    assert run("""
    import logging
    entered, leave = threading.Event(), threading.Event()
    class Slow(logging.Handler):
        def emit(self, record):
            if not entered.is_set():
                entered.set()
                leave.wait()
    logging.getLogger("fastemit").addHandler(Slow())
    emitter = Emitter(URL, max_retry_delay_seconds=0.1)
    put(emitter)
    emitter.async_flush()
    assert entered.wait(5)
    child = os.fork()
    if child == 0:
        put(emitter, 3, 10)
        assert emitter.drain(5)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    leave.set()
    """).well
    assert run.arrived == [0, 1, 2, 10, 11, 12]


def test_an_event_of_a_fork_hook_that_runs_before_fastemit_s_is_the_child_s(run: WatchedScript) -> None:
    preamble = """
    import os, threading  # whose own hook comes first: it takes threads that others start before it for dead
    os.register_at_fork(after_in_child=lambda: put(emitter, 1, 10))
    """
    script = """
    os.register_at_fork(after_in_child=lambda: put(emitter, 1, 11))
    emitter = Emitter(URL)
    put(emitter)
    child = os.fork()
    if child == 0:
        assert emitter.stats().queued_events == 2
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    assert run(script, preamble).well
    assert run.arrived == [0, 1, 2, 10, 11]


@pytest.mark.parametrize("when", ["before", "after_in_parent"])
def test_events_of_the_parent_s_fork_hooks_are_the_parent_s(run: WatchedScript, when: str) -> None:
    assert run(f"""
    emitter = Emitter(URL)
    os.register_at_fork({when}=lambda: put(emitter))
    child = os.fork()
    if child == 0:
        assert emitter.stats().queued_events == 0
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """).well
    assert run.arrived == [0, 1, 2]


def test_a_child_notices_its_fork_once(run: WatchedScript) -> None:
    assert run("""
    from fastemit._process import lifecycle
    emitter = Emitter(URL)
    put(emitter)
    child = os.fork()
    if child == 0:
        put(emitter, 3, 10)
        lifecycle._in_child()
        assert emitter.stats().queued_events == 3
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """).well
    assert run.arrived == [0, 1, 2, 10, 11, 12]


# -- connections -----------------------------------------------------------------------------------------------------

THROUGH = {
    "session": "import requests; thing = requests.Session(); emitter = Emitter(URL, session=thing)",
    "pool_manager": "import urllib3; thing = urllib3.PoolManager(); emitter = Emitter(URL, pool_manager=thing)",
}


@pytest.mark.parametrize("through", THROUGH)
def test_a_child_does_not_use_the_parent_s_connections_of_a_user_s(run: WatchedScript, through: str) -> None:
    assert run(f"""
    {THROUGH[through]}
    put(emitter, 1, 0)
    assert emitter.drain(5)
    child = os.fork()
    if child == 0:
        put(emitter, 1, 1)
        assert emitter.drain(5)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    put(emitter, 1, 2)
    assert emitter.drain(5)
    """).well
    assert [request.connection for request in run.collector.requests] == [1, 2, 1]


def test_a_pool_manager_that_only_looks_like_urllib3_s_goes_on_in_a_child(run: WatchedScript) -> None:
    assert run("""
    import urllib3
    class Manager:
        pools = {}
        def __init__(self):
            self._inner = urllib3.PoolManager()
        def urlopen(self, *args, **kwargs):
            return self._inner.urlopen(*args, **kwargs)
        def clear(self):
            self._inner.clear()
    emitter = Emitter(URL, pool_manager=Manager())
    other = Emitter(URL)
    put(emitter, 1, 0)
    child = os.fork()
    if child == 0:
        put(other, 1, 10)
        put(emitter, 1, 11)
        assert other.drain(5) and emitter.drain(5)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """).well
    assert run.arrived == [0, 10, 11]


def test_a_fork_while_another_thread_holds_the_session_s_cookies_hangs_nobody(run: WatchedScript) -> None:
    assert run("""
    import requests
    session = requests.Session()
    emitter = Emitter(URL, session=session, background=False)
    held, leave = threading.Event(), threading.Event()
    def hold():
        with session.cookies._cookies_lock:
            held.set()
            leave.wait()
    threading.Thread(target=hold).start()
    assert held.wait(5)
    child = os.fork()
    if child == 0:
        put(emitter)
        assert emitter.drain(5)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    leave.set()
    """).well
    assert run.arrived == [0, 1, 2]


@pytest.mark.parametrize("answer", [{"status": 200}, {"status": 503, "retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}])
@pytest.mark.parametrize("settings", ["", "session=requests.Session()", slow("method='get'")])
def test_a_request_imports_nothing(rig: Rig, run: WatchedScript, settings: str, answer: dict[str, str | int]) -> None:
    """A fork in the middle of an import would leave a lock in the child that nobody will ever release."""
    headers = {"Retry-After": str(answer["retry_after"])} if "retry_after" in answer else {}
    rig.collector.respond(int(answer["status"]), headers=headers, interim=(103,))
    rig.collector.respond(hang_up=True)
    assert run(f"""
    {"import requests" if "session" in settings else ""}
    emitter = Emitter(URL.replace("127.0.0.1", "localhost"), {settings})
    put(emitter, 1)
    before = set(sys.modules)
    for _ in range(3):
        emitter.drain(5)
        put(emitter, 1)
    assert set(sys.modules) == before, set(sys.modules) - before
    """).well
