"""What mkdocs does beside docs/: it brings in the changelog, the benchmarks and the examples, and keeps links right.

The pages of docs/ are read in the repository too, so they link to files outside of docs/ as they lie there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: File in the repository, and what it is called on the site.
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/chart.svg": "chart.svg",
    "examples/README.md": "examples/index.md",
    **{
        f"examples/{page.parent.name}/README.md": f"examples/{page.parent.name}.md"
        for page in sorted(ROOT.glob("examples/*/README.md"))
    },
}
#: Code in a text, not in a block.
_CODE = re.compile(r"<code>([^<>\n]+)</code>")
#: Code that is shorter is not broken in two, as `orjson.dumps`. It is the length of `snowplow_tracker`, and a bit.
_SHORT = 18
#: Where longer code may be broken: behind these, but not in a number.
_JOINT = re.compile(r"((?<=\w)[_./(:@,+=](?=\w)|::|(?<=:)//)(?<!\d[_.,](?=\d))")
#: An option of a command, in a text or a block. A browser would break it behind its dashes.
_OPTION = re.compile(r"(?<![\w\"-])--[a-z][a-z-]*")
_BLOCK = re.compile(r"<pre>.*?</pre>", re.DOTALL)
#: The title of a column with the names of tests. A telephone has no room for such a column (site.css).
_TESTS = re.compile(r"<table>(?=\s*<thead>\s*<tr>(?:\s*<th[^>]*>[^\n]*</th>)*?\s*<th[^>]*>(?:covered by|tests, in))")
#: A line of a block of code, and what it begins with.
_LINE = re.compile(r'<span id="__span-[0-9-]+">((?:<a [^>]*></a>)?(?:<span[^>]*>)?)( *)')
#: A bracket that opens in a line of code. A long line may be broken behind it; if it were not, a line with no space but
#: its indent would be broken there, and begin with an empty line.
_OPENED = re.compile(r'<span class="p">[^<]*[(\[{]</span>')
#: A block of code without a language, whose lines are no spans.
_PLAIN = re.compile(r"(?<=<pre><span></span><code>)[^<]+(?=</code>)")
#: Pages that are found before, or after, others that have the same words as often.
RANKS = {
    "deploys.md": 4,
    "survive.md": 4,
    "monitoring.md": 2,
    "changelog.md": 0.2,
    "design.md": 0.5,
    "reference.md": 0.5,
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    # Here, since a test reads the list above, and mkdocs is installed for `make docs` alone.
    from mkdocs.structure.files import File

    for source, place in ELSEWHERE.items():
        if (ROOT / source).exists() and files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if page.file.src_uri in RANKS:
        page.meta["search"] = {"boost": RANKS[page.file.src_uri]}
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

    return _LINK.sub(link, markdown) + (_programs(here) if here.parent == ROOT / "examples" else "")


def on_post_page(output: str, **_: Any) -> str:
    # Here, and not in `on_page_content`, because what comes here is not searched.
    output = _OPENED.sub(lambda bracket: bracket[0] + "<wbr>", output)
    output = _TESTS.sub("<table data-cards>", _CODE.sub(_breakable, output))
    output = _PLAIN.sub(_lines, _LINE.sub(lambda line: _indented(line[0], len(line[2])), output))
    return _BLOCK.sub(lambda block: _whole_options(block[0]), output)


def _indented(line: str, indent: int) -> str:
    """A line of code, a span, that says how far it is indented, so that what goes on below is indented further."""
    return line.replace(">", f' style="--indent: {indent}ch">', 1)


def _lines(found: re.Match[str]) -> str:
    lines = found[0].splitlines(keepends=True)
    return "".join(_indented(f"<span>{line}</span>", len(line) - len(line.lstrip(" "))) for line in lines)


def _breakable(found: re.Match[str]) -> str:
    text = found[1]
    if len(text) <= _SHORT:
        return f'<code class="short">{text}</code>'
    return f"<code>{_whole_options(_JOINT.sub(lambda joint: joint[0] + '<wbr>', text))}</code>"


def _whole_options(shown: str) -> str:
    return _OPTION.sub(lambda option: f'<span class="short">{option[0]}</span>', shown)


def _programs(example: Path) -> str:
    """The files of an example, which its page in the repository lies beside."""
    files = [*sorted(example.glob("*.py")), example / "requirements.txt"]
    kind = {".py": "python", ".txt": "text"}
    shown = [f'```{kind[file.suffix]} title="{file.name}"\n{file.read_text("utf-8").rstrip()}\n```\n' for file in files]
    return "\n## The files\n\n" + "\n".join(shown)
