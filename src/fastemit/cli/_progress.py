"""A line at the bottom of a terminal that shows how far it is; tqdm's bar where that is installed."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any, Protocol, TextIO

from fastemit._time import monotonic


class Progress(Protocol):
    """Thread safety: any thread may call anything."""

    def update(self, done: int, text: str) -> None:
        """Show that `done` of the total is done, and `text`."""
        ...

    def say(self, line: str) -> None:
        """Print a line that stays."""
        ...

    def close(self) -> None:
        """Leave the terminal in order."""
        ...


def progress_on(stream: TextIO, total: int | None, wanted: bool = True) -> Progress:
    """The progress for `stream`: none unless it is a terminal.

    Args:
        total: what `update` counts up to; None if nobody knows.
        wanted: False for none on a terminal either.
    """
    if not (wanted and stream.isatty()):
        return _Silent(stream)
    try:
        tqdm = import_module("tqdm").tqdm
    except ImportError:
        return _Line(stream, total)
    return _Bar(tqdm, stream, total)


class _Silent:
    """No progress: only the lines that stay."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def update(self, done: int, text: str) -> None:
        pass

    def say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        pass


class _Line:
    """Percentage, text and time, in one line that overwrites itself."""

    def __init__(self, stream: TextIO, total: int | None) -> None:
        self._stream = stream
        self._total = total
        self._started = monotonic()
        self._lock = threading.Lock()

    def update(self, done: int, text: str) -> None:
        share = f"{min(done / self._total, 1.0):4.0%} " if self._total else ""
        with self._lock:
            self._write(f"\r\x1b[K{share}{text}, {monotonic() - self._started:.0f} s")

    def say(self, line: str) -> None:
        with self._lock:
            self._write(f"\r\x1b[K{line}\n")

    def close(self) -> None:
        with self._lock:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Bar:
    """tqdm's bar."""

    def __init__(self, tqdm: Any, stream: TextIO, total: int | None) -> None:
        form = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]" if total else "{desc} [{elapsed}]"
        self._stream = stream
        # Its monitor would be a thread that outlives the bar; `update` is called often enough without one.
        tqdm.monitor_interval = 0
        self._tqdm = tqdm
        self._bar = tqdm(total=total, file=stream, bar_format=form, leave=False, dynamic_ncols=True)

    def update(self, done: int, text: str) -> None:
        self._bar.set_description_str(text, refresh=False)
        self._bar.n = done
        self._bar.refresh()

    def say(self, line: str) -> None:
        self._tqdm.write(line, file=self._stream)

    def close(self) -> None:
        self._bar.close()
