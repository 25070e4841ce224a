"""The attributes of an emitter: those that can be read, and those that can be assigned while it works.

An assigned value is checked by the same rule as in the constructor. It holds from the next event or request on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastemit._delivery import Draining, Reporter, unmade
from fastemit._interfaces import EventQueue, RequestTransport
from fastemit._settings import checked, checks
from fastemit._transport import Endpoint
from fastemit.typing import FailureCallback, LostCallback, Method, RequestTimeout, SuccessCallback


@checks.fixed(
    bytes_queued="it is counted",
    endpoint="events that are queued are for that collector; close() this emitter, and make one for the other",
    method="events are queued in the form of their method; close() this emitter, and make one with method=",
    event_store="give event_store when you make the emitter",
)
class Attributes(Draining):
    """The part of `Emitter` that has its attributes. `Emitter.__init__` sets what they use."""

    _endpoint: Endpoint = unmade()
    _method: Method = unmade()
    _event_store: Any = unmade()
    _buffer: EventQueue = unmade()
    _report: Reporter = unmade()
    _transport: RequestTransport = unmade()
    _request_timeout: RequestTimeout | None = unmade()
    _max_retry_delay_seconds: float = unmade()

    @property
    def endpoint(self) -> str:
        """The full collector URI, without user and password."""
        return self._endpoint.url

    @property
    def method(self) -> Method:
        return self._method

    @property
    def event_store(self) -> Any:
        """The store as given, or the `InMemoryEventStore` over the native buffer."""
        return self._event_store

    @property
    def batch_size(self) -> int:
        """Sending starts once so many events are queued. A value above the capacity is lowered to that."""
        return self._buffer.batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._buffer.batch_size = min(checked("batch_size", value), self._buffer.capacity)
        self._delivery.reconsider()

    @property
    def byte_limit(self) -> int | None:
        """Sending starts once so many bytes are queued; None for no such limit."""
        return self._buffer.byte_limit

    @byte_limit.setter
    def byte_limit(self, value: int | None) -> None:
        self._buffer.byte_limit = checked("byte_limit", value)
        self._delivery.reconsider()

    @property
    def bytes_queued(self) -> int | None:
        """Bytes queued; None without a `byte_limit`, as in snowplow_tracker. `stats()` always has the number."""
        return None if self._buffer.byte_limit is None else self._buffer.queued_bytes

    @property
    def request_timeout(self) -> RequestTimeout | None:
        """As given: seconds, a (connect, read) pair, or None for 10 and 30."""
        return self._request_timeout

    @request_timeout.setter
    def request_timeout(self, value: RequestTimeout | None) -> None:
        self._transport.timeout = checked("request_timeout", value)
        self._request_timeout = value

    @property
    def on_success(self) -> SuccessCallback | None:
        return self._report.on_success

    @on_success.setter
    def on_success(self, value: SuccessCallback | None) -> None:
        self._report.on_success = checked("on_success", value)

    @property
    def on_failure(self) -> FailureCallback | None:
        return self._report.on_failure

    @on_failure.setter
    def on_failure(self, value: FailureCallback | None) -> None:
        self._report.on_failure = checked("on_failure", value)

    @property
    def on_lost(self) -> LostCallback | None:
        return self._report.on_lost

    @on_lost.setter
    def on_lost(self, value: LostCallback | None) -> None:
        self._report.on_lost = checked("on_lost", value)

    @property
    def max_retry_delay_seconds(self) -> float:
        """Longest time between attempts after failures. A shorter time also ends a backoff that runs sooner."""
        return self._max_retry_delay_seconds

    @max_retry_delay_seconds.setter
    def max_retry_delay_seconds(self, value: float) -> None:
        self._delivery.max_retry_delay = checked("max_retry_delay_seconds", value)
        self._max_retry_delay_seconds = value

    @property
    def custom_retry_codes(self) -> dict[int, bool]:
        """The exceptions to the retry rules, `{status: retry?}`. They may be assigned, or changed in place."""
        return self._delivery.custom_retry_codes

    @custom_retry_codes.setter
    def custom_retry_codes(self, value: Mapping[int, bool] | None) -> None:
        self._delivery.custom_retry_codes = checked("custom_retry_codes", value)
