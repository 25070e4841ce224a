"""A plugin of coverage.py for the lines of each .pyx and its .pxd: Cython's own, asked in the right order.

Cython's plugin knows of a .pxd only once it has read the C that some .pyx was made into, and coverage.py asks for
files in any order, and gives up on the first that is not known.
"""

from pathlib import Path
from typing import Any

from Cython import Coverage

SOURCES = sorted((Path(__file__).resolve().parent.parent / "src" / "fastemit").glob("*.pyx"))


class Plugin(Coverage.Plugin):
    def file_reporter(self, filename: str) -> Any:
        if filename.endswith(".pxd"):
            for source in SOURCES:
                super().file_reporter(str(source))
        return super().file_reporter(filename)


def coverage_init(registry: Any, options: dict[str, str]) -> None:
    registry.add_file_tracer(Plugin())
