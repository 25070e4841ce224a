"""The keys in Redis (the list, in-flight lists, signs of life, the dead list), and the scripts that change them.

Each step is one script, so that a worker that dies has done all of it or nothing. A script takes out before it puts
in, because a full Redis refuses the first command that needs memory, but none after a command that has freed some.
(LMOVE and RPOPLPUSH are refused then, so a worker could not drain the list that fills Redis.) When the second command
fails, Redis does not undo the first. So a script first asks whether the key that it will put into has the right type.

A worker's in-flight list holds what it has taken, in that order, until it is settled. A hash says for each worker when
it last gave a sign of life, and how long its silence may last. Only the clock of Redis counts, no worker's. The hash
does not expire, because a full Redis with a `volatile-*` policy deletes what expires. If it deleted the sign of a live
worker, that worker's events would be sent again and again.

Earlier workers do not know the hash. They look for a key that expires, `alive:<id>`. Workers of today write that key,
too, and take a worker that has one for alive, so that both kinds may share a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

import redis

from fastemit._time import monotonic

#: The key of the list, unless another one is given.
DEFAULT_KEY: Final = "snowplow"
#: What a step answers if it was not done: the worker was taken for dead; its in-flight list is not as long as it
#: expects; the in-flight key holds no list.
LOST: Final = -1
OUT_OF_STEP: Final = -2
NO_LIST: Final = -3
#: What `RECOVER` answers if a worker had nothing. It is no longer listed as a worker then.
GONE: Final = -4

# The first KEYS and ARGV are the same in each script that takes them: KEYS inflight, signs, alive, workers, and a list;
# ARGV id, milliseconds that a silence may last, expected length of `inflight`.

_SIGN: Final = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function sign()
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f %s', now(), ARGV[2]))
  redis.call('SET', KEYS[3], 1, 'PX', ARGV[2])
end
"""

_IS_LIST: Final = """
local kind = redis.call('TYPE', KEYS[1]).ok
local is_list = kind == 'list' or kind == 'none'
"""

# A worker whose sign was lost goes on if all of its events are still there. Nobody has taken any of them over then,
# because the list would be shorter.
_MINE: Final = (
    _SIGN
    + _IS_LIST
    + """
if not is_list then return -3 end
local known = redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1
if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[3]) then return known and -2 or -1 end
"""
)

#: KEYS[5] the list; ARGV[4] the most events, ARGV[5] bytes after which no more are taken.
TAKE: Final = (
    _MINE
    + """
redis.call('SISMEMBER', KEYS[4], ARGV[1])
local taken, bytes = {}, 0
for number = 1, tonumber(ARGV[4]) do
  local event = redis.call('LPOP', KEYS[5])
  if not event then break end
  redis.call('RPUSH', KEYS[1], event)
  taken[number] = event
  bytes = bytes + #event
  if bytes >= tonumber(ARGV[5]) then break end
end
if #taken > 0 then
  redis.call('SADD', KEYS[4], ARGV[1])
  sign()
end
return taken
"""
)

#: ARGV[4] how many of the oldest are settled.
SETTLE: Final = (
    _MINE
    + """
redis.call('LTRIM', KEYS[1], ARGV[4], -1)
sign()
return 0
"""
)

#: KEYS[5] the list to move to: `inflight` itself, to move to its end, or the dead list; ARGV[4] the event.
MOVE: Final = (
    _MINE
    + """
redis.call('LLEN', KEYS[5])
if redis.call('LREM', KEYS[1], 1, ARGV[4]) == 1 then redis.call('RPUSH', KEYS[5], ARGV[4]) end
return 0
"""
)

#: Answers all signs of life, as id, sign, whether the silence has lasted too long. KEYS[1] signs, KEYS[2] the workers.
#: A worker may have no sign, or one from the future because the clock was set back. Then its silence begins now, and
#: may last ARGV[1] milliseconds. The HDEL removes nothing: it makes a full Redis accept the HSET after it.
LOOK: Final = (
    _SIGN
    + """
local signs, found = {}, redis.call('HGETALL', KEYS[1])
for place = 1, #found, 2 do signs[found[place]] = found[place + 1] end
for _, worker in ipairs(redis.call('SMEMBERS', KEYS[2])) do signs[worker] = signs[worker] or '' end
local present, answer = now(), {}
for worker, sign in pairs(signs) do
  local at, silence = string.match(sign, '^(%d+) (%d+)$')
  if not at or present < at - silence then
    at, silence = present, ARGV[1]
    sign = string.format('%.0f %s', at, silence)
    redis.call('HDEL', KEYS[1], '')
    redis.call('HSET', KEYS[1], worker, sign)
  end
  answer[#answer + 1] = worker
  answer[#answer + 1] = sign
  answer[#answer + 1] = present >= at + silence and 1 or 0
end
return answer
"""
)

#: Puts what a worker had back to the head of the list, in order. The worker stops (ARGV[2] = 'own'), or it is dead
#: because its last sign is still ARGV[3]. KEYS[5] the list. One call moves 1,000 events at the most. The sign is
#: deleted last, so that a worker that comes back between two calls keeps the rest.
RECOVER: Final = (
    _IS_LIST
    + """
if not is_list then
  redis.call('SREM', KEYS[4], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
  return -3
end
if ARGV[2] ~= 'own' then
  if redis.call('EXISTS', KEYS[3]) == 1 or redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[3] then return 0 end
end
redis.call('LLEN', KEYS[5])
redis.call('SISMEMBER', KEYS[4], ARGV[1])
local moved = 0
while moved < 1000 do
  local event = redis.call('RPOP', KEYS[1])
  if not event then
    redis.call('SREM', KEYS[4], ARGV[1])
    redis.call('HDEL', KEYS[2], ARGV[1])
    redis.call('DEL', KEYS[3])
    return moved > 0 and moved or -4
  end
  redis.call('LPUSH', KEYS[5], event)
  moved = moved + 1
end
return moved
"""
)


def address_of(rdb: Any, key: str) -> str:
    """The name of this list in this Redis, as far as the client tells it, without user and password."""
    pool = getattr(rdb, "connection_pool", None)
    known = getattr(pool, "connection_kwargs", None) or {}
    where = known.get("path") or f"{known.get('host', '')}:{known.get('port', '')}"
    return f"redis://{where}/{known.get('db', 0)}#{key}"


def key_name(key: Any) -> str:
    """Check `key`, and return it."""
    if not isinstance(key, str):
        raise TypeError(f"key must be a string, not {type(key).__name__} {key!r}")
    if not key:
        raise ValueError("key must be a string that is not empty, not ''")
    return key


def beside(key: str, name: str) -> str:
    """A key with the hash tag of `key`, so that a Redis Cluster keeps both on one node."""
    start = key.find("{")
    end = key.find("}", start + 1)
    has_tag = start >= 0 and end > start + 1
    return f"{key}:{name}" if has_tag else f"{{{key}}}:{name}"


class InFlight:
    """The steps of one worker. `held` is the length that its in-flight list should have.

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
        self._signs = beside(key, "signs")
        self._rdb = rdb
        self._milliseconds = max(int(time_to_live * 1000), 1)
        #: Seconds that a call may last. If one lasts longer, Redis may have served nobody meanwhile.
        self._prompt = time_to_live / 12
        self.begin()

    def begin(self) -> None:
        """Begin as a new worker with a new id, which holds nothing."""
        self.id = uuid4().hex
        self.inflight, self._alive = beside(self.key, f"inflight:{self.id}"), beside(self.key, f"alive:{self.id}")
        #: The sign of life that each worker had at the last look.
        self._seen: dict[bytes, bytes] = {}
        #: Whether Redis was away since the last look, so that nobody could give a sign.
        self._was_away = False

    def _run(self, script: str, keys: Sequence[str | bytes], *arguments: Any) -> Any:
        return self._call("EVAL", script, len(keys), *keys, *arguments)

    def _call(self, *command: Any) -> Any:
        began = monotonic()
        try:
            # Never decoded, even by a client with `decode_responses`: what lies in the list may be no UTF-8.
            return self._rdb.execute_command(*command, NEVER_DECODE=True)
        finally:
            if monotonic() - began > self._prompt:
                self._was_away = True

    def _own(self, script: str, to: str, held: int, *arguments: Any) -> Any:
        keys = (self.inflight, self._signs, self._alive, self._workers, to)
        return self._run(script, keys, self.id, self._milliseconds, held, *arguments)

    def take(self, held: int, most: int, most_bytes: int) -> list[bytes] | int:
        """Take at most `most` events from the list, and stop after `most_bytes`."""
        answer: list[bytes] | int = self._own(TAKE, self.key, held, most, most_bytes)
        return answer

    def settle(self, held: int, count: int) -> int:
        """Forget the oldest `count` events, and give a sign of life. A count of 0 gives only that."""
        answer: int = self._own(SETTLE, self.key, held, count)
        return answer

    def move(self, held: int, event: bytes, to: str | None) -> int:
        """Move the first entry that equals `event` to the end of the list `to`, or of this one (None)."""
        answer: int = self._own(MOVE, to or self.inflight, held, event)
        return answer

    def all_held(self) -> list[bytes] | int:
        """What the in-flight list holds in Redis, or `NO_LIST`."""
        try:
            answer: list[bytes] = self._call("LRANGE", self.inflight, 0, -1)
        except redis.ResponseError as error:
            if not is_wrong_type(error):
                raise
            return NO_LIST
        return answer

    def give_back(self) -> int:
        """Put back at most 1,000 events. Returns how many that were, or `GONE` or `NO_LIST`."""
        keys = (self.inflight, self._signs, self._alive, self._workers, self.key)
        answer: int = self._run(RECOVER, keys, self.id, "own")
        return answer

    def silent(self) -> list[tuple[bytes, bytes]]:
        """The other workers that are dead, each with its last sign of life.

        A worker is dead if it has been silent for too long by the clock of Redis, and has given no sign since our last
        look. The second condition is for a clock that jumps, as at a failover: a live worker gives a sign between two
        looks. After a call that lasted long, this look counts as the first.
        """
        answer = self._run(LOOK, (self._signs, self._workers), self._milliseconds)
        if self._was_away:
            self._was_away = False
            self.forget_signs()
            return []
        before, self._seen = self._seen, dict(zip(answer[::3], answer[1::3], strict=True))
        return [
            (worker, sign)
            for worker, sign, late in zip(answer[::3], answer[1::3], answer[2::3], strict=True)
            if late and before.get(worker) == sign and worker != self.id.encode()
        ]

    def forget_signs(self) -> None:
        """Forget the last look, because Redis was away and nobody could give a sign meanwhile."""
        self._seen.clear()

    def inflight_of(self, worker: bytes) -> bytes:
        """The key of what a worker has in flight."""
        return beside(self.key, "inflight:").encode() + worker

    def recover(self, worker: bytes, sign: bytes) -> int:
        """Put back what a worker had, if `sign` is still its last. Returns what `give_back` does, or 0 if it lives."""
        alive = beside(self.key, "alive:").encode() + worker
        keys = (self.inflight_of(worker), self._signs, alive, self._workers, self.key)
        answer: int = self._run(RECOVER, keys, worker, "dead", sign)
        return answer


def is_wrong_type(error: Exception) -> bool:
    """Whether the error says that a key holds a value of another type than the command needs."""
    return "WRONGTYPE" in str(error)
