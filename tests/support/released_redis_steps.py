"""The steps in Redis of fastemit as it was released in November 2026 (commit 3914bd8), word for word.

A worker of that version looks for a key that expires, and knows no hash of signs. `ReleasedInFlight` lets today's
`RedisWorker` take those steps, so that tests can have workers of both versions share a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

#: What a step of a worker answers that is taken for dead, or whose in-flight list is not as long as it thinks.
LOST: Final = -1
OUT_OF_STEP: Final = -2

# In each: KEYS alive, inflight, ...; ARGV milliseconds to live, expected length of `inflight`, ...
_MINE: Final = """
local held = redis.call('LLEN', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 0 and (held > 0 or tonumber(ARGV[2]) > 0) then return -1 end
if held ~= tonumber(ARGV[2]) then return -2 end
"""

#: KEYS[3] the list, KEYS[4] the workers; ARGV[3] most events, ARGV[4] bytes after which no more are taken, ARGV[5] id.
TAKE: Final = (
    _MINE
    + """
redis.call('SISMEMBER', KEYS[4], ARGV[5])
local taken, bytes = {}, 0
for number = 1, tonumber(ARGV[3]) do
  local event = redis.call('LPOP', KEYS[3])
  if not event then break end
  redis.call('RPUSH', KEYS[2], event)
  taken[number] = event
  bytes = bytes + #event
  if bytes >= tonumber(ARGV[4]) then break end
end
if #taken > 0 then
  redis.call('SADD', KEYS[4], ARGV[5])
  redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])
end
return taken
"""
)

#: ARGV[3] how many of the oldest are settled.
SETTLE: Final = (
    _MINE
    + """
redis.call('LTRIM', KEYS[2], ARGV[3], -1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 0
"""
)

#: KEYS[3] where to: `inflight` itself, for the end of it, or the dead list; ARGV[3] the event.
MOVE: Final = (
    _MINE
    + """
redis.call('LLEN', KEYS[3])
if redis.call('LREM', KEYS[2], 1, ARGV[3]) == 1 then redis.call('RPUSH', KEYS[3], ARGV[3]) end
return 0
"""
)

#: Back to the head of the list, in order: all that a worker had which is dead or (ARGV[1] = 'own') stops.
RECOVER: Final = """
if ARGV[1] ~= 'own' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('LLEN', KEYS[3])
redis.call('SISMEMBER', KEYS[4], ARGV[2])
redis.call('DEL', KEYS[1])
local moved = 0
while moved < 1000 do
  local event = redis.call('RPOP', KEYS[2])
  if not event then
    redis.call('SREM', KEYS[4], ARGV[2])
    break
  end
  redis.call('LPUSH', KEYS[3], event)
  moved = moved + 1
end
return moved
"""


def beside(key: str, name: str) -> str:
    """A key that a Redis Cluster keeps where it keeps `key`: with the same hash tag."""
    start = key.find("{")
    end = key.find("}", start + 1)
    has_tag = start >= 0 and end > start + 1
    return f"{key}:{name}" if has_tag else f"{{{key}}}:{name}"


class InFlight:
    """One worker's side of the list. `held` is what its in-flight list holds, oldest first, as far as is known.

    Thread safety: none; the worker's own thread calls it. Every method raises what the client raises.

    Args:
        rdb: the client.
        key: the list's key.
        time_to_live: seconds without a sign of life after which the worker is taken for dead.
    """

    def __init__(self, rdb: Any, key: str, time_to_live: float) -> None:
        self.key = key
        self.dead = beside(key, "dead")
        self._workers = beside(key, "workers")
        self._rdb = rdb
        self._milliseconds = max(int(time_to_live * 1000), 1)
        self.begin()

    def begin(self) -> None:
        """Be a new worker, which holds nothing."""
        self.id = uuid4().hex
        self._alive, self._inflight = self._keys_of(self.id)

    def _keys_of(self, worker: str) -> tuple[str, str]:
        return beside(self.key, f"alive:{worker}"), beside(self.key, f"inflight:{worker}")

    def _run(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        # Never decoded, whatever the client does otherwise: what lies in the list may be no UTF-8.
        return self._rdb.execute_command("EVAL", script, len(keys), *keys, *arguments, NEVER_DECODE=True)

    def take(self, held: int, most: int, most_bytes: int) -> list[bytes] | int:
        keys = (self._alive, self._inflight, self.key, self._workers)
        answer: list[bytes] | int = self._run(TAKE, keys, self._milliseconds, held, most, most_bytes, self.id)
        return answer

    def settle(self, held: int, count: int) -> int:
        """Forget the oldest `count`; also the sign of life, with 0."""
        answer: int = self._run(SETTLE, (self._alive, self._inflight), self._milliseconds, held, count)
        return answer

    def move(self, held: int, event: bytes, to: str | None) -> int:
        """Take `event` out, where it comes first, and put it to the end of another list, or (None) of this one."""
        keys = (self._alive, self._inflight, to or self._inflight)
        answer: int = self._run(MOVE, keys, self._milliseconds, held, event)
        return answer

    def all_held(self) -> list[bytes]:
        """What the in-flight list does hold."""
        answer: list[bytes] = self._rdb.execute_command("LRANGE", self._inflight, 0, -1, NEVER_DECODE=True)
        return answer

    def recover(self, worker: str) -> int:
        """Put back what a worker had if it is dead; how many events that were, at most 1,000 at a time."""
        alive, inflight = self._keys_of(worker)
        who = "own" if worker == self.id else "dead"
        answer: int = self._run(RECOVER, (alive, inflight, self.key, self._workers), who, worker)
        return answer

    def others(self) -> list[str]:
        """The workers that have a list, or had one a moment ago."""
        members = self._rdb.execute_command("SMEMBERS", self._workers, NEVER_DECODE=True)
        return [name for name in (bytes(member).decode() for member in members) if name != self.id]


class ReleasedInFlight(InFlight):
    """The released steps under today's names."""

    @property
    def inflight(self) -> str:
        return self._inflight

    def give_back(self) -> int:
        return self.recover(self.id)

    def silent(self) -> list[tuple[bytes, bytes]]:
        return [(worker.encode(), b"") for worker in self.others()]

    def recover(self, worker: Any, sign: bytes = b"") -> int:
        return super().recover(worker.decode() if isinstance(worker, bytes) else worker)

    def forget_signs(self) -> None:
        """Had none."""


def as_released(worker: Any) -> Any:
    """Have a `RedisWorker` take the released steps."""
    start_over = worker._start_over

    def use() -> None:
        worker._redis = ReleasedInFlight(worker.rdb, worker.key, worker.takeover_after)
        worker._held._redis = worker._redis

    def start_over_as_released() -> None:
        start_over()
        use()

    worker._start_over = start_over_as_released
    use()
    return worker
