"""What builds the files of a release is pinned by hash."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import pins  # noqa: E402

WORKFLOW = ROOT / ".github" / "workflows" / "wheels.yml"
FILES = sorted((ROOT / "requirements").glob("*.txt"))


def pinned(file: Path) -> dict[str, tuple[Requirement, int]]:
    """By package, what it is pinned to and how many hashes it has."""
    text = re.sub(r"^#.*\n", "", file.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        requirement = Requirement(line.partition(" --hash=")[0])
        found[requirement.name.lower()] = requirement, len(re.findall(r" --hash=sha256:[0-9a-f]{64}\b", line))
    return found


def commands() -> list[str]:
    workflow: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text("utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    return [line.strip() for step in steps for line in step.get("run", "").splitlines()]


def test_the_files_are_those_that_the_script_makes() -> None:
    assert [file.name for file in FILES] == sorted(pins.files())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_package_has_one_version_and_hashes(file: Path) -> None:
    assert pinned(file) != {}
    for requirement, hashes in pinned(file).values():
        (bound,) = requirement.specifier
        assert bound.operator == "==", requirement
        assert hashes >= 1, requirement


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_pinned_is_what_the_project_asks_for(file: Path) -> None:
    for line in pins.files()[file.name][2]:
        asked = Requirement(line)
        requirement, _ = pinned(file)[asked.name.lower()]
        (bound,) = requirement.specifier
        assert asked.specifier.contains(bound.version), f"{requirement}, where {asked} is asked for: make pins"


def test_where_wheels_are_released_nothing_is_installed_without_hashes() -> None:
    installs = [line for line in commands() if re.search(r"\b(pip|pipx|uv|npm)\b.*\b(install|run)\b", line)]
    assert len(installs) >= 2
    for line in installs:
        assert "--require-hashes --only-binary :all: -r " in line
    (sdist,) = [line for line in commands() if "scripts/sdist.py" in line]
    assert "--no-isolation" in sdist


def test_a_wheel_is_built_with_nothing_but_what_is_pinned() -> None:
    config = pins.project()["tool"]["cibuildwheel"]
    assert config["build-frontend"]["args"] == ["--no-build-isolation"]
    assert "--require-hashes --only-binary :all: -r {package}/requirements/build.txt" in config["before-build"]
    assert "pypa/cibuildwheel" not in WORKFLOW.read_text("utf-8")
