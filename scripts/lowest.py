"""The lowest version of each dependency that pyproject.toml allows: what `make test-lowest` installs, and its tests.

    python scripts/lowest.py                              prints constraints for pip, for this Python
    python scripts/lowest.py --python 3.12                for another one
    python scripts/lowest.py --tests                      prints the files of tests that touch a dependency

Extras are among the dependencies. What these need themselves, and the tools that the tests need, come as they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    # It comes with pytest there.
    import tomli as tomllib

ROOT: Final = Path(__file__).resolve().parent.parent

#: By dependency, the files of tests that would notice a version that does not do.
TESTS: Final = {
    "orjson": ("test_buffer_encode", "test_buffer_flat", "test_buffer_line", "test_payloads"),
    "urllib3": ("test_requests", "test_session", "test_transport", "test_transport_routes"),
    "celery": (
        "test_celery",
        "test_celery_answers",
        "test_celery_collectors",
        "test_celery_monitors",
        "test_celery_settings",
        "test_publisher",
        "test_relay",
    ),
    "redis": ("test_redis_emitter", "test_redis_values", "test_redis_worker", "test_redis_worker_faults"),
    "snowplow-tracker": (
        "test_emitter_configuration",
        "test_names",
        "test_snowplow",
        "test_snowplow_import",
        "test_snowplow_registry",
        "test_tracker",
    ),
    "tqdm": ("test_cli_send_progress",),
    "shtab": ("test_cli_completion",),
    "prometheus-client": ("test_prometheus",),
    "opentelemetry-api": ("test_opentelemetry",),
}


def project() -> dict[str, Any]:
    """The table `[project]` of pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def requirements(python: str) -> list[Requirement]:
    """Of fastemit and of all its extras, those that hold for a Python such as "3.12"."""
    table = project()
    lines = [*table["dependencies"], *(line for extra in table["optional-dependencies"].values() for line in extra)]
    found = [Requirement(line) for line in lines]
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    return [each for each in found if each.marker is None or each.marker.evaluate(environment)]


def lowest(requirement: Requirement) -> str:
    """The version that it begins with.

    Raises:
        ValueError: it has no lower bound, or more than one.
    """
    bounds = [each.version for each in requirement.specifier if each.operator in (">=", "==", "~=")]
    if len(bounds) != 1:
        raise ValueError(f"{requirement} must have one lower bound, for `make test-lowest` to install")
    return bounds[0]


def constraints(python: str) -> list[str]:
    """Lines of a file of constraints for pip."""
    return sorted({f"{each.name}=={lowest(each)}" for each in requirements(python)})


def tests() -> list[Path]:
    """The files of `TESTS`, wherever they are below tests/.

    Raises:
        ValueError: there is no such file.
    """
    there = {path.stem: path for path in (ROOT / "tests").rglob("test_*.py")}
    names = [name for files in TESTS.values() for name in files]
    missing = [name for name in names if name not in there]
    if missing:
        raise ValueError(f"TESTS in scripts/lowest.py names what is not below tests/: {', '.join(missing)}")
    return [there[name].relative_to(ROOT) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description="The lowest version of each dependency.")
    this = f"{sys.version_info[0]}.{sys.version_info[1]}"
    parser.add_argument("--python", default=this, help="such as 3.12; default: this one")
    parser.add_argument("--tests", action="store_true", help="print files of tests in place of constraints")
    args = parser.parse_args()
    print("\n".join(map(str, tests()) if args.tests else constraints(args.python)))


if __name__ == "__main__":
    main()
