"""The check of wheels finds what it is there for, and one commit gives one sdist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import check_wheel  # noqa: E402
import sdist  # noqa: E402

GOOD = {
    "fastemit/__init__.py": b"",
    **{
        f"fastemit/{name}{end}": b""
        for name in check_wheel.EXTENSIONS
        for end in (".cpython-312-x86_64-linux-gnu.so", ".pyi")
    },
    "fastemit/py.typed": b"",
    "fastemit-1.0.dist-info/licenses/LICENSE": b"",
}
NAME = "fastemit-1.0-cp312-cp312-manylinux_2_17_x86_64.whl"


def wheel(folder: Path, files: dict[str, bytes], name: str = NAME) -> Path:
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return folder / name


def test_a_good_wheel_has_no_faults(tmp_path: Path) -> None:
    assert list(check_wheel.faults(wheel(tmp_path, GOOD))) == []


@pytest.mark.parametrize(
    ("added", "fault"),
    [
        ("fastemit/_buffer.c", "is a source"),
        ("fastemit/_ring.pxd", "is a source"),
        ("fastemit/_buffer.pyx", "is a source"),
        ("fastemit/test_flush.py", "is a test"),
        ("tests/conftest.py", "is not of the package"),
        ("fastemit/_other.cpython-312-x86_64-linux-gnu.so", "its extensions are"),
    ],
)
def test_what_does_not_belong_is_found(tmp_path: Path, added: str, fault: str) -> None:
    assert any(fault in told for told in check_wheel.faults(wheel(tmp_path, {**GOOD, added: b""})))


@pytest.mark.parametrize("missing", GOOD)
def test_what_is_missing_is_found(tmp_path: Path, missing: str) -> None:
    files = {name: content for name, content in GOOD.items() if name != missing}
    assert list(check_wheel.faults(wheel(tmp_path, files))) != []


def test_each_extension_has_to_be_in_a_wheel() -> None:
    assert sorted(path.stem for path in (ROOT / "src/fastemit").glob("*.pyx")) == check_wheel.EXTENSIONS


def test_a_wheel_of_750_kilobytes_is_too_large(tmp_path: Path) -> None:
    (told,) = check_wheel.faults(wheel(tmp_path, {**GOOD, "fastemit/emitters.py": bytes(750_000)}))
    assert "not under 750,000" in told


def test_a_wheel_that_auditwheel_has_not_seen_is_found(tmp_path: Path) -> None:
    (told,) = check_wheel.faults(wheel(tmp_path, GOOD, NAME.replace("manylinux_2_17", "linux")))
    assert "auditwheel" in told


def test_an_sdist_packed_again_does_not_show_when_and_by_whom(tmp_path: Path) -> None:
    packed = []
    for number, mode in enumerate((0o600, 0o664)):
        source = tmp_path / f"{number}.tar.gz"
        with tarfile.open(source, "w:gz") as archive:
            for name in ("b", "a")[:: 1 - 2 * number]:
                member = tarfile.TarInfo(name)
                member.mtime, member.mode, member.uid, member.uname = 1000 + number, mode, number, f"user{number}"
                archive.addfile(member)
        target = tmp_path / f"{number}-again.tar.gz"
        sdist._repack(source, target, 1_767_225_600)
        packed.append(target.read_bytes())
    assert packed[0] == packed[1]


def test_a_development_version_follows_that_of_the_tree(tmp_path: Path) -> None:
    file = tmp_path / "_version.py"
    file.write_bytes((ROOT / sdist.VERSION_FILE).read_bytes())
    told = [subprocess.check_output([sys.executable, "-c", f"{file.read_text()}\nprint(__version__)"], text=True)]
    sdist._make_development_version(file, 12)
    told.append(subprocess.check_output([sys.executable, "-c", f"{file.read_text()}\nprint(__version__)"], text=True))
    assert told[1] == told[0].replace("\n", ".dev12\n")
