"""What the files for maintainers say is so: make's list, the hooks, the workflows, the forms, CONTRIBUTING.

These need the whole repository, so the sdist does not carry them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [form for form in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) if form.name != "config.yml"]
DOCUMENTS = ["CONTRIBUTING.md", "README.md", ".github/pull_request_template.md"]
#: Steps of others, which have no line in the list.
INNER = {"remove-build", "lint-python", "lint-types", "lint-cython", "lint-workflows"}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def jobs() -> Iterator[Any]:
    for workflow in WORKFLOWS:
        for name, job in load(workflow)["jobs"].items():
            yield pytest.param(job, id=f"{workflow.stem}-{name}")


def steps() -> Iterator[Any]:
    for workflow in WORKFLOWS:
        for job in load(workflow)["jobs"].values():
            yield from job["steps"]


def prerequisites(target: str) -> list[str]:
    found = re.search(rf"^{target}: (.*?)(?: *##.*)?$", MAKEFILE, re.MULTILINE)
    assert found is not None
    return found[1].split()


def make_words(text: str) -> set[str]:
    """The targets of commands such as `make test`, in code."""
    code = "\n".join(re.findall(r"`[^`\n]+`|^ {4,}[^\n]+$|^```sh\n.*?^```", text, re.MULTILINE | re.DOTALL))
    return set(re.findall(r"\bmake (?:[A-Z]+=\S+ )?([a-z][a-z-]*)", code))


def test_contributing_names_each_step_of_ci() -> None:
    steps = set(re.findall(r"^ +step .*?\bmake ([a-z-]+)", (ROOT / ".ci/run").read_text("utf-8"), re.MULTILINE))
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    told = re.search(r"^- `bash .ci/run` is what CI runs: .*?(?=^- )", contributing, re.MULTILINE | re.DOTALL)
    assert told is not None
    assert {"test", "test-slow", "lint", "sdist", "soak"} <= steps
    # The build comes before everything.
    assert make_words(told[0]) == steps - {"venv"}


def test_make_help_lists_every_target() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^make (\S+) +\S", told, re.MULTILINE)
    assert sorted(listed) == sorted(TARGETS - INNER)


def test_the_hooks_of_pre_commit_are_the_parts_of_make_lint() -> None:
    (repository,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"  # nothing is fetched, so no version differs
    assert [hook["entry"].removeprefix("make ") for hook in repository["hooks"]] == prerequisites("lint")


def test_ci_runs_make_lint() -> None:
    assert re.search(r"^ *step lint make lint$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert any(step.get("run") == "bash .ci/run" for step in steps())


@pytest.mark.parametrize("path", FORMS, ids=lambda form: form.stem)
def test_an_issue_form_is_one_that_github_takes(path: Path) -> None:
    form = load(path)
    assert {"name", "description", "body"} <= form.keys()
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(field["attributes"]["label"] for field in fields)
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_make_target_that_a_document_names_exists(document: str) -> None:
    named = make_words((ROOT / document).read_text("utf-8"))
    assert named
    assert named <= TARGETS


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "SECURITY.md"])
def test_a_file_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    named = re.findall(r"\]\((?!https?:)([^)#]+)\)", text) + re.findall(
        r"`((?:scripts|tests|docs|\.ci)/[\w./]+)`", text
    )
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_contributing_names_each_switch_of_the_build_and_no_other() -> None:
    switches = set(re.findall(r'environ\.get\("(FASTEMIT_\w+)"', (ROOT / "setup.py").read_text("utf-8")))
    named = set(re.findall(r"FASTEMIT_[A-Z]+", (ROOT / "CONTRIBUTING.md").read_text("utf-8")))
    assert switches == named


def test_the_table_of_the_house_names_each_module() -> None:
    table = (ROOT / "docs" / "design.md").read_text("utf-8")
    package = ROOT / "src" / "fastemit"
    modules = {path.name for path in package.glob("*.p[yx]*") if not path.name.startswith("__")}
    modules = {f"`{name}`" for name in modules if not name.endswith((".pyi", "_version.py"))}
    packages = [path.parent for path in package.glob("*/__init__.py")]
    modules |= {f"`{path.name}/`" for path in packages}
    # Of the command line and the development collector each file says itself what it is.
    inner = [path for path in packages if path.name not in ("cli", "testing")]
    modules |= {f"`{path.stem}`" for room in inner for path in room.glob("*.py") if path.stem != "__init__"}
    assert {name for name in modules if name not in table} == set()


def test_no_file_refers_to_a_document_that_is_not_here() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / line for line in listed.splitlines() if line.endswith((".py", ".pyx", ".pxd", ".md", ".yml"))]
    elsewhere = re.compile(r"\b(?:SPEC|DESIGN|STYLE) \d")
    assert [path.name for path in files if path.exists() and elsewhere.search(path.read_text("utf-8"))] == []


def test_no_file_of_tests_is_long_and_no_two_have_the_same_name() -> None:
    files = [path for path in (ROOT / "tests").rglob("*.py") if path.name not in ("__init__.py", "conftest.py")]
    tests = [path.name for path in files if path.name.startswith("test_")]
    assert len(tests) > 100
    assert sorted(tests) == sorted(set(tests))
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def rooms() -> list[set[str]]:
    """The table of docs/design.md, from the roof down: the modules and folders of each line."""
    table = re.search(
        r"^\| module .*?(?=^$)", (ROOT / "docs" / "design.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert table is not None
    lines = [line.split("|")[1] for line in table[0].splitlines()[2:]]
    return [{name.split(".")[0].rstrip("/") for name in re.findall(r"`([^`]+)`", line)} for line in lines]


def imported(path: Path) -> set[str]:
    """The modules and folders of fastemit that a module imports when it is imported itself, or later."""
    if path.suffix in (".pyx", ".pxd"):
        return set(re.findall(r"^ *from fastemit\.(\w+)(?:\.\w+)* c?import\b", path.read_text("utf-8"), re.MULTILINE))
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            first, _, module = (node.module or "").partition(".")
            if first == "fastemit":
                names |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fastemit.")}
    return names


def test_a_module_imports_only_from_lines_below_its_own_or_from_its_own() -> None:
    package = ROOT / "src" / "fastemit"
    order = {name: line for line, names in enumerate(rooms()) for name in names}
    upward = []
    for path in sorted(package.rglob("*.p[yx]*")):
        name = path.relative_to(package).parts[0].split(".")[0]
        if name not in order or path.suffix not in (".py", ".pyx", ".pxd"):
            continue
        upward += [f"{path.name} imports {other}" for other in imported(path) if order.get(other, 99) < order[name]]
    assert len(order) > 20
    assert upward == []


def test_the_picture_of_the_house_is_what_the_source_is() -> None:
    command = [sys.executable, "scripts/house.py", "--check"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def past_the_door(text: str, own: str) -> list[str]:
    """The imports in this source that enter another private package than `own` by more than its name."""
    entered = re.findall(r"^\s*(?:from|import) fastemit\.(_[a-z]+\.\w+)", text, re.MULTILINE)
    return [name for name in entered if not name.startswith(f"{own}.")]


def test_a_private_package_is_entered_through_its_door() -> None:
    package = ROOT / "src" / "fastemit"
    found = {
        str(path.relative_to(package)): past_the_door(path.read_text("utf-8"), path.relative_to(package).parts[0])
        for path in sorted(package.rglob("*.py"))
    }
    assert len(found) > 40
    assert {path: names for path, names in found.items() if names} == {}


def test_an_import_past_a_door_is_seen() -> None:
    source = "from fastemit._delivery.retry import judge\nfrom fastemit._transport import Endpoint\n"
    assert past_the_door(source, "celery") == ["_delivery.retry"]
    assert past_the_door(source, "_delivery") == []


def times_read(path: Path) -> set[str]:
    """What a module uses of the module `time`."""
    tree = ast.parse(path.read_text("utf-8"))
    names = {alias.asname or "time" for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names if alias.name == "time"}  # fmt: skip
    used = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "time"
            for alias in node.names}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            used.add(node.attr)
    return used


def test_no_module_waits_by_a_function_of_time_which_a_test_suite_may_have_frozen() -> None:
    package = ROOT / "src" / "fastemit"
    used = {path.name: times_read(path) for path in package.rglob("*.py")}
    # Dates, and the processor time of a benchmark. What else there is, `_time.py` has.
    assert set().union(*used.values()) == {"time_ns", "process_time"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_no_permission_but_what_its_jobs_ask_for(workflow: Path) -> None:
    assert load(workflow)["permissions"] == {}


@pytest.mark.parametrize("job", list(jobs()))
def test_a_job_ends_in_time_and_says_what_it_may_do(job: dict[str, Any]) -> None:
    assert 0 < job["timeout-minutes"] <= 60
    written = {scope for scope, access in job["permissions"].items() if access == "write"}
    assert written <= {"id-token", "attestations"}


def test_every_action_is_pinned_by_commit() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action)] == []


def test_every_make_command_of_the_workflows_exists() -> None:
    commands = [step["run"] for step in steps() if step.get("run", "").startswith("make ")]
    assert commands
    assert {command.split()[1] for command in commands} <= TARGETS


def test_only_a_tag_is_published_and_only_main_goes_to_the_test_index() -> None:
    wheels = load(ROOT / ".github" / "workflows" / "wheels.yml")["jobs"]
    rules = {name: job["if"] for name, job in wheels.items() if "if" in job}
    tag, main = "github.ref_type == 'tag'", "github.ref == 'refs/heads/main'"
    assert rules == {
        "attest": f"github.event_name == 'push' && {tag}",
        "publish": f"github.event_name == 'push' && {tag}",
        "publish-for-trial": f"github.event_name == 'push' && {main}",
    }
    assert [name for name, job in wheels.items() if "id-token" in job["permissions"]] == list(rules)
