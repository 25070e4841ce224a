"""An exception of a signal handler, at any point of a flush, leaves the emitter in working order.

One point after another: in fastemit's own code, and in what holds locks of all that it calls.
"""

from __future__ import annotations

import contextlib
import gc
import queue
import threading
from collections.abc import Callable

import pytest
import urllib3.connectionpool

from fastemit import Emitter
from tests.support.delivery import Rig, Running, numbers, put
from tests.support.interrupts import Interrupted, Interrupter
from tests.support.slow import slow

OURS = tuple(f"_delivery/{name}" for name in ("delivery", "inline", "workers", "waking", "waiting"))
#: urllib3's pool of connections, and what the one that it makes by itself is made of.
POOL = (urllib3.connectionpool.__file__, queue.__file__, threading.__file__)


def points_of(make: Callable[[], Emitter], files: tuple[str, ...]) -> int:
    emitter = make()
    # Python 3.13 tells of the opcodes of a function from its second call on.
    for _ in range(2):
        put(emitter, 2)
        # The first flush of an emitter makes a connection.
        emitter._transport.close()
        with Interrupter(-1, files) as interrupter:
            emitter.flush()
    return interrupter.points


# A connection that urllib3 held at that moment is left to Python to close.
@pytest.mark.filterwarnings("ignore:.*unclosed <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize(
    ("files", "backoff"),
    [(OURS, False), slow(OURS, True), slow(POOL, False), (POOL, True)],
    ids=["ours-open", "ours-backoff", "pool-open", "pool-backoff"],
)
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
