"""A release names its repository, and its wheels follow those of orjson."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import check_release  # noqa: E402

ADDRESS = "https://forge.example/people/fastemit"


def fill_in(root: Path, source: str = ADDRESS, site: str = ADDRESS) -> None:
    """A tree with what a release needs, made of the files of this one."""
    for name in ("pyproject.toml", "mkdocs.yml"):
        text = (ROOT / name).read_text("utf-8")
        text = re.sub(r"^\[project\.urls\]\n(?:(?!\[).*\n)*|^repo_url:.*\n", "", text, flags=re.MULTILINE)
        (root / name).write_text(text, encoding="utf-8")
    if source:
        with (root / "pyproject.toml").open("a", encoding="utf-8") as file:
            file.write(f'\n[project.urls]\nSource = "{source}"\n')
    if site:
        with (root / "mkdocs.yml").open("a", encoding="utf-8") as file:
            file.write(f"\nrepo_url: {site}\n")
    (root / "CHANGELOG.md").write_text("# Changes\n\n## [Unreleased]\n\n## [1.2.3] - 2027-01-01\n", encoding="utf-8")


def make_sdist(folder: Path, source: str = ADDRESS) -> Path:
    text = f"Metadata-Version: 2.4\nName: fastemit\nProject-URL: Source, {source}\n\n".encode()
    with tarfile.open(folder / "fastemit-1.2.3.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("fastemit-1.2.3/PKG-INFO")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return folder / "fastemit-1.2.3.tar.gz"


def test_a_release_that_has_all_it_needs_passes(tmp_path: Path) -> None:
    fill_in(tmp_path)
    assert list(check_release.faults("v1.2.3", make_sdist(tmp_path), tmp_path, ADDRESS)) == []


@pytest.mark.parametrize("source", ["", "https://", "http://forge.example/people/fastemit", "the repository's address"])
def test_a_release_without_the_repository_in_its_metadata_fails(tmp_path: Path, source: str) -> None:
    fill_in(tmp_path, source=source)
    (told,) = check_release.faults("v1.2.3", make_sdist(tmp_path), tmp_path)
    assert told.startswith("[project.urls] in pyproject.toml has Source = ")


def test_a_comment_names_no_repository(tmp_path: Path) -> None:
    fill_in(tmp_path, source="")
    with (tmp_path / "pyproject.toml").open("a") as file:
        file.write(f'\n# [project.urls]\n# Source = "{ADDRESS}"\n')
    assert list(check_release.faults("v1.2.3", make_sdist(tmp_path), tmp_path)) != []


@pytest.mark.parametrize("site", ["", "https://forge.example/others/fastemit"])
def test_a_release_whose_site_does_not_link_to_the_repository_fails(tmp_path: Path, site: str) -> None:
    fill_in(tmp_path, site=site)
    (told,) = check_release.faults("v1.2.3", make_sdist(tmp_path), tmp_path)
    assert told.startswith(f"repo_url in mkdocs.yml is {site!r}")


def test_an_sdist_that_was_built_without_the_repository_is_found(tmp_path: Path) -> None:
    fill_in(tmp_path)
    sdist = make_sdist(tmp_path, source="https://forge.example/others/fastemit")
    (told,) = check_release.faults("v1.2.3", sdist, tmp_path)
    assert told == f"the metadata in fastemit-1.2.3.tar.gz does not name {ADDRESS}"


def test_a_release_of_another_repository_fails(tmp_path: Path) -> None:
    fill_in(tmp_path)
    running = "https://forge.example/others/fastemit"
    (told,) = check_release.faults("v1.2.3", make_sdist(tmp_path), tmp_path, running)
    assert told == f"Source in pyproject.toml is {ADDRESS}, and this is {running}"


def test_a_tag_that_is_not_the_version_and_has_no_part_of_the_changelog_fails(tmp_path: Path) -> None:
    fill_in(tmp_path)
    told = list(check_release.faults("v1.2.4", make_sdist(tmp_path), tmp_path))
    assert [fault.partition(" ")[0] for fault in told] == ["the", "CHANGELOG.md"]


def test_a_tag_is_checked_before_anything_is_published() -> None:
    text = (ROOT / ".github/workflows/wheels.yml").read_text("utf-8")
    sdist = text.partition("\n  sdist:\n")[2].partition("\n  wheels:\n")[0]
    step = sdist.partition("- name: What a release needs is filled in\n")[2].partition("\n      - ")[0]
    assert "if: github.ref_type == 'tag'\n" in step
    assert 'run: python scripts/check_release.py "$TAG" "dist/$FILE"' in step
    # Every other job needs this one, the publishing one too.
    assert re.findall(r"^    needs: (\w+)$", text, re.MULTILINE) == ["sdist", "wheels", "check", "attest", "check"]


def test_the_check_of_a_release_ends_with_an_error_when_it_finds_a_fault(tmp_path: Path) -> None:
    script = ROOT / "scripts/check_release.py"
    done = subprocess.run([sys.executable, script, "v0", make_sdist(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "CHANGELOG.md has no part 0\n" in done.stderr


# -- the wheels of orjson ----------------------------------------------------------------------------------------------

NAMES = [
    f"orjson-3.20.1-{python}-{python}-{platform}.whl"
    for python in ("cp310", "cp311", "cp312", "cp313", "cp314", "cp315")
    for platform in (
        "macosx_10_15_x86_64.macosx_11_0_arm64.macosx_10_15_universal2",
        "manylinux_2_17_aarch64.manylinux2014_aarch64",
        "manylinux2014_x86_64",
        "manylinux_2_17_s390x.manylinux2014_s390x",
        "musllinux_1_2_aarch64",
        "musllinux_1_2_x86_64",
        "win_amd64",
        "win_arm64",
    )
    if (python, platform) != ("cp310", "win_arm64")
]
OLD = "orjson-3.9.9-cp38-cp38-win_amd64.whl"


def told_of(names: list[str]) -> list[str]:
    pytest.importorskip("tomllib")  # Python 3.11, as `make lint`
    import orjson_wheels

    version, there = orjson_wheels.newest("\n".join(f"Found link {name} (from the index)" for name in names))
    return list(orjson_wheels.differences(version, there))


def test_a_python_that_orjson_has_every_wheel_for_can_be_added() -> None:
    (told,) = told_of([OLD, *NAMES])
    assert told.startswith("orjson 3.20.1 has wheels for cp315 on every system: it can be added to CPYTHONS")


def test_a_free_threaded_python_counts_as_one_of_its_own() -> None:
    names = [name.replace("cp315-cp315", "cp315-cp315t") for name in NAMES]
    (told,) = told_of(names)
    assert "wheels for cp315t on every system" in told


def test_a_python_that_some_systems_have_is_told_of() -> None:
    (told,) = told_of([name for name in NAMES if "cp315" not in name or "musllinux" not in name])
    assert told.endswith("cp315 on some systems, and not yet on musllinux_aarch64, musllinux_x86_64")


def test_a_promised_wheel_that_orjson_has_not_is_told_of() -> None:
    names = [name for name in NAMES if "cp315" not in name and ("cp312" not in name or "win_arm64" not in name)]
    assert told_of(names) == ["orjson 3.20.1 has no wheel for cp312 on win_arm64, and fastemit promises one"]


def test_a_wheel_that_was_left_out_and_is_there_now_is_told_of() -> None:
    names = [name for name in NAMES if "cp315" not in name]
    told = told_of([*names, "orjson-3.20.1-cp310-cp310-win_arm64.whl"])
    assert told == ["orjson 3.20.1 has wheels for cp310 on win_arm64: NOT_BUILT need not name it"]


def test_without_an_index_nothing_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tomllib")
    import orjson_wheels

    monkeypatch.setattr(orjson_wheels.sys, "executable", "/nowhere/python")
    orjson_wheels.main()
    assert capsys.readouterr() == ("", "")


def test_the_classifiers_are_the_pythons_that_wheels_are_built_for() -> None:
    pytest.importorskip("tomllib")
    import wheels

    text = (ROOT / "pyproject.toml").read_text("utf-8")
    told = [f"cp3{minor}" for minor in re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', text)]
    assert tuple(told) == wheels.CPYTHONS
    assert f'requires-python = ">=3.{told[0][3:]}"' in text
