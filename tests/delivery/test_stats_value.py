"""`EmitterStats` is the frozen dataclass that it says it is, although its methods are written out."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

from fastemit import EmitterStats

FIELDS = dataclasses.fields(EmitterStats)
VALUES: dict[str, Any] = {field.name: number for number, field in enumerate(FIELDS)}
#: What `dataclass` makes of the same fields.
GENERATED: Any = dataclasses.make_dataclass(
    "EmitterStats",
    [(field.name, field.type, dataclasses.field(default=field.default)) for field in FIELDS],
    frozen=True,
)


def test_the_parameters_are_the_fields() -> None:
    own, generated = (inspect.signature(cls).parameters.values() for cls in (EmitterStats, GENERATED))
    assert [(each.name, each.default, each.kind) for each in own] == [
        (each.name, each.default, each.kind) for each in generated
    ]
    assert EmitterStats.__match_args__ == GENERATED.__match_args__


def test_each_value_is_in_its_field() -> None:
    stats = EmitterStats(**VALUES)
    assert dataclasses.asdict(stats) == VALUES
    assert dataclasses.asdict(EmitterStats(*VALUES.values())) == VALUES
    assert dataclasses.replace(stats, requests=99).requests == 99


def test_the_repr_is_that_of_a_dataclass() -> None:
    assert repr(EmitterStats(**VALUES)) == repr(GENERATED(**VALUES))


@pytest.mark.parametrize("name", VALUES)
def test_two_are_equal_if_all_their_fields_are(name: str) -> None:
    stats = EmitterStats(**VALUES)
    assert stats == EmitterStats(**VALUES)
    assert hash(stats) == hash(EmitterStats(**VALUES)) == hash(GENERATED(**VALUES))
    assert stats != EmitterStats(**{**VALUES, name: -1})
    assert stats != GENERATED(**VALUES)


def test_a_copy_and_a_pickle_are_equal_to_it() -> None:
    stats = EmitterStats(**{**VALUES, "dropped_events": {"overflow": 1}})
    assert copy.deepcopy(stats) == pickle.loads(pickle.dumps(stats)) == stats


def test_nothing_of_it_can_be_assigned() -> None:
    stats = EmitterStats(**VALUES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.requests = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del stats.requests
