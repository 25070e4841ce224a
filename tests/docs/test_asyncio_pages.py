"""What the pages say of asyncio is the same on each of them."""

from __future__ import annotations

import pytest

from tests.support.pages import ROOT

PAGES = ["README.md", "docs/quick-start.md", "docs/recipes/fastapi.md"]


def paragraph(page: str) -> str:
    """From "In an asyncio loop take" to the end of the paragraph, without its line breaks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    start = text.index("In an asyncio loop take")
    return " ".join(text[start : text.index("\n\n", start)].split())


@pytest.mark.parametrize("page", PAGES[1:])
def test_every_page_says_the_same(page: str) -> None:
    assert paragraph(page) == paragraph(PAGES[0])


def test_no_page_sends_a_wait_to_a_thread() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    assert [page.name for page in pages if "to_thread" in page.read_text(encoding="utf-8")] == []
