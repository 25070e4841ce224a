"""Pin by hash what builds the files of a release: `make pins` writes requirements/*.txt.

    python scripts/pins.py

Each file holds one version of each package, for every system and Python that it is used on, with the hashes of its
files: pip installs nothing else with `--require-hashes`. Needs uv, from `pip install --group pins`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    # It comes with pytest there.
    import tomli as tomllib

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "requirements"
HEADER: Final = "# {what}. Made by `make pins` from pyproject.toml.\n"


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)
    return table


def files() -> dict[str, tuple[str, str, list[str]]]:
    """By file: what it is for, the oldest Python that uses it, and what it pins."""
    table = project()
    (frontend,) = [line for line in table["dependency-groups"]["wheels"] if line.startswith("build")]
    (wheels,) = [line for line in table["dependency-groups"]["wheels"] if line.startswith("cibuildwheel")]
    return {
        "build.txt": ("What makes the sdist and each wheel", "3.10", [*table["build-system"]["requires"], frontend]),
        "cibuildwheel.txt": ("What runs the building of the wheels", "3.11", [wheels]),
    }


def main() -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or sys.exit(
        "There is no uv: pip install --group pins"
    )
    FOLDER.mkdir(exist_ok=True)
    for name, (what, python, lines) in files().items():
        command = [uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--upgrade", "--no-header"]
        command += ["--no-annotate", "--python-version", python, "-"]
        done = subprocess.run(command, input="\n".join(lines), stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name} could not be made")
        (FOLDER / name).write_text(HEADER.format(what=what) + done.stdout, "utf-8")
        print(f"requirements/{name}: {sum('==' in line for line in done.stdout.splitlines())} packages")


if __name__ == "__main__":
    main()
