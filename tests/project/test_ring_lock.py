"""Under the ring lock no object is allocated, nothing is raised and no Python code runs: the C that Cython made tells.

An allocation may run the garbage collector, and that finalizers, which may call anything, or let another thread run.
What stands under the lock is not done at once then, in the builds whose lock is the GIL. (Whether a reference that is
dropped there is the last one the C does not tell; `tests/test_buffer_wake.py` and its like do.)
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "src/fastemit"
EXTENSIONS = sorted(SOURCES.glob("*.pyx"))

#: What may be called under the lock: of Python, what only reads or counts; dicts whose keys are ints; memory that is no
#: object; and what stands in `_ring.pxd` and its like, which is looked through as well.
ALLOWED = re.compile(
    r"""
    (?:__Pyx_)?Py_?(?:X?INCREF|DECREF) | __Pyx_(?:X?DECREF|X?INCREF|DECREF_SET|GOTREF|GIVEREF|RefNanny\w+)
    | PyList_(?:GET_ITEM|SET_ITEM|GET_SIZE) | PyBytes_(?:AS_STRING|GET_SIZE)
    | PyDict_(?:SetItem|DelItem|GetItemWithError|Next|CheckExact) | PyErr_Clear
    | PyUnicode_(?:CheckExact|1BYTE_DATA|2BYTE_DATA|4BYTE_DATA|DATA|KIND|READ|GET_LENGTH|IS_\w+)
    | PyLong_(?:CheckExact|AsLongLongAndOverflow)
    | PyFloat_(?:CheckExact|AS_DOUBLE) | PyOS_double_to_string | PyMem_Free
    | PyMem_Raw(?:Malloc|Realloc|Free) | mem(?:cpy|move|cmp|chr|set)
    | FASTEMIT_\w+ | fastemit_\w+ | (?:__pyx_fuse_\d)?__pyx_f_8fastemit_\w+
    | if | for | while | switch | sizeof | return | likely | unlikely | defined
    """,
    re.VERBOSE,
)
SECTION = re.compile(
    r'"fastemit/\w+\.pyx":(?P<line>\d+)\n(?: \*[^\n]*\n)* \*\s+with cython\.critical_section\([\w.]+\):\s+# <+\n'
    r"(?: \*[^\n]*\n)*\s*\*/\s*\{\s*__Pyx_PyCriticalSection [^{}]*/\*try:\*/ (?=\{)"
)
FUNCTION = re.compile(r"^static [^;={}()]*?\b((?:__pyx_fuse_\d)?__pyx_f_\w+)\([^;{}]*\)\s*(?=\{)", re.MULTILINE)
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|/\*.*?\*/|[{}]', re.DOTALL)


def block_at(code: str, start: int) -> str:
    """The block whose brace is at `start`, without its comments."""
    depth = 0
    parts = []
    at = start
    for token in TOKEN.finditer(code, start):
        parts.append(code[at : token.start()])
        at = token.end()
        if not token[0].startswith("/*"):
            parts.append(token[0])
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return "".join(parts)
    raise AssertionError("a brace is not closed")


def forbidden(code: str) -> dict[int, set[str]]:
    """By line of the .pyx, what the section that begins there, or a function called there, calls and may not."""
    functions = {found[1]: block_at(code, found.end()) for found in FUNCTION.finditer(code)}
    return {
        int(section["line"]): calls_in(block_at(code, section.end()), functions, set())
        for section in SECTION.finditer(code)
    }


def calls_in(block: str, functions: dict[str, str], seen: set[str]) -> set[str]:
    wrong = set()
    for name in re.findall(r"\b([A-Za-z_]\w*)\s*\(", block):
        if not ALLOWED.fullmatch(name) or ("__pyx_f_" in name and name not in functions):
            # Of a function of another extension this C has no more than a pointer.
            wrong.add(name)
        elif name in functions and name not in seen:
            seen.add(name)
            wrong |= calls_in(functions[name], functions, seen)
    return wrong


def generated(extension: Path) -> str:
    made = extension.with_suffix(".c")
    assert made.exists(), "make rebuild: the C is not there"
    sources = [extension, *SOURCES.glob("_*.pxd")]
    assert made.stat().st_mtime >= max(source.stat().st_mtime for source in sources), "make rebuild: the C is old"
    return made.read_text("utf-8")


def sections_written(extension: Path) -> int:
    return extension.read_text("utf-8").count("with cython.critical_section(")


@pytest.mark.parametrize("extension", list(filter(sections_written, EXTENSIONS)), ids=lambda path: path.stem)
def test_nothing_is_allocated_raised_or_run_under_the_ring_lock(extension: Path) -> None:
    sections = forbidden(generated(extension))
    assert len(sections) == sections_written(extension), "not every section was found in the C"
    assert {line: names for line, names in sections.items() if names} == {}


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda path: path.stem)
def test_no_list_is_made_by_a_comprehension(extension: Path) -> None:
    """Where it finds no memory to grow, the C of Cython 3.3 drops the item twice (since cython/cython#7748)."""
    assert re.findall(r"__Pyx_ListComp_Append\w*\(__pyx_t", generated(extension)) == []


def test_the_check_sees_an_allocation_in_a_function_and_what_a_section_raises_or_calls_elsewhere() -> None:
    code = generated(SOURCES / "_buffer.pyx")
    deep = next(found for found in FUNCTION.finditer(code) if found[1].endswith("EventBuffer__place_of"))
    section = next(SECTION.finditer(code))
    elsewhere = "__pyx_f_8fastemit_7_encode_dump"
    for place, what in ((deep.end(), "PyList_New"), (section.end(), "__PYX_ERR"), (section.end(), elsewhere)):
        broken = f"{code[: place + 1]} {what}(0); {code[place + 1 :]}"
        assert {name for names in forbidden(broken).values() for name in names} == {what}
