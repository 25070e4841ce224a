"""Values that JSON has no type for: what RedisEmitter writes, and what arrives of it."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from fastemit import Emitter, RedisEmitter, RedisWorker
from fastemit.redis.redis_emitter import encode
from fastemit.testing import Collector
from tests.support.hosts import needs_host
from tests.support.redis_server import RedisServer
from tests.support.reference import needs_reference_0_15, runner_with_0_15
from tests.support.waiting import until


class Colour(enum.Enum):
    RED = "red"


class Text(str, enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Flags(enum.Flag):
    A = 1


@dataclasses.dataclass
class Point:
    x: int = 1


NAN, INFINITE = float("nan"), float("inf")
#: That `json` refuses, or writes as what is no JSON.
OTHERS = [
    NAN, INFINITE, -INFINITE, Colour.RED, Flags.A, Point(), uuid.UUID(int=7), decimal.Decimal("1.5"),
    datetime.date(2026, 1, 2), {1}, b"b", 1j,
]  # fmt: skip
#: That the reference's RedisEmitter writes too.
ORDINARY = [
    1,
    2**70,
    0.5,
    1e300,
    True,
    None,
    "s",
    "\ud800",
    Text.RED,
    Number.ONE,
    [1, [None]],
    (1, 2),
    {"a": {"b": None}},
]


@pytest.mark.parametrize("value", OTHERS, ids=repr)
def test_what_json_has_no_type_for_is_written_as_str(value: Any) -> None:
    assert json.loads(encode({"v": value, "w": "x"})) == {"v": str(value), "w": "x"}


@pytest.mark.parametrize("value", OTHERS, ids=repr)
def test_so_it_is_inside_of_lists_and_dicts(value: Any) -> None:
    payload = {"l": [1, (value, None)], "d": {"a": {"b": value}}, "n": None, "big": 2**70}
    text = str(value)
    assert json.loads(encode(payload)) == {"l": [1, [text, None]], "d": {"a": {"b": text}}, "n": None, "big": 2**70}


@pytest.mark.parametrize("value", ORDINARY, ids=repr)
def test_what_json_has_a_type_for_is_written_as_by_the_reference(value: Any) -> None:
    assert json.loads(encode({"v": value})) == json.loads(json.dumps({"v": value}))


def test_what_is_written_is_json_also_with_keys_that_are_none() -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    assert json.loads(encode({1: NAN, "l": [INFINITE]}), parse_constant=refuse) == {"1": "nan", "l": ["inf"]}


def test_the_dict_of_the_caller_is_left_alone() -> None:
    inner: dict[str, Any] = {"c": Colour.RED}
    payload = {"v": inner, "n": NAN}
    encode(payload)
    assert payload == {"v": {"c": Colour.RED}, "n": NAN}


def test_a_circle_is_refused_as_by_the_reference() -> None:
    circle: list[Any] = [Colour.RED]
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        encode({"v": circle})


def test_the_same_arrives_by_redis_as_straight(rdb: Any, collector: Collector) -> None:
    """But for what is inside of lists and dicts, where JSON knows no tuples."""
    payload = {f"v{number}": value for number, value in enumerate([*OTHERS, 1, 0.5, True, None, "s"])}
    straight = Emitter(collector.url)
    straight.input(payload)
    straight.close()
    with RedisEmitter(rdb) as emitter:
        emitter.input(payload)
    worker = RedisWorker(Emitter(collector.url), rdb, poll_interval=0.01)
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: len(collector.events) == 2)
    worker.request_shutdown()
    thread.join()
    one, other = ({name: value for name, value in event.items() if name != "stm"} for event in collector.events)
    assert one == other


@needs_reference_0_15
@needs_host("gevent")  # which that worker is made of
def test_the_references_worker_sends_our_nan_as_it_sends_its_own(
    server: RedisServer, rdb: Any, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisEmitter(rdb) as emitter:
        emitter.input({"f": NAN, "i": -INFINITE})
    rdb.rpush("snowplow", json.dumps({"f": NAN, "i": -INFINITE}))
    script = """
        import sys, time, redis
        from snowplow_tracker import Emitter
        from snowplow_tracker.redis import redis_worker
        port, url = sys.argv[1].split()
        worker = redis_worker.RedisWorker(Emitter(url, batch_size=1), redis.StrictRedis(port=int(port)))
        for _ in range(2):
            worker.pop_payload()
        worker.pool.join()
        print(time.time())
    """
    ended = runner_with_0_15(tmp_path, monkeypatch)(script, f"{server.port} {collector.url}")
    assert ended.status == 0, ended.errors
    assert [(event["f"], event["i"]) for event in collector.events] == [("nan", "-inf")] * 2
