"""Cases of a test that `make test-slow` runs: whole sweeps, of which `make test` runs a few."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """One case of a parametrized test, as slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


def slow_but(quick: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """All of these cases, each a value or a tuple of them; those that are not in `quick` are slow."""
    quick, cases = list(quick), list(cases)
    unknown = [case for case in quick if case not in cases]
    if unknown:
        raise ValueError(f"no such case: {unknown}")
    return [case if case in quick else _slow(case) for case in cases]


def slow_but_one_of_each(cases: Iterable[Any], *kinds: Callable[[Any], Hashable]) -> list[Any]:
    """All of these cases; slow are all but a few in which each value of each of `kinds` is there."""
    cases = list(cases)
    values = [{(number, kind(case)) for number, kind in enumerate(kinds)} for case in cases]
    seen: set[tuple[int, Hashable]] = set()
    quick: set[int] = set()
    # First those in which all is new, so that there are few.
    for least in range(len(kinds), 0, -1):
        for place, has in enumerate(values):
            if len(has - seen) >= least:
                quick.add(place)
                seen |= has
    return [case if place in quick else _slow(case) for place, case in enumerate(cases)]


def _slow(case: Any) -> Any:
    return slow(*case) if isinstance(case, tuple) else slow(case)
