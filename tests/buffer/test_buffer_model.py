"""`EventBuffer` against a plain Python model: whatever is done in whatever order, the two agree."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastemit._buffer import NOTIFY_ALWAYS, NOTIFY_NEVER, NOTIFY_WHEN_DUE
from tests.support.buffer import of_size
from tests.support.buffer_model import Model
from tests.support.slow import slow_but

BOUNDS = [(200, 20_000), (1000, 5000), (15, 20_000), (1000, 700), (2, 3000)]
AIMS = [50, 300, 1, 100, 900, 5000, None]
SETTLE = ["give back", "retried", "sent", "yield", "collect", "rejected", "overflow"]

payloads = st.dictionaries(
    st.sampled_from(["e", "url", "Größe", "\U0001f600", "stm"]),
    st.text(max_size=20) | st.integers() | st.none() | st.booleans(),
    max_size=4,
)
indexes = st.integers(0, 1000)


class BufferMachine(RuleBasedStateMachine):
    model: Model

    @initialize(
        bounds=st.sampled_from(BOUNDS),
        batch_size=st.sampled_from([1, 5, 1000]),
        byte_limit=st.none() | st.sampled_from([1, 400, 5000]),
        notify=st.sampled_from([NOTIFY_NEVER, NOTIFY_WHEN_DUE, NOTIFY_ALWAYS]),
        in_files=st.booleans(),
    )
    def begin(
        self, bounds: tuple[int, int], batch_size: int, byte_limit: int | None, notify: int, in_files: bool
    ) -> None:
        self.model = Model(bounds, batch_size, byte_limit, notify, in_files)

    @rule(payload=payloads, starving=st.sampled_from([False, False, False, True]))
    def append_any(self, payload: dict[str, Any], starving: bool) -> None:
        self.model.put(payload, starving)

    @rule(count=st.integers(1, 30), size=st.integers(35, 120))
    def append_many(self, count: int, size: int) -> None:
        for _ in range(count):
            self.model.put(of_size(size))

    @rule(size=st.sampled_from([300, 900, 1200, 2500]))
    def append_large(self, size: int) -> None:
        self.model.put(of_size(size))

    @rule(off=st.integers(-1, 1), largest=st.booleans())
    def append_at_the_edge(self, off: int, largest: bool) -> None:
        self.model.put(of_size((self.model.buffer.max_bytes if largest else self.model.segment_bytes) + off))

    @precondition(lambda self: self.model.room >= 40)
    @rule(off=st.integers(-1, 1))
    def append_to_the_last_byte(self, off: int) -> None:
        self.model.put(of_size(self.model.room + off))

    @rule(size=st.sampled_from([40, 200, 1200]))
    def drop_oldest_for(self, size: int) -> None:
        self.model.drop_oldest_for(size)

    @rule(times=st.integers(1, 5), aim=st.sampled_from(AIMS), at_least=st.sampled_from([1, 2, 7, 1000]))
    def take(self, times: int, aim: int | None, at_least: int) -> None:
        for _ in range(times):
            self.model.take(aim, at_least)

    @precondition(lambda self: self.model.out)
    @rule(index=indexes, milliseconds=st.integers(0, 10**13 - 1))
    def stamp(self, index: int, milliseconds: int) -> None:
        self.model.stamp(index, milliseconds)

    @precondition(lambda self: self.model.out)
    @rule(index=indexes, keep=st.booleans())
    def body(self, index: int, keep: bool) -> None:
        self.model.body(index, keep)

    @precondition(lambda self: self.model.out)
    @rule(index=indexes, seal=st.booleans())
    def note_server_error(self, index: int, seal: bool) -> None:
        self.model.note_server_error(index, seal)

    @precondition(lambda self: self.model.out)
    @rule(index=indexes)
    def split(self, index: int) -> None:
        self.model.split(index)

    @precondition(lambda self: self.model.out)
    @rule(indexes=st.lists(indexes, min_size=1, max_size=4), how=st.sampled_from(SETTLE))
    def settle(self, indexes: list[int], how: str) -> None:
        for index in indexes[: len(self.model.out)]:
            self.model.settle(index, how)

    @precondition(lambda self: self.model.kept)
    @rule(index=indexes)
    def let_go_of_view(self, index: int) -> None:
        self.model.let_go_of_view(index)

    @rule(keep=st.integers(0, 3))
    def look_and_trim(self, keep: int) -> None:
        self.model.look_and_trim(keep)

    @rule(keep=st.none() | st.integers(0, 3))
    def tend(self, keep: int | None) -> None:
        self.model.tend(keep)

    @rule()
    def look_at_what_a_crash_would_leave(self) -> None:
        self.model.is_left_by_a_crash()

    @invariant()
    def agrees(self) -> None:
        self.model.agrees()
        self.model.views_of_settled_batches_stay()

    def teardown(self) -> None:
        if hasattr(self, "model"):
            try:
                self.model.finish()
            finally:
                self.model.clean_up()


BufferMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestBufferModel = BufferMachine.TestCase


def walk(model: Model, chance: random.Random, steps: int) -> None:
    """What a busy process does, mostly: several batches out, and some of them back out of turn."""
    for _ in range(steps):
        step = chance.choices(["put", "take", "settle", "other"], [4, 3, 3, 2])[0]
        index = chance.randrange(1000)
        if step == "put":
            for _ in range(chance.choice([1, 1, 3, 10])):
                model.put(of_size(chance.choice([35, 60, 90, 300, 1000])))
        elif step == "take":
            model.take(chance.choice(AIMS), chance.choice([1, 1, 3]))
        elif step == "settle" and model.out:
            model.settle(index, chance.choice(SETTLE))
        elif model.out:
            other = chance.choice(["split", "body", "stamp", "error", "drop"])
            if other == "split":
                model.split(index)
            elif other == "body":
                model.body(index, keep=chance.random() < 0.5)
            elif other == "stamp":
                model.stamp(index, chance.randrange(10**13))
            elif other == "error":
                model.note_server_error(index, seal=chance.random() < 0.5)
            else:
                model.drop_oldest_for(index + 40)
        elif chance.random() < 0.2:
            model.tend(chance.choice([None, 0, 1, 2]))
            model.is_left_by_a_crash()
        if model.kept and chance.random() < 0.2:
            model.let_go_of_view(index)
        model.agrees()
        model.views_of_settled_batches_stay()


@pytest.mark.parametrize("in_files", [False, True], ids=["heap", "files"])
@pytest.mark.parametrize(
    "bounds", [*BOUNDS[:2], *(pytest.param(bounds, marks=pytest.mark.slow) for bounds in BOUNDS[2:])]
)
@pytest.mark.parametrize("seed", slow_but([0], range(3)))
def test_a_long_walk(seed: int, bounds: tuple[int, int], in_files: bool) -> None:
    model = Model(bounds, 10, 2000, NOTIFY_WHEN_DUE, in_files)
    try:
        walk(model, random.Random(seed), 3000)
        model.finish()
    finally:
        model.clean_up()
