"""Say where the wheels that are promised differ from those that the index has of orjson, which every wheel needs.

    python scripts/orjson_wheels.py       a part of `make lint`

It informs and never fails: new wheels of orjson are a reason to add a Python, and none to stop a commit. Without an
index it says nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

from wheels import CPYTHONS, NOT_BUILT, TARGETS

_WHEEL = re.compile(r"orjson-([\d.]+)-cp\d+-(cp\d+t?)-([\w.]+)\.whl")
#: What cibuildwheel calls a system, and how the wheels for it end; a wheel may have several ends.
_SYSTEMS = {end: re.compile(end.replace("_", r"_?(?:[\d_]+_)?", 1)) for ends in TARGETS.values() for end in ends}
#: Where it says nothing for this long, the index is not to be reached.
_SECONDS = 30


def systems_of(platforms: str) -> set[str]:
    """The systems of a wheel, by the end of its name: "manylinux_2_17_x86_64.manylinux2014_x86_64"."""
    found = {end for end, pattern in _SYSTEMS.items() for part in platforms.split(".") if pattern.fullmatch(part)}
    if "universal2" in platforms:
        found |= {"macosx_x86_64", "macosx_arm64"}
    return found


def newest(text: str) -> tuple[str, dict[str, set[str]]]:
    """The newest version among the names of wheels in a text, and the systems that it has wheels for by Python."""
    wheels = set(_WHEEL.findall(text))
    if not wheels:
        return "", {}
    version = max((wheel[0] for wheel in wheels), key=lambda told: [int(part) for part in told.split(".")])
    pythons: dict[str, set[str]] = {}
    for of, python, platforms in wheels:
        if of == version:
            pythons.setdefault(python, set()).update(systems_of(platforms))
    return version, pythons


def listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def differences(version: str, there: dict[str, set[str]], promised: Iterable[str] = CPYTHONS) -> Iterator[str]:
    """What orjson has and fastemit does not promise, and the other way round, a sentence each."""
    every = set(_SYSTEMS)
    places = "CPYTHONS in scripts/wheels.py, [tool.cibuildwheel] and the classifiers in pyproject.toml"
    for python in promised:
        left_out = {end for end in every if f"{python}-{end}" in NOT_BUILT}
        missing = every - left_out - there.get(python, set())
        if missing:
            yield f"orjson {version} has no wheel for {python} on {listed(missing)}, and fastemit promises one"
        added = left_out & there.get(python, set())
        if added:
            yield f"orjson {version} has wheels for {python} on {listed(added)}: NOT_BUILT need not name it"
    oldest = min(int(python[2:]) for python in promised)
    for python in sorted(set(there) - set(promised)):
        if int(python[2:].rstrip("t")) < oldest or not there[python]:
            continue  # a Python that fastemit never had, or systems that it does not build for
        missing = every - there[python]
        if missing:
            yield f"orjson {version} has wheels for {python} on some systems, and not yet on {listed(missing)}"
        else:
            yield f"orjson {version} has wheels for {python} on every system: it can be added to {places}"


def ask() -> str:
    """What pip tells of every file of orjson, or "" without an index. By orjson's name only; nothing is downloaded."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "0", "--timeout", "5"]
    command += ["index", "versions", "orjson", "--only-binary", ":all:", "-vvv"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def main() -> None:
    version, there = newest(ask())
    if not version:
        return
    told = list(differences(version, there))
    print("\n".join(told) if told else f"the wheels that are promised are those of orjson {version}")


if __name__ == "__main__":
    main()
