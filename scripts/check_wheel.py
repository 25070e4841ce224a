"""Check what is in wheels: `python scripts/check_wheel.py WHEEL...`

A wheel holds the package, its types and the licence; no source of the extension, no tests; and is under 750 kB.
A Linux wheel carries a manylinux or musllinux tag, without which no index takes it.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MOST_BYTES = 750_000
SOURCES = {".c", ".h", ".pyx", ".pxd", ".html"}
EXTENSIONS = ["_batch", "_buffer", "_encode", "_filed_ring", "_files", "_mapping", "_payload", "_system"]
REQUIRED = ("fastemit/__init__.py", *(f"fastemit/{name}.pyi" for name in EXTENSIONS), "fastemit/py.typed")


def faults(wheel: Path) -> Iterator[str]:
    """What is wrong with a wheel, a sentence each."""
    names = [PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()]
    for name in names:
        top = name.parts[0]
        if top != "fastemit" and not top.endswith(".dist-info"):
            yield f"{name} is not of the package"
        if name.suffix in SOURCES:
            yield f"{name} is a source"
        if "tests" in name.parts or name.name.startswith("test_"):
            yield f"{name} is a test"
    for required in REQUIRED:
        if PurePosixPath(required) not in names:
            yield f"{required} is not there"
    if not any(name.match("*.dist-info/licenses/LICENSE") for name in names):
        yield "the licence is not there"
    extensions = [name for name in names if name.suffix in (".so", ".pyd")]
    if sorted(name.name.partition(".")[0] for name in extensions) != EXTENSIONS:
        yield f"its extensions are {[str(name) for name in extensions]}, not {' and '.join(EXTENSIONS)}"
    if "-linux_" in wheel.name:
        yield "its tag is not manylinux or musllinux: auditwheel has not seen it"
    size = wheel.stat().st_size
    if size >= MOST_BYTES:
        yield f"it takes {size:,} bytes, not under {MOST_BYTES:,}"


def main() -> None:
    wheels = [Path(name) for name in sys.argv[1:]]
    found = [f"{wheel.name}: {fault}" for wheel in wheels for fault in faults(wheel)]
    if found or not wheels:
        sys.exit("\n".join(found) or "no wheel was named")
    for wheel in wheels:
        print(f"{wheel.name}: {wheel.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
