"""`close` and `on_lost`: the process may end as soon as `close` returns, so what is left has been told by then."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.support.delivery import DEADLINE, Rig, Running, numbers, put


@pytest.mark.parametrize("awaited", [False, True])
def test_close_waits_until_a_sender_that_tells_of_the_same_events_has_done_so(rig: Rig, awaited: bool) -> None:
    entered, release = threading.Event(), threading.Event()
    told: list[int] = []

    def lost(reason: str, events: list[dict[str, Any]]) -> None:
        entered.set()
        assert release.wait(DEADLINE)
        told.extend(numbers(events))

    emitter = rig.emitter(on_lost=lost)
    put(emitter)
    rig.shut_the_gate(emitter)
    # As the last sender does when its time is up.
    sender = Running(emitter._delivery.tell_lost)
    assert entered.wait(DEADLINE)
    closing = Running(lambda: (asyncio.run(emitter.aclose(0)) if awaited else emitter.close(0), told.copy()))
    assert closing.goes_on()
    release.set()
    assert closing.result() == (1, [0])
    sender.result()
