"""What those tests share that hold an emitter to going on, whatever went wrong."""

from __future__ import annotations

from typing import Any

import pytest

from fastemit import Emitter
from tests.support.delivery import Rig, Running, numbers, put, within
from tests.support.waiting import until

BACKGROUND = pytest.mark.parametrize("background", [True, False])

DOWN: dict[str, Any] = {"status": 503, "headers": {"Retry-After": "60"}}


def goes_on(rig: Rig, emitter: Emitter, number: int = 7) -> bool:
    """Whether another event arrives by a flush, and a close ends."""
    rig.collector.reset()
    put(emitter, first=number)
    with within(5):
        Running(emitter.flush).result()
        # Older ones may be there still, and go in a request of their own.
        until(lambda: number in numbers(rig.collector.events))
        assert Running(lambda: emitter.close(2)).result() == 0
    return True
