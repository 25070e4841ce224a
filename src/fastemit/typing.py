"""The words: types that the public interface is written in, under the reference's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeAlias

PayloadDict: TypeAlias = dict[str, Any]
PayloadDictList: TypeAlias = list[PayloadDict]
Payload: TypeAlias = Mapping[str, Any]

HttpProtocol: TypeAlias = Literal["http", "https"]
Method: TypeAlias = Literal["get", "post"]
Overflow: TypeAlias = Literal["backpressure", "drop_newest", "drop_oldest", "block"]
RequestTimeout: TypeAlias = float | tuple[float, float]

SuccessCallback: TypeAlias = Callable[[PayloadDictList], object]
FailureCallback: TypeAlias = Callable[[int, PayloadDictList], object]


class EmitterProtocol(Protocol):
    """What the tracker of snowplow-tracker calls on its emitters."""

    def input(self, payload: PayloadDict) -> None: ...

    def flush(self) -> None: ...

    def async_flush(self) -> None: ...

    def sync_flush(self) -> None: ...


__all__ = [
    "EmitterProtocol",
    "FailureCallback",
    "HttpProtocol",
    "Method",
    "Overflow",
    "Payload",
    "PayloadDict",
    "PayloadDictList",
    "RequestTimeout",
    "SuccessCallback",
]
