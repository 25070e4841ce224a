"""What the tests of event stores share: the stores that the documentation shows, others, and one that watches."""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```python[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)

Event = dict[str, Any]


def python_blocks(page: str) -> Iterator[tuple[int, str]]:
    """The fenced blocks of Python of a page, each with the line that it begins in."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        yield text.count("\n", 0, found.start(1)) + 1, found[1]


@cache
def documented(name: str) -> Any:
    """A class that docs/drop-in.md defines."""
    block = next(block for _, block in python_blocks("docs/drop-in.md") if f"class {name}" in block)
    namespace: dict[str, Any] = {"__name__": "drop_in"}
    module = ast.parse(block)
    # Without the lines that use it.
    module.body = [part for part in module.body if isinstance(part, (ast.Import, ast.ImportFrom, ast.ClassDef))]
    exec(compile(module, "docs/drop-in.md", "exec"), namespace)
    return namespace[name]


class ListStore:
    """The simplest store that there is: events in a list; those to be retried go to the end."""

    def __init__(self, capacity: int = 10_000) -> None:
        self.events: list[Event] = []
        self.capacity = capacity

    def add_event(self, payload: Event) -> Any:
        if len(self.events) >= self.capacity:
            return False
        self.events.append(payload)
        return True

    def get_events_batch(self) -> Any:
        batch, self.events = self.events, []
        return batch

    def cleanup(self, batch: list[Event], need_retry: bool) -> None:
        if need_retry:
            self.events += batch

    def size(self) -> Any:
        return len(self.events)


class FrontStore(ListStore):
    """What is to be retried goes before what is newer."""

    def cleanup(self, batch: list[Event], need_retry: bool) -> None:
        if need_retry:
            self.events[:0] = batch


class PeekStore(ListStore):
    """Hands out again what was not cleaned up, and counts it as there: a table that rows are deleted from."""

    def get_events_batch(self) -> Any:
        return list(self.events)

    def cleanup(self, batch: list[Event], need_retry: bool) -> None:
        if not need_retry:
            done = {id(event) for event in batch}
            self.events = [event for event in self.events if id(event) not in done]


class SilentStore(ListStore):
    """`add_event` returns None, which is no refusal."""

    def add_event(self, payload: Event) -> None:
        self.events.append(payload)


class ForgetfulStore(ListStore):
    """Takes back only so many of the events that are to be retried."""

    def __init__(self, takes_back: int) -> None:
        super().__init__()
        self.takes_back = takes_back

    def cleanup(self, batch: list[Event], need_retry: bool) -> None:
        if need_retry:
            self.events += batch[: self.takes_back]


class Watched:
    """A store around another: it notes each call, and what an emitter does that it must not do."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.wrong: list[str] = []
        self.batches: list[list[int]] = []
        self.cleaned: list[tuple[list[int], bool]] = []
        self.calls = 0
        self._busy = threading.Lock()
        self._out: dict[int, Event] = {}

    def _call(self, name: str, *arguments: Any) -> Any:
        if not self._busy.acquire(blocking=False):
            self.wrong.append(f"{name} called in the middle of another call")
            return getattr(self.inner, name)(*arguments)
        try:
            self.calls += 1
            return getattr(self.inner, name)(*arguments)
        finally:
            self._busy.release()

    def add_event(self, payload: Event) -> Any:
        return self._call("add_event", payload)

    def get_events_batch(self) -> Any:
        if self._out:
            self.wrong.append(f"a batch taken while {len(self._out)} events were out")
        batch = self._call("get_events_batch")
        self._out = {id(event): event for event in batch}
        self.batches.append(_numbers(batch))
        return batch

    def cleanup(self, batch: list[Event], need_retry: bool) -> None:
        for event in batch:
            if self._out.pop(id(event), None) is None:
                self.wrong.append(f"cleanup of {event}, which is not out")
        self.cleaned.append((_numbers(batch), need_retry))
        self._call("cleanup", batch, need_retry)

    def size(self) -> Any:
        return self._call("size")

    def told(self, need_retry: bool) -> list[int]:
        """The events that `cleanup` was called for in this way, in order."""
        return [number for batch, retry in self.cleaned if retry is need_retry for number in batch]


def _numbers(events: list[Event]) -> list[int]:
    return [int(event["n"]) for event in events]
