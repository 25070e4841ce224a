"""`CeleryEmitter`, whose events are sent by Celery workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastemit._delivery import unmade
from fastemit._interfaces import RequestTransport
from fastemit._settings import DEFAULT_REQUEST_BYTES, Settings, checked, checks
from fastemit._transport import Endpoint
from fastemit.celery.tasks import TASK, app
from fastemit.celery.transport import Publisher
from fastemit.celery.worker import Destination
from fastemit.emitters import Emitter
from fastemit.event_store import EventStore
from fastemit.stats import logger
from fastemit.typing import HttpProtocol, Method, Overflow, RequestTimeout

#: The other names are here because `snowplow_tracker.celery.celery_emitter` has them, too.
__all__ = ["CeleryEmitter", "Emitter", "HttpProtocol", "Method", "logger"]


class CeleryEmitter(Emitter):
    """An `Emitter` that hands its batches to Celery workers, which send them by the same rules.

    The positional parameters are those of `snowplow_tracker.CeleryEmitter`, in the same order. `input`, the buffer,
    `flush` and `close` are those of `Emitter`, with the broker in place of the collector. An event counts as sent once
    its batch is a task in the broker; `stats().last_status` is 202 then. While the broker is down, events wait.

    Args:
        endpoint, protocol, port, method, batch_size, byte_limit: as for `Emitter`.
        request_timeout, max_retry_delay_seconds, custom_retry_codes, headers: as for `Emitter`. They travel with each
            batch, as do a user and password in `endpoint`, because the worker needs them to send. A worker may have a
            list of collectors that it sends to, and its own passwords and headers.
        ca_certs: as for `Emitter`, a path on the worker's machine.
        celery_app: your own Celery app; its workers need `include=["fastemit.celery"]`. Default: `app` of
            `fastemit.celery`.
        on_success, on_failure, on_lost: must be None, because only the worker knows the outcome, and it is another
            process.
        buffer_capacity, event_store, overflow, max_buffer_bytes, shutdown_timeout: as for `Emitter`.
        background, flush_interval, spool, spool_sync: as for `Emitter`.
        max_request_bytes: as for `Emitter`. With Amazon SQS use 120,000 or less, because its messages have 256 KiB at
            the most.

    Raises:
        TypeError, ValueError: naming the argument, the value and what is allowed.

    Thread safety: as `Emitter`.
    """

    _publisher: Publisher = unmade()

    @checks.renamed(buffer_size="batch_size")
    def __init__(
        self,
        endpoint: str,
        protocol: HttpProtocol = "https",
        port: int | str | None = None,
        method: Method = "post",
        batch_size: int | None = None,
        byte_limit: int | None = None,
        *,
        on_success: None = None,
        on_failure: None = None,
        request_timeout: RequestTimeout | None = None,
        max_retry_delay_seconds: float = 60,
        buffer_capacity: int | None = None,
        custom_retry_codes: Mapping[int, bool] | None = None,
        event_store: EventStore | None = None,
        overflow: Overflow = "backpressure",
        max_buffer_bytes: int | None = None,
        max_request_bytes: int = DEFAULT_REQUEST_BYTES,
        shutdown_timeout: float = 5.0,
        background: bool = True,
        flush_interval: float | None = None,
        headers: Mapping[str, str] | None = None,
        ca_certs: str | os.PathLike[str] | None = None,
        celery_app: Any = None,
        spool: str | os.PathLike[str] | None = None,
        spool_sync: float | None = None,
        on_lost: None = None,
    ) -> None:
        self._may_begin()
        _no_callback("on_success", on_success)
        _no_callback("on_failure", on_failure)
        _no_callback("on_lost", on_lost)
        if celery_app is not None:
            checks.has_methods(
                "celery_app", celery_app, ("connection_for_write", "send_task"), "None or a celery.Celery"
            )
        if ca_certs is not None and not isinstance(ca_certs, (str, os.PathLike)):
            raise TypeError(f"ca_certs must be a path on the worker's machine, not {type(ca_certs).__name__}")
        self._app = app if celery_app is None else celery_app
        self._worker_ca_certs = None if ca_certs is None else os.fsdecode(ca_certs)
        super().__init__(
            endpoint=endpoint,
            protocol=protocol,
            port=port,
            method=method,
            batch_size=batch_size,
            byte_limit=byte_limit,
            request_timeout=request_timeout,
            max_retry_delay_seconds=max_retry_delay_seconds,
            buffer_capacity=buffer_capacity,
            custom_retry_codes=custom_retry_codes,
            event_store=event_store,
            overflow=overflow,
            max_buffer_bytes=max_buffer_bytes,
            max_request_bytes=max_request_bytes,
            shutdown_timeout=shutdown_timeout,
            background=background,
            flush_interval=flush_interval,
            headers=headers,
            spool=spool,
            spool_sync=spool_sync,
        )

    def _make_transport(self, address: Endpoint, settings: Settings) -> RequestTransport:
        destination = Destination(
            address,
            self.method,
            settings.request_timeout,
            settings.headers,
            self._worker_ca_certs,
            settings.max_retry_delay_seconds,
            settings.custom_retry_codes,
            settings.max_request_bytes,
        )
        self._publisher = Publisher(self._app.tasks[TASK], destination)
        return self._publisher

    @property
    def on_success(self) -> None:
        """None, because only the worker knows the outcome, and it is another process."""
        return None

    @on_success.setter
    def on_success(self, value: None) -> None:
        _no_callback("on_success", value)

    @property
    def on_failure(self) -> None:
        """None, because only the worker knows the outcome, and it is another process."""
        return None

    @on_failure.setter
    def on_failure(self, value: None) -> None:
        _no_callback("on_failure", value)

    @property
    def on_lost(self) -> None:
        """None, because only the worker knows the outcome, and it is another process."""
        return None

    @on_lost.setter
    def on_lost(self, value: None) -> None:
        _no_callback("on_lost", value)

    @property
    def max_retry_delay_seconds(self) -> float:
        """Longest time between attempts, also the worker's. May be assigned, and holds for batches published later."""
        return self._max_retry_delay_seconds

    @max_retry_delay_seconds.setter
    def max_retry_delay_seconds(self, value: float) -> None:
        max_delay = checked("max_retry_delay_seconds", value)
        self._delivery.max_retry_delay = max_delay
        self._publisher.destination = replace(self._publisher.destination, max_delay=max_delay)
        self._max_retry_delay_seconds = value

    @property
    def custom_retry_codes(self) -> dict[int, bool]:
        """The exceptions to the retry rules. May be assigned or changed, and holds for batches published later."""
        return self._publisher.destination.retry_codes

    @custom_retry_codes.setter
    def custom_retry_codes(self, value: Mapping[int, bool] | None) -> None:
        codes = checked("custom_retry_codes", value)
        self._publisher.destination = replace(self._publisher.destination, retry_codes=codes)


def _no_callback(name: str, value: object) -> None:
    if value is not None:
        raise TypeError(
            f"{name} must be None with a CeleryEmitter, because only the worker knows what becomes of the events, and "
            "it is another process"
        )
