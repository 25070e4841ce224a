"""`make instructions` fails for a row that is too large, and for no other."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any, Final

import pytest

BENCHMARKS: Final = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT: Final[dict[str, Any]] = runpy.run_path(str(BENCHMARKS / "instructions.py"))
ALL_KEPT: Final[dict[str, dict[str, float]]] = json.loads((BENCHMARKS / "instructions.json").read_text("utf-8"))
verdict = SCRIPT["verdict"]


@pytest.mark.parametrize("kind", ALL_KEPT)
def test_what_is_kept_is_right_and_so_is_a_little_less_or_more(kind: str) -> None:
    kept = ALL_KEPT[kind]
    for name, value in kept.items():
        for measured in (value, value * 0.9, value * 1.004):
            assert verdict(name, measured, kept) == ""


def test_a_row_without_a_limit_of_its_own_may_round_up() -> None:
    assert verdict("input, all strings", 0.8386, {"input, all strings": 0.851}) == ""


def test_a_row_that_grew_by_more_than_a_tenth_is_wrong() -> None:
    assert verdict("input, all strings", 0.94, {"input, all strings": 0.851}) == "MORE THAN 10% UP"


def test_a_row_of_the_tracker_above_its_limit_is_wrong_whatever_is_kept() -> None:
    name = "make and track, page view"
    assert verdict(name, 0.374, {name: 0.375}) == ""
    assert verdict(name, 0.376, {name: 0.375}) == "MORE THAN 0.37"


def test_a_python_without_kept_figures_has_nothing_to_compare_with() -> None:
    assert verdict("make and track, page view", 0.9, {}) == ""
