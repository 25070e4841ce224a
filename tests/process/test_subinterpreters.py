"""Subinterpreters: what they are told where fastemit cannot be loaded, and what is sent where it can."""

from __future__ import annotations

import sys
import textwrap

import pytest

from tests.support.delivery import Ended, Rig
from tests.support.environment import environment
from tests.support.processes import WatchedScript
from tests.support.pythons import RUNNING, prepared, pythons
from tests.support.slow import slow_but

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the watchdog of these programs is a process group")

PYTHONS = pytest.mark.parametrize("version", slow_but([RUNNING], sorted(pythons())))
#: Since 3.12 an interpreter can have a GIL of its own; before, none that has threads can be destroyed.
SINCE_3_12 = sorted({*pythons()} - {"3.10", "3.11"})
#: The oldest that destroys an interpreter with a sender's thread, and the running one.
QUICK = {*SINCE_3_12[:1], RUNNING}
PYTHONS_SINCE_3_12 = pytest.mark.parametrize("version", slow_but(SINCE_3_12[:1], SINCE_3_12))
#: Comes before anything of fastemit, and so before the script's own import of it, which is left out by the exit.
LEGACY = """
import sys, textwrap, time
try:
    import _xxsubinterpreters as interpreters
except ImportError:
    import _interpreters as interpreters

def create(isolated=False):
    if sys.version_info >= (3, 13):
        return interpreters.create("isolated" if isolated else "legacy")
    if sys.version_info >= (3, 12):
        return interpreters.create(isolated=isolated)
    return interpreters.create(isolated=False)

def run(interpreter, code):
    start = f"import sys; sys.path[:0] = {sys.path!r}; URL = {sys.argv[1]!r}\\n"
    interpreters.run_string(interpreter, start + textwrap.dedent(code))

IMPORT = '''
try:
    from fastemit import Emitter
    print("loaded", flush=True)
except ImportError as error:
    print(error.name, error, flush=True)
'''
EMIT = '''
from fastemit import AsyncEmitter, Emitter
emitter = {emitter}
for number in range(3):
    emitter.input({{"n": number}})
'''
"""
EMITTERS = {
    "post": "Emitter(URL)",
    "get": "Emitter(URL, method='get', batch_size=10)",
    "several-threads": "AsyncEmitter(URL, thread_count=3)",
    "inline": "Emitter(URL, background=False)",
}


def run_main(run: WatchedScript, version: str, script: str) -> Ended:
    """A program in which only the script imports fastemit: the import that `run` adds comes after the exit."""
    path = environment(PYTHONPATH=prepared(version))
    the_end = "\nprint(time.time(), flush=True)\nsys.exit()\n"
    return run("", LEGACY + textwrap.dedent(script) + the_end, python=pythons()[version], env=path)


def told_what_to_set(line: str) -> bool:
    return line.startswith("fastemit._buffer fastemit cannot") and "WSGIApplicationGroup %{GLOBAL}" in line


@PYTHONS_SINCE_3_12
def test_an_isolated_interpreter_is_told_what_to_set(run: WatchedScript, version: str) -> None:
    line, _ = run_main(run, version, "run(create(isolated=True), IMPORT)").lines
    assert told_what_to_set(line)


@PYTHONS
@pytest.mark.parametrize("first", ["run(create(), IMPORT)", "exec(IMPORT)"], ids=["another", "main"])
def test_the_second_interpreter_of_a_process_is_told_what_to_set(run: WatchedScript, version: str, first: str) -> None:
    loaded, line, _ = run_main(run, version, f"{first}\nrun(create(), IMPORT)").lines
    assert loaded == "loaded"
    assert told_what_to_set(line)


@pytest.mark.parametrize("module", ["emitters", "emitter_configuration", "event_store", "stats"])
def test_each_public_module_tells_it_when_it_is_the_first(run: WatchedScript, module: str) -> None:
    first = f"IMPORT.replace('from fastemit import Emitter', 'import fastemit.{module}')"
    line, _ = run_main(run, "3.13", f"run(create(isolated=True), {first})").lines
    assert told_what_to_set(line)


def test_another_reason_not_to_load_is_told_as_it_is(run: WatchedScript) -> None:
    preamble = "import sys\nsys.modules['fastemit._buffer'] = None\n"
    ended = run("", preamble)
    assert ended.status == 1
    assert ended.errors.endswith("import of fastemit._buffer halted; None in sys.modules\n")


@PYTHONS
@pytest.mark.parametrize("emitter", EMITTERS.values(), ids=EMITTERS)
def test_what_is_queued_in_an_interpreter_that_nobody_destroys_is_sent(
    run: WatchedScript, version: str, emitter: str
) -> None:
    assert run_main(run, version, f"interpreter = create()\nrun(interpreter, EMIT.format(emitter={emitter!r}))").well
    assert run.arrived == [0, 1, 2]


def test_what_is_queued_in_a_backoff_in_an_interpreter_that_nobody_destroys_is_sent(
    rig: Rig, run: WatchedScript
) -> None:
    rig.collector.respond(500, times=3)
    emitter = "Emitter(URL, batch_size=1, max_retry_delay_seconds=0.05)"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert run_main(run, version, f"interpreter = create()\nrun(interpreter, EMIT.format(emitter={emitter!r}))").well
    assert run.arrived == [0, 1, 2]


@PYTHONS
def test_the_process_ends_in_time_with_an_interpreter_whose_collector_hangs(
    rig: Rig, run: WatchedScript, version: str
) -> None:
    rig.collector.respond(503, headers={"Retry-After": "60"}, times=None)
    emitter = "Emitter(URL, shutdown_timeout=0.2)"
    ended = run_main(
        run,
        version,
        f"interpreter = create()\nrun(interpreter, EMIT.format(emitter={emitter!r}))",
    )
    assert ended.well
    assert ended.seconds < 5


@PYTHONS_SINCE_3_12
def test_an_interpreter_can_be_destroyed_just_after_a_close(run: WatchedScript, version: str) -> None:
    script = (
        "interpreter = create()\nrun(interpreter, EMIT.format(emitter='AsyncEmitter(URL, thread_count=8)') "
        "+ 'emitter.close()')\ninterpreters.destroy(interpreter)"
    )
    assert run_main(run, version, script).well
    assert run.arrived == [0, 1, 2]


@pytest.mark.parametrize(
    ("version", "emitter"),
    [
        # Slow but for each kind of emitter once.
        pytest.param(version, emitter, id=f"{version}-{name}", marks=[] if version in QUICK else pytest.mark.slow)
        for version in sorted(pythons())
        for name, emitter in EMITTERS.items()
        if version not in ("3.10", "3.11") or "background=False" in emitter
    ],
)
def test_what_is_queued_in_an_interpreter_that_is_destroyed_is_sent(
    run: WatchedScript, version: str, emitter: str
) -> None:
    script = (
        f"interpreter = create()\nrun(interpreter, EMIT.format(emitter={emitter!r}))\ninterpreters.destroy(interpreter)"
    )
    assert run_main(run, version, script).well
    assert run.arrived == [0, 1, 2]
