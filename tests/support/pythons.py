"""The other Pythons of this machine, with fastemit built for each."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import fastemit
from tests.support.environment import search_path

_SOURCE = Path(fastemit.__file__).parent
_VERSIONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
_ASK = "import sys, sysconfig as s; print(*sys.version_info[:2], sep='.'); print(s.get_path('include'), end='')"
RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"


@cache
def pythons() -> dict[str, str]:
    """Interpreters by version: this one, and those of the other versions that pyenv or the path have."""
    found = {RUNNING: sys.executable}
    if not (_SOURCE / "_buffer.c").exists():
        # No extension can be built of an installed wheel: it has no C beside it.
        return found
    for version in _VERSIONS:
        # Nothing is started here, because each process of a run side by side looks.
        for home in sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*")):
            if (home / "bin/python").exists() and (home / f"include/python{version}/Python.h").exists():
                found.setdefault(version, str(home / "bin/python"))
        path = None if version in found else shutil.which(f"python{version}")
        if path:
            # It may be pyenv's shim, which starts nothing where its version is not the chosen one.
            with contextlib.suppress(OSError):
                said = subprocess.run([path, "-c", _ASK], capture_output=True, text=True, check=False)
                has, _, include = said.stdout.partition("\n")
                if has == version and (Path(include) / "Python.h").exists():
                    found[version] = path
    return found


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    import fcntl

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepared(version: str) -> str:
    """The PYTHONPATH on which this version finds fastemit and what it needs, built at the first call."""
    if version == RUNNING:
        return search_path()
    python = pythons()[version]
    digest = hashlib.sha256()
    for file in sorted([*_SOURCE.glob("*.c"), *_SOURCE.rglob("*.py")]):
        digest.update(file.read_bytes())
    parent = Path(sys.prefix, "fastemit-pythons")
    parent.mkdir(exist_ok=True)
    target = parent / f"{version}-{digest.hexdigest()[:16]}"
    with _alone(parent / f"{version}.lock"):
        if not target.exists():
            for old in parent.glob(f"{version}-*"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(dir=parent) as made:
                _build(python, Path(made) / "all")
                os.rename(Path(made) / "all", target)
    return str(target)


def _build(python: str, target: Path) -> None:
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--root-user-action=ignore"]
    needed = [line for line in metadata.requires("fastemit") or [] if "extra ==" not in line]
    _run([*pip, "--target", str(target), *needed])
    shutil.copytree(_SOURCE, target / "fastemit", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    ask = "import sysconfig as s; print(s.get_path('include')); print(s.get_config_var('EXT_SUFFIX'), end='')"
    include, suffix = subprocess.run(
        [python, "-c", ask], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    compiler = shlex.split(sysconfig.get_config_var("CC"))
    for source in (target / "fastemit").glob("*.c"):
        extension = source.with_suffix(suffix)
        _run([*compiler, "-O1", "-fwrapv", "-fPIC", "-shared", f"-I{include}", str(source), "-o", str(extension)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
