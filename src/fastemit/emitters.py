"""`Emitter` and `AsyncEmitter`, as the docs describe them. They check arguments, make the parts, and call these."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, get_args

from fastemit import _native as _native
from fastemit._attributes import Attributes
from fastemit._batch import PAYLOAD_DATA_SCHEMA
from fastemit._buffer import EventBuffer, Intake
from fastemit._delivery import HOOK_NAMES, Delivery, Hooks, Reporter, unmade
from fastemit._interfaces import EventQueue, RequestTransport
from fastemit._settings import (
    DEFAULT_REQUEST_BYTES,
    Settings,
    bounds,
    checks,
)
from fastemit._transport import Endpoint, parse_endpoint
from fastemit._wiring import open_spool, transport_of
from fastemit.event_store import EventStore, InMemoryEventStore
from fastemit.stats import EmitterStats, logger
from fastemit.typing import (
    EmitterProtocol,
    FailureCallback,
    HttpProtocol,
    LostCallback,
    Method,
    Overflow,
    PayloadDict,
    PayloadDictList,
    RequestTimeout,
    SuccessCallback,
)

if TYPE_CHECKING:
    from fastemit._spool import Spool

#: Besides the names of fastemit, those that programs import from `snowplow_tracker.emitters`.
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
PROTOCOLS: Final = frozenset(get_args(HttpProtocol))
METHODS: Final = frozenset(get_args(Method))

DEFAULT_BATCH_SIZE = {"post": DEFAULT_MAX_LENGTH, "get": 1}


class Emitter(Intake, Attributes):
    """Sends events to a Snowplow collector from its own thread.

    The positional parameters are those of `snowplow_tracker.Emitter` 0.15 and 1.1, in the same order.

    Args:
        endpoint: the collector; may have a scheme, a port, a path prefix and `user:password@` (Basic authorisation).
        protocol: "https" (the default) or "http", for an endpoint without a scheme.
        port: 1 to 65535, also as a str of digits; None for the endpoint's own, or the scheme's.
        method: "post" (the default), or "get": one request for each event.
        batch_size: sending starts once so many events are queued. Default 10, with GET 1.
        on_success: called with the list of events (dicts) of each request that was answered 2xx.
        on_failure: called with (how many events of the same pass were sent, the list of those that were not), whether
            they are kept or dropped. A pass is one request of POST (the number is 0) or up to 100 of GET. Do not give
            kept events to `input` again; it would ignore them.
        byte_limit: sending starts once so many bytes of request body are queued. Default: no such limit.
        request_timeout: seconds, or a (connect, read) pair. The read part bounds the whole answer. None for both or
            for one of the pair means the default: 10 to connect, 30 to read.
        max_retry_delay_seconds: longest time between attempts after failures, in seconds. Default 60.
        buffer_capacity: most events queued and in flight together. Default 10,000; with a spool as many as fit.
        custom_retry_codes: `{status: retry?}`, exceptions to the retry rules. A 2xx is always a success.
        event_store: an object with the methods of `EventStore` to keep the events in. Default: the native buffer.
        session: a `requests.Session` to send through, with its cookies, headers, auth, adapters and proxies.
        overflow: what `input` does when the buffer is full: "backpressure" (waits while sending works, drops the new
            event when it fails), "drop_newest", "drop_oldest" or "block" (waits).
        max_buffer_bytes: most bytes queued and in flight together. Default 64 MiB; with a spool 1 GiB.
        max_request_bytes: most bytes of one request body, 1 KiB to 1 GiB. Default 1,000,000.
        shutdown_timeout: seconds that `close` and the end of the process may take to send what is left. Default 5.
        background: False to start no thread and send in the thread that calls (AWS Lambda, uWSGI without threads).
        flush_interval: seconds between automatic flushes. Default: none. With background=False no thread keeps the
            time, so the first `input` after the interval sends.
        headers: added to each request.
        ca_certs: a file or directory with the certificate authorities to trust. None: REQUESTS_CA_BUNDLE,
            CURL_CA_BUNDLE or SSL_CERT_FILE from the environment, else the system's, else certifi's.
        pool_manager: a `urllib3.PoolManager` to send through.
        spool: a directory that keeps events until they are sent, so that they outlive the process. The next emitter
            with the same directory sends what this one leaves. Default: events are kept in memory only.
        spool_sync: seconds between two writes to the disk, against a loss of power. Default: the kernel decides.
        on_lost: called with the reason (`overflow`, `rejected`, `oversize`, `closed`, or `left` for what a close could
            not send) and a list of events (dicts, without `stm`) that will never be sent.

    Raises:
        TypeError, ValueError: naming the argument, the value and what is allowed.
        RuntimeError: `__init__` is called again on an emitter that has had an event and is not closed.

    Thread safety: every method may be called from any thread, from a callback, and from a signal handler.
    """

    _thread_count = 1
    _settings: Settings = unmade()
    #: Whether events that dead processes left in the spool for other collectors are sent to this one, too.
    _any_endpoint = False
    _spool: Spool | None = None

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
        max_buffer_bytes: int | None = None,
        max_request_bytes: int = DEFAULT_REQUEST_BYTES,
        shutdown_timeout: float = 5.0,
        background: bool = True,
        flush_interval: float | None = None,
        headers: Mapping[str, str] | None = None,
        ca_certs: str | os.PathLike[str] | None = None,
        pool_manager: Any = None,
        spool: str | os.PathLike[str] | None = None,
        spool_sync: float | None = None,
        on_lost: LostCallback | None = None,
    ) -> None:
        self._may_begin()
        address = parse_endpoint(endpoint, protocol, port, method)
        settings = Settings.checked(
            batch_size=DEFAULT_BATCH_SIZE[method] if batch_size is None else batch_size,
            on_success=on_success,
            on_failure=on_failure,
            byte_limit=byte_limit,
            request_timeout=request_timeout,
            max_retry_delay_seconds=max_retry_delay_seconds,
            custom_retry_codes=custom_retry_codes,
            event_store=event_store,
            session=session,
            overflow=overflow,
            **bounds(buffer_capacity, max_buffer_bytes, spool),
            max_request_bytes=max_request_bytes,
            shutdown_timeout=shutdown_timeout,
            background=background,
            flush_interval=flush_interval,
            headers=headers,
            ca_certs=ca_certs,
            pool_manager=pool_manager,
            spool=spool,
            spool_sync=spool_sync,
            on_lost=on_lost,
        )
        # A subclass may override anything, so only the class itself is known to be a view of a native buffer.
        own_store = event_store if type(event_store) is InMemoryEventStore else None
        if event_store is not None and own_store is None and overflow == "drop_oldest":
            raise ValueError(
                "overflow must be 'backpressure', 'drop_newest' or 'block' with an event_store of your own, "
                "not 'drop_oldest': only the store can drop what it holds"
            )
        self._method = method
        self._max_retry_delay_seconds = max_retry_delay_seconds
        # Made first, because it may fail. Then the parts of an earlier `__init__` are still whole.
        transport = self._make_transport(address, settings)
        report = Reporter(settings.on_success, settings.on_failure, settings.on_lost)
        capacity = settings.buffer_capacity if own_store is None else own_store.buffer_capacity
        size = min(settings.batch_size, capacity)
        query = method == "get"
        files = None
        if settings.spool is not None:
            files = open_spool(settings.spool, address.url, method, settings.spool_sync, self._any_endpoint)
        native = EventBuffer(
            capacity,
            settings.max_buffer_bytes,
            settings.max_request_bytes,
            size,
            settings.byte_limit,
            query=query,
            keep=query and files is None,
            files=files is not None,
        )
        if files is not None:
            files.serve(native)
            transport.meanwhile = files.helper()
        buffer: EventQueue = native
        store: Any = event_store
        lost: list[PayloadDict] = []
        if event_store is None:
            store = InMemoryEventStore.over(native)
        elif own_store is None or not own_store.use(native, lost, instead_of=self.__dict__.get("_buffer")):
            # Imported here, because few programs have their own store.
            from fastemit._stores import StoreBuffer

            staged = EventBuffer(sys.maxsize, sys.maxsize, settings.max_request_bytes, 1, query=query, keep=True)
            buffer = StoreBuffer(
                event_store, staged, size, settings.byte_limit, report.store_fault, report.lost_in_store
            )
            report.tell_faults()  # `StoreBuffer` has called the store, which may have raised
        delivery = Delivery(
            buffer,
            transport,
            report,
            overflow=settings.overflow,
            max_retry_delay=settings.max_retry_delay_seconds,
            custom_retry_codes=settings.custom_retry_codes,
            thread_count=self._thread_count,
            background=settings.background,
            shutdown_timeout=settings.shutdown_timeout,
            flush_interval=settings.flush_interval,
            hooks=Hooks(self, _OWN),
            spool=files,
        )
        self._endpoint = address
        self._request_timeout = request_timeout
        self._spool = files
        # Without the callbacks, because these can be assigned, and the earlier ones must not be kept alive here.
        self._settings = settings.but(buffer_capacity=capacity, on_success=None, on_failure=None, on_lost=None)
        self._report = report
        self._buffer = buffer
        self._event_store = store
        self._transport = transport
        self._open_intake(buffer, delivery.answer)
        self._open(delivery)
        report.lost("overflow", lost)

    def _make_transport(self, address: Endpoint, settings: Settings) -> RequestTransport:
        """Make the transport that batches are sent by."""
        return transport_of(address, settings, self._thread_count)

    # -- events ------------------------------------------------------------------------------------------------------

    def reached_limit(self) -> bool:
        """Whether enough is queued to send: `batch_size` or `byte_limit` is reached, or the buffer is full."""
        return self._buffer.due

    # -- requests by hand --------------------------------------------------------------------------------------------

    def send_events(self, evts: PayloadDictList) -> None:
        """Send these events once, now, in the calling thread. The rules are the same: events to be retried are queued.

        With GET it stops at the first event that is kept, and queues that one and the rest. The callbacks are called as
        always: for each request of POST, for each pass of up to 100 events of GET.

        Args:
            evts: dicts as for `input`. Neither they nor the list are changed.
        """
        self._delivery.send_now(list(evts))

    def http_post(self, data: str) -> int:
        """Post a ready-made body once. Returns the status, or -1 if no answer came."""
        body = data.encode("utf-8")
        return self._delivery.by_hand(len(body), lambda: self._transport.post(body))

    def http_get(self, payload: PayloadDict) -> int:
        """Send one event by GET once. Returns the status, or -1 if no answer came."""
        query = EventBuffer.encode_query(payload)
        return self._delivery.by_hand(len(query), lambda: self._transport.get(query))

    @staticmethod
    def as_collector_uri(
        endpoint: str, protocol: HttpProtocol = "https", port: int | str | None = None, method: Method = "post"
    ) -> str:
        """The full URI that events are sent to."""
        return parse_endpoint(endpoint, protocol, port, method).url

    @staticmethod
    def is_good_status_code(status_code: int) -> bool:
        """Whether a status says that the collector has the events: 200 to 299."""
        return 200 <= status_code < 300

    @staticmethod
    def attach_sent_timestamp(events: PayloadDictList) -> None:
        """Set `stm` in each of these dicts, in place, to the time now in milliseconds, as a string."""
        now = str(time.time_ns() // 1_000_000)
        for event in events:
            event["stm"] = now

    # -- state -------------------------------------------------------------------------------------------------------

    def stats(self) -> EmitterStats:
        """All counters at one point in time."""
        return self._delivery.stats()

    def __repr__(self) -> str:
        address: Endpoint | None = vars(self).get("_endpoint")
        # It must not raise, because log lines and reports of failed tests use it.
        return f"<{type(self).__name__} {'without an endpoint' if address is None else address.url}>"


class AsyncEmitter(Emitter):
    """An `Emitter` with any number of sender threads, a `flush` that does not wait, and an `input` that never waits.

    The positional parameters are those of `snowplow_tracker.AsyncEmitter`, in the same order. See `Emitter`.

    Args:
        thread_count: number of sender threads, each with its own connection. Default 1.
        overflow: as for `Emitter`, but by default "drop_newest".
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
        max_buffer_bytes: int | None = None,
        max_request_bytes: int = DEFAULT_REQUEST_BYTES,
        shutdown_timeout: float = 5.0,
        background: bool = True,
        flush_interval: float | None = None,
        headers: Mapping[str, str] | None = None,
        ca_certs: str | os.PathLike[str] | None = None,
        pool_manager: Any = None,
        spool: str | os.PathLike[str] | None = None,
        spool_sync: float | None = None,
        on_lost: LostCallback | None = None,
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
            spool=spool,
            spool_sync=spool_sync,
            on_lost=on_lost,
        )

    def flush(self) -> None:
        """Ask for what is queued to be sent soon, and return at once. `sync_flush` and `drain` wait."""
        self._delivery.request_flush()


#: The methods that `Hooks` looks for, as they are before a subclass or a patch replaces them.
_OWN = {name: frozenset(vars(cls)[name] for cls in AsyncEmitter.__mro__ if name in vars(cls)) for name in HOOK_NAMES}
