"""What a command tells on standard error: its progress, by tqdm (the extra `cli`), and its warnings.

Nothing in here raises when nobody reads standard error any more, because the command has to go on and end.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Protocol, TextIO


class Progress(Protocol):
    """Shows how far a command is, at the bottom of a terminal.

    Thread safety: any thread may call anything.
    """

    def update(self, done: int, text: str) -> None:
        """Show how much of the total is done, and `text`."""
        ...

    def say(self, line: str) -> None:
        """Print a line that stays."""
        ...

    def close(self) -> None:
        """Take the progress off the terminal."""
        ...


def progress_on(stream: TextIO, total: int | None, wanted: bool = True) -> Progress:
    """The progress for `stream`. It is shown only if that is a terminal and tqdm is installed.

    Args:
        total: what `update` counts up to; None if that is not known.
        wanted: False to show none on a terminal either.
    """
    if not (wanted and stream.isatty()):
        return _Silent(stream)
    try:
        tqdm = import_module("tqdm").tqdm
    except ImportError:
        return _Silent(stream)
    return _Bar(tqdm, stream, total)


class _Silent:
    """Shows no progress, and prints only the lines that stay."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def update(self, done: int, text: str) -> None:
        pass

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError):
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        pass


class _Bar:
    """Shows tqdm's bar."""

    def __init__(self, tqdm: Any, stream: TextIO, total: int | None) -> None:
        form = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]" if total else "{desc} [{elapsed}]"
        self._stream = stream
        # Its monitor is a thread that goes on after the bar has ended. It is not needed: `update` is called often.
        tqdm.monitor_interval = 0
        self._tqdm = tqdm
        self._bar = tqdm(total=total, file=stream, bar_format=form, leave=False, dynamic_ncols=True)

    def update(self, done: int, text: str) -> None:
        with contextlib.suppress(OSError):
            self._bar.set_description_str(text, refresh=False)
            self._bar.n = done
            self._bar.refresh()

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._tqdm.write(line, file=self._stream)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._bar.close()


class _Lines(logging.Handler):
    def __init__(self, progress: Progress, left_out: Callable[[str], bool]) -> None:
        super().__init__(logging.WARNING)
        self._progress = progress
        self._left_out = left_out

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if not self._left_out(line):
            self._progress.say(f"fastemit: {record.levelname.lower()}: {line}")


@contextlib.contextmanager
def log_lines(progress: Progress, left_out: Callable[[str], bool] = lambda line: False) -> Iterator[None]:
    """Print what fastemit logs, from warnings up, as a command prints its own warnings.

    Args:
        progress: prints the lines.
        left_out: whether a line is not printed, because the command itself tells the same.
    """
    from fastemit import logger

    handler = _Lines(progress, left_out)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
