"""An exception of a signal handler, at any point of a flush, leaves the emitter in working order.

Python runs signal handlers after a call, at the start of a function and at a jump back. There, one after another, this
raises what a handler might raise: in fastemit's own code, and in what holds locks of all that it calls.
"""

from __future__ import annotations

import contextlib
import dis
import gc
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import urllib3.connectionpool

import fastemit
from fastemit import Emitter
from tests.support.delivery import Rig, Running, numbers, put, rigged

HERE = fastemit.__path__[0]
#: urllib3's pool of connections, and what the one that it makes by itself is made of.
POOL = (urllib3.connectionpool.__file__, queue.__file__, threading.__file__)


class Interrupted(Exception):
    pass


@pytest.fixture
def rig() -> Iterator[Rig]:
    with rigged() as rig:
        yield rig


class Interrupter:
    """Raises `Interrupted` at the `at`-th point at which a signal handler may run in these files.

    Each is a path, or the name of a module of the delivery.
    """

    def __init__(self, at: int, files: tuple[str, ...]) -> None:
        self.points = 0
        self._at = at
        self._files = tuple(name if name.endswith(".py") else f"{HERE}/_delivery/{name}.py" for name in files)
        self._previous: dict[FrameType, str] = {}

    def __enter__(self) -> Interrupter:
        gc.disable()  # whose finalizers (of earlier pools) would be interrupted instead
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks whether any frame wants them when tracing begins
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        gc.enable()

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
                    raise Interrupted
        return self._trace


def points_of(make: Callable[[], Emitter], files: tuple[str, ...]) -> int:
    emitter = make()
    # Python 3.13 tells of the opcodes of a function from its second call on.
    for _ in range(2):
        put(emitter, 2)
        with Interrupter(-1, files) as interrupter:
            emitter.flush()
    return interrupter.points


# A connection that urllib3 held at that moment is left to Python to close.
@pytest.mark.filterwarnings("ignore:.*unclosed <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("backoff", [False, True], ids=["open", "backoff"])
@pytest.mark.parametrize("files", [("delivery", "waiting"), POOL], ids=["ours", "pool"])
def test_a_flush_that_is_interrupted_anywhere_leaves_an_emitter_that_sends(
    rig: Rig, files: tuple[str, ...], backoff: bool
) -> None:

    def make() -> Emitter:
        return rig.emitter(background=False, max_retry_delay_seconds=60)

    points = points_of(make, files)
    assert points > 20
    for at in range(1, points + 1):
        emitter = make()
        put(emitter, 2)
        if backoff:
            rig.shut_the_gate(emitter)
        rig.collector.reset()
        with Interrupter(at, files), contextlib.suppress(Interrupted):
            emitter.flush()
        put(emitter, 2, 2)
        assert emitter.drain(5), at
        # Another thread finds it in order too.
        put(emitter, 1, 4)
        assert Running(lambda emitter=emitter: emitter.drain(5)).result(), at  # type: ignore[misc]
        assert set(numbers(rig.collector.events)) == {0, 1, 2, 3, 4}, at
        emitter.close(0)
        del emitter
    gc.collect()  # so that what it leaves open is closed here, and not in another test
