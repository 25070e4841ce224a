"""The app of a Celery worker, and its task. The task sends a batch, or publishes it again."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final
from uuid import uuid4
from weakref import WeakKeyDictionary

from celery import Celery, shared_task  # type: ignore[import-untyped]
from celery.app.defaults import DEFAULTS as CELERY_DEFAULTS  # type: ignore[import-untyped]
from celery.exceptions import Reject, Retry  # type: ignore[import-untyped]
from celery.signals import worker_init, worker_process_shutdown  # type: ignore[import-untyped]

from fastemit._delivery import Backoff
from fastemit._settings import checks
from fastemit._time import sleep
from fastemit.celery.collectors import Collectors, NotAllowedError
from fastemit.celery.transport import NotTakenError
from fastemit.celery.worker import Destination, Left, Part, Relay, shown

#: The module that configures the app, as in snowplow_tracker.
CONFIGURATION: Final = "snowplow_celery_config"
TASK: Final = "fastemit.send"
#: Attempts, a second apart, to publish what is left while the broker is down. After them the worker rejects the task.
HAND_BACK_ATTEMPTS: Final = 5
#: Seconds until a batch for a collector that is not allowed is tried again, because the setting may be a mistake.
NOT_ALLOWED_DELAY: Final = 60.0

#: Used in place of Celery's defaults. What the user's configuration sets is kept.
DEFAULTS: Final = {
    "broker_connection_retry_on_startup": True,
    # A worker fetches one batch ahead for each that is being sent. Others cannot send what waits in a worker.
    "worker_prefetch_multiplier": 1,
    # By default Celery's worker ends after a hundred attempts. A broker may be down for longer.
    "broker_connection_max_retries": None,
}


def _make_app() -> Any:
    # Not the current app, and without Django's fixup, because both belong to the user's own app.
    made = Celery("fastemit", set_as_current=False, fixups=[])
    if find_spec(CONFIGURATION) is not None:
        # Imported now, because `celery -A` has the working directory on the path only during this import.
        made.config_from_object(import_module(CONFIGURATION))
    else:
        made.conf.broker_url = "redis://localhost:6379/0"

    @made.on_after_configure.connect(weak=False)  # type: ignore[untyped-decorator]
    def _complete(sender: Any, source: Any, **_: Any) -> None:
        # The place is behind what the user has set and before Celery's own defaults, which come last. `add_defaults`
        # would put it before both. Only names that the user has not set are in it: Celery 5.4 looks for a new name in
        # all maps before it looks for the old name in the user's.
        unset = {name: value for name, value in DEFAULTS.items() if source.get(name) == CELERY_DEFAULTS.get(name)}
        source.maps.insert(len(source.maps) - 1, unset)
        # Set whatever the configuration says, because pickle would run any code that somebody puts into the broker.
        source["accept_content"] = ["json"]
        source["task_serializer"] = "json"
        urls = source.broker_write_url or "amqp://"
        if (urls if isinstance(urls, str) else urls[0]).partition(":")[0] in ("amqp", "amqps", "pyamqp"):
            # Without confirmation a batch may leave the broker before its rest, which is published again, has arrived.
            given = source.get("broker_transport_options") or {}
            source["broker_transport_options"] = {"confirm_publish": True, **given}

    return made


app = _make_app()
_relay: Final = Relay()
#: For each app, the settings in its configuration and the environment.
_collectors: Final[WeakKeyDictionary[Any, Collectors]] = WeakKeyDictionary()


def _collectors_of(its_app: Any) -> Collectors:
    found = _collectors.get(its_app)
    if found is None:
        found = _collectors[its_app] = Collectors.read(its_app.conf)
    return found


@worker_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _check(sender: Any = None, **_: Any) -> None:
    """Let no worker start with wrong settings."""
    try:
        _collectors_of(sender.app)
    except (TypeError, ValueError) as error:
        # `SystemExit`, because Celery catches every `Exception` and goes on.
        raise SystemExit(f"fastemit: {error}") from None


@worker_process_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
def _tell(**_: Any) -> None:
    # A process of a pool runs no exit handlers, which would write these lines.
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
    Request="fastemit.celery.request:QuietRequest",
)
def send(self: Any, body: Any = None, to: Any = None, delay: Any = 0.0, server_errors: Any = 0, **_: Any) -> None:
    """Send a batch to its collector. What must be sent again is published with a countdown.

    Args:
        body: the body of the POST, or the query string of the GET.
        to: what `Destination.written` returned.
        delay: seconds of the last backoff; the next failure doubles it.
        server_errors: how many answers were of the kind that an event gets which makes the collector fail.
    """
    try:
        destination = Destination.read(to)
        part = Part(body.encode("ascii" if destination.method == "get" else "utf-8"), int(server_errors))
        backoff = Backoff(destination.max_delay)
        backoff.delay = min(checks.seconds("delay", delay, zero=True), destination.max_delay)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Only the type of the error is logged, because its text may hold anything.
        _relay.refused(f"task {self.request.id}, {type(error).__name__}")
        return
    try:
        left = _relay.carry(part, _collectors_of(self.app).complete(destination))
    except (NotAllowedError, TypeError, ValueError) as error:
        # The batch is kept, so that no event is lost if the list is too short or cannot be read.
        _relay.kept(part, destination, str(error))
        left, backoff = Left([part], str(error), NOT_ALLOWED_DELAY), Backoff(NOT_ALLOWED_DELAY)
    if left is None:
        return
    backoff.failed(backoff.generation, 0.0, left.asked)
    if self.request.is_eager or self.request.called_directly:
        # There is no broker to wait in; see `Publisher`.
        raise NotTakenError(left.why)
    _publish_again(self, left, to, backoff)


def _publish_again(task: Any, left: Left, to: Any, backoff: Backoff) -> None:
    """Put what is left back into the broker, to be sent after the backoff. It always raises, which ends the task."""
    countdown = min(backoff.wait, _longest_countdown(task.app))
    *others, last = [
        {"body": part.body.decode("utf-8"), "to": to, "delay": backoff.delay, "server_errors": part.server_errors}
        for part in left.parts
    ]
    host = to["endpoint"]["host"]
    common = {"args": (), "argsrepr": "()", "countdown": countdown}
    for _attempt in range(HAND_BACK_ATTEMPTS):
        try:
            while others:
                task.signature_from_request(
                    task.request,
                    kwargs=others[0],
                    task_id=str(uuid4()),
                    retries=task.request.retries + 1,
                    kwargsrepr=shown(others[0]["body"], host),
                    **common,
                ).apply_async()
                del others[0]
            raise task.retry(kwargs=last, kwargsrepr=shown(last["body"], host), **common)
        except Retry:
            raise
        except Exception as error:  # noqa: BLE001 - each broker has errors of its own
            # `retry` raises a Reject then, which would delete the batch. So it is caught, and tried again.
            why = str(getattr(error, "reason", error))
            sleep(1.0)
    # The broker gets the message back as it came. Its events may be sent twice, but none is lost.
    raise Reject(f"not published again: {why}", requeue=True)


def _longest_countdown(its_app: Any) -> float:
    """Seconds that a task may wait in a worker. After the visibility timeout another worker would get it, too."""
    visible = (its_app.conf.broker_transport_options or {}).get("visibility_timeout")
    return visible / 2 if isinstance(visible, (int, float)) and visible > 0 else float("inf")
