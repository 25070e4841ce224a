"""The Pythons of this machine that fastemit can be built for."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 10)
_ASK = """
import json, os, sys, sysconfig
print(json.dumps([list(sys.version_info[:3]), sys.implementation.name,
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), sys.version_info.releaselevel,
    os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")), os.path.realpath(sys.executable)]))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter, by the file that is run and what it says of itself."""

    executable: str
    version: tuple[int, int, int]

    @property
    def tag(self) -> str:
        """As wheels name it: cp312."""
        return f"cp{self.version[0]}{self.version[1]}"

    def __str__(self) -> str:
        return "Python " + ".".join(map(str, self.version))


def pythons() -> list[Python]:
    """The newest of each minor version, oldest first: from the path, and those that pyenv has installed.

    Left out are free-threaded ones (orjson has no wheels there), those without headers, and pre-releases. The
    environment variable PYTHONS, as in "3.10 3.13", chooses among them.
    """
    chosen = [tuple(map(int, name.split("."))) for name in os.environ.get("PYTHONS", "").split()]
    newest: dict[tuple[int, int], Python] = {}
    for candidate in dict.fromkeys(_candidates()):
        python = _ask(candidate)
        if python is not None and python.version[:2] >= OLDEST:
            known = newest.get(python.version[:2])
            if known is None or known.version < python.version:
                newest[python.version[:2]] = python
    return [newest[minor] for minor in sorted(newest) if not chosen or minor in chosen]


def _candidates() -> Iterator[str]:
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for path in sorted(Path(folder or ".").glob("python3.[0-9][0-9]")):
            yield str(path)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for path in sorted(pyenv.glob("versions/*/bin/python")):
        yield str(path)


def _ask(executable: str) -> Python | None:
    try:
        # A shim of pyenv for a version that is not chosen says so and fails.
        done = subprocess.run([executable, "-I", "-c", _ASK], capture_output=True, text=True, timeout=30, check=False)
        version, implementation, free_threaded, level, headers, real = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    if implementation != "cpython" or free_threaded or level != "final" or not headers:
        return None
    return Python(real, tuple(version))
