"""Exit handlers that run after fastemit's own, because they were registered before `import fastemit`."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.support.delivery import Ended, Rig
from tests.support.environment import environment
from tests.support.hosts import needs_host
from tests.support.processes import WatchedScript
from tests.support.pythons import RUNNING, prepared, pythons
from tests.support.slow import slow, slow_but

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the watchdog of these programs is a process group")

#: Handlers run last in, first out: this one runs after all that is registered later.
FIRST = """
import atexit, logging, sys
logging.basicConfig(format="%(message)s")
atexit.register(lambda: last())
"""
STORE = """
class Store:
    def __init__(self): self.events = []
    def add_event(self, event): self.events.append(event)
    def get_events_batch(self):
        batch, self.events = self.events, []
        return batch
    def cleanup(self, batch, need_retry):
        if need_retry: self.events += batch
    def size(self): return len(self.events)
"""
EMITTERS = {
    "post": "Emitter(URL)",
    "get": "Emitter(URL, method='get', batch_size=10)",
    "several-threads": "AsyncEmitter(URL, thread_count=3)",
    "timer": "Emitter(URL, flush_interval=0.01)",
    "store": "Emitter(URL, event_store=Store())",
    "inline": "Emitter(URL, background=False)",
    "inline-get": "Emitter(URL, background=False, method='get', batch_size=10)",
    "inline-store": "Emitter(URL, background=False, event_store=Store())",
}
FLUSHES = ["flush()", "sync_flush()", "async_flush()", "drain()", "drain(5)", "close()"]
UNSENT = "the process ends with 2 events that came last and were not flushed, and are lost\n"
PYTHONS = pytest.mark.parametrize("version", slow_but([RUNNING], sorted(pythons())))


@pytest.mark.parametrize("before", [0, slow(3)])
@pytest.mark.parametrize("emitter", EMITTERS.values(), ids=EMITTERS)
def test_what_a_later_exit_handler_flushes_is_sent(run: WatchedScript, emitter: str, before: int) -> None:
    script = f"""
    emitter = {emitter}
    put(emitter, {before})
    def last():
        put(emitter, 2, {before})
        emitter.flush()
        assert emitter.stats().sent_events == {before + 2}
    """
    assert run(script, FIRST + STORE).well
    assert run.arrived == list(range(before + 2))


@PYTHONS
def test_what_a_later_exit_handler_flushes_is_sent_on_each_python(run: WatchedScript, version: str) -> None:
    script = f"emitters = [{', '.join(EMITTERS.values())}]\n" + (
        "for n, e in enumerate(emitters): put(e, 3, 10 * n)\n"
        "def last():\n    for n, e in enumerate(emitters): put(e, 2, 10 * n + 3); e.flush()\n"
    )
    path = environment(PYTHONPATH=prepared(version))
    assert run(script, FIRST + STORE, python=pythons()[version], env=path).well
    assert run.arrived == [10 * number + event for number in range(len(EMITTERS)) for event in range(5)]


@pytest.mark.parametrize("flush", slow_but(["flush()", "drain(5)", "close()"], FLUSHES))
def test_every_way_to_flush_sends_in_the_handler_s_own_thread(run: WatchedScript, flush: str) -> None:
    script = f"""
    emitter = AsyncEmitter(URL, on_success=lambda _: threads.add(threading.get_ident()))
    threads = set()
    put(emitter, 3)
    def last():
        threads.clear()
        put(emitter, 2, 3)
        emitter.{flush}
        assert threads == {{threading.get_ident()}}
    """
    assert run(script, FIRST).well
    assert run.arrived == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("settings", ["", ", background=False"])
def test_an_emitter_that_a_later_exit_handler_makes_sends(run: WatchedScript, settings: str) -> None:
    assert run(f"def last():\n    with Emitter(URL{settings}) as emitter: put(emitter, 2)", FIRST).well
    assert run.arrived == [0, 1]


@PYTHONS
@pytest.mark.parametrize(
    "script",
    [
        "emitter = Emitter(URL)\nput(emitter, 3)\ndef last(): put(emitter, 2, 3)",
        "emitter = Emitter(URL)\ndef last(): put(emitter, 2, 3)",
        "def last(): put(Emitter(URL), 2, 3)",
        "emitter = Emitter(URL, background=False)\nput(emitter, 3)\ndef last(): put(emitter, 2, 3)",
        "import types\nmine = sys.modules['mine'] = types.ModuleType('mine')\nmine.emitter = Emitter(URL)\n"
        "def last(): put(mine.emitter, 2, 3)",
        "class Owner:\n    def called(self, _): pass\nowner = Owner()\n"
        "owner.emitter = Emitter(URL, on_success=owner.called)\nput(owner.emitter)\n"
        "def last(): put(owner.emitter, 2, 3)",
    ],
    ids=["used", "unused", "new", "inline", "of-a-module", "cycle"],
)
def test_what_nobody_flushes_is_counted_and_logged(run: WatchedScript, version: str, script: str) -> None:
    path = environment(PYTHONPATH=prepared(version))
    ended = run(script, FIRST, python=pythons()[version], env=path)
    assert (ended.status, ended.errors) == (0, UNSENT)


def test_what_nobody_flushes_of_a_store_of_the_user_s_stays_there(run: WatchedScript) -> None:
    script = "emitter = Emitter(URL, event_store=Store())\nput(emitter)\ndef last(): put(emitter, 2, 3)"
    assert run(script, FIRST + STORE).errors == UNSENT.replace("are lost", "stay in the event store")


@pytest.mark.parametrize("name", ["mine", "fastemit-sender-0"])
def test_a_log_handler_that_a_thread_holds_for_ever_does_not_hold_up_the_end(run: WatchedScript, name: str) -> None:
    # Python's own exit handler of logging waits for it, too.
    preamble = "import atexit, logging\natexit.unregister(logging.shutdown)\n" + FIRST
    script = f"""
    def hold():
        logging.root.handlers[0].acquire()
        held.set()
        threading.Event().wait()
    held = threading.Event()
    threading.Thread(target=hold, name="{name}", daemon=True).start()
    held.wait()
    emitter = Emitter(URL)
    def last():
        put(emitter, 2)
    """
    assert run(script, preamble).well


@pytest.mark.parametrize(
    "settings", ["batch_size=1", "method='get'", slow("batch_size=2"), slow("batch_size=1, background=False")]
)
def test_at_the_limit_a_later_handler_s_events_are_sent_without_a_flush(run: WatchedScript, settings: str) -> None:
    assert run(f"emitter = Emitter(URL, {settings})\nput(emitter, 2)\ndef last(): put(emitter, 2, 2)", FIRST).well
    assert run.arrived == [0, 1, 2, 3]


def test_what_is_tracked_while_the_end_is_seen_to_is_sent_by_a_later_flush(run: WatchedScript) -> None:
    script = """
    emitter = Emitter(URL, on_success=lambda events: put(emitter, 1, 3) if len(events) == 3 else None)
    put(emitter, 3)
    def last():
        emitter.flush()
    """
    assert run(script, FIRST).well
    assert run.arrived == [0, 1, 2, 3]


@pytest.mark.parametrize("background", [True, False])
def test_a_process_whose_threads_go_on_tracking_ends_when_what_was_there_is_sent(
    run: WatchedScript, background: bool
) -> None:
    script = f"""
    emitter = Emitter(URL, shutdown_timeout=30, background={background})
    put(emitter)
    def work():
        while True:
            put(emitter, 1, 3)
    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    the_end()
    """
    ended = run(script)
    assert ended.status == 0
    assert ended.seconds < 15
    assert run.arrived[:3] == [0, 1, 2]


def test_an_event_that_fails_again_and_again_is_still_waited_for(rig: Rig, run: WatchedScript) -> None:
    rig.collector.respond(500, times=8)
    assert run("put(Emitter(URL, max_retry_delay_seconds=0.02, shutdown_timeout=10), 1)").well
    assert run.arrived == [0]


# -- a collector that is down ----------------------------------------------------------------------------------------


def down(rig: Rig, run: WatchedScript, emitter: str) -> Ended:
    rig.collector.close()
    return run(
        f"emitter = {emitter}\nput(emitter, 3)\nthe_end()\ndef last():\n    put(emitter, 2, 3); emitter.flush()", FIRST
    )


@pytest.mark.parametrize("background", [True, False])
def test_what_cannot_be_sent_is_told_once(rig: Rig, run: WatchedScript, background: bool) -> None:
    ended = down(rig, run, f"Emitter(URL, shutdown_timeout=0.2, background={background})")
    assert ended.status == 0
    assert "closed with 3 events left, which are lost when the process ends\n" in ended.errors
    assert ended.errors.endswith(UNSENT)


def test_nobody_waits_for_room_for_ever(rig: Rig, run: WatchedScript) -> None:
    ended = down(rig, run, "Emitter(URL, shutdown_timeout=0.2, overflow='block', buffer_capacity=3)")
    assert ended.status == 0
    assert ended.seconds < 10


# -- other processes, other places -----------------------------------------------------------------------------------


@PYTHONS
@pytest.mark.parametrize("method", ["fork", slow("spawn")])
def test_a_finalizer_of_a_child_of_multiprocessing_that_runs_later_tracks_and_flushes(
    run: WatchedScript, version: str, method: str
) -> None:
    script = f"""
    import multiprocessing, multiprocessing.util
    def last(emitter):
        put(emitter, 2, 3)
        emitter.flush()
    def child(url):
        emitter = Emitter(url)
        put(emitter, 3)
        # The lower the later; fastemit's has 100.
        multiprocessing.util.Finalize(None, last, (emitter,), exitpriority=1)
    if __name__ == "__main__":
        process = multiprocessing.get_context("{method}").Process(target=child, args=(URL,))
        process.start()
        process.join()
        assert process.exitcode == 0
    """
    path = environment(PYTHONPATH=prepared(version))
    assert run(script, python=pythons()[version], env=path).well
    # Before Python 3.13 fastemit ends after all finalizers, when the child's threads have ended.
    assert run.arrived == [0, 1, 2, 3, 4]


@needs_host("billiard")
def test_a_finalizer_of_a_child_of_billiard_that_runs_later_tracks_and_flushes(run: WatchedScript) -> None:
    script = """
    import billiard, billiard.util
    def last(emitter):
        put(emitter, 2, 3)
        emitter.flush()
    def child():
        emitter = Emitter(URL)
        put(emitter, 3)
        billiard.util.Finalize(None, last, (emitter,), exitpriority=1)
    process = billiard.Process(target=child)
    process.start()
    process.join()
    """
    assert run(script).well
    assert run.arrived == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("settings", ["", slow(", batch_size=10"), ", batch_size=10, background=False"])
def test_a_redis_emitter_pushes_what_a_later_exit_handler_flushes(run: WatchedScript, rdb: Any, settings: str) -> None:
    port = rdb.connection_pool.connection_kwargs["port"]
    script = f"""
    import redis
    from fastemit import RedisEmitter
    emitter = RedisEmitter(redis.Redis(port={port}){settings})
    put(emitter, 3)
    def last():
        put(emitter, 2, 3)
        emitter.flush()
    """
    assert run(script, FIRST).well
    assert [json.loads(event)["n"] for event in rdb.lrange("snowplow", 0, -1)] == [0, 1, 2, 3, 4]


@needs_host("celery")
@pytest.mark.parametrize("settings", ["", ", background=False"])
def test_a_celery_emitter_publishes_what_a_later_exit_handler_flushes(
    run: WatchedScript, rdb: Any, settings: str
) -> None:
    port = rdb.connection_pool.connection_kwargs["port"]
    script = f"""
    import celery
    from fastemit import CeleryEmitter
    app = celery.Celery(broker="redis://127.0.0.1:{port}/0")
    emitter = CeleryEmitter(URL, celery_app=app{settings})
    put(emitter, 3)
    def last():
        put(emitter, 2, 3)
        emitter.flush()
    """
    assert run(script, FIRST).well
    assert rdb.llen("celery") == 2
