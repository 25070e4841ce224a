"""`CeleryEmitter`, whose events are sent by Celery workers, and the app of such a worker. Start a worker with

celery -A fastemit.celery worker

A module `snowplow_celery_config` on the path configures the app. Without one the broker is redis://localhost:6379/0.
docs/scaling-celery.md says what is guaranteed, and what to set.
"""

try:
    import celery as _celery  # type: ignore[import-untyped]  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "celery":
        raise
    raise ImportError(
        'fastemit.CeleryEmitter needs the package celery: pip install "fastemit[celery]"', name=error.name
    ) from error

from fastemit import _native as _native
from fastemit.celery.celery_emitter import CeleryEmitter
from fastemit.celery.tasks import app, send

__all__ = ["CeleryEmitter", "app", "send"]
