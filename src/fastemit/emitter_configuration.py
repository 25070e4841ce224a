"""The settings of an emitter, kept until `Snowplow.create_tracker` makes an emitter from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, overload

from fastemit import _native as _native
from fastemit._settings import RULES, checked, checks
from fastemit.event_store import EventStore
from fastemit.stats import logger
from fastemit.typing import FailureCallback, LostCallback, Overflow, RequestTimeout, SuccessCallback

#: `EventStore` and the types of callbacks are here because `snowplow_tracker.emitter_configuration` has them, too.
__all__ = ["EmitterConfiguration", "EventStore", "FailureCallback", "SuccessCallback"]

T = TypeVar("T")

#: The attributes of `snowplow_tracker.EmitterConfiguration`. An object with all of these can be given in its place.
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
#: All that an emitter can be made with.
SETTINGS = tuple(RULES)


def arguments_of(configuration: object) -> dict[str, Any]:
    """The keyword arguments for `Emitter` that were set in a configuration, which may be snowplow_tracker's."""
    found = {name: getattr(configuration, name, None) for name in SETTINGS}
    if found["custom_retry_codes"] == {}:
        found["custom_retry_codes"] = None
    return {name: value for name, value in found.items() if value is not None}


class _Setting(Generic[T]):
    """A property that is checked when it is set. None is always allowed, and leaves the setting to the emitter."""

    def __init__(self, doc: str) -> None:
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
            checked(self._name, value)
        configuration.__dict__[self._name] = value


class EmitterConfiguration:
    """Settings for the emitter inside a tracker that `Snowplow.create_tracker` makes.

    The positional parameters are those of `snowplow_tracker.EmitterConfiguration`, in the same order. The others, after
    `*`, are the rest of `Emitter`'s. Each is also a property that can be assigned. The default of all is None, which
    leaves the setting to the emitter. `Emitter` says what each one means, its unit and its default.

    Raises:
        TypeError, ValueError: at construction and at assignment, naming the setting, the value and what is allowed.

    Thread safety: none. `create_tracker` reads a configuration once, and it can be used again.
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
        spool: str | os.PathLike[str] | None = None,
        spool_sync: float | None = None,
        on_lost: LostCallback | None = None,
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
        self.spool = spool
        self.spool_sync = spool_sync
        self.on_lost = on_lost

    batch_size: _Setting[int] = _Setting("Queued events at which sending starts.")
    on_success: _Setting[SuccessCallback] = _Setting("Called with the events of each request answered 2xx.")
    on_failure: _Setting[FailureCallback] = _Setting(
        "Called with the number sent and the list of events that were not, after each failure."
    )
    byte_limit: _Setting[int] = _Setting("Queued bytes at which sending starts.")
    request_timeout: _Setting[RequestTimeout] = _Setting("Seconds, or a (connect, read) pair.")
    buffer_capacity: _Setting[int] = _Setting("Most events queued and in flight together.")
    event_store: _Setting[EventStore] = _Setting("A store of the user's own.")
    session: _Setting[Any] = _Setting("A `requests.Session` to send through.")
    max_retry_delay_seconds: _Setting[float] = _Setting("Longest time between attempts after failures.")
    overflow: _Setting[Overflow] = _Setting("What `input` does when the buffer is full.")
    max_buffer_bytes: _Setting[int] = _Setting("Most bytes queued and in flight together.")
    max_request_bytes: _Setting[int] = _Setting("Most bytes of one request body.")
    shutdown_timeout: _Setting[float] = _Setting("Seconds that `close` and the end of the process may take.")
    background: _Setting[bool] = _Setting("False to start no thread and send in the thread that calls.")
    flush_interval: _Setting[float] = _Setting("Seconds between automatic flushes.")
    ca_certs: _Setting[str | os.PathLike[str]] = _Setting("Certificate authorities: a file or directory.")
    pool_manager: _Setting[Any] = _Setting("A `urllib3.PoolManager` to send through.")
    spool: _Setting[str | os.PathLike[str]] = _Setting("A directory in which events are kept.")
    spool_sync: _Setting[float] = _Setting("Seconds from one writing of the disk to the next.")
    on_lost: _Setting[LostCallback] = _Setting("Called with a reason and a list of events that are never sent.")

    @property
    def custom_retry_codes(self) -> dict[int, bool]:
        """Exceptions to the retry rules, `{status: retry?}`: this configuration's own dict, which may be changed."""
        return self._custom_retry_codes

    @custom_retry_codes.setter
    def custom_retry_codes(self, value: Mapping[int, bool] | None) -> None:
        self._custom_retry_codes: dict[int, bool] = checked("custom_retry_codes", value)

    @property
    def headers(self) -> dict[str, str] | None:
        """Added to each request: this configuration's own dict, or None."""
        return self._headers

    @headers.setter
    def headers(self, value: Mapping[str, str] | None) -> None:
        self._headers = None if value is None else checked("headers", value)

    def set_retry_code(self, status_code: int, retry: bool = True) -> bool:
        """Have events sent again (True), or dropped (False), after an answer with this status.

        Returns:
            Whether the rule was taken. Some are not: a status outside 100 to 599, a status of 200 to 299 (which is
            always a success), and a value of another type. These are logged, and nothing is raised, as in
            snowplow_tracker.
        """
        try:
            rule = checked("custom_retry_codes", {status_code: retry})
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
