"""What is on the pages of docs/: fenced blocks with their titles, which name files and commands."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "collector.example.com"
PORT = "8000"
_FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title or "", its text, and where it begins."""

    page: str
    line: int
    language: str
    title: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page below the root of the repository."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for indent, language, options, body, line in (
        (*found.groups(), text.count("\n", 0, found.start()) + 1) for found in _FENCE.finditer(text)
    ):
        title = _TITLE.search(options)
        lines = [written.removeprefix(indent) for written in body.splitlines(keepends=True)]
        yield Block(page, line, language, title[1] if title else "", "".join(lines))


def block(page: str, title: str) -> Block:
    found = [block for block in blocks(page) if block.title == title]
    assert len(found) == 1, f"{page} has {len(found)} blocks with the title {title!r}"
    return found[0]


def write_files(page: str, directory: Path, collector: str, port: int) -> None:
    """Write the blocks that are files, as a reader would, with the addresses of a test in place of the page's."""
    for found in blocks(page):
        if "." in found.title:
            text = found.text.replace(HOST, collector).replace(f":{PORT}", f":{port}")
            (directory / found.title).write_text(text, encoding="utf-8")


def command(page: str, title: str, port: int) -> list[str]:
    """The command of a block, with the programs that are installed beside this interpreter."""
    line = block(page, title).text.strip()
    assert "\n" not in line, f"{page}: one command is expected, not {line!r}"
    program, *arguments = shlex.split(re.sub(rf"\b{PORT}\b", str(port), line))
    beside = Path(sys.executable).with_name(program)
    assert beside.exists(), f"{program} is not installed: pip install --group hosts"
    return [str(beside), *arguments]
