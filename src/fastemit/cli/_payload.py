"""From a line of JSON to the payload of an event."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from fastemit.cli._input import LONGEST_LINE

_BOM: Final = b"\xef\xbb\xbf"
_NAMES: Final = {list: "an array", dict: "an object", bool: "true or false", str: "a string", type(None): "null"}


class BadLineError(Exception):
    """A line holds no event. The message says why."""


def _refuse(constant: str) -> NoReturn:
    raise BadLineError(f"not JSON: {constant} is no JSON value")


def read_payload(line: bytes, first: bool = False) -> dict[str, str] | None:
    """Take any line apart, also those that `EventBuffer.append_line` leaves to others; None if it is blank.

    Numbers become their own text, true and false "true" and "false"; a null leaves its name out.

    Args:
        line: without the byte that ends it.
        first: it is the first of a file, where some programs put a byte order mark.

    Raises:
        BadLineError: with the reason.
    """
    if len(line) > LONGEST_LINE:
        raise BadLineError(f"longer than {LONGEST_LINE:,} bytes")
    if first:
        line = line.removeprefix(_BOM)
    if not line.strip():
        return None
    try:
        document = json.loads(line.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise BadLineError(f"not UTF-8: byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise BadLineError(f"not JSON: {error.msg}, column {error.colno}") from error
    except RecursionError as error:
        raise BadLineError("nested too deeply") from error
    if type(document) is not dict:
        found = _NAMES.get(type(document), "a value")
        raise BadLineError(f"{'a number or string' if type(document) is str else found}, where an object is expected")
    payload = {name: _text(name, value) for name, value in document.items() if value is not None}
    if not payload:
        raise BadLineError("an object without a value")
    return payload


def _text(name: str, value: Any) -> str:
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    raise BadLineError(f"the value of {name!r} is {_NAMES[type(value)]}, where a string is expected")
