"""The app of a Celery worker, and its task, which sends a batch or publishes it again."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final
from uuid import uuid4

from celery import Celery, shared_task  # type: ignore[import-untyped]
from celery.app.defaults import DEFAULTS as CELERY_DEFAULTS  # type: ignore[import-untyped]
from celery.exceptions import Reject, Retry  # type: ignore[import-untyped]
from celery.signals import worker_process_shutdown  # type: ignore[import-untyped]

from fastemit._delivery import Backoff
from fastemit._settings import checks
from fastemit._time import sleep
from fastemit.celery.transport import NotTakenError
from fastemit.celery.worker import Destination, Left, Part, Relay

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


@worker_process_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
def _tell(**_: Any) -> None:
    # A process of a pool runs no exit handlers.
    _relay.tell()


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
            sleep(1.0)
    # The broker gets back the message as it came. Its events may be sent twice, but none is lost.
    raise Reject(f"not published again: {why}", requeue=True)


def _longest_countdown(its_app: Any) -> float:
    """Seconds that a task may wait in a worker: past the visibility timeout the broker would hand out a second one."""
    visible = (its_app.conf.broker_transport_options or {}).get("visibility_timeout")
    return visible / 2 if isinstance(visible, (int, float)) and visible > 0 else float("inf")
