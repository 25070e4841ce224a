"""The connection of `fastemit redis-worker` to Redis: made at its start, or an error that says why not."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

from fastemit._time import monotonic
from fastemit.cli._arguments import REDIS_URL

_DEFAULT_URL: Final = "redis://localhost:6379/0"
#: Seconds between two attempts: at first, and at the most.
_FIRST_PAUSE: Final = 0.05
_LAST_PAUSE: Final = 1.0


class UnusableRedisError(Exception):
    """This Redis cannot be used. The message tells the user why."""


def redis_url(given: str | None) -> str:
    """The address: that of the command line, of the environment, or the default."""
    return given or os.environ.get(REDIS_URL) or _DEFAULT_URL


def is_moved(error: Exception | None, client: Any) -> bool:
    """Whether an error says that a Redis is one of a Cluster, where the client knows no Clusters."""
    from redis.cluster import RedisCluster
    from redis.exceptions import MovedError, ResponseError

    # redis-py before 6 has an error of its own for it in a client of a Cluster only.
    moved = isinstance(error, MovedError) or (isinstance(error, ResponseError) and str(error).startswith("MOVED "))
    return moved and not isinstance(client, RedisCluster)


MOVED: Final = (
    "this Redis is a node of a Cluster; its address begins with redis+cluster://, or rediss+cluster:// for TLS"
)


def connected(
    url: str, key: str, timeout: float, wait: bool, stopped: Callable[[float], bool], tell: Callable[[str], None]
) -> Any:
    """A client of a Redis that answers, or None when `stopped` comes first.

    Args:
        url: its address.
        key: of the list.
        timeout: seconds in which it has to answer.
        wait: whether it is waited for longer than that.
        stopped: waits for so many seconds, and says whether to stop.
        tell: prints a line on the first failure of a longer wait.

    Raises:
        UnusableRedisError: it did not answer in time, or refuses to work for us.
        ValueError: there is something wrong with the address.
    """
    deadline = monotonic() + timeout
    pause = _FIRST_PAUSE
    told = False
    while True:
        # This runs in a thread, so that neither DNS nor a server that hangs delays the end.
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        attempt = threading.Thread(target=_attempt, args=(url, key, timeout, answers), daemon=True)
        attempt.start()
        while answers.empty():
            if stopped(0.05):
                return None
            if not wait and monotonic() > deadline + 1:
                raise UnusableRedisError(f"Redis did not answer within {timeout:g} s")
        answer = answers.get()
        if not isinstance(answer, Exception):
            return answer
        _raise_if_hopeless(answer)
        if not wait and monotonic() + pause > deadline:
            raise UnusableRedisError(f"Redis did not answer within {timeout:g} s: {_told(answer)}")
        if wait and not told:
            told = True
            tell(f"waiting for Redis: {_told(answer)}")
        if stopped(pause):
            return None
        pause = min(2 * pause, _LAST_PAUSE)


def _attempt(url: str, key: str, timeout: float, answers: queue.SimpleQueue[Any]) -> None:
    from redis import RedisError
    from redis.exceptions import ClusterDownError, NoPermissionError, ResponseError

    from fastemit.redis._clients import client_of

    try:
        client = client_of(url, timeout)
        try:
            client.execute_command("EVAL", "return 0", 1, key)
        except (NoPermissionError, ClusterDownError):
            raise
        except ResponseError as error:
            # It answers. The worker will get the same error, and log it.
            if is_moved(error, client):
                raise
        answers.put(client)
    except (RedisError, OSError, ValueError) as error:
        answers.put(error)


def _raise_if_hopeless(error: Exception) -> None:
    """Raise for an error that does not go away by itself."""
    from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError

    if isinstance(error, ValueError):
        raise error
    if is_moved(error, None):
        raise UnusableRedisError(MOVED)
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
        raise UnusableRedisError(f"Redis refuses the user or the password: {error}")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
