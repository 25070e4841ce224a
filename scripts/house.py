"""Draws docs/assets/house.svg: the rooms of src/fastemit, and which of them imports which. `make house` runs it.

Rooms and arrows are read from the source, and the imports decide on which floor a room is. A test fails when the
picture has not been drawn again after a change. The same source always gives the same picture.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = ROOT / "src" / "fastemit"
PICTURE: Final = ROOT / "docs" / "assets" / "house.svg"

#: Pixels. Narrow, so that the letters can still be read where it is scaled down to a telephone.
WIDTH: Final = 560
MARGIN, GAP, LANE = 12, 10, 14
FLOOR_GAP: Final = 42
NAME, TEXT, INSIDE = 13, 11.5, 10.5
LINE: Final = 15

#: What a room is, in a few words. One that is not here is described by the first sentence of its docstring.
WORDS: Final = {
    "_attributes": "an emitter's attributes, to read and to assign",
    "_batch": "events on their way to the collector",
    "_buffer": "the ring buffer: takes events in, hands batches out",
    "_delivery": "when events are sent, and by whom",
    "_encode": "encodes what is no plain dict, and what goes by GET",
    "_filed_ring": "a ring whose segments lie in files",
    "_mapping": "makes and maps files at once",
    "_files": "the files of segments: made, opened, checked",
    "_interfaces": "what is asked of a queue and of a transport",
    "_native": "loads the extension",
    "_payload": "builds the payload of an event for Tracker",
    "_process": "fork, and the end of the process",
    "_settings": "the rules for arguments",
    "_signals": "what signal handlers do and raise",
    "_spool": "files in which events outlive the process",
    "_stores": "an event store of the user's, used like the buffer",
    "_system": "the process: forks, clocks, subinterpreters",
    "_time": "the clock of deadlines and backoffs",
    "_transport": "requests over HTTP, and what is answered",
    "celery": "CeleryEmitter, and the worker that sends for it",
    "cli": "the command line",
    "contrib": "metrics for other packages",
    "emitter_configuration": "the settings of an emitter for create_tracker",
    "emitters": "Emitter and AsyncEmitter: start to read here",
    "event_store": "the methods of a store, and the default one",
    "redis": "RedisEmitter and RedisWorker, by a list in Redis",
    "snowplow": "trackers by their namespace",
    "stats": "counters, and log lines that do not flood",
    "testing": "the collector for tests",
    "tracker": "a faster Tracker",
    "typing": "types of the public interface",
}


@dataclass
class Room:
    """A box of the picture: a package, or a module beside the packages."""

    name: str
    says: str
    #: The modules inside, or what a native module is made of.
    inside: list[str]
    imports: set[str] = field(default_factory=set)
    floor: int = 0
    x: float = 0.0
    width: float = 0.0
    lines: list[tuple[str, str]] = field(default_factory=list)

    @property
    def public(self) -> bool:
        return not self.name.startswith("_")


# -- what the source says ---------------------------------------------------------------------------------------------


def docstring(path: Path) -> str:
    """The first sentence of a module, without the name that comes before a colon."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r'^"""(.+?)(?:"""|\n\n|\Z)', text, re.MULTILINE | re.DOTALL)
    sentence = re.split(r"\.(?: |$)", " ".join(found[1].split()))[0] if found else ""
    before, _, after = sentence.rstrip(":").partition(": ")
    return (after or before).replace("`", "")


def sources() -> dict[str, list[Path]]:
    """The files of each room. `Tracker` and the buffer are one room each, with the C below them."""
    rooms: dict[str, list[Path]] = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.glob("*.pyx"), *PACKAGE.glob("*.pxd")]):
        parts = path.relative_to(PACKAGE).parts
        name = parts[0].partition(".")[0]
        if len(parts) == 1 and name in ("__init__", "__main__", "_version"):
            continue
        rooms.setdefault(name, []).append(path)
    return rooms


def fastemit_names(path: Path, doors: dict[str, str]) -> set[str]:
    """The modules right below `fastemit` that this file imports, at whatever place."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return set(re.findall(r"^ *(?:from|cimport|import) fastemit\.(\w+)", text, re.MULTILINE))
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fastemit.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fastemit":
            inner = (node.module or "").split(".")[1:]
            # `from fastemit import Emitter` is an import of the module that `fastemit` has it from.
            names |= {inner[0]} if inner else {doors.get(alias.name, alias.name) for alias in node.names}
    return names


def rooms() -> list[Room]:
    """All rooms, each with the rooms that it imports, by name."""
    files = sources()
    doors: dict[str, str] = {}
    for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastemit."):
            doors |= {alias.name: (node.module or "").split(".")[1] for alias in node.names}
    imports = {name: set().union(*(fastemit_names(path, doors) for path in paths)) for name, paths in files.items()}
    # A .pxd that is C for others is shown in the native module that is nearest to it. If others use it too, there is
    # no arrow, because it is compiled into each of them.
    native = sorted(name for name, paths in files.items() if any(path.suffix == ".pyx" for path in paths))
    owner: dict[str, str] = {}
    uses: dict[str, set[str]] = {name: set() for name in native}
    ahead = [(name, name) for name in native]
    for of, name in ahead:
        for part in sorted(imports[name] & set(files)):
            if part in native:
                uses[of].add(part)
            elif (of, part) not in ahead:
                owner.setdefault(part, of)
                ahead.append((of, part))
    made = []
    for name in sorted(set(files) - set(owner)):
        parts = sorted(part for part, of in owner.items() if of == name)
        paths = files[name]
        package = next((path for path in paths if path.name == "__init__.py"), None)
        inside = [path.stem for path in paths if package and not path.stem.startswith("_")] or parts
        main = package or next((path for path in paths if path.suffix in (".py", ".pyx")), paths[0])
        used = uses.get(name, imports[name])
        made.append(Room(name, WORDS.get(name) or docstring(main), inside, (used & set(files)) - {name}))
    if silent := [room.name for room in made if not room.says]:
        raise SystemExit(f"scripts/house.py: no docstring says what this is: {', '.join(silent)}")
    if gone := set(WORDS) - {room.name for room in made}:
        raise SystemExit(f"scripts/house.py: WORDS has rooms that are not there: {', '.join(sorted(gone))}")
    return made


def reached(imports: dict[str, set[str]], name: str) -> set[str]:
    """What `name` imports, and what that imports, and so on."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        new = imports.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found


# -- where each room is -----------------------------------------------------------------------------------------------


def set_floors(house: list[Room]) -> int:
    """Each room right below the lowest of those that import it; the number of floors. Floor 0 is the roof."""
    by_name = {room.name: room for room in house}
    for _ in house:
        for room in house:
            for name in room.imports:
                below = by_name[name]
                below.floor = max(below.floor, room.floor + 1)
                if below.floor > len(house):
                    raise SystemExit(
                        f"scripts/house.py: {room.name} and {name} import each other, by way of others too"
                    )
    imported = set().union(*(room.imports for room in house))
    for room in house:
        if room.name not in imported and not room.public:
            # Nothing but the package itself imports it.
            room.floor = min(by_name[name].floor for name in room.imports) - 1
    return max(room.floor for room in house) + 1


def arrows(house: list[Room]) -> list[tuple[str, str]]:
    """The imports that are no shortcut of a longer way, from top to bottom."""
    imports = {room.name: room.imports for room in house}
    kept = []
    for room in house:
        for name in sorted(room.imports):
            if not any(name in reached(imports, other) for other in room.imports - {name}):
                kept.append((room.name, name))
    return kept


@dataclass
class Lane:
    """Where arrows to `to` pass a floor."""

    to: str
    x: float = 0.0
    width: float = LANE


def floors_of(house: list[Room], lines: list[tuple[str, str]], count: int) -> list[list[Room | Lane]]:
    """The rooms and lanes of each floor, in an order in which few arrows cross."""
    by_name = {room.name: room for room in house}
    floors: list[list[Room | Lane]] = [[room for room in house if room.floor == floor] for floor in range(count)]
    for source, to in lines:
        for floor in range(by_name[source].floor + 1, by_name[to].floor):
            if not any(isinstance(item, Lane) and item.to == to for item in floors[floor]):
                floors[floor].append(Lane(to))
    best = [list(floor) for floor in floors]
    fewest = crossings(best, links(best, by_name, lines))
    for turn in range(24):
        down = turn % 2 == 0
        pairs = links(floors, by_name, lines)
        for number in range(1, count) if down else range(count - 2, -1, -1):
            beside = floors[number - 1 if down else number + 1]
            place = {id(item): at / max(1, len(beside) - 1) for at, item in enumerate(beside)}

            ends: dict[int, list[float]] = {id(item): [] for item in floors[number]}
            for upper, lower in pairs:
                here, there = (lower, upper) if down else (upper, lower)
                if id(here) in ends and id(there) in place:
                    ends[id(here)].append(place[id(there)])
            middle = {key: sum(found) / len(found) if found else 0.5 for key, found in ends.items()}
            floors[number].sort(key=lambda item, middle=middle: middle[id(item)])  # type: ignore[misc]
        now = crossings(floors, pairs)
        if now < fewest:
            fewest, best = now, [list(floor) for floor in floors]
    return best


def links(
    floors: list[list[Room | Lane]], by_name: dict[str, Room], lines: list[tuple[str, str]]
) -> list[tuple[Room | Lane, Room | Lane]]:
    """The pieces of all arrows, each from one floor to the next; those that share a lane share its pieces."""
    pieces: dict[tuple[int, int], tuple[Room | Lane, Room | Lane]] = {}
    for source, to in lines:
        here: Room | Lane = by_name[source]
        for floor in range(by_name[source].floor + 1, by_name[to].floor + 1):
            there = next(item for item in floors[floor] if (item.to if isinstance(item, Lane) else item.name) == to)
            pieces[id(here), id(there)] = here, there
            here = there
    return list(pieces.values())


def crossings(floors: list[list[Room | Lane]], pieces: list[tuple[Room | Lane, Room | Lane]]) -> int:
    place = {id(item): at for floor in floors for at, item in enumerate(floor)}
    level = {id(item): number for number, floor in enumerate(floors) for item in floor}
    ends = [(level[id(a)], place[id(a)], place[id(b)]) for a, b in pieces]
    return sum(
        first[0] == second[0] and (first[1] - second[1]) * (first[2] - second[2]) < 0
        for at, first in enumerate(ends)
        for second in ends[:at]
    )


def set_widths(floor: list[Room | Lane]) -> None:
    """The rooms of a floor fill it; whatever is free goes to the one with the most lines, bit by bit."""
    boxes = [item for item in floor if isinstance(item, Room)]
    for room in boxes:
        longest = max(map(len, room.says.split()))
        room.width = max(84.0, round(len(room.name) * NAME * 0.62 + 18), round(longest * TEXT * 0.56 + 18))
        set_lines(room)
    free = WIDTH - 2 * MARGIN - GAP * (len(floor) - 1) - sum(item.width for item in floor)
    while free > 0:
        room = max(boxes, key=lambda each: (len(each.lines), -each.width))
        room.width += min(4, free)
        free -= 4
        set_lines(room)
    at = float(MARGIN)
    for item in floor:
        item.x = at
        at += item.width + GAP


def set_lines(room: Room) -> None:
    """What is written into a box: (kind of letters, text)."""

    def wrapped(text: str, letter: float) -> list[str]:
        return textwrap.wrap(text, max(8, int((room.width - 14) / letter)), break_long_words=False)

    room.lines = [("n", room.name)]
    room.lines += [("t", line) for line in wrapped(room.says, TEXT * 0.56)]
    room.lines += [("i", line) for line in wrapped(" ".join(room.inside), INSIDE * 0.61)]


# -- the picture ------------------------------------------------------------------------------------------------------

STYLE: Final = """
.n{font:600 13px ui-monospace,Menlo,Consolas,monospace;fill:#0f172a}
.t{font:11.5px system-ui,sans-serif;fill:#1e293b}
.i{font:10.5px ui-monospace,Menlo,Consolas,monospace;fill:#64748b}
.public{fill:#ecfeff;stroke:#0e7490}
.private{fill:#f8fafc;stroke:#64748b}
.native{fill:#fffbeb;stroke:#b45309}
.a{fill:none;stroke:#475569;stroke-width:1.3}
""".strip()
LEGEND: Final = [("public", "what users import"), ("private", "private"), ("native", "native: Cython and C")]


def draw() -> str:
    house = rooms()
    count = set_floors(house)
    lines = arrows(house)
    by_name = {room.name: room for room in house}
    floors = floors_of(house, lines, count)
    native = {name for name, paths in sources().items() if any(path.suffix == ".pyx" for path in paths)}

    top: dict[int, float] = {}
    bottom: dict[int, float] = {}
    at = 70.0
    boxes: list[str] = []
    for floor in floors:
        set_widths(floor)
        for item in floor:
            if isinstance(item, Room):
                set_lines(item)
        height = max(len(item.lines) for item in floor if isinstance(item, Room)) * LINE + 12
        for item in floor:
            top[id(item)], bottom[id(item)] = at, at + height
            if isinstance(item, Room):
                kind = "native" if item.name in native else "public" if item.public else "private"
                place = f'x="{item.x:g}" y="{at:g}" width="{item.width:g}" height="{height:g}"'
                boxes.append(f'<rect class="{kind}" {place} rx="6"/>')
                for number, (letters, text) in enumerate(item.lines):
                    y = at + 18 + number * LINE
                    boxes.append(
                        f'<text class="{letters}" x="{item.x + 8:g}" y="{y:g}">{escape(text, quote=False)}</text>'
                    )
        at += height + FLOOR_GAP
    bottom_of_all = at - FLOOR_GAP + MARGIN

    pieces = links(floors, by_name, lines)
    out: list[str] = []
    for a, b in pieces:
        starts = sorted((each for each in pieces if each[0] is a), key=lambda each: each[1].x + each[1].width / 2)
        ends = sorted((each for each in pieces if each[1] is b), key=lambda each: each[0].x + each[0].width / 2)
        x0 = a.x + a.width * (starts.index((a, b)) + 1) / (len(starts) + 1)
        x1 = b.x + b.width * (ends.index((a, b)) + 1) / (len(ends) + 1)
        if isinstance(a, Lane):
            x0 = a.x + LANE / 2
        if isinstance(b, Lane):
            x1 = b.x + LANE / 2
        y0, y1 = bottom[id(a)], top[id(b)]
        half = (y0 + y1) / 2
        head = "" if isinstance(b, Lane) else ' marker-end="url(#a)"'
        end = y1 - 1 if head else bottom[id(b)]
        on = "" if head else f"V{end:g}"
        curve = f"M{x0:.1f} {y0:g}C{x0:.1f} {half:g} {x1:.1f} {half:g} {x1:.1f} {y1 - bool(head):g}{on}"
        out.append(f'<path class="a"{head} d="{curve}"/>')

    legend = []
    x = float(MARGIN)
    for kind, words in LEGEND:
        legend.append(f'<rect class="{kind}" x="{x:g}" y="42" width="14" height="12" rx="3"/>')
        legend.append(f'<text class="t" x="{x + 19:g}" y="52">{words}</text>')
        x += 34 + len(words) * 5.8
    size = f'viewBox="0 0 {WIDTH} {bottom_of_all:g}" width="{WIDTH}" height="{bottom_of_all:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            "<title>The rooms of fastemit, and which of them imports which</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L10 5L0 10z" fill="#475569"/></marker></defs>',
            # Paper of its own, so that it reads the same by day and by night.
            f'<rect width="{WIDTH}" height="{bottom_of_all:g}" rx="8" fill="#fff"/>',
            f'<text class="n" x="{MARGIN}" y="26">src/fastemit: an arrow is an import, and leads down</text>',
            *legend,
            *out,
            *boxes,
            "</svg>",
            "",
        ]
    )


def main() -> None:
    text = draw()
    if sys.argv[1:] == ["--check"]:
        if not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != text:
            raise SystemExit("docs/assets/house.svg is not what the source is: run `make house`, and commit it")
        return
    PICTURE.write_text(text, encoding="utf-8")
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
