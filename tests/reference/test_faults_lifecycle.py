"""Faults of `snowplow_tracker` in construction, the log, exit and forks; see `test_faults.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastemit import AsyncEmitter, Emitter
from tests.support.delivery import Rig, Script, numbers, put
from tests.support.reference import Reference, references


@pytest.fixture
def reference(rig: Rig) -> Iterator[Reference]:
    with references(rig.collector.url) as make:
        yield make


# -- construction, log, flush ----------------------------------------------------------------------------------------


def test_mutable_default_arguments(reference: Reference) -> None:
    one, two = reference(), reference()
    assert one.custom_retry_codes is two.custom_retry_codes
    mine = Emitter("localhost")
    mine.custom_retry_codes[500] = False
    assert AsyncEmitter("localhost").custom_retry_codes == Emitter("localhost").custom_retry_codes == {}


def test_async_flush_that_does_nothing(rig: Rig, reference: Reference) -> None:
    theirs, ours = reference(), rig.emitter()
    put(theirs)
    theirs.async_flush()
    assert (theirs.event_store.size(), rig.collector.requests) == (1, [])
    put(ours)
    ours.async_flush()
    assert numbers(rig.collector.wait_for(1)) == [0]


def test_a_root_log_handler_and_info_lines_per_request(rig: Rig, tmp_path: Path) -> None:
    script = """
    import logging, {module}
    emitter = {module}.Emitter(URL, batch_size=1)
    put(emitter, 2)
    getattr(emitter, "close", int)()
    print(len(logging.getLogger().handlers))
    """
    run = Script(rig, tmp_path)
    theirs = run(script.format(module="snowplow_tracker"))
    assert (theirs.status, theirs.lines) == (0, ["1"])
    assert theirs.errors.count("INFO:snowplow_tracker.emitters:Sending POST request") == 2
    ours = run(script.format(module="fastemit"))
    assert ours.well
    assert ours.lines == ["0"]


# -- the end, and forks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ["Emitter", "AsyncEmitter"])
def test_events_lost_at_exit(rig: Rig, tmp_path: Path, cls: str) -> None:
    script = "import {module}\nput({module}.{cls}(URL, batch_size=100), 3)"
    run = Script(rig, tmp_path)
    assert run(script.format(module="snowplow_tracker", cls=cls)).status == 0
    assert run.arrived == []
    assert run(script.format(module="fastemit", cls=cls)).well
    assert run.arrived == [0, 1, 2]


def test_events_lost_after_fork(rig: Rig, tmp_path: Path) -> None:
    script = """
    import {module}
    emitter = {module}.AsyncEmitter(URL, batch_size=1)
    put(emitter, 1, 0)
    emitter.sync_flush()
    child = os.fork()
    if not child:
        put(emitter, 1, 1)
        {check}
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    run = Script(rig, tmp_path)
    # No thread is there to take it, and none will be.
    check = "assert threading.active_count() == 1 and emitter.queue.qsize() == 1"
    assert run(script.format(module="snowplow_tracker", check=check)).status == 0
    assert run.arrived == [0]
    rig.collector.reset()
    assert run(script.format(module="fastemit", check="emitter.sync_flush()")).well
    assert run.arrived == [0, 1]
