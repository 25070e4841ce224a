"""The types of the public interface: `typing/accepted*.py` are accepted, each line of `typing/rejected.py` is not.

Here by mypy; `make lint` asks pyright about the same files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fastemit

TYPING = Path(__file__).parent


def environment() -> dict[str, str]:
    """With the fastemit that is tested here, unless mypy finds it by itself."""
    folder = str(Path(fastemit.__file__).parents[1])
    installed = folder in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return {**os.environ, "MYPYPATH": "" if installed else folder}


# Slow: without its cache mypy takes half a minute. `make lint` asks both at every change.
@pytest.mark.slow
def test_mypy_accepts_the_public_interface_and_rejects_wrong_uses(pytestconfig: pytest.Config) -> None:
    # The cache makes the second run ten times as fast.
    cache = pytestconfig.rootpath / ".mypy_cache" / "tests"
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", str(cache)]
    done = subprocess.run(
        [*command, "accepted.py", "accepted_settings.py", "rejected.py"],
        cwd=TYPING,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.stdout + done.stderr == "Success: no issues found in 3 source files\n"
