"""Check that what a release needs is filled in: `python scripts/check_release.py TAG SDIST`

    python scripts/check_release.py v1.2.3 dist/fastemit-1.2.3.tar.gz

The tag has to be the version, the changelog has to have it, `[project.urls]` of pyproject.toml has to name the
repository, the sdist has to carry that, and the site has to link to it. On GitHub it is the repository that runs this.
"""

from __future__ import annotations

import os
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_URL = re.compile(r"https://[\w.-]+/\S+")


def _source_url(pyproject: str) -> str:
    """The line `Source = "..."` of `[project.urls]`, or "". (Python 3.10, which runs the tests too, has no tomllib.)"""
    table = re.search(r"^\[project\.urls\]\n((?:(?!\[).*\n?)*)", pyproject, re.MULTILINE)
    line = re.search(r'^Source *= *"([^"]*)"', table[1], re.MULTILINE) if table else None
    return line[1].rstrip("/") if line else ""


def _site_url(mkdocs: str) -> str:
    line = re.search(r"^repo_url: *(\S+)", mkdocs, re.MULTILINE)
    return line[1].rstrip("/") if line else ""


def _metadata(sdist: Path) -> str:
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            if re.fullmatch(r"[^/]+/PKG-INFO", member.name):
                file = archive.extractfile(member)
                assert file is not None
                return file.read().decode("utf-8")
    return ""


def faults(tag: str, sdist: Path, root: Path = ROOT, running: str = "") -> Iterator[str]:
    """What is missing, a sentence each. `running` is the address of the repository that runs this, if that is known."""
    version = tag.removeprefix("v")
    if sdist.name != f"fastemit-{version}.tar.gz":
        yield f"the tag is {tag} and the file {sdist.name}: the tag has to be the version of src/fastemit/_version.py"
    if not re.search(rf"^## \[?{re.escape(version)}\b", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE):
        yield f"CHANGELOG.md has no part {version}"
    source = _source_url((root / "pyproject.toml").read_text("utf-8"))
    if not _URL.fullmatch(source):
        yield f"[project.urls] in pyproject.toml has Source = {source!r}, and needs the repository's https address"
        return
    if f"Project-URL: Source, {source}" not in _metadata(sdist).replace("/\n", "\n"):
        yield f"the metadata in {sdist.name} does not name {source}"
    site = _site_url((root / "mkdocs.yml").read_text("utf-8"))
    if site != source:
        yield f"repo_url in mkdocs.yml is {site!r}, and Source in pyproject.toml {source!r}: they have to be the same"
    if running and source.lower() != running.lower():
        yield f"Source in pyproject.toml is {source}, and this is {running}"


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    server, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    running = f"{server}/{name}" if server and name else ""
    found = list(faults(sys.argv[1], Path(sys.argv[2]), running=running))
    if found:
        sys.exit("\n".join(found))
    print(f"{sys.argv[1]} has what a release needs")


if __name__ == "__main__":
    main()
