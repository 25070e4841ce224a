"""`CeleryEmitter`, whose events are sent by Celery workers, and the app of such a worker:

celery -A fastemit.celery worker

A module `snowplow_celery_config` on the path configures the app. Without one the broker is redis://localhost:6379/0.
docs/scaling.md says what is guaranteed, and what to set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final
from uuid import uuid4

try:
    from celery import Celery, shared_task  # type: ignore[import-untyped]
    from celery.app.defaults import DEFAULTS as CELERY_DEFAULTS  # type: ignore[import-untyped]
    from celery.exceptions import Reject, Retry  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    if error.name != "celery":
        raise
    raise ImportError(
        'fastemit.CeleryEmitter needs the package celery: pip install "fastemit[celery]"', name=error.name
    ) from error

from fastemit import checks
from fastemit.emitters import DEFAULT_BUFFER_BYTES, DEFAULT_REQUEST_BYTES, Emitter
from fastemit.endpoint import Endpoint
from fastemit.event_store import EventStore
from fastemit.outcome import Transport
from fastemit.publisher import NotTakenError, Publisher
from fastemit.relay import Destination, Left, Part, Relay
from fastemit.retry import Backoff
from fastemit.typing import HttpProtocol, Method, Overflow, RequestTimeout

__all__ = ["CeleryEmitter", "app", "send"]

#: The module that configures the app, as in the reference.
CONFIGURATION: Final = "snowplow_celery_config"
TASK: Final = "fastemit.send"
#: Attempts, a second apart, to hand what is left to a broker that is down, before the worker is asked to keep it.
HAND_BACK_ATTEMPTS: Final = 5

#: What the app has in place of Celery's defaults; the user's configuration is stronger.
DEFAULTS: Final = {
    "broker_connection_retry_on_startup": True,
    # One batch ahead for each that is being sent: what waits in a worker is invisible to the others.
    "worker_prefetch_multiplier": 1,
}


def _make_app() -> Any:
    # Not the current app, and without Django's fixup: both are the user's own app's.
    made = Celery("fastemit", set_as_current=False, fixups=[])
    if find_spec(CONFIGURATION) is not None:
        # Imported here and not when it is needed: `celery -A` has the working directory on the path only now.
        made.config_from_object(import_module(CONFIGURATION))
    else:
        made.conf.broker_url = "redis://localhost:6379/0"

    @made.on_after_configure.connect(weak=False)  # type: ignore[untyped-decorator]
    def _complete(sender: Any, source: Any, **_: Any) -> None:
        # Between what the user has set and Celery's own defaults, which come last (`add_defaults` goes before both;
        # Celery 5.4 finds today's names in any map before the old ones in the user's).
        unset = {name: value for name, value in DEFAULTS.items() if source.get(name) == CELERY_DEFAULTS.get(name)}
        source.maps.insert(len(source.maps) - 1, unset)
        # Whatever the configuration says: reading pickle is running what anybody puts into the broker.
        source["accept_content"] = ["json"]
        source["task_serializer"] = "json"

    return made


app = _make_app()
_relay: Final = Relay()


@shared_task(  # type: ignore[untyped-decorator]
    name=TASK,
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    retry_on_worker_lost=False,
    # A task that runs into a time limit goes back to the broker.
    acks_on_failure_or_timeout=False,
    acks_on_failure=False,
    acks_on_timeout=False,
    max_retries=None,
    ignore_result=True,
    store_errors_even_if_ignored=False,
    serializer="json",
    typing=False,
)
def send(self: Any, body: Any = None, to: Any = None, delay: Any = 0.0, server_errors: Any = 0, **_: Any) -> None:
    """Send a batch to its collector; what is kept is published again with a countdown.

    Args:
        body: of the POST, or the query string of the GET.
        to: a `Destination`, written.
        delay: seconds of the backoff that has run; what the next failure doubles.
        server_errors: how many times the batch was answered so as a poisonous event is.
    """
    try:
        destination = Destination.read(to)
        part = Part(body.encode("ascii" if destination.method == "get" else "utf-8"), int(server_errors))
        backoff = Backoff(destination.max_delay)
        backoff.delay = min(checks.seconds("delay", delay, zero=True), destination.max_delay)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Of the kind of the error only: the value may be anything.
        _relay.refused(f"task {self.request.id}, {type(error).__name__}")
        return
    left = _relay.carry(part, destination)
    if left is None:
        return
    backoff.failed(backoff.generation, 0.0, left.asked)
    if self.request.is_eager or self.request.called_directly:
        # There is no broker to wait in; see `Publisher`.
        raise NotTakenError(left.why)
    _publish_again(self, left, to, backoff)


def _publish_again(task: Any, left: Left, to: Any, backoff: Backoff) -> None:
    """Put what is left back into the broker, to be sent when the backoff is over; ends the task in any case."""
    countdown = min(backoff.wait, _longest_countdown(task.app))
    *others, last = [
        {"body": part.body.decode("utf-8"), "to": to, "delay": backoff.delay, "server_errors": part.server_errors}
        for part in left.parts
    ]
    shown = {"argsrepr": "()", "countdown": countdown}
    for _attempt in range(HAND_BACK_ATTEMPTS):
        try:
            while others:
                size = f"<{len(others[0]['body'])} characters>"
                task.signature_from_request(
                    task.request,
                    args=(),
                    kwargs=others[0],
                    task_id=str(uuid4()),
                    retries=task.request.retries + 1,
                    kwargsrepr=size,
                    **shown,
                ).apply_async()
                del others[0]
            size = f"<{len(last['body'])} characters>"
            raise task.retry(args=(), kwargs=last, kwargsrepr=size, **shown)
        except Retry:
            raise
        except Exception as error:  # noqa: BLE001 - each broker has errors of its own
            # What `retry` raises then is a Reject: on its own it would have the batch thrown away.
            why = str(getattr(error, "reason", error))
            time.sleep(1.0)
    # The broker gets back the message as it came. Its events may be sent twice, but none is lost.
    raise Reject(f"not published again: {why}", requeue=True)


def _longest_countdown(its_app: Any) -> float:
    """Seconds that a task may wait in a worker: past the visibility timeout the broker would hand out a second one."""
    visible = (its_app.conf.broker_transport_options or {}).get("visibility_timeout")
    return visible / 2 if isinstance(visible, (int, float)) and visible > 0 else float("inf")


class CeleryEmitter(Emitter):
    """An `Emitter` that hands its batches to Celery workers, which send them by the same rules.

    The positional parameters are those of `snowplow_tracker.CeleryEmitter`, in its order. `input`, the buffer, `flush`
    and `close` are those of `Emitter`, with the broker in the collector's place: an event counts as sent once its
    batch is a task in the broker (`stats().last_status` is 202 then), and a broker that is down is waited for.

    Args:
        endpoint, protocol, port, method, batch_size, byte_limit: as for `Emitter`.
        request_timeout, max_retry_delay_seconds, custom_retry_codes, headers: as for `Emitter`. They, and a user and
            password in `endpoint`, travel with each batch: the worker sends by them.
        ca_certs: as for `Emitter`, a path on the worker's machine.
        celery_app: a Celery app of yours, whose workers then need `include=["fastemit.celery"]`. Default: `app` of
            this module.
        on_success, on_failure: not to be had: the worker, which knows the outcome, is another process.
        buffer_capacity, event_store, overflow, max_buffer_bytes, shutdown_timeout: as for `Emitter`.
        background, flush_interval: as for `Emitter`.
        max_request_bytes: as for `Emitter`. Amazon SQS takes messages of 256 KiB: 120,000 or less there.

    Raises:
        TypeError, ValueError: naming the argument, the value and what is allowed.

    Thread safety: as `Emitter`.
    """

    def __init__(
        self,
        endpoint: str,
        protocol: HttpProtocol = "https",
        port: int | None = None,
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
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        max_request_bytes: int = DEFAULT_REQUEST_BYTES,
        shutdown_timeout: float = 5.0,
        background: bool = True,
        flush_interval: float | None = None,
        headers: Mapping[str, str] | None = None,
        ca_certs: str | os.PathLike[str] | None = None,
        celery_app: Any = None,
    ) -> None:
        _no_callback("on_success", on_success)
        _no_callback("on_failure", on_failure)
        if celery_app is not None:
            checks.has_methods(
                "celery_app", celery_app, ("connection_for_write", "send_task"), "None or a celery.Celery"
            )
        if ca_certs is not None and not isinstance(ca_certs, (str, os.PathLike)):
            raise TypeError(f"ca_certs must be a path on the worker's machine, not {type(ca_certs).__name__}")
        self._app = app if celery_app is None else celery_app
        self._retry_codes = checks.retry_codes("custom_retry_codes", custom_retry_codes)
        self._max_bytes = max_request_bytes
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
            event_store=event_store,
            overflow=overflow,
            max_buffer_bytes=max_buffer_bytes,
            max_request_bytes=max_request_bytes,
            shutdown_timeout=shutdown_timeout,
            background=background,
            flush_interval=flush_interval,
            headers=headers,
        )

    def _make_transport(
        self,
        address: Endpoint,
        timeout: tuple[float, float] | None,
        headers: dict[str, str],
        ca_certs: str | None,
        session: Any,
        pool_manager: Any,
    ) -> Transport:
        destination = Destination(
            address,
            self.method,
            timeout,
            headers,
            self._worker_ca_certs,
            self.max_retry_delay_seconds,
            self._retry_codes,
            self._max_bytes,
        )
        self._publisher = Publisher(self._app.tasks[TASK], destination)
        return self._publisher

    @property
    def on_success(self) -> None:
        """None: the outcome is known to the worker, which is another process."""
        return None

    @on_success.setter
    def on_success(self, value: None) -> None:
        _no_callback("on_success", value)

    @property
    def on_failure(self) -> None:
        """None: the outcome is known to the worker, which is another process."""
        return None

    @on_failure.setter
    def on_failure(self, value: None) -> None:
        _no_callback("on_failure", value)

    @property
    def custom_retry_codes(self) -> dict[int, bool]:
        """A copy of the exceptions to the retry rules; assign to change them, for batches published from then on."""
        return dict(self._publisher.destination.retry_codes)

    @custom_retry_codes.setter
    def custom_retry_codes(self, value: Mapping[int, bool] | None) -> None:
        codes = checks.retry_codes("custom_retry_codes", value)
        self._publisher.destination = replace(self._publisher.destination, retry_codes=codes)


def _no_callback(name: str, value: object) -> None:
    if value is not None:
        raise TypeError(
            f"{name} must be None with a CeleryEmitter: what becomes of the events is known to the worker, "
            "which is another process"
        )
