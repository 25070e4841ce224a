"""An event is what the payload was at the call, whoever changes the payload while it is encoded.

Another thread may run wherever Python code does. A function for `sys.setprofile`, or the `__str__` of a value, stands
in for it here, since it comes at the same point each time.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fastemit import InMemoryEventStore
from fastemit._buffer import EventBuffer
from fastemit._encode import KeptEvent
from fastemit.redis.redis_emitter import encode as encode_for_redis
from tests.support.buffer import make_buffer


@contextmanager
def meanwhile(function: str, change: Callable[[], object]) -> Iterator[None]:
    """Call `change` as soon as a Python function of this name is called; it has to be."""
    done = []

    def look(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name == function and not done:
            done.append(True)
            change()

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert done, f"{function} was not called"


class Calls:
    """A value whose `str()` calls something first."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def __str__(self) -> str:
        self.function()
        return "called"


def spoil(payload: dict[Any, Any]) -> Callable[[], None]:
    def change() -> None:
        payload.update(number=5, stm="1", nested={"x": []}, e=7)

    return change


def wire(buffer: EventBuffer) -> Any:
    batch = buffer.take()
    assert batch is not None
    (event,) = json.loads(bytes(batch.body()))["data"]
    batch.sent()
    return event


#: What orjson refuses, and `json` writes.
REFUSED: list[dict[Any, Any]] = [{"e": "pv", "ua": "lone \ud800"}, {"e": "pv", 1: "a number"}]


@pytest.mark.parametrize("refused", REFUSED, ids=["surrogate", "number as a name"])
def test_what_orjson_refuses_is_sent_as_it_was(refused: dict[Any, Any]) -> None:
    payload = dict(refused)
    with meanwhile("encode", spoil(payload)):
        encoded = EventBuffer.encode(payload)
    assert json.loads(encoded) == {str(name): value for name, value in refused.items()}
    payload = dict(refused)
    buffer = make_buffer()
    with meanwhile("encode", spoil(payload)):
        buffer.append(payload)
    assert wire(buffer) == {**{str(name): value for name, value in refused.items()}, "stm": "0" * 13}


@pytest.mark.parametrize("refused", REFUSED, ids=["surrogate", "number as a name"])
def test_what_is_kept_for_callbacks_is_what_is_sent(refused: dict[Any, Any]) -> None:
    payload = dict(refused)
    buffer = EventBuffer(10, 1 << 20, 1_000_000, 1, keep=True)
    with meanwhile("encode", spoil(payload)):
        kept = buffer.prepare(payload)
    assert isinstance(kept, KeptEvent)
    assert kept.original == refused
    assert json.loads(kept.encoded) == {str(name): value for name, value in refused.items()}


def test_an_event_of_a_store_is_sent_as_it_was_when_it_was_handed_out() -> None:
    event = dict(REFUSED[0])
    buffer = EventBuffer(10, 1 << 20, 1_000_000, 1, keep=True)
    with meanwhile("encode", spoil(event)):
        buffer.stage(event)
    assert wire(buffer) == {**REFUSED[0], "stm": "0" * 13}


@pytest.mark.parametrize("form", [dict, OrderedDict, UserDict, lambda given: defaultdict(str, given)])
def test_a_mapping_that_grows_and_shrinks_meanwhile_is_sent_as_it_was(form: Callable[[dict[str, Any]], Any]) -> None:
    payload = form({"a": "1"})

    def change() -> None:
        payload.update({str(number): "new" for number in range(100)})
        del payload["c"]

    payload["b"] = Calls(change)
    payload["c"] = 3
    assert json.loads(EventBuffer.encode(payload)) == {"a": "1", "b": "called", "c": "3"}


def test_a_list_is_sent_by_get_as_it_was() -> None:
    values: list[Any] = ["a"]
    nested: list[Any] = ["x"]
    values.append(Calls(lambda: (values.append("late"), nested.append("late"))))
    nested.append(Calls(lambda: nested.append("late")))
    payload = {"list": values, "lists": ["1", nested], "e": "pv"}
    assert EventBuffer.encode_query(payload) == "list=a&list=called&lists=1&lists=x&lists=called&e=pv"


def test_what_is_kept_of_a_get_does_not_change_with_the_lists_of_the_caller() -> None:
    buffer = EventBuffer(10, 1 << 20, 1_000_000, 1, query=True, keep=True)
    payload: dict[str, Any] = {"list": [1, [2]], "tuple": (1, [2]), "dict": {"k": 1}, "once": iter("ab"), "n": 1}
    buffer.append(payload)
    payload["list"].append(3)
    payload["list"][1].append(3)
    payload["tuple"][1].append(3)
    payload["dict"]["z"] = 3
    payload["n"] = 3
    batch = buffer.take()
    assert batch is not None
    assert batch.decode() == [
        {"list": [1, [2]], "tuple": (1, [2]), "dict": {"k": 1}, "once": ["a", "b"], "n": 1, "stm": "0" * 13}
    ]
    assert bytes(batch.body()).startswith(b"list=1&list=2&tuple=1&tuple=2&dict=k&once=a&once=b&n=1&stm=")
    batch.sent()


def test_the_default_store_hands_out_what_it_has_encoded() -> None:
    store = InMemoryEventStore()
    payload: dict[str, Any] = {"n": 1}
    payload["late"] = Calls(lambda: payload.update(n=2, more=3))
    given = dict(payload)
    store.add_event(payload)
    assert store.get_events_batch() == [given]


@pytest.mark.parametrize(
    ("payload", "function"),
    [
        ({"e": "pv", "ua": "lone \ud800"}, "dumps"),
        ({"e": "pv", 1: "a number"}, "dumps"),
        ({"e": "pv", "a": 1.5, "b": 2.5}, "_jsonable"),
        ({"e": "pv", "a": {"b": 1.5, "c": 2.5}}, "_jsonable"),
    ],
    ids=["surrogate", "number as a name", "float", "nested"],
)
def test_an_event_goes_into_redis_as_it_was(payload: dict[Any, Any], function: str) -> None:
    before = json.loads(json.dumps(payload))
    with meanwhile(function, spoil(payload)):
        encoded = encode_for_redis(payload)
    assert json.loads(encoded) == before


def test_what_is_inside_of_an_event_goes_into_redis_as_it_was() -> None:
    inner: dict[str, Any] = {"x": 1.5}
    values: list[Any] = [1]
    inner["y"] = Calls(lambda: (inner.update(late=1), values.append("late")))
    payload = {"a": inner, "b": values, "c": 1.5}
    assert json.loads(encode_for_redis(payload)) == {"a": {"x": 1.5, "y": "called"}, "b": [1], "c": 1.5}
