"""The site has every page. (`make docs` checks its links.)"""

from __future__ import annotations

import re

from tests.support.pages import ROOT


def test_each_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"^ +- (?:[^:\n]+: )?([\w/-]+\.md)$", text, re.MULTILINE))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert "recipes/django.md" in there
    assert there - listed == set()
