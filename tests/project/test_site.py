"""The site has every page. (`make docs` checks its links.)"""

from __future__ import annotations

import re
import sys

import pytest

from tests.support.pages import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import site_hooks


def listed() -> set[str]:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return set(re.findall(r"^ +- (?:[^:\n]+: )?([\w/-]+\.md)$", text, re.MULTILINE))


def test_each_page_is_in_the_navigation() -> None:
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert "recipes/django.md" in there
    assert there - listed() == set()


def test_each_page_from_elsewhere_is_in_the_navigation() -> None:
    from_elsewhere = {place for place in site_hooks.ELSEWHERE.values() if place.endswith(".md")}
    assert {"benchmarks.md", "examples/index.md", "examples/fastapi_service.md"} <= from_elsewhere
    assert from_elsewhere - listed() == set()


@pytest.mark.parametrize(
    "picture", ["docs/assets/data-flow.svg", "docs/assets/batch-states.svg", "benchmarks/chart.svg"]
)
def test_a_picture_is_as_narrow_as_a_telephone(picture: str) -> None:
    (width,) = re.findall(r'<svg [^>]*viewBox="0 0 ([\d.]+) [\d.]+"', (ROOT / picture).read_text(encoding="utf-8"))
    # 390 is the width of many; wider ones are drawn smaller, and their letters with them.
    assert float(width) <= 390


@pytest.mark.parametrize(
    ("word", "page"),
    [
        ("deploy", "deploys"),
        ("rolling", "deploys"),
        ("Kubernetes", "deploys"),
        ("OOM", "deploys"),
        ("crash", "survive"),
        ("spool", "survive"),
        ("asyncio", "recipes/fastapi"),
        ("pytest", "testing"),
    ],
)
def test_the_page_that_a_newcomer_searches_for_has_the_word(word: str, page: str) -> None:
    assert re.search(rf"\b{word}", (ROOT / f"docs/{page}.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("word", "page"),
    [("spool", "survive"), ("[Mm]etrics", "monitoring"), ("Kubernetes", "deploys"), ("lose events", "deploys")],
)
def test_the_page_to_find_first_has_the_word_in_a_heading(word: str, page: str) -> None:
    # The search counts a heading much higher than a text.
    assert re.search(rf"^##? .*\b{word}", (ROOT / f"docs/{page}.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert site_hooks.RANKS[f"{page}.md"] > 1


def test_each_page_with_a_rank_is_there() -> None:
    assert set(site_hooks.RANKS) - listed() == set()


@pytest.mark.parametrize(("start", "indent"), [("", 0), ('<span class="w">    </span>', 4), ("        ", 8)])
def test_a_line_of_code_says_how_far_it_is_indented(start: str, indent: int) -> None:
    line = (
        f'<span id="__span-0-7"><a id="__codelineno-0-7" href="#__codelineno-0-7"></a>{start}<span class="n">x</span>'
    )
    assert site_hooks.on_post_page(line) == line.replace('-7">', f'-7" style="--indent: {indent}ch">', 1)


def test_a_line_of_code_without_a_language_says_it_too() -> None:
    shown = site_hooks.on_post_page("<pre><span></span><code>a &lt; b\n\n  c\n</code></pre>")
    assert re.findall(r'<span style="--indent: (\d)ch">([^<]*)</span>', shown) == [
        ("0", "a &lt; b\n"),
        ("0", "\n"),
        ("2", "  c\n"),
    ]


def test_a_long_line_of_code_may_be_broken_behind_a_bracket() -> None:
    assert site_hooks.on_post_page('<span class="p">({</span><span class="s2">"a"') == (
        '<span class="p">({</span><wbr><span class="s2">"a"'
    )


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("buffer_capacity=200_000", "buffer_<wbr>capacity=<wbr>200_000"),
        ("redis://user:password@host:6379/0", "redis://<wbr>user:<wbr>password@<wbr>host:<wbr>6379/<wbr>0"),
        ("fastemit bench --seconds 10", 'fastemit bench <span class="short">--seconds</span> 10'),
    ],
)
def test_long_code_in_a_text_is_broken_between_words(code: str, shown: str) -> None:
    assert site_hooks.on_post_page(f"<code>{code}</code>") == f"<code>{shown}</code>"


def test_an_option_in_a_block_of_code_is_not_broken() -> None:
    shown = site_hooks.on_post_page('<pre><code><span style="--indent: 0ch">worker --quiet</span></code></pre>')
    assert 'style="--indent: 0ch"' in shown
    assert '<span class="short">--quiet</span>' in shown
