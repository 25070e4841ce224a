"""Python code that runs in the middle of a call, and does to the buffer or the intake what it may do at any time."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from fastemit._batch import Batch
from fastemit._buffer import NOTIFY_NEVER, EventBuffer, Intake
from fastemit._encode import KeptEvent
from tests.support.buffer import drain, in_forked_child, make_buffer, must_take, numbered, put


class Value:
    """Calls something when it is made a string."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __str__(self) -> str:
        self.call()
        return "x" * 70_000  # past what is written without orjson


class Doing:
    """Calls something when it is dropped."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __del__(self) -> None:
        self.call()


class Given(Mapping[str, str]):
    """An event of a store, which calls something when it is copied."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __getitem__(self, name: str) -> str:
        return "b"

    def __iter__(self) -> Iterator[str]:
        self.call()
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def kept_buffer(capacity: int = 1000) -> EventBuffer:
    return EventBuffer(capacity, 1_000_000, 1024, 1, keep=True)


def nothing() -> None:
    pass


# -- the intake ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_another_kind", [False, True], ids=["native", "of another kind"])
def test_an_intake_that_is_opened_again_by_a_value_finishes_the_event_with_what_it_had(of_another_kind: bool) -> None:
    class Around:
        def __init__(self, buffer: EventBuffer) -> None:
            self.append = buffer.append

    def open_intake(answers: list[Any]) -> weakref.ref[EventBuffer]:
        buffer = make_buffer()
        intake._open_intake(Around(buffer) if of_another_kind else buffer, answers.append)
        return weakref.ref(buffer)

    def again() -> None:
        reopened.append(open_intake(second))
        gc.collect()
        assert first_buffer() is not None

    first: list[Any] = []
    second: list[Any] = []
    reopened: list[weakref.ref[EventBuffer]] = []
    intake = Intake()
    first_buffer = open_intake(first)
    intake.input({"a": Value(again)})
    assert (first, second) == ([1], [])
    gc.collect()
    assert first_buffer() is None
    new = reopened[0]()
    assert new is not None
    assert new.queued_events == 0
    intake.input({"a": 1})
    assert (new.queued_events, second) == (1, [1])


def test_what_goes_with_the_earlier_parts_of_an_intake_finds_the_new_ones() -> None:
    intake = Intake()
    earlier, later = kept_buffer(), make_buffer()
    earlier.append_encoded(KeptEvent(b"{}", {"a": Doing(lambda: intake.input({"late": 1}))}))
    intake._open_intake(earlier, print)
    del earlier
    later.notify = NOTIFY_NEVER
    intake._open_intake(later, print)
    assert [event["late"] for event in later.snapshot()] == ["1"]


# -- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sent", "give_back", "yield_place"])
def test_a_batch_that_is_settled_while_it_is_decoded_is_decoded_to_its_end(how: str) -> None:
    buffer = kept_buffer()
    calls: list[Callable[[], object]] = [nothing]
    buffer.stage(Given(lambda: calls[0]()))
    buffer.stage({"a": "c"})
    batch = must_take(buffer)

    def settle() -> None:
        calls[0] = nothing
        getattr(batch, how)()
        buffer.trim(0)

    calls[0] = settle
    assert [event["a"] for event in batch.decode()] == ["b", "c"]
    with pytest.raises(ValueError, match="settled"):
        batch.sent()


def test_what_an_event_was_made_from_may_use_the_buffer_when_it_goes() -> None:
    buffer = kept_buffer()
    for number in range(3):
        buffer.append_encoded(KeptEvent(b"{}", {"n": number, "at the end": Doing(lambda: put(buffer, {"late": 1}))}))
    must_take(buffer).sent()
    assert buffer.counts()[:4] == (3, buffer.queued_bytes, 0, 3)
    assert [event["late"] for event in drain(buffer)] == ["1", "1", "1"]
    assert buffer.check() == 0


def test_dropping_the_oldest_may_bring_in_new_events() -> None:
    buffer = kept_buffer(capacity=4)
    refused: list[Any] = []
    for _ in range(4):
        buffer.append_encoded(KeptEvent(b"{}", {"x": Doing(lambda: refused.append(buffer.append({"late": 1})))}))
    assert buffer.drop_oldest(buffer.prepare({"new": 1})) >= 1
    assert buffer.check() == 0
    assert len(buffer.snapshot()) == buffer.queued_events


@pytest.mark.parametrize("call", ["split", "sent", "give_back", "yield_place"])
@pytest.mark.parametrize("keep", [False, True], ids=["", "kept"])
def test_garbage_that_settles_a_batch_in_the_middle_of_its_settling_does_no_harm(call: str, keep: bool) -> None:
    """Before Python 3.12 any allocation of a container may collect garbage."""
    gc.freeze()  # what there is already takes no time to look through
    for threshold in range(1, 40):
        buffer = EventBuffer(1000, 1_000_000, 1024, 1, keep=keep)
        put(buffer, *numbered(4))
        batches = [must_take(buffer)]
        cycle: list[Any] = [Doing(lambda batch=batches[0]: settle(batch))]  # type: ignore[misc]
        cycle.append(cycle)
        del cycle
        before = gc.get_threshold()
        gc.set_threshold(threshold)
        try:
            batches.append(getattr(batches[0], call)())
        except ValueError:
            pass
        finally:
            gc.set_threshold(*before)
        gc.collect()
        assert buffer.check() == 0
        del batches
        assert buffer.in_flight_events == 0
        sent = buffer.counts()[3]
        assert sent + buffer.queued_events == 4
        assert len(buffer.snapshot()) == buffer.queued_events
    gc.unfreeze()


def settle(batch: Batch) -> None:
    with contextlib.suppress(ValueError):
        batch.sent()


# -- fork ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_what_goes_when_a_child_starts_over_finds_it_started_over() -> None:
    buffer = kept_buffer()
    buffer.append_encoded(KeptEvent(b"{}", {"x": Doing(lambda: put(buffer, {"late": 1}))}))
    buffer.append_encoded(KeptEvent(b"{}", {"n": 1}))

    def child() -> list[Any]:
        buffer.after_fork()
        return [buffer.next_seq, [event["late"] for event in drain(buffer)], buffer.check()]

    assert in_forked_child(child) == [1, ["1"], 0]
