"""Checks of arguments. Each returns the value, or raises an error that names the argument, the value and the rule."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

from fastemit._interfaces import DEFAULT_TIMEOUT

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=type)


def _type_error(name: str, value: object, allowed: str) -> NoReturn:
    raise TypeError(f"{name} must be {allowed}, not {type(value).__name__} {_shown(value)}")


def _value_error(name: str, value: object, allowed: str) -> NoReturn:
    raise ValueError(f"{name} must be {allowed}, not {_shown(value)}")


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - such as an int of more than 4300 digits, whose argument must still be named
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 100 else text[:97] + "..."


def integer(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    allowed = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int):
        _type_error(name, value, allowed)
    if most is None and value > sys.maxsize:
        _value_error(name, value, f"{allowed} and at most {sys.maxsize}")
    if value < least or (most is not None and value > most):
        _value_error(name, value, allowed)
    return int(value)


def port(name: str, value: Any) -> int | None:
    """A TCP port from an int, or from a str of digits, as the environment has them. None stays None."""
    allowed = "an integer from 1 to 65535, or its digits as a str"
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        _type_error(name, value, allowed)
    # Not `int` alone, because that accepts signs, spaces, underscores and the digits of every script.
    number = 0 if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,10}", value) else int(value)
    if not 1 <= number <= 65535:
        _value_error(name, value, allowed)
    return number


def seconds(name: str, value: Any, *, zero: bool = False) -> float:
    allowed = "a number of seconds, 0 or more" if zero else "a number of seconds greater than 0"
    if isinstance(value, bool) or not (isinstance(value, (float, int)) or _is_real(value)):
        _type_error(name, value, allowed)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    # threading.TIMEOUT_MAX is some 292 years. A year is longer than any use, and far from every overflow.
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero) or number > 366 * 86400:
        _value_error(name, value, f"{allowed} (and at most a year)")
    return number


def _is_real(value: Any) -> bool:
    # Here, since few give a Fraction or a number of numpy's.
    from numbers import Real

    return isinstance(value, Real)


def one_of(name: str, value: Any, choices: Collection[str]) -> str:
    allowed = "one of " + ", ".join(repr(choice) for choice in choices)
    if not isinstance(value, str):
        _type_error(name, value, allowed)
    if value not in choices:
        _value_error(name, value, allowed)
    return value


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        _type_error(name, value, "True or False")
    return value


def callback(name: str, value: T) -> T:
    if value is not None and not callable(value):
        _type_error(name, value, "callable or None")
    return value


def timeout_pair(name: str, value: Any) -> tuple[float, float] | None:
    """A (connect, read) pair in seconds, from a number or a pair. None stays None; in a pair it means the default."""
    allowed = "None, a number of seconds greater than 0, or a (connect, read) pair of such numbers or None"
    if value is None:
        return None
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            _value_error(name, value, allowed)
        connect, read = value
    else:
        if isinstance(value, bool) or not (isinstance(value, (float, int)) or _is_real(value)):
            _type_error(name, value, allowed)
        connect = read = value
    default_connect, default_read = DEFAULT_TIMEOUT
    return (
        default_connect if connect is None else seconds(name, connect),
        default_read if read is None else seconds(name, read),
    )


class RetryCodes(dict[int, bool]):
    """Exceptions to the retry rules, `{status: retry?}`. They may be changed in place, and each change is checked."""

    def __setitem__(self, status: int, retry: bool) -> None:
        self.update({status: retry})

    def setdefault(self, status: int, retry: Any = None) -> bool:
        if status not in self:
            self[status] = retry
        return self[status]

    def update(self, *args: Any, **kwargs: Any) -> None:
        # All are checked before any of them is set.
        super().update(retry_codes("custom_retry_codes", dict(*args, **kwargs)))

    def __ior__(self, other: Any) -> RetryCodes:  # type: ignore[misc,override]
        self.update(other)
        return self


def retry_codes(name: str, value: Any) -> RetryCodes:
    """A copy of a `{status: bool}` mapping. None gives an empty one."""
    allowed = "a dict of HTTP status codes (100 to 599) to True (retry) or False"
    if value is None:
        return RetryCodes()
    if not isinstance(value, Mapping):
        _type_error(name, value, allowed)
    for status, retry in value.items():
        if isinstance(status, bool) or not isinstance(status, int) or not isinstance(retry, bool):
            _type_error(name, value, allowed)
        if not 100 <= status <= 599:
            _value_error(name, value, allowed)
    return RetryCodes(value)


_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, 5.6.2
#: The emitter sets these itself. Another value would contradict the body, and the request could not be read.
_RESERVED_HEADERS = frozenset({"content-type", "content-length", "transfer-encoding", "connection"})


def headers(name: str, value: Any) -> dict[str, str]:
    """A copy of a mapping of header names to values. None gives an empty one."""
    allowed = "a mapping of header names to strings without line breaks"
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be {allowed}, not {type(value).__name__}")
    for key, text in value.items():
        # A header's value may be a secret, so no message shows one.
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"{name} must be {allowed}; not {type(text).__name__} for {key!r}")
        if not re.fullmatch(_TOKEN, key):
            raise ValueError(f"{name} must be {allowed}; {key!r} is no header name")
        if any((ord(c) < 0x20 and c != "\t") or c == "\x7f" for c in text):
            raise ValueError(f"{name} must be {allowed}; the value of {key!r} has one, or another control character")
        try:
            text.encode("latin-1")
        except UnicodeEncodeError:
            raise ValueError(f"{name} must be {allowed}; the value of {key!r} is not latin-1") from None
        if key.lower() in _RESERVED_HEADERS:
            raise ValueError(f"{name} must not set {key!r}, which the emitter sets itself")
    return dict(value)


def has_methods(name: str, value: T, methods: Collection[str], allowed: str) -> T:
    if isinstance(value, type) or not all(callable(getattr(value, method, None)) for method in methods):
        _type_error(name, value, allowed)
    return value


def path(name: str, value: Any) -> str:
    allowed = "the path of a file or directory that exists"
    text = _text_of_path(name, value, allowed)
    if not os.path.exists(text):
        _value_error(name, value, allowed)
    return text


def directory(name: str, value: Any) -> str:
    """The absolute path of a directory, which need not exist yet."""
    allowed = "the path of a directory"
    text = _text_of_path(name, value, allowed)
    if not text or "\0" in text:
        _value_error(name, value, allowed)
    return os.path.abspath(text)


def _text_of_path(name: str, value: Any, allowed: str) -> str:
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(text, str):
        _type_error(name, value, allowed)
    return text


def renamed(**names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function that is called with an old name of a parameter raise an error that says the new name.

    Args:
        names: for each old name, the new one.
    """
    return _without({old: f"{old} is called {new} now: write {new}=" for old, new in names.items()}, show=True)


def gone(**advice: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function that is called with a parameter of earlier versions raise an error that says what to do.

    Args:
        advice: for each parameter, what to do in place of it.
    """
    return _without({name: f"{name} is gone: {text}" for name, text in advice.items()}, show=False)


def _without(messages: Mapping[str, str], *, show: bool) -> Callable[[Callable[P, T]], Callable[P, T]]:
    def refusing(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> T:
            for name in kwargs.keys() & messages.keys():
                raise TypeError(messages[name] + (_shown(kwargs[name]) if show else ""))
            return function(*args, **kwargs)

        return called

    return refusing


def fixed(**advice: str) -> Callable[[C], C]:
    """Let properties of a class that cannot be assigned raise an error that says what to do.

    Args:
        advice: for each property, what to do in place of assigning it.
    """

    def with_advice(cls: C) -> C:
        for name, text in advice.items():
            setattr(cls, name, vars(cls)[name].setter(_refusal(name, text)))
        return cls

    return with_advice


def _refusal(name: str, text: str) -> Callable[[Any, object], None]:
    def refuse(owner: Any, value: object) -> None:
        raise AttributeError(f"{name} of {type(owner).__name__} cannot be assigned: {text}")

    return refuse
