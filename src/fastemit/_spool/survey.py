"""What there is under a spool, seen from outside."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from fastemit._files import FileFacts, SegmentFileError, read_header
from fastemit._spool.home import DAMAGED, Home, Owner


@dataclass(frozen=True)
class Facts:
    """What another process can see of a directory.

    Attributes:
        name: of the directory.
        owner: None when the directory does not name it.
        alive: whether its process lives.
        files: segments.
        events: how many are still to be sent.
        bytes: size of its segments.
        oldest: when the oldest segment with such events was made, in milliseconds since 1970; None without any.
        faults: why files in it cannot be read, by name.
    """

    name: str
    owner: Owner | None
    alive: bool
    files: int
    events: int
    bytes: int
    oldest: int | None
    faults: dict[str, str]


def candidates(root: str) -> list[str]:
    """Names of the directories under a spool, also those of living processes. Files are left out."""
    found = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                Home.clear_away(root, entry)
                if entry.name.startswith("."):
                    continue
                if entry.name != DAMAGED and entry.is_dir(follow_symlinks=False):
                    found.append(entry.name)
    except OSError:
        return []
    return sorted(found)


def facts_of_files(home: Home) -> tuple[dict[str, FileFacts], dict[str, str]]:
    """The header of each segment, and why the other segments cannot be read. Both by name."""
    facts: dict[str, FileFacts] = {}
    faults: dict[str, str] = {}
    for name in home.names():
        try:
            facts[name] = read_header(home.map_file(name))
        except SegmentFileError as error:
            faults[name] = error.reason
        except (OSError, ValueError):
            faults[name] = "truncated"
    return facts, faults


def survey(root: str) -> list[Facts]:
    """What there is under a spool. Nothing is changed."""
    return [found for name in candidates(root) if (found := _look(root, name)) is not None]


def _look(root: str, name: str) -> Facts | None:
    # Root may look at what others have left.
    home = Home.claim(root, name, anyones=True)
    alive = home is None
    if home is None:
        home = Home.of_another(root, name)
        if home is None:
            return None
    try:
        facts, faults = facts_of_files(home)
        size = 0
        for file in home.names():
            with contextlib.suppress(OSError):
                size += os.stat(os.path.join(home.path, file)).st_size
        waiting = [each.created_ms for each in facts.values() if each.unsettled]
        events = sum(each.unsettled for each in facts.values())
        count = len(facts) + len(faults)
        return Facts(name, home.owner, alive, count, events, size, min(waiting, default=None), faults)
    finally:
        home.let_go()
