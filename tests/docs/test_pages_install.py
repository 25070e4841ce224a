"""What a page says to install is what its programs and commands need: a reader who copies all of it is never told of
a module that is missing."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.pages import ROOT, blocks

RECIPES = sorted(f"docs/recipes/{path.name}" for path in (ROOT / "docs/recipes").glob("*.md") if path.stem != "index")
PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ["index", "quick-start", "migrate", "monitoring", "testing", "scaling", "deploys"]),
]
PAGES += ["docs/scaling-celery.md", *RECIPES]
#: What brings a module or a command that has another name: an extra of fastemit's, or a package.
BROUGHT_BY = {"kombu": "celery", "snowplow_tracker": "tracker", "prometheus_client": "prometheus"}
#: Commands that are there anyway.
THERE = {"python", "pip", "curl", "fastemit", "make", "docker", "redis-cli"}


def installed(page: str) -> set[str]:
    """The packages and extras of every `pip install` of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^ *pip install ([^#\n]+)", text, re.MULTILINE)
    return {word for line in lines for word in re.findall(r"[\w-]+", line.lower())}


def imported(page: str) -> set[str]:
    """The modules that the programs of a page import, but for the standard library and the page's own files."""
    own = {Path(found.title).stem for found in blocks(page) if found.title.endswith(".py")} | {"app", "fastemit"}
    names: set[str] = set()
    for found in blocks(page):
        if found.language == "python":
            for node in ast.walk(ast.parse(found.text)):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module is not None:
                    names.add(node.module.partition(".")[0])
    return names - own - set(sys.stdlib_module_names)


def run(page: str) -> set[str]:
    """The programs that the commands of a page run."""
    texts = [found.text for found in blocks(page) if found.language == "sh"]
    lines = [line for text in texts for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    return {shlex.split(line, comments=True)[0] for line in lines} - THERE


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_to_install_what_it_uses(page: str) -> None:
    needed = {BROUGHT_BY.get(name, name) for name in imported(page) | run(page)}
    assert needed != set()
    assert needed - installed(page) == set()


@pytest.mark.parametrize("page", RECIPES)
def test_a_recipe_says_it_before_its_programs(page: str) -> None:
    assert next(found for found in blocks(page)).title == "Install"


def test_gunicorn_is_installed_with_what_its_gevent_workers_need() -> None:
    (line,) = [found.text for found in blocks("docs/recipes/gevent.md") if found.title == "Install for the server"]
    assert '"gunicorn[gevent]"' in line
