"""Build the sdist so that one commit gives one file: same bytes at any time, in any directory.

    python scripts/sdist.py DIRECTORY [--dev NUMBER] [--no-isolation]     prints the path of the file

setuptools writes the time of day and the owner of each file into the archive; here they are the commit's time and
nobody. What is packed is what git knows of or would add, so that nothing left by an earlier build gets in.
With `--dev`, the version is that of the tree with `.devNUMBER` behind it: for the test index, which takes a version
only once. With `--no-isolation`, what builds it is what is installed, for example requirements/build.txt.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION_FILE = "src/fastemit/_version.py"


def source_date_epoch() -> int:
    """The time that everything is dated: SOURCE_DATE_EPOCH if it is set, else that of the commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given or _git("log", "-1", "--format=%ct"))


def make_sdist(directory: Path, *, dev: int | None = None, isolated: bool = True) -> Path:
    """Build the sdist of this tree into `directory`, which is made if need be."""
    epoch = source_date_epoch()
    with tempfile.TemporaryDirectory(prefix="fastemit-sdist-") as room:
        tree, raw = Path(room, "tree"), Path(room, "raw")
        _copy_tree(tree)
        if dev is not None:
            _make_development_version(tree / VERSION_FILE, dev)
        command = [sys.executable, "-m", "build", "--sdist", "--outdir", str(raw), str(tree)]
        command += [] if isolated else ["--no-isolation"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stdout}\nThe sdist could not be built")
        (built,) = raw.glob("*.tar.gz")
        directory.mkdir(parents=True, exist_ok=True)
        _repack(built, directory / built.name, epoch)
        return directory / built.name


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def _copy_tree(target: Path) -> None:
    for name in _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").rstrip("\0").split("\0"):
        if (ROOT / name).is_file():  # a file that was deleted is still listed until that is committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def _make_development_version(file: Path, number: int) -> None:
    text = file.read_text("utf-8")
    changed = re.sub(r'^(__version__ = "[^"]+)"$', rf'\1.dev{number}"', text, flags=re.MULTILINE)
    assert changed != text, f"no version in {VERSION_FILE}"
    file.write_text(changed, "utf-8")


def _repack(source: Path, target: Path, epoch: int) -> None:
    """Write `source` again, with nothing in it that depends on when, where and by whom it was built."""
    with (
        tarfile.open(source) as old,
        target.open("wb") as file,
        gzip.GzipFile("", "wb", mtime=epoch, fileobj=file) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = epoch
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the sdist; one commit gives one file.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--dev", type=int, metavar="NUMBER", help="build version X.devNUMBER, for the test index")
    parser.add_argument("--no-isolation", action="store_true", help="build with what is installed")
    arguments = parser.parse_args()
    print(make_sdist(arguments.directory, dev=arguments.dev, isolated=not arguments.no_isolation))


if __name__ == "__main__":
    main()
