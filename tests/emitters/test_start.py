"""What a program pays before its first event, and that a sender thread pays nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastemit.testing import Collector

ROUNDS = 9
PROGRAMS = {
    "orjson": "import orjson",
    "urllib3": "import orjson, urllib3",
    "fastemit": "import orjson; from fastemit import Emitter",
    "emitter": "import orjson, fastemit; fastemit.Emitter('http://127.0.0.1:1')",
}


def run(program: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout.strip()


#: What no emitter needs, or only one of a kind that few are of.
NEVER = (
    {"asyncio", "certifi", "concurrent", "multiprocessing", "netrc", "requests", "sqlite3", "subprocess"}
    | {"celery", "kombu", "redis", "snowplow_tracker", "http.cookiejar", "urllib.request"}
    | {"fastemit._spool", "fastemit._stores", "fastemit._delivery.awaiting", "fastemit.tracker"}
)
#: What is not needed before there is an emitter that sends by HTTP, or before a setting or a handler asks for it.
LATER = {
    "base64",
    "calendar",
    "email",
    "hashlib",
    "http",
    "importlib.util",
    "ipaddress",
    "numbers",
    "queue",
    "random",
    "select",
    "signal",
    "socket",
    "ssl",
} | {
    "tempfile",
    "unicodedata",
    "urllib",
    "urllib3",
    "zipfile",
    "fastemit._transport.http",
    "fastemit._transport.session",
}


def loaded_by(program: str) -> set[str]:
    """The modules that a program loads beyond those of orjson."""
    measured = f"import sys, orjson; before = set(sys.modules); {program}; print(*set(sys.modules) - before)"
    return set(run(measured).split())


@pytest.mark.parametrize("program", ["import fastemit", "from fastemit import Emitter", "from fastemit import *"])
def test_import_loads_nothing_that_only_a_request_needs(program: str) -> None:
    assert loaded_by(program) & (NEVER | LATER) == set()


def test_a_first_http_emitter_loads_nothing_that_only_others_need() -> None:
    loaded = loaded_by("import fastemit; fastemit.Emitter('http://127.0.0.1:1')")
    assert loaded & NEVER == set()
    assert "urllib3" in loaded


def test_an_emitter_looks_for_no_proxy_where_there_is_no_variable() -> None:
    if sys.platform in ("darwin", "win32"):
        pytest.skip("the system's settings may name a proxy")
    program = """
import os, sys
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]
import fastemit
fastemit.Emitter("http://127.0.0.1:1")
print("urllib.request" in sys.modules)
"""
    assert run(program) == "False"


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("method", ["post", "get"])
def test_a_request_imports_nothing(collector: Collector, method: str, background: bool) -> None:
    """A fork in the middle of an import leaves its lock to the child, and at the end of a process none may begin."""
    program = """
import sys, fastemit
background = sys.argv[3] == "True"
emitter = fastemit.Emitter(sys.argv[1], method=sys.argv[2], background=background, max_retry_delay_seconds=0.01)
before = set(sys.modules)
for _ in range(4):
    emitter.input({"e": "pv"})
    emitter.flush()
assert emitter.drain(10, retry=True)
print(sorted(set(sys.modules) - before), emitter.stats().sent_events)
"""
    collector.respond(503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    collector.respond(200, interim=(103,))
    collector.respond(hang_up=True)
    assert run(program, collector.url, method, str(background)) == "[] 4"


def cpu_of(program: str, cache: Path) -> float:
    """Seconds of CPU of the whole process; the bytecode is in `cache` from the second time on."""
    measured = f"import time\n{program}\nprint(time.process_time())"
    return float(run(measured, PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=str(cache)))


@pytest.mark.slow
def test_import_and_a_first_emitter_cost_no_more_than_so_many_imports_of_urllib3(tmp_path: Path) -> None:
    """Ratios in one run of what each takes over orjson alone; a first http emitter imports urllib3 itself."""
    for program in PROGRAMS.values():
        cpu_of(program, tmp_path)
    rounds = [{name: cpu_of(program, tmp_path) for name, program in PROGRAMS.items()} for _ in range(ROUNDS)]
    best = {name: min(each[name] for each in rounds) for name in PROGRAMS}
    urllib3 = best["urllib3"] - best["orjson"]
    assert (best["fastemit"] - best["orjson"]) / urllib3 < 0.6
    assert (best["emitter"] - best["orjson"]) / urllib3 < 1.8
