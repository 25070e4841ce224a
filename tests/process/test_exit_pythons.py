"""Ways out of a process, on each Python that this machine has. `test_exit.py` has more on the running one."""

from __future__ import annotations

import sys
import textwrap

import pytest

from fastemit.testing import Collector
from tests.support.delivery import Rig
from tests.support.environment import environment
from tests.support.processes import WatchedScript
from tests.support.pythons import RUNNING, prepared, pythons
from tests.support.slow import slow_but

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks are not to be had on Windows")


PYTHONS = pytest.mark.parametrize("version", slow_but([RUNNING], sorted(pythons())))

#: How a process ends, with the status that it ends with and the end of what it writes to stderr.
WAYS_OUT = {
    "the-end": ("pass", 0, ""),
    "sys-exit": ("sys.exit(7)", 7, ""),
    "uncaught": ("raise LookupError('mine')", 1, "LookupError: mine\n"),
    "sys-exit-in-a-thread": ("threading.Thread(target=sys.exit, args=(7,)).start()", 0, ""),
    "sigterm-with-a-handler": (
        """
        import signal
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
        9,
        "",
    ),
    "sigterm-with-a-handler-that-closes": (
        """
        import signal
        def end(*_):
            emitter.close()
            os._exit(9)
        signal.signal(signal.SIGTERM, end)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
        9,
        "",
    ),
    "keyboard-interrupt": (
        "import signal; os.kill(os.getpid(), signal.SIGINT); time.sleep(30)",
        -2,
        "KeyboardInterrupt\n",
    ),
    "a-thread-goes-on": ("threading.Timer(0.1, put, (emitter, 0)).start()", 0, ""),
    "dropped": ("del emitter; gc.collect()", 0, ""),
    "an-exit-handler-exits": ("atexit.register(os.write, 1, b'')", 0, ""),
    "a-forked-child-s-end": (
        """
        child = os.fork()
        if child == 0:
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        0,
        "",
    ),
    "busy": ("other = AsyncEmitter(URL, thread_count=4, batch_size=5)\nput(other, 500, 3)\ndel other", 0, ""),
    "no-threads": (
        """
        def refuse(self):
            raise RuntimeError("can't start new thread")
        threading.Thread.start = refuse
        other = Emitter(URL)
        put(other, 3, 3)
        """,
        0,
        "",
    ),
}
MORE = {"busy": 500, "no-threads": 3}
#: Ways out that `test_exit.py` does not have.
NOT_ELSEWHERE = ["sys-exit-in-a-thread", "sigterm-with-a-handler-that-closes", "a-thread-goes-on", "dropped", "busy"]


@PYTHONS
@pytest.mark.parametrize("way", slow_but(NOT_ELSEWHERE, WAYS_OUT))
def test_what_is_queued_is_delivered_once_and_stderr_says_nothing_of_it(
    run: WatchedScript, version: str, way: str
) -> None:
    script, status, errors = WAYS_OUT[way]
    ended = run(
        "emitter = Emitter(URL)\nput(emitter)\n" + textwrap.dedent(script),
        python=pythons()[version],
        env=environment(PYTHONPATH=prepared(version)),
    )
    assert ended.status == status
    assert ended.errors == "" if not errors else ended.errors.endswith(errors) and "fastemit" not in ended.errors
    assert run.arrived == list(range(3 + MORE.get(way, 0)))


#: Why the last events cannot be delivered.
OBSTACLES = {
    "hanging": "put(Emitter(HANGING, shutdown_timeout=0.2))",
    "hanging-in-flight": "e = Emitter(HANGING, shutdown_timeout=0.2, batch_size=1); put(e, 1)\n"
    "until(lambda: e.stats().in_flight_events)",
    "backoff": "e = Emitter(FAILING, shutdown_timeout=0.2)\nput(e)\nassert not e.drain(5) and e.retry_delay == 60",
    "callback": "e = Emitter(URL, batch_size=1, shutdown_timeout=0.2, on_success=lambda _: threading.Event().wait())\n"
    "put(e, 1)",
    "many": "emitters = [Emitter(HANGING, shutdown_timeout=0.2) for _ in range(20)]\nfor e in emitters: put(e, 1)",
    "many-async": "emitters = [AsyncEmitter(HANGING, thread_count=3, batch_size=1, shutdown_timeout=0.2) for _ in "
    "range(10)]\nfor e in emitters: put(e, 5)",
    "inline": "put(Emitter(HANGING, shutdown_timeout=0.2, background=False))",
}


@PYTHONS
@pytest.mark.parametrize("obstacle", slow_but(["hanging-in-flight", "callback", "many-async"], OBSTACLES))
def test_the_process_ends_within_half_a_second_of_its_deadline(
    rig: Rig, run: WatchedScript, version: str, obstacle: str
) -> None:
    with Collector() as other:
        other.respond(503, headers={"Retry-After": "60"}, times=None)
        rig.collector.respond(hang="callback" not in obstacle, times=None)
        ended = run(
            f"HANGING = URL\nFAILING = {other.url!r}\n{OBSTACLES[obstacle]}\nthe_end()",
            python=pythons()[version],
            env=environment(PYTHONPATH=prepared(version)),
        )
    assert ended.well
    assert ended.seconds < 0.7
