"""Instructions of an event, by valgrind's callgrind, as a ratio to something else in the same run.

That is bare `orjson.dumps` for the emitter, and `snowplow_tracker.Tracker` for the Tracker.

    python benchmarks/instructions.py            compare with instructions.json and MOST; 1 when one is larger
    python benchmarks/instructions.py --keep     measure, and keep the figures there

Time differs by a tenth from run to run on most machines, instructions by less than one in a hundred. Each workload is
run twice, with few and with many events; the difference is free of the interpreter's start and of imports. What a
Python version makes of the same work differs by more than the limit, so there is a set of figures for each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
KEPT: Final = HERE / "instructions.json"
#: Share by which a figure may grow.
ALLOWED: Final = 0.10
FEW, MANY = 4_000, 20_000

_START = """
import sys
sys.path.insert(0, {here!r})
from bench_support import PAGE_VIEW, PAGE_VIEW_WITH_INT
from itertools import repeat
import orjson
from fastemit._buffer import EventBuffer
COUNT, A_BATCH = int(sys.argv[1]), 500
"""
_CYCLE = """
from fastemit._delivery.delivery import Delivery
from fastemit._interfaces import Outcome
from fastemit._delivery.reporting import Reporter

class Taken:
    def send(self, batch, cap=None):
        batch.body().release()
        return Outcome(status=200)
    def close(self):
        pass

buffer = EventBuffer(10_000, 1 << 26, 1_000_000, A_BATCH)
delivery = Delivery(buffer, Taken(), Reporter(None, None), background=False)
"""
_DROP_OLDEST = """
buffer = EventBuffer({capacity}, 1 << 30, 1 << 25, 1 << 30)
event = EventBuffer.encode({{"e": "pv"}})
for _ in repeat(None, {capacity}):
    buffer.append_encoded(event)
for _ in repeat(None, COUNT):
    buffer.drop_oldest(event)
    buffer.append_encoded(event)
assert buffer.queued_events == {capacity}
"""
# Strings that nobody has looked at before, a tenth of COUNT; making them is taken off.
_STRINGS = """
from bench_support import STRINGS
KINDS = "a quote in 32", "latin-1", "Cyrillic", "CJK", "emoji and ASCII"
ENCODED = [(STRINGS[kind] * length)[:length].encode() for kind in KINDS for length in (12, 2_000)]
buffer = EventBuffer(10_000, 1 << 26, 1_000_000, A_BATCH)
buffer.notify = 0
for _ in repeat(None, COUNT // A_BATCH):
    for encoded in ENCODED * 5:
        {take}({{"e": encoded.decode()}})
    {settle}
"""
#: The most that the rows of the Tracker may be, whatever is kept. Of a structured event 0.35 is making the event, which
#: is snowplow_tracker's code, and 0.07 is CPython's: the six entries that its dict needs more, its growth, the event's
#: attributes, the call of `input`, and freeing it all. Our own code is 0.01.
MOST: Final = {
    "make and track, page view": 0.37,
    "make and track, page view with a Subject": 0.37,
    "make and track, structured": 0.44,
    "make and track, self-describing with a context": 0.42,
}
#: The rows of the Tracker, and the events that they track.
TRACKED: Final = {
    "make and track, page view": "page view",
    "make and track, page view with a Subject": "page view with a Subject",
    "make and track, structured": "structured",
    "make and track, self-describing with a context": "self-describing with a context",
}
_TRACK = """
import fastemit, snowplow_tracker
from tracked_events import EVENTS, subject

class Nothing:
    def input(self, payload):
        pass

tracker = {package}.Tracker("shop", Nothing(), subject() if {kind!r}.endswith("Subject") else None, "web")
make = EVENTS[{kind!r}]
for _ in repeat(None, COUNT // 4):
    tracker.track(make())
"""
#: What each workload does with COUNT events. The cost of a send cycle is that of `cycle` less that of `input`.
WORKLOADS: Final = {
    "dumps": """
for _ in repeat(None, COUNT):
    orjson.dumps(PAGE_VIEW)
""",
    "input, one int": """
buffer = EventBuffer(10_000, 1 << 26, 1_000_000, A_BATCH)
buffer.notify = 0
for _ in repeat(None, COUNT // A_BATCH):
    for _ in repeat(None, A_BATCH):
        buffer.append(PAGE_VIEW_WITH_INT)
    buffer.take().sent()
""",
    "input, all strings": """
buffer = EventBuffer(10_000, 1 << 26, 1_000_000, A_BATCH)
buffer.notify = 0
for _ in repeat(None, COUNT // A_BATCH):
    for _ in repeat(None, A_BATCH):
        buffer.append(PAGE_VIEW)
    buffer.take().sent()
""",
    "input and send": _CYCLE
    + """
for _ in repeat(None, COUNT // A_BATCH):
    for _ in repeat(None, A_BATCH):
        answer = buffer.append(PAGE_VIEW)
        if answer:
            delivery.answer(answer)
assert delivery.stats().sent_events == COUNT
""",
    # A full buffer in one segment, whose index has room for a power of two: at that number each event once moved it.
    "drop the oldest of 65,535": _DROP_OLDEST.format(capacity=65_535),
    "drop the oldest of 65,536": _DROP_OLDEST.format(capacity=65_536),
    "strings, made": _STRINGS.format(take="len", settle="pass"),
    "strings, orjson.dumps": _STRINGS.format(take="orjson.dumps", settle="pass"),
    "strings, input": _STRINGS.format(take="buffer.append", settle="buffer.take().sent()"),
    **{
        f"{name}, {package}": _TRACK.format(package=package, kind=kind)
        for name, kind in TRACKED.items()
        for package in ("fastemit", "snowplow_tracker")
    },
}


def instructions(script: Path, count: int, folder: Path) -> int:
    """What one run of a workload takes, in all."""
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={folder / 'out'}",
            sys.executable,
            str(script),
            str(count),
        ],
        capture_output=True,
        text=True,
        # The order of dicts and sets of strings is not to differ between two runs.
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"callgrind failed on {script.name}:\n{done.stderr}")
    return int(found[1])


def measure() -> dict[str, float]:
    """Instructions of an event, for each workload."""
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in WORKLOADS.items():
            script = Path(folder) / "workload.py"
            script.write_text(_START.format(here=str(HERE)) + text)
            few, many = (instructions(script, count, Path(folder)) for count in (FEW, MANY))
            costs[name] = (many - few) / (MANY - FEW)
            print(f"{name}: {costs[name]:,.0f} instructions an event", flush=True)
    return costs


def ratios(costs: dict[str, float]) -> dict[str, float]:
    limit = costs["dumps"]
    return {
        "input, one int": costs["input, one int"] / limit,
        "input, all strings": costs["input, all strings"] / limit,
        "a send cycle, 500 events": (costs["input and send"] - costs["input, all strings"]) / limit,
        **{name: cost / limit for name, cost in costs.items() if name.startswith("drop the oldest")},
        "strings of all kinds, to orjson.dumps of the same": (costs["strings, input"] - costs["strings, made"])
        / (costs["strings, orjson.dumps"] - costs["strings, made"]),
        **{name: costs[f"{name}, fastemit"] / costs[f"{name}, snowplow_tracker"] for name in TRACKED},
    }


def kind() -> str:
    """What figures can be compared: of one architecture and Python version."""
    return f"{platform.machine()}, {platform.python_implementation()} {'.'.join(platform.python_version_tuple()[:2])}"


def verdict(name: str, value: float, kept: dict[str, float]) -> str:
    """What is wrong with a row; empty if nothing is."""
    if name in kept and value > kept[name] * (1 + ALLOWED):
        return f"MORE THAN {ALLOWED:.0%} UP"
    # What a Python version makes of the same work differs: the limits are for one of which figures are kept.
    # They have two digits, and two runs differ in the third.
    if kept and name in MOST and round(value, 2) > MOST[name]:
        return f"MORE THAN {MOST[name]}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="keep what is measured as the figures to compare with")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("instructions.py needs valgrind on the path: apt-get install valgrind", file=sys.stderr)
        return 2
    kept: dict[str, dict[str, float]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    measured = ratios(measure())
    if options.keep:
        kept[kind()] = {name: round(value, 3) for name, value in measured.items()}
        KEPT.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")
    before = kept.get(kind(), {})
    wrong = {name: verdict(name, value, before) for name, value in measured.items()}
    for name, value in measured.items():
        line = f"{name}: {value:.3f} times {'snowplow_tracker' if name in TRACKED else 'orjson.dumps'}"
        if name in before:
            line += f", kept {before[name]:.3f}"
        print(f"{line}  {wrong[name]}".rstrip())
    if not before:
        print(f"no figures are kept for {kind()}: nothing to compare with (--keep keeps these)")
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
