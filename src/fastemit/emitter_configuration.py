"""The settings of an emitter, kept until `Snowplow.create_tracker` makes one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar, get_args, overload

from fastemit._buffer import MAX_REQUEST_BYTES, MIN_REQUEST_BYTES
from fastemit._settings import checks
from fastemit.event_store import EventStore
from fastemit.stats import logger
from fastemit.typing import FailureCallback, Overflow, RequestTimeout, SuccessCallback

#: `EventStore` and the types of callbacks are what `snowplow_tracker.emitter_configuration` has, too.
__all__ = ["EmitterConfiguration", "EventStore", "FailureCallback", "SuccessCallback"]

T = TypeVar("T")

#: What `snowplow_tracker.EmitterConfiguration` has; whatever has all of these can be given in its place.
REFERENCE_SETTINGS = (
    "batch_size",
    "on_success",
    "on_failure",
    "byte_limit",
    "request_timeout",
    "buffer_capacity",
    "custom_retry_codes",
    "event_store",
    "session",
)
SETTINGS = (
    *REFERENCE_SETTINGS,
    "max_retry_delay_seconds",
    "overflow",
    "max_buffer_bytes",
    "max_request_bytes",
    "shutdown_timeout",
    "background",
    "flush_interval",
    "headers",
    "ca_certs",
    "pool_manager",
)


def arguments_of(configuration: object) -> dict[str, Any]:
    """The keyword arguments for `Emitter` in a configuration, ours or the reference's: those that were set."""
    found = {name: getattr(configuration, name, None) for name in SETTINGS}
    if found["custom_retry_codes"] == {}:
        found["custom_retry_codes"] = None
    return {name: value for name, value in found.items() if value is not None}


class _Setting(Generic[T]):
    """A property that is checked when it is set; None, which leaves it to the emitter, is always allowed."""

    def __init__(self, check: Callable[[str, Any], object], doc: str) -> None:
        self._check = check
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, configuration: None, owner: type) -> _Setting[T]: ...
    @overload
    def __get__(self, configuration: EmitterConfiguration, owner: type) -> T | None: ...
    def __get__(self, configuration: EmitterConfiguration | None, owner: type) -> _Setting[T] | T | None:
        if configuration is None:
            return self
        value: T | None = configuration.__dict__.get(self._name)
        return value

    def __set__(self, configuration: EmitterConfiguration, value: T | None) -> None:
        if value is not None:
            self._check(self._name, value)
        configuration.__dict__[self._name] = value


class EmitterConfiguration:
    """Settings for the emitter inside a tracker that `Snowplow.create_tracker` makes.

    The positional parameters are those of `snowplow_tracker.EmitterConfiguration`, in its order; what follows `*` is
    the rest of `Emitter`'s. Each is also a property that can be assigned. None, the default of all, leaves a setting
    to the emitter: see `Emitter` for what each means, its unit and its default.

    Raises:
        TypeError, ValueError: at construction and at assignment, naming the setting, the value and what is allowed.

    Thread safety: none of its own; a configuration is read once, by `create_tracker`, and can be used again.
    """

    @checks.renamed(buffer_size="batch_size")
    def __init__(
        self,
        batch_size: int | None = None,
        on_success: SuccessCallback | None = None,
        on_failure: FailureCallback | None = None,
        byte_limit: int | None = None,
        request_timeout: RequestTimeout | None = None,
        buffer_capacity: int | None = None,
        custom_retry_codes: Mapping[int, bool] | None = None,
        event_store: EventStore | None = None,
        session: Any = None,
        *,
        max_retry_delay_seconds: float | None = None,
        overflow: Overflow | None = None,
        max_buffer_bytes: int | None = None,
        max_request_bytes: int | None = None,
        shutdown_timeout: float | None = None,
        background: bool | None = None,
        flush_interval: float | None = None,
        headers: Mapping[str, str] | None = None,
        ca_certs: str | os.PathLike[str] | None = None,
        pool_manager: Any = None,
    ) -> None:
        self.batch_size = batch_size
        self.on_success = on_success
        self.on_failure = on_failure
        self.byte_limit = byte_limit
        self.request_timeout = request_timeout
        self.buffer_capacity = buffer_capacity
        self.custom_retry_codes = custom_retry_codes
        self.event_store = event_store
        self.session = session
        self.max_retry_delay_seconds = max_retry_delay_seconds
        self.overflow = overflow
        self.max_buffer_bytes = max_buffer_bytes
        self.max_request_bytes = max_request_bytes
        self.shutdown_timeout = shutdown_timeout
        self.background = background
        self.flush_interval = flush_interval
        self.headers = headers
        self.ca_certs = ca_certs
        self.pool_manager = pool_manager

    batch_size: _Setting[int] = _Setting(checks.integer, "Queued events at which sending starts.")
    on_success: _Setting[SuccessCallback] = _Setting(
        checks.callback, "Called with the events of each request answered 2xx."
    )
    on_failure: _Setting[FailureCallback] = _Setting(
        checks.callback, "Called with the number sent and the list of events that were not, after each failure."
    )
    byte_limit: _Setting[int] = _Setting(checks.integer, "Queued bytes at which sending starts.")
    request_timeout: _Setting[RequestTimeout] = _Setting(checks.timeout_pair, "Seconds, or a (connect, read) pair.")
    buffer_capacity: _Setting[int] = _Setting(checks.integer, "Most events queued and in flight together.")
    event_store: _Setting[EventStore] = _Setting(
        partial(
            checks.has_methods,
            methods=("add_event", "get_events_batch", "cleanup", "size"),
            allowed="None or an object with the methods add_event, get_events_batch, cleanup and size",
        ),
        "A store of the user's own.",
    )
    session: _Setting[Any] = _Setting(
        partial(checks.has_methods, methods=("post", "get"), allowed="None or a requests.Session"),
        "A `requests.Session` to send through.",
    )
    max_retry_delay_seconds: _Setting[float] = _Setting(checks.seconds, "Longest time between attempts after failures.")
    overflow: _Setting[Overflow] = _Setting(
        partial(checks.one_of, choices=get_args(Overflow)), "What `input` does when the buffer is full."
    )
    max_buffer_bytes: _Setting[int] = _Setting(
        partial(checks.integer, least=MIN_REQUEST_BYTES), "Most bytes queued and in flight together."
    )
    max_request_bytes: _Setting[int] = _Setting(
        partial(checks.integer, least=MIN_REQUEST_BYTES, most=MAX_REQUEST_BYTES), "Most bytes of one request body."
    )
    shutdown_timeout: _Setting[float] = _Setting(
        partial(checks.seconds, zero=True), "Seconds that `close` and the end of the process may take."
    )
    background: _Setting[bool] = _Setting(checks.boolean, "False to start no thread and send in the thread that calls.")
    flush_interval: _Setting[float] = _Setting(checks.seconds, "Seconds between automatic flushes.")
    ca_certs: _Setting[str | os.PathLike[str]] = _Setting(checks.path, "Certificate authorities: a file or directory.")
    pool_manager: _Setting[Any] = _Setting(
        partial(checks.has_methods, methods=("urlopen", "clear"), allowed="None or a urllib3.PoolManager"),
        "A `urllib3.PoolManager` to send through.",
    )

    @property
    def custom_retry_codes(self) -> dict[int, bool]:
        """Exceptions to the retry rules, `{status: retry?}`: this configuration's own dict, which may be changed."""
        return self._custom_retry_codes

    @custom_retry_codes.setter
    def custom_retry_codes(self, value: Mapping[int, bool] | None) -> None:
        self._custom_retry_codes = checks.retry_codes("custom_retry_codes", value)

    @property
    def headers(self) -> dict[str, str] | None:
        """Added to each request: this configuration's own dict, or None."""
        return self._headers

    @headers.setter
    def headers(self, value: Mapping[str, str] | None) -> None:
        self._headers = None if value is None else checks.headers("headers", value)

    def set_retry_code(self, status_code: int, retry: bool = True) -> bool:
        """Have events sent again (True), or dropped (False), after an answer with this status.

        Returns:
            Whether the rule was taken. What is not is logged: a status outside 100 to 599, one of 200 to 299 (which
            are always a success), or a value of another type. As in the reference, nothing is raised.
        """
        try:
            rule = checks.retry_codes("custom_retry_codes", {status_code: retry})
        except (TypeError, ValueError) as error:
            logger.warning("set_retry_code changed nothing: %s", error)
            return False
        if 200 <= status_code < 300:
            logger.warning("set_retry_code changed nothing: status %d is always a success", status_code)
            return False
        self._custom_retry_codes.update(rule)
        return True

    def emitter_arguments(self) -> dict[str, Any]:
        """The keyword arguments for an `Emitter` with these settings: those that were set, and no others."""
        return arguments_of(self)
