"""`RedisEmitter`, which puts events into a Redis list, and `RedisWorker`, which takes them out and sends them.

docs/scaling.md says what is guaranteed, how to run workers, and what to watch. `redis_emitter` and `redis_worker` have
the names that they have in `snowplow_tracker` 0.15. The other modules are private.
"""

try:
    import redis as _redis  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "redis":
        raise
    raise ImportError(
        'fastemit.RedisEmitter and fastemit.RedisWorker need the package redis: pip install "fastemit[redis]"',
        name=error.name,
    ) from error

from fastemit import _native as _native
from fastemit.redis.redis_emitter import RedisEmitter
from fastemit.redis.redis_worker import RedisWorker

__all__ = ["RedisEmitter", "RedisWorker"]
