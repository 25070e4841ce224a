"""What a process that a test starts finds: the packages of this one, no proxies, and tracebacks when it is aborted."""

from __future__ import annotations

import os
import subprocess
import sys

PROXY_VARIABLES = [f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO")]


def search_path() -> str:
    """The PYTHONPATH on which a process finds what this one finds."""
    # Absolute, since multiprocessing's children and pytest's may have another working directory.
    return os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)


def environment(**more: str) -> dict[str, str]:
    """The environment of a program that finds what this process finds, and prints tracebacks when it is aborted."""
    kept = {name: value for name, value in os.environ.items() if name.upper() not in PROXY_VARIABLES}
    return {**kept, "PYTHONPATH": search_path(), "PYTHONFAULTHANDLER": "1", **more}


def output_of(program: str) -> str:
    """What a program prints that ends well and without a word to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()
