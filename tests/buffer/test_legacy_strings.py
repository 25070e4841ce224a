"""Strings that an old C extension has made, whose characters are not in their final form yet (Python 3.10 and 3.11)."""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from fastemit._buffer import EventBuffer
from fastemit._encode import KeptEvent
from tests.support.buffer import make_buffer

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="from Python 3.12 on there are no strings of this kind"
)


def legacy(text: str) -> str:
    """`text` as `PyUnicode_FromUnicode(NULL, length)` leaves it once its characters are filled in."""
    api = ctypes.pythonapi
    api.PyUnicode_FromUnicode.restype = ctypes.py_object
    api.PyUnicode_FromUnicode.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
    api.PyUnicode_AsUnicode.restype = ctypes.c_void_p
    api.PyUnicode_AsUnicode.argtypes = [ctypes.py_object]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made: str = api.PyUnicode_FromUnicode(None, len(text))
        ctypes.memmove(api.PyUnicode_AsUnicode(made), text.encode("utf-32-le"), 4 * len(text))
    return made


def body(buffer: EventBuffer) -> bytes:
    batch = buffer.take()
    assert batch is not None
    told = bytes(batch.body())
    batch.sent()
    return told


TEXTS = pytest.mark.parametrize("text", ["hello", "stm", 'a "quote"', "Größe", "дом", "漢字", "x😀" * 20, "y" * 100])


@TEXTS
def test_one_is_sent_whole(text: str) -> None:
    buffer = make_buffer()
    assert buffer.append({"e": legacy(text), "p": "srv"}) in (0, 1)
    assert orjson.dumps({"e": text, "p": "srv"})[:-1] in body(buffer)


@TEXTS
def test_as_a_name_it_is_sent_whole(text: str) -> None:
    buffer = make_buffer()
    assert buffer.append({legacy(text): "1", "p": "srv"}) in (0, 1)
    event = {"p": "srv"} if text == "stm" else {text: "1", "p": "srv"}
    assert orjson.dumps(event)[:-1] in body(buffer)


@pytest.mark.parametrize(
    "made_of",
    [lambda value: EventBuffer.encode({"e": value}), lambda value: EventBuffer.encode({"e": value, "n": 1.5})],
    ids=["strings", "others too"],
)
@TEXTS
def test_one_is_encoded_whole(made_of: Callable[[str], bytes], text: str) -> None:
    assert orjson.loads(made_of(legacy(text)))["e"] == text


@TEXTS
def test_one_is_kept_whole_for_callbacks(text: str) -> None:
    buffer = EventBuffer(10, 1 << 20, 1_000_000, 1, keep=True)
    prepared = buffer.prepare({"e": legacy(text)})
    assert isinstance(prepared, KeptEvent)
    assert (prepared.encoded, prepared.original) == (orjson.dumps({"e": text}), {"e": text})
    buffer.stage({"e": legacy(text)})
    assert orjson.dumps({"e": text})[:-1] in body(buffer)


@TEXTS
def test_one_is_sent_whole_by_get(text: str) -> None:
    payload: dict[Any, Any] = {"e": text, "list": [text, [text]], text + "!": 1}
    fresh: dict[Any, Any] = {"e": legacy(text), "list": [legacy(text), [legacy(text)]], legacy(text + "!"): 1}
    assert EventBuffer.encode_query(fresh) == EventBuffer.encode_query(payload)


@TEXTS
def test_one_is_put_whole_into_redis(text: str) -> None:
    from fastemit.redis.redis_emitter import encode

    assert orjson.loads(encode({"e": legacy(text), "n": [legacy(text), 1.5]})) == {"e": text, "n": [text, 1.5]}
