"""An exception of a signal handler, at any point of a wait for room, leaves a buffer that takes events."""

from __future__ import annotations

import contextlib

import pytest

from fastemit._delivery import overflow
from fastemit._delivery.overflow import Admission
from fastemit._delivery.reporting import Reporter
from fastemit._delivery.retry import Backoff
from fastemit._delivery.waiting import Guard
from fastemit._delivery.waking import Waking
from tests.support.buffer import make_buffer
from tests.support.interrupts import Interrupted, Interrupter

FILES = ("_delivery/overflow", "_delivery/waking", "_delivery/waiting")


class Desk:
    """A full buffer, an admission, and a sender that makes room at the fourth request for it."""

    def __init__(self) -> None:
        self.buffer = make_buffer(capacity=1)
        self.admission = Admission(self.buffer, Waking(self.buffer), Backoff(60.0), Reporter(), Guard(), "block")
        self.buffer.append({"e": "pv"})
        self._asked = 0

    def make_room(self) -> float | None:
        self._asked += 1
        if self._asked < 4:
            return 0.0
        batch = self.buffer.take()
        assert batch is not None
        batch.sent()
        return None

    def admit(self) -> None:
        self.admission.admit(self.buffer.append({"e": "pv"}), self.make_room)


def test_a_wait_that_is_interrupted_anywhere_leaves_nobody_urgent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflow, "STARVING_AFTER", -1.0)
    # Python 3.13 tells of the opcodes of a function from its second call on.
    for _ in range(2):
        with Interrupter(-1, FILES) as counting:
            Desk().admit()
    assert counting.points > 40
    for at in range(1, counting.points + 1):
        desk = Desk()
        with Interrupter(at, FILES), contextlib.suppress(Interrupted):
            desk.admit()
        assert desk.buffer.starving == 0, at
        while (batch := desk.buffer.take()) is not None:
            batch.sent()
        assert desk.buffer.append({"e": "pv"}) in (0, 1), at
