"""Messages that have a number in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastemit._words import counted

ROOT = Path(__file__).parents[2]
#: A number of these may be 1, so the word after it depends on the number.
NOUNS = "events|requests|emitters|lines|tasks|batches|workers|processes|directories|threads"


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 events"), (1, "1 event"), (2, "2 events"), (1000, "1000 events")],
)
def test_the_noun_follows_its_number(number: int, expected: str) -> None:
    assert counted(number, "event") == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 dead processes"), (1, "1 dead process"), (3, "3 dead processes")]
)
def test_the_words_for_more_than_one_may_be_given(number: int, expected: str) -> None:
    assert counted(number, "dead process", "dead processes") == expected


def test_a_large_number_may_have_commas() -> None:
    assert counted(12345, "event", style=",") == "12,345 events"


def test_no_message_has_a_number_and_a_plural_that_does_not_follow_it() -> None:
    # A placeholder for a number before a plural, as in "{count} events". Constants are never 1.
    number_and_plural = re.compile(rf"(?:%d|%s|[^A-Z_]\}}) (?:{NOUNS})\b(?!/s).*")
    found = {
        path.name: lines
        for path in (ROOT / "src").rglob("*.py")
        if (lines := number_and_plural.findall(path.read_text(encoding="utf-8")))
    }

    assert found == {}
