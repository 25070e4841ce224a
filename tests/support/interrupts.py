"""Raises what a signal handler might raise, at any point at which Python runs handlers.

Python runs them after a call, at the start of a function and at a jump back.
"""

from __future__ import annotations

import dis
import gc
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import fastemit

_HERE = fastemit.__path__[0]


class Interrupted(Exception):
    pass


def _interrupt() -> None:
    raise Interrupted


class Interrupter:
    """Has a handler of SIGUSR1 raise `Interrupted` at the `at`-th point of these files at which a handler may run.

    Files are named as in `_delivery/senders`, or by their path. Instead of raising, the handler may call `do`.
    """

    def __init__(self, at: int, files: tuple[str, ...], do: Callable[[], object] = _interrupt) -> None:
        self.points = 0
        self._do = do
        self._at = at
        self._files = tuple(name if name.endswith(".py") else f"{_HERE}/{name}.py" for name in files)
        self._previous: dict[FrameType, str] = {}

    def __enter__(self) -> Interrupter:
        self._handler = signal.signal(signal.SIGUSR1, self._handle)
        gc.disable()  # whose finalizers (of earlier pools) would be interrupted instead
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks whether any frame wants them when tracing begins
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        gc.enable()
        signal.signal(signal.SIGUSR1, self._handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._do()

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            previous = self._previous.get(frame, "RESUME")
            self._previous[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if previous.startswith(("CALL", "RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE")):
                self.points += 1
                if self.points == self._at:
                    sys.settrace(None)
                    signal.raise_signal(signal.SIGUSR1)
        return self._trace
