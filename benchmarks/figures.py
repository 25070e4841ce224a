"""A figure: a ratio that was measured in one run, with its aim and the limit that fails a run."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from bench_support import SMOKE

_PACKAGES: Final = ("fastemit", "orjson", "urllib3", "snowplow-tracker", "requests", "redis", "celery", "Cython")


@dataclass
class Figure:
    """One line of the results.

    Attributes:
        name: of the row, the same in every run.
        value: the ratio.
        what: says what it is a ratio of: "times orjson.dumps".
        aim: what it should be: at most, or at least.
        at_least: which of the two.
        guard: how far past the aim a run may be: as a factor. Times here differ by a tenth from run to run, and by more
            where other programs want the cores, so a run fails only where something is wrong.
        detail: the medians that the ratio is of, with their unit in the name.
    """

    name: str
    value: float
    what: str
    aim: float
    at_least: bool = False
    guard: float = 1.5
    detail: dict[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        return self.value >= self.aim if self.at_least else self.value <= self.aim

    @property
    def passes(self) -> bool:
        # A short run has few rounds, on a CI machine that may be busy. Its limits would say nothing.
        guard = max(self.guard, 1.5) if SMOKE else self.guard
        return self.value >= self.aim / guard if self.at_least else self.value <= self.aim * guard

    def check(self) -> None:
        assert self.passes, str(self)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}

    def __str__(self) -> str:
        told = ", ".join(f"{name} {value:,.4g}" for name, value in self.detail.items())
        side = "at least" if self.at_least else "at most"
        missed = "" if self.met else "  MISSED"
        return f"{self.name}: {self.value:.4g} {self.what} (aim: {side} {self.aim:g}){missed}" + (told and f": {told}")


def surroundings() -> dict[str, Any]:
    """When, where and with what."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.system(),
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "packages": packages,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
