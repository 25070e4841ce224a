"""The types of the public interface, with the names that snowplow_tracker has.

The other types of `snowplow_tracker.typing`, which are about the tracker's calls, are here, too. So a program can
change the import, whichever type it imports from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

PayloadDict: TypeAlias = dict[str, Any]
PayloadDictList: TypeAlias = list[PayloadDict]
Payload: TypeAlias = Mapping[str, Any]

HttpProtocol: TypeAlias = Literal["http", "https"]
Method: TypeAlias = Literal["get", "post"]
Overflow: TypeAlias = Literal["backpressure", "drop_newest", "drop_oldest", "block"]
RequestTimeout: TypeAlias = float | tuple[float | None, float | None]

SuccessCallback: TypeAlias = Callable[[PayloadDictList], object]
FailureCallback: TypeAlias = Callable[[int, PayloadDictList], object]
#: Called with a reason (`overflow`, `rejected`, `oversize`, `closed` or `left`) and the events that are never sent.
LostCallback: TypeAlias = Callable[[str, PayloadDictList], object]


class EmitterProtocol(Protocol):
    """The methods that snowplow_tracker's tracker calls on its emitters."""

    def input(self, payload: PayloadDict) -> None: ...

    def flush(self) -> None: ...

    def async_flush(self) -> None: ...

    def sync_flush(self) -> None: ...


class RedisProtocol(Protocol):
    """The methods that the Redis emitter and worker of snowplow_tracker 0.15 call on their client."""

    def rpush(self, name: Any, *values: Any) -> int: ...

    def lpop(self, name: Any, count: int | None = ...) -> Any: ...


# -- the tracker's ---------------------------------------------------------------------------------------------------

JsonEncoderFunction: TypeAlias = Callable[[Any], Any]

SupportedPlatform: TypeAlias = Literal["pc", "tv", "mob", "cnsl", "iot", "web", "srv", "app"]
SUPPORTED_PLATFORMS: Final = frozenset(get_args(SupportedPlatform))

FormNodeName: TypeAlias = Literal["INPUT", "TEXTAREA", "SELECT"]
FORM_NODE_NAMES: Final = frozenset(get_args(FormNodeName))
#: The types of HTML's `<input>`.
FORM_TYPES: Final = frozenset(
    (
        *("button", "checkbox", "color", "date", "datetime", "datetime-local", "email", "file", "hidden", "image"),
        *("month", "number", "password", "radio", "range", "reset", "search", "submit", "tel", "text", "time"),
        *("url", "week"),
    )
)
ElementClasses: TypeAlias = list[str] | tuple[str, Any]
FormClasses: TypeAlias = list[str] | tuple[str, Any]


__all__ = [
    "FORM_NODE_NAMES",
    "FORM_TYPES",
    "SUPPORTED_PLATFORMS",
    "ElementClasses",
    "EmitterProtocol",
    "FailureCallback",
    "FormClasses",
    "FormNodeName",
    "HttpProtocol",
    "JsonEncoderFunction",
    "LostCallback",
    "Method",
    "Overflow",
    "Payload",
    "PayloadDict",
    "PayloadDictList",
    "RedisProtocol",
    "RequestTimeout",
    "SuccessCallback",
    "SupportedPlatform",
]
