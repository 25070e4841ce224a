"""The lower bounds of pyproject.toml, and what `make test-lowest` makes of them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lowest", ROOT / "scripts" / "lowest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lowest: Any = _load()


@pytest.mark.parametrize("python", PYTHONS)
def test_each_dependency_and_extra_has_one_lowest_version(python: str) -> None:
    found = dict(line.split("==") for line in lowest.constraints(python))
    assert found.keys() == set(lowest.TESTS)
    # One line each: two bounds that hold for one Python would not agree.
    assert len(lowest.constraints(python)) == len(found)
    for requirement in lowest.requirements(python):
        assert Version(found[requirement.name]) in requirement.specifier


def test_every_python_that_is_promised_is_looked_at() -> None:
    promised = SpecifierSet(lowest.project()["requires-python"])
    assert [python for python in PYTHONS if python in promised] == PYTHONS
    classifiers = " ".join(lowest.project()["classifiers"])
    assert re.findall(r"Python :: (3\.\d+)", classifiers) == PYTHONS


@pytest.mark.parametrize("line", ["orjson", "orjson<4", "orjson>=3,>=3.9"])
def test_a_dependency_without_one_lower_bound_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"must have one lower bound"):
        lowest.lowest(Requirement(line))


@pytest.mark.parametrize(
    ("python", "orjson"), [("3.10", "3.9.15"), ("3.12", "3.9.15"), ("3.13", "3.10.7"), ("3.14", "3.11.4")]
)
def test_orjson_begins_for_each_python_where_it_has_a_wheel_that_works(python: str, orjson: str) -> None:
    assert f"orjson=={orjson}" in lowest.constraints(python)


def test_the_groups_have_no_bounds_of_their_own_for_them() -> None:
    # They would keep `make test-lowest` from installing the lowest.
    read = sys.modules[lowest.tomllib.__name__].loads
    groups = read((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    bounded = [
        line
        for group in groups.values()
        for line in group
        if isinstance(line, str) and Requirement(line).name in lowest.TESTS and Requirement(line).specifier
    ]
    assert bounded == []


def test_each_file_of_tests_that_is_named_is_there() -> None:
    assert len(lowest.tests()) == sum(map(len, lowest.TESTS.values()))


def test_a_file_of_tests_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lowest.TESTS, "orjson", ("test_nothing",))
    with pytest.raises(ValueError, match=r"names what is not below tests/: test_nothing$"):
        lowest.tests()


def test_ci_runs_it() -> None:
    assert re.search(r"^ *step lowest twice make test-lowest$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))["jobs"]["lowest"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test-lowest"]
    # Where the bounds differ.
    assert {"3.10", "3.13", "3.14"} <= set(job["strategy"]["matrix"]["python"])
