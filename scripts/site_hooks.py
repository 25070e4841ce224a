"""What mkdocs does beside docs/: it brings in the changelog and the benchmarks' chart, and keeps links right there.

The pages of docs/ are read in the repository too, so they link to files outside of docs/ as they lie there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
#: File in the repository, and what it is called on the site.
ELSEWHERE = {"CHANGELOG.md": "changelog.md", "benchmarks/chart.svg": "chart.svg"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    for source, place in ELSEWHERE.items():
        if (ROOT / source).exists() and files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    # Where the page lies in the repository, which its links start from.
    source = next((s for s, place in ELSEWHERE.items() if place == page.file.src_uri), f"docs/{page.file.src_uri}")
    here = (ROOT / source).parent
    depth = page.file.src_uri.count("/")

    def link(found: re.Match[str]) -> str:
        image, text, target = found.groups()
        path, hash_, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return found[0]
        wanted = (here / path).resolve()
        if not wanted.is_relative_to(ROOT):
            return found[0]
        inside = wanted.relative_to(ROOT).as_posix()
        if inside.startswith("docs/"):
            place: str | None = inside.removeprefix("docs/")
        else:
            place = ELSEWHERE.get(inside)
            if image and not wanted.exists():
                # The chart, where `make bench` has not drawn it yet: what it would show.
                return f"*{text}: not drawn yet*"
        if place is not None:
            return f"{image}[{text}]({'../' * depth}{place}{hash_}{anchor})"
        # A file of the repository that the site does not have: its name is of more use than a broken link.
        return f"{text} (`{inside}`)" if wanted.exists() else found[0]

    return _LINK.sub(link, markdown)
