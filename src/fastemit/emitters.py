"""The documented face: `Emitter` and `AsyncEmitter`. They check arguments, wire, and delegate."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, get_args

from fastemit._buffer import MAX_REQUEST_BYTES, MIN_REQUEST_BYTES, EventBuffer, Intake
from fastemit._delivery import HOOK_NAMES, Delivery, Draining, Hooks, Reporter, unmade
from fastemit._interfaces import Transport
from fastemit._settings import checks
from fastemit._stores import StoreBuffer
from fastemit._transport import Endpoint, SessionTransport, parse_endpoint
from fastemit.event_store import DEFAULT_BUFFER_CAPACITY, EventStore, InMemoryEventStore
from fastemit.stats import EmitterStats, logger
from fastemit.typing import (
    EmitterProtocol,
    FailureCallback,
    HttpProtocol,
    Method,
    Overflow,
    PayloadDict,
    PayloadDictList,
    RequestTimeout,
    SuccessCallback,
)

#: Names that `snowplow_tracker.emitters` has and its users import, beside those of fastemit.
__all__ = [
    "DEFAULT_MAX_LENGTH",
    "METHODS",
    "PAYLOAD_DATA_SCHEMA",
    "PROTOCOLS",
    "AsyncEmitter",
    "Emitter",
    "EmitterProtocol",
    "EventStore",
    "FailureCallback",
    "HttpProtocol",
    "InMemoryEventStore",
    "Method",
    "PayloadDict",
    "PayloadDictList",
    "SuccessCallback",
    "logger",
]

DEFAULT_MAX_LENGTH: Final = 10
#: The schema of a request's body.
PAYLOAD_DATA_SCHEMA: Final = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
PROTOCOLS: Final = frozenset(get_args(HttpProtocol))
METHODS: Final = frozenset(get_args(Method))

DEFAULT_BATCH_SIZE = {"post": DEFAULT_MAX_LENGTH, "get": 1}
DEFAULT_BUFFER_BYTES = 64 * 1024 * 1024
#: A collector answers 200 to a larger body, and then files the whole request as one failed event.
DEFAULT_REQUEST_BYTES = 1_000_000

_OVERFLOWS = ("backpressure", "drop_newest", "drop_oldest", "block")


@checks.fixed(
    endpoint="events that are queued are for that collector; close() this emitter, and make one for the other",
    method="events are queued in the form of their method; close() this emitter, and make one with method=",
    event_store="give event_store when you make the emitter",
    bytes_queued="it is counted",
)
class Emitter(Intake, Draining):
    """Sends events to a Snowplow collector, from a thread of its own.

    The positional parameters are those of `snowplow_tracker.Emitter` 0.15 and 1.1, in its order.

    Args:
        endpoint: the collector; may carry a scheme, a port, a path prefix and `user:password@` (Basic authorisation).
        protocol: "https" (the default) or "http", for an endpoint without a scheme.
        port: 1 to 65535, also as a str of digits; None for the endpoint's own, or the scheme's.
        method: "post" (the default), or "get": one request for each event.
        batch_size: queued events at which sending starts. Default 10, with GET 1.
        on_success: called with the list of events (dicts) of each request that was answered 2xx.
        on_failure: called with (how many of the same pass were sent, the list of events) for those that were not,
            whether they are kept or dropped. A pass is one request of POST (the number is 0) or up to 100 of GET.
            What is kept need not be given to `input` again: it is left out there.
        byte_limit: queued bytes at which sending starts, as they are in the request. Default: no such limit.
        request_timeout: seconds, or a (connect, read) pair; the read part bounds the whole answer. None, also for a
            half of the pair: 10 to connect, 30 to read.
        max_retry_delay_seconds: longest time between attempts after failures, in seconds. Default 60.
        buffer_capacity: most events queued and in flight together. Default 10,000.
        custom_retry_codes: `{status: retry?}`, exceptions to the rules; 2xx is always success.
        event_store: an object with the methods of `EventStore` to keep the events in. Default: the native buffer.
        session: a `requests.Session` to send through, with its cookies, headers, auth, adapters and proxies.
        overflow: what `input` does when the buffer is full: "backpressure" (waits while sending works, drops the new
            event when it fails), "drop_newest", "drop_oldest" or "block" (waits).
        max_buffer_bytes: most bytes queued and in flight together. Default 64 MiB.
        max_request_bytes: most bytes of one request body, 1 KiB to 1 GiB. Default 1,000,000.
        shutdown_timeout: seconds that `close` and the end of the process may take to send what is left. Default 5.
        background: False to start no thread and send in the thread that calls (AWS Lambda, uWSGI without threads).
        flush_interval: seconds between automatic flushes of what is queued. Default: none. With background=False no
            thread keeps the time: the first `input` after the interval sends.
        headers: added to each request.
        ca_certs: a file or directory of certificate authorities to verify the collector by. None: REQUESTS_CA_BUNDLE,
            CURL_CA_BUNDLE or SSL_CERT_FILE from the environment, else the system's, else certifi's.
        pool_manager: a `urllib3.PoolManager` to send through.

    Raises:
        TypeError, ValueError: naming the argument, the value and what is allowed.
        RuntimeError: `__init__` is called again on an emitter that is in use, which is neither closed nor without an
            event yet.

    Thread safety: every method may be called from any thread, from a callback, and from a signal handler.
    """

    _thread_count = 1
    _endpoint: Endpoint = unmade()
    _method: Method = unmade()
    _request_timeout: RequestTimeout | None = unmade()
    _max_retry_delay_seconds: float = unmade()
    _report: Reporter = unmade()
    _buffer: Any = unmade()
    _event_store: Any = unmade()
    _transport: Transport = unmade()

    @checks.renamed(buffer_size="batch_size")
    def __init__(
        self,
        endpoint: str,
        protocol: HttpProtocol = "https",
        port: int | str | None = None,
        method: Method = "post",
        batch_size: int | None = None,
        on_success: SuccessCallback | None = None,
        on_failure: FailureCallback | None = None,
        byte_limit: int | None = None,
        request_timeout: RequestTimeout | None = None,
        max_retry_delay_seconds: float = 60,
        buffer_capacity: int | None = None,
        custom_retry_codes: Mapping[int, bool] | None = None,
        event_store: EventStore | None = None,
        session: Any = None,
        *,
        overflow: Overflow = "backpressure",
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        max_request_bytes: int = DEFAULT_REQUEST_BYTES,
        shutdown_timeout: float = 5.0,
        background: bool = True,
        flush_interval: float | None = None,
        headers: Mapping[str, str] | None = None,
        ca_certs: str | os.PathLike[str] | None = None,
        pool_manager: Any = None,
    ) -> None:
        self._may_begin()
        address = parse_endpoint(endpoint, protocol, port, method)
        if buffer_capacity is not None:
            checks.integer("buffer_capacity", buffer_capacity)
        if type(event_store) is InMemoryEventStore:
            buffer_capacity = event_store.buffer_capacity
        capacity = DEFAULT_BUFFER_CAPACITY if buffer_capacity is None else buffer_capacity
        if batch_size is None:
            batch_size = DEFAULT_BATCH_SIZE[method]
        batch_size = min(checks.integer("batch_size", batch_size), capacity)
        if byte_limit is not None:
            checks.integer("byte_limit", byte_limit)
        timeout = checks.timeout_pair("request_timeout", request_timeout)
        checks.integer("max_buffer_bytes", max_buffer_bytes, MIN_REQUEST_BYTES)
        checks.integer("max_request_bytes", max_request_bytes, MIN_REQUEST_BYTES, MAX_REQUEST_BYTES)
        report = Reporter(checks.callback("on_success", on_success), checks.callback("on_failure", on_failure))
        checks.one_of("overflow", overflow, _OVERFLOWS)
        max_delay = checks.seconds("max_retry_delay_seconds", max_retry_delay_seconds)
        retry_codes = checks.retry_codes("custom_retry_codes", custom_retry_codes)
        checks.boolean("background", background)
        shutdown = checks.seconds("shutdown_timeout", shutdown_timeout, zero=True)
        interval = None if flush_interval is None else checks.seconds("flush_interval", flush_interval)
        extra_headers = checks.headers("headers", headers)
        authorities = None if ca_certs is None else checks.path("ca_certs", ca_certs)
        if pool_manager is not None:
            checks.has_methods("pool_manager", pool_manager, ("urlopen", "clear"), "None or a urllib3.PoolManager")
        if session is not None and pool_manager is not None:
            raise ValueError("session and pool_manager must not both be given: each says how requests are made")
        if session is not None:
            checks.has_methods("session", session, ("get", "post"), "None or a requests.Session")
        if event_store is not None:
            checks.has_methods(
                "event_store",
                event_store,
                ("add_event", "get_events_batch", "cleanup", "size"),
                "None or an object with the methods add_event, get_events_batch, cleanup and size",
            )
        # A subclass may override anything, so only the class itself is known to be a view of a native buffer.
        own_store = event_store if type(event_store) is InMemoryEventStore else None
        if event_store is not None and own_store is None and overflow == "drop_oldest":
            raise ValueError(
                "overflow must be 'backpressure', 'drop_newest' or 'block' with an event_store of your own, "
                "not 'drop_oldest': only the store can drop what it holds"
            )
        query = method == "get"
        self._method = method
        self._max_retry_delay_seconds = max_retry_delay_seconds
        # First, since it may fail; what an earlier `__init__` has made is whole then.
        transport = self._make_transport(address, timeout, extra_headers, authorities, session, pool_manager)
        buffer: Any = EventBuffer(
            capacity, max_buffer_bytes, max_request_bytes, batch_size, byte_limit, query=query, keep=query
        )
        store: Any = event_store
        if event_store is None:
            store = InMemoryEventStore.over(buffer)
        elif own_store is None or not own_store.use(buffer, instead_of=self.__dict__.get("_buffer")):
            staged = EventBuffer(sys.maxsize, sys.maxsize, max_request_bytes, 1, query=query, keep=True)
            buffer = StoreBuffer(event_store, staged, batch_size, byte_limit, report.store_fault)
            report.tell_faults()  # it was asked what it holds already
        delivery = Delivery(
            buffer,
            transport,
            report,
            overflow=overflow,
            max_retry_delay=max_delay,
            custom_retry_codes=retry_codes,
            thread_count=self._thread_count,
            background=background,
            shutdown_timeout=shutdown,
            flush_interval=interval,
            hooks=Hooks(self, _OWN),
        )
        self._endpoint = address
        self._request_timeout = request_timeout
        self._report = report
        self._buffer = buffer
        self._event_store = store
        self._transport = transport
        self._open_intake(buffer, delivery.answer)
        self._open(delivery)

    def _make_transport(
        self,
        address: Endpoint,
        timeout: tuple[float, float] | None,
        headers: dict[str, str],
        ca_certs: str | None,
        session: Any,
        pool_manager: Any,
    ) -> Transport:
        """Where batches go; the arguments are checked."""
        if session is not None:
            return SessionTransport(session, address, timeout, headers)
        # Here, not above: urllib3 opens a socket when it is imported (to see whether there is IPv6).
        from fastemit._transport import HttpTransport

        return HttpTransport(
            address,
            timeout,
            connections=self._thread_count,
            headers=headers,
            ca_certs=ca_certs,
            pool_manager=pool_manager,
        )

    # -- events ------------------------------------------------------------------------------------------------------

    def reached_limit(self) -> bool:
        """Whether there is enough queued to send: `batch_size`, `byte_limit`, or a full buffer."""
        due: bool = self._buffer.due
        return due

    # -- requests by hand --------------------------------------------------------------------------------------------

    def send_events(self, evts: PayloadDictList) -> None:
        """Send these events once, now, in the calling thread, by the same rules; those to be retried are queued.

        With GET it goes on to the first event that is kept: that one and the rest are queued. The callbacks are called
        as ever: for each request of POST, for each pass of up to 100 events of GET.

        Args:
            evts: dicts as `input` takes them; neither they nor the list are changed.
        """
        self._delivery.send_now(list(evts))

    def http_post(self, data: str) -> int:
        """Post a ready-made body once; the status, or -1 when no answer came."""
        return self._delivery.post(data.encode("utf-8"))

    def http_get(self, payload: PayloadDict) -> int:
        """Send one event by GET once; the status, or -1 when no answer came."""
        return self._delivery.get(payload)

    @staticmethod
    def as_collector_uri(
        endpoint: str, protocol: HttpProtocol = "https", port: int | str | None = None, method: Method = "post"
    ) -> str:
        """The full URI that events are sent to."""
        return parse_endpoint(endpoint, protocol, port, method).url

    @staticmethod
    def is_good_status_code(status_code: int) -> bool:
        """Whether a status says that the events were taken: 200 to 299."""
        return 200 <= status_code < 300

    @staticmethod
    def attach_sent_timestamp(events: PayloadDictList) -> None:
        """Set `stm` in each of these dicts, in place, to the time now in milliseconds, as a string."""
        now = str(time.time_ns() // 1_000_000)
        for event in events:
            event["stm"] = now

    # -- state -------------------------------------------------------------------------------------------------------

    def stats(self) -> EmitterStats:
        """One consistent look at the counters."""
        return self._delivery.stats()

    def __repr__(self) -> str:
        address: Endpoint | None = vars(self).get("_endpoint")
        # Never an error: a `repr` is in every log line and report of a failed test.
        return f"<{type(self).__name__} {'without an endpoint' if address is None else address.url}>"

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
        """Queued events at which sending starts; one larger than the capacity is lowered to it."""
        size: int = self._buffer.batch_size
        return size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._buffer.batch_size = min(checks.integer("batch_size", value), self._buffer.capacity)
        self._delivery.reconsider()

    @property
    def byte_limit(self) -> int | None:
        """Queued bytes at which sending starts, or None."""
        limit: int | None = self._buffer.byte_limit
        return limit

    @byte_limit.setter
    def byte_limit(self, value: int | None) -> None:
        self._buffer.byte_limit = None if value is None else checks.integer("byte_limit", value)
        self._delivery.reconsider()

    @property
    def bytes_queued(self) -> int | None:
        """Bytes queued; None without a `byte_limit`, as in the reference. `stats()` tells them always."""
        return None if self._buffer.byte_limit is None else self._buffer.queued_bytes

    @property
    def request_timeout(self) -> RequestTimeout | None:
        """As given: seconds, a (connect, read) pair, or None for 10 and 30."""
        return self._request_timeout

    @request_timeout.setter
    def request_timeout(self, value: RequestTimeout | None) -> None:
        self._transport.timeout = checks.timeout_pair("request_timeout", value)
        self._request_timeout = value

    @property
    def on_success(self) -> SuccessCallback | None:
        return self._report.on_success

    @on_success.setter
    def on_success(self, value: SuccessCallback | None) -> None:
        self._report.on_success = checks.callback("on_success", value)

    @property
    def on_failure(self) -> FailureCallback | None:
        return self._report.on_failure

    @on_failure.setter
    def on_failure(self, value: FailureCallback | None) -> None:
        self._report.on_failure = checks.callback("on_failure", value)

    @property
    def max_retry_delay_seconds(self) -> float:
        """Longest time between attempts after failures; a backoff that runs ends sooner when it is made shorter."""
        return self._max_retry_delay_seconds

    @max_retry_delay_seconds.setter
    def max_retry_delay_seconds(self, value: float) -> None:
        self._delivery.max_retry_delay = checks.seconds("max_retry_delay_seconds", value)
        self._max_retry_delay_seconds = value

    @property
    def custom_retry_codes(self) -> dict[int, bool]:
        """The exceptions to the retry rules, `{status: retry?}`; may be assigned, and changed in place."""
        return self._delivery.custom_retry_codes

    @custom_retry_codes.setter
    def custom_retry_codes(self, value: Mapping[int, bool] | None) -> None:
        self._delivery.custom_retry_codes = checks.retry_codes("custom_retry_codes", value)


class AsyncEmitter(Emitter):
    """`Emitter` with a choice of sender threads, a `flush` that does not wait, and an `input` that never does.

    The positional parameters are those of `snowplow_tracker.AsyncEmitter`, in its order; see `Emitter`.

    Args:
        thread_count: sender threads, each with a connection of its own. Default 1.
        overflow: here "drop_newest" by default.
    """

    @checks.renamed(buffer_size="batch_size")
    def __init__(
        self,
        endpoint: str,
        protocol: HttpProtocol = "https",
        port: int | str | None = None,
        method: Method = "post",
        batch_size: int | None = None,
        on_success: SuccessCallback | None = None,
        on_failure: FailureCallback | None = None,
        thread_count: int = 1,
        byte_limit: int | None = None,
        request_timeout: RequestTimeout | None = None,
        max_retry_delay_seconds: float = 60,
        buffer_capacity: int | None = None,
        custom_retry_codes: Mapping[int, bool] | None = None,
        event_store: EventStore | None = None,
        session: Any = None,
        *,
        overflow: Overflow = "drop_newest",
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        max_request_bytes: int = DEFAULT_REQUEST_BYTES,
        shutdown_timeout: float = 5.0,
        background: bool = True,
        flush_interval: float | None = None,
        headers: Mapping[str, str] | None = None,
        ca_certs: str | os.PathLike[str] | None = None,
        pool_manager: Any = None,
    ) -> None:
        self._may_begin()
        self._thread_count = checks.integer("thread_count", thread_count, 1, 1000)
        super().__init__(
            endpoint=endpoint,
            protocol=protocol,
            port=port,
            method=method,
            batch_size=batch_size,
            on_success=on_success,
            on_failure=on_failure,
            byte_limit=byte_limit,
            request_timeout=request_timeout,
            max_retry_delay_seconds=max_retry_delay_seconds,
            buffer_capacity=buffer_capacity,
            custom_retry_codes=custom_retry_codes,
            event_store=event_store,
            session=session,
            overflow=overflow,
            max_buffer_bytes=max_buffer_bytes,
            max_request_bytes=max_request_bytes,
            shutdown_timeout=shutdown_timeout,
            background=background,
            flush_interval=flush_interval,
            headers=headers,
            ca_certs=ca_certs,
            pool_manager=pool_manager,
        )

    def flush(self) -> None:
        """Have what is queued sent soon, and return at once; `sync_flush` and `drain` wait."""
        self._delivery.request_flush()


#: The methods that are looked for in `Hooks`, as they are before anybody overrides or patches them.
_OWN = {name: frozenset(vars(cls)[name] for cls in AsyncEmitter.__mro__ if name in vars(cls)) for name in HOOK_NAMES}
