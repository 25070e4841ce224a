"""The settings of an emitter: the rule for each, and `Settings`, the checked values.

To add a setting, write

1. here: a row of `RULES`, and a field of `Settings` with its default;
2. in each emitter that has it: the parameter, its docstring, and the name in the call of `Settings.checked` or
   `super().__init__`. Signatures are written out, so that people and type checkers can read them;
3. in `EmitterConfiguration`, if `Emitter` has it: the parameter, and a `_Setting`;
4. the code that uses it: `Emitter.__init__` has the value as `settings.<name>`.

`tests/emitters/test_settings.py` fails with the name of what is missing. A setting that may be assigned later also has
a property in `_attributes.py`, which asks `checked` for the same rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn, get_args

from fastemit._buffer import MAX_REQUEST_BYTES, MIN_REQUEST_BYTES
from fastemit._settings import checks
from fastemit.typing import FailureCallback, LostCallback, Overflow, SuccessCallback

DEFAULT_BUFFER_CAPACITY: Final = 10_000
DEFAULT_BUFFER_BYTES: Final = 64 * 1024 * 1024
#: A collector answers 200 to a larger body, but then stores the whole request as one failed event.
DEFAULT_REQUEST_BYTES: Final = 1_000_000


#: The bound with a spool, whose bytes are on a disk.
DEFAULT_SPOOL_BYTES: Final = 1024 * 1024 * 1024
#: The smallest event takes so many bytes in a request.
LEAST_EVENT_BYTES: Final = 24


def bounds(buffer_capacity: int | None, max_buffer_bytes: int | None, spool: object) -> dict[str, Any]:
    """The most events and their most bytes: what was given, or the defaults. With a spool, as many events as fit."""
    if max_buffer_bytes is None:
        max_buffer_bytes = DEFAULT_BUFFER_BYTES if spool is None else DEFAULT_SPOOL_BYTES
    if buffer_capacity is None:
        fit = max_buffer_bytes // LEAST_EVENT_BYTES if isinstance(max_buffer_bytes, int) else 1
        buffer_capacity = DEFAULT_BUFFER_CAPACITY if spool is None else max(fit, 1)
    return {"buffer_capacity": buffer_capacity, "max_buffer_bytes": max_buffer_bytes}


class Rule:
    """The rule for a setting.

    Args:
        check: gets the name and the value. Returns the value as it is kept, or raises.
        or_none: None is allowed, too, and is kept as it is.
    """

    def __init__(self, check: Callable[[str, Any], Any], or_none: bool = False) -> None:
        self.check: Final = check
        self.or_none: Final = or_none


#: The rule for each setting, by its name.
RULES: Final = {
    "batch_size": Rule(checks.integer),
    "on_success": Rule(checks.callback),
    "on_failure": Rule(checks.callback),
    "byte_limit": Rule(checks.integer, or_none=True),
    "request_timeout": Rule(checks.timeout_pair),
    "buffer_capacity": Rule(checks.integer),
    "custom_retry_codes": Rule(checks.retry_codes),
    "event_store": Rule(
        partial(
            checks.has_methods,
            methods=("add_event", "get_events_batch", "cleanup", "size"),
            allowed="None or an object with the methods add_event, get_events_batch, cleanup and size",
        ),
        or_none=True,
    ),
    "session": Rule(
        partial(checks.has_methods, methods=("get", "post"), allowed="None or a requests.Session"), or_none=True
    ),
    "max_retry_delay_seconds": Rule(checks.seconds),
    "overflow": Rule(partial(checks.one_of, choices=get_args(Overflow))),
    "max_buffer_bytes": Rule(partial(checks.integer, least=MIN_REQUEST_BYTES)),
    "max_request_bytes": Rule(partial(checks.integer, least=MIN_REQUEST_BYTES, most=MAX_REQUEST_BYTES)),
    "shutdown_timeout": Rule(partial(checks.seconds, zero=True)),
    "background": Rule(checks.boolean),
    "flush_interval": Rule(checks.seconds, or_none=True),
    "headers": Rule(checks.headers),
    "ca_certs": Rule(checks.path, or_none=True),
    "pool_manager": Rule(
        partial(checks.has_methods, methods=("urlopen", "clear"), allowed="None or a urllib3.PoolManager"),
        or_none=True,
    ),
    "spool": Rule(checks.directory, or_none=True),
    "spool_sync": Rule(checks.seconds, or_none=True),
    "on_lost": Rule(checks.callback),
}


def checked(name: str, value: Any) -> Any:
    """The value of a setting as it is kept.

    Raises:
        TypeError, ValueError: naming the setting, the value and what is allowed.
    """
    rule = RULES[name]
    return None if value is None and rule.or_none else rule.check(name, value)


# A dataclass would compile its methods at each start of a program, which takes longer than the rest of this module.
# There is no repr, because it would show the values of headers.
class Settings:
    """The checked values that an emitter was made with. They cannot be changed. `Emitter` describes each of them.

    Some can be assigned later, such as `batch_size` and the callbacks. The values here are the first ones.

    Args:
        given: the values by name. All others have the defaults below.
    """

    batch_size: int
    on_success: SuccessCallback | None = None
    on_failure: FailureCallback | None = None
    byte_limit: int | None = None
    #: (connect, read) in seconds.
    request_timeout: tuple[float, float] | None = None
    buffer_capacity: int = DEFAULT_BUFFER_CAPACITY
    #: The emitter's own dict; it may be changed in place.
    custom_retry_codes: dict[int, bool]
    event_store: Any = None
    session: Any = None
    max_retry_delay_seconds: float = 60.0
    overflow: Overflow = "backpressure"
    max_buffer_bytes: int = DEFAULT_BUFFER_BYTES
    max_request_bytes: int = DEFAULT_REQUEST_BYTES
    shutdown_timeout: float = 5.0
    background: bool = True
    flush_interval: float | None = None
    headers: dict[str, str]
    ca_certs: str | None = None
    pool_manager: Any = None
    #: An absolute path.
    spool: str | None = None
    spool_sync: float | None = None
    on_lost: LostCallback | None = None

    def __init__(self, **given: Any) -> None:
        vars(self).update({"custom_retry_codes": checks.RetryCodes(), "headers": {}, **given})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"cannot delete field {name!r}")

    def but(self, **changed: Any) -> Settings:
        """The same settings, but with these values."""
        return Settings(**{**vars(self), **changed})

    @classmethod
    def checked(cls, **given: Any) -> Settings:
        """Check these values, and make the settings. All others have their defaults.

        Raises:
            TypeError, ValueError: naming the setting, the value and what is allowed.
        """
        if given.get("session") is not None and given.get("pool_manager") is not None:
            raise ValueError("session and pool_manager must not both be given: each says how requests are made")
        if given.get("spool") is not None and given.get("event_store") is not None:
            raise ValueError("spool and event_store must not both be given: each says where events are kept")
        return cls(**{name: checked(name, value) for name, value in given.items()})
