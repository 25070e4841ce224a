"""docs/guarantees.md has its promises first, and below each list the names of their tests, by the same numbers."""

from __future__ import annotations

import re

import pytest

from tests.support.pages import ROOT

TEXT = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
PARTS = [part for part in re.split(r"^(?=## )", TEXT, flags=re.MULTILINE) if "<summary>The tests</summary>" in part]


def numbers(text: str) -> list[str]:
    return re.findall(r"^(\d+)\. ", text, re.MULTILINE)


@pytest.mark.parametrize("part", PARTS, ids=[part.partition("\n")[0].strip("# ") for part in PARTS])
def test_each_promise_has_its_tests_below(part: str) -> None:
    promises, _, folded = part.partition('<details markdown="1">\n<summary>The tests</summary>\n')
    tests, end, _ = folded.partition("\n</details>\n")
    assert end
    assert numbers(promises) == numbers(tests) == [str(number) for number in range(1, len(numbers(tests)) + 1)]
    assert len(numbers(tests)) > 1
    assert all("`" in line for line in tests.splitlines() if line.strip())


def test_no_name_of_a_test_is_unfolded() -> None:
    unfolded = re.sub(r"<details.*?</details>", "", TEXT, flags=re.DOTALL)
    assert re.findall(r"\| `test_\w+\.py::", unfolded) == []
    assert len(PARTS) >= 9
