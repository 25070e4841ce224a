"""`Tracker` with versions of snowplow_tracker whose payloads it does not know: their own code builds them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.processes import environment, watched
from tests.support.reference import REFERENCE_0_15, needs_reference_0_15

TRACK = """
class Taken:
    def __init__(self):
        self.events = []
    def input(self, payload):
        self.events.append(list(payload))
"""


def output_of(script: str, directory: Path, path: str = "") -> str:
    file = directory / "script.py"
    file.write_text(TRACK + script)
    found = environment(PYTHONPATH=os.pathsep.join(filter(None, [path, environment()["PYTHONPATH"]])))
    with watched([sys.executable, str(file)], env=found) as program:
        done = program.wait()
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@needs_reference_0_15
def test_with_0_15_it_is_that_tracker_with_its_own_order_of_arguments(tmp_path: Path) -> None:
    script = """
import snowplow_tracker
from fastemit import Tracker
assert "reference-0.15" in snowplow_tracker.__file__
for cls in (Tracker, snowplow_tracker.Tracker):
    emitter = Taken()
    tracker = cls(emitter, namespace="ns", app_id="a")
    assert tracker.track_page_view("https://example.com", "title") is tracker
    print(emitter.events)
assert issubclass(Tracker, snowplow_tracker.Tracker)
"""
    first, second = output_of(script, tmp_path, str(REFERENCE_0_15)).splitlines()
    assert first == second == "[['e', 'url', 'page', 'eid', 'dtm', 'tv', 'tna', 'aid', 'p']]"


@pytest.mark.parametrize("version", ["1.1.1", "2.0.0"])
def test_with_a_version_to_come_its_own_code_runs(version: str, tmp_path: Path) -> None:
    script = f"""
import snowplow_tracker
from snowplow_tracker import PageView, _version, payload
_version.__version__ = {version!r}
payload.Payload.add_dict = lambda self, pairs, base64=False: self.nv_pairs.update({{"new": 1}})
from fastemit import Tracker
emitter = Taken()
tracker = Tracker("ns", emitter)
tracker.track(PageView("url"))
print(*emitter.events[0], [cls.__module__ for cls in Tracker.__mro__])
"""
    told = output_of(script, tmp_path)
    assert told.startswith("e url new eid dtm ")
    assert "fastemit._payload" not in told
