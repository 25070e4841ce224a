"""`RedisEmitter`, which puts events into a Redis list."""

from __future__ import annotations

import enum
import json
import math
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, get_args

import orjson
import redis

from fastemit._buffer import MAX_REQUEST_BYTES, MIN_REQUEST_BYTES, EventBuffer, KeptEvent, is_plain, refuse_copy
from fastemit._delivery import Delivery, Draining, Reporter, unmade
from fastemit._interfaces import Outcome
from fastemit._process import sockets
from fastemit._settings import checks
from fastemit._signals import guarded
from fastemit._stores import BatchAround, BufferAround
from fastemit.emitters import DEFAULT_BUFFER_BYTES, DEFAULT_REQUEST_BYTES
from fastemit.event_store import DEFAULT_BUFFER_CAPACITY
from fastemit.redis.scripts import DEFAULT_KEY, client_of, key_name
from fastemit.stats import EmitterStats, described, logger
from fastemit.typing import Overflow, Payload, PayloadDict, RedisProtocol

#: The types and the logger are what `snowplow_tracker.redis.redis_emitter` has, too.
__all__ = ["PayloadDict", "RedisEmitter", "RedisProtocol", "logger"]

#: What orjson would write in a way of its own, where `str` is asked for.
_AS_STR: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_dumps: Final = orjson.dumps
#: Of nearly every value; `json` and orjson write them alike.
_PLAIN: Final = frozenset({str, int, bool, type(None)})


def encode(payload: Payload) -> bytes:
    """An event as it lies in Redis: its JSON, with `str(value)` for what JSON has no type for.

    Raises `TypeError` for what is no mapping, and what `json.dumps` raises for keys that it refuses and for circles.
    """
    if not isinstance(payload, Mapping):
        raise TypeError(f"payload must be a mapping of names to values, not {type(payload).__name__}")
    # A copy first: what follows runs Python code, and so other threads, which may change the caller's dict.
    payload = dict(payload if type(payload) is dict else payload.items())
    if not is_plain(payload):
        try:
            payload = {name: _jsonable(value) for name, value in payload.items()}
        except RecursionError:
            # A circle, or very deep: `json` decides.
            return json.dumps(payload, default=str).encode("ascii")
    try:
        return _dumps(payload, str, _AS_STR)
    except TypeError:
        # Lone surrogates, keys that are no strings, integers past 64 bits: `json`, as the reference.
        return json.dumps(payload, default=str).encode("ascii")


def _jsonable(value: Any) -> Any:
    """A copy of `value`, with `str` in place of what has no type in JSON, where an encoder would not ask for it.

    orjson writes null for NaN and for what is infinite, and `json` names that are no JSON; of an Enum that is neither
    text nor number orjson writes the value.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {name: _jsonable(each) for name, each in list(value.items())}
    if isinstance(value, (list, tuple)):
        return [_jsonable(each) for each in list(value)]
    if isinstance(value, enum.Enum) and not isinstance(value, (str, int, float)):
        return str(value)
    return value


class _PushBatch(BatchAround):
    """A batch whose body is the list of its events, each as it was encoded."""

    def body(self) -> Any:
        return self._batch.originals()


class _PushBuffer(BufferAround):
    batch_class = _PushBatch


class PushTransport:
    """Appends batches to a Redis list. A transport of the delivery; and `push` for a single event."""

    timeout: tuple[float, float] | None = None  # the client has its own

    def __init__(self, rdb: Any, key: str) -> None:
        self.rdb = rdb
        self.key = key
        self.after_fork()

    def post(self, body: Any, cap: float | None = None) -> Outcome:
        def push() -> Outcome:
            self.rdb.rpush(self.key, *body)
            return Outcome(status=200)

        # A client has many errors, and the events are kept after each.
        return guarded(
            push, lambda error: Outcome(error=described(error), timed_out=isinstance(error, redis.TimeoutError))
        )

    def get(self, query: str, cap: float | None = None) -> Outcome:
        raise AssertionError("a RedisEmitter has no GET")

    def push(self, event: bytes) -> bool:
        """Append one event. False when that failed: then nobody knows whether Redis has it."""

        def push() -> bool:
            self.rdb.rpush(self.key, event)
            return True

        # The sender's attempt, which follows, will tell why.
        if not guarded(push, lambda _: False):
            return False
        with self._lock:
            self.pushed += 1
            self.pushed_bytes += len(event)
        return True

    def close(self) -> None:
        """The client is the user's."""

    def after_fork(self) -> None:
        # redis-py makes new connections by itself, and closes the numbers of the old ones. Of a user's client only the
        # idle ones are detached: with what is in use the child may go on.
        sockets.detach_inherited()
        sockets.detach_all(sockets.idle_of_redis, self.rdb)
        self._lock = threading.Lock()
        self.pushed = self.pushed_bytes = 0


class RedisEmitter(Draining):
    """Appends each event, as a JSON string, to a list in Redis, for any number of `RedisWorker`s to send.

    The positional parameters are those of `snowplow_tracker.RedisEmitter`. `flush`, `close`, `stats` and the timers are
    those of `Emitter`; what is in Redis is sent, for them.

    Args:
        rdb: a `redis.Redis` or `redis.RedisCluster`, with `decode_responses` on or off. `close` leaves it open, since
            it is yours. Default: localhost:6379.
        key: the list's key. Default "snowplow".
        batch_size: queued events at which they are pushed. With 1, the default, an event is in Redis when `input`
            returns, unless Redis fails; with more a thread pushes them in batches.
        byte_limit, max_retry_delay_seconds, buffer_capacity: as for `Emitter`, with Redis in the collector's place.
        overflow, max_buffer_bytes, shutdown_timeout, background, flush_interval: likewise.
        max_request_bytes: most bytes that are pushed at once. Default 1,000,000.

    Raises:
        TypeError, ValueError: naming the argument, the value and what is allowed.
        RuntimeError: `__init__` is called again on an emitter in use, as with `Emitter`.

    Thread safety: every method may be called from any thread and from a signal handler.
    """

    _transport: PushTransport = unmade()
    _buffer: EventBuffer = unmade()
    _parts: tuple[EventBuffer, PushTransport, Delivery] = unmade()

    @checks.renamed(dbr="rdb", buffer_size="batch_size")
    def __init__(
        self,
        rdb: Any = None,
        key: str = DEFAULT_KEY,
        *,
        batch_size: int = 1,
        byte_limit: int | None = None,
        max_retry_delay_seconds: float = 60,
        buffer_capacity: int = DEFAULT_BUFFER_CAPACITY,
        overflow: Overflow = "backpressure",
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        max_request_bytes: int = DEFAULT_REQUEST_BYTES,
        shutdown_timeout: float = 5.0,
        background: bool = True,
        flush_interval: float | None = None,
    ) -> None:
        self._may_begin()
        if rdb is not None:
            checks.has_methods("rdb", rdb, ("rpush",), "None or a redis.Redis")
        capacity = checks.integer("buffer_capacity", buffer_capacity)
        size = min(checks.integer("batch_size", batch_size), capacity)
        if byte_limit is not None:
            checks.integer("byte_limit", byte_limit)
        checks.integer("max_buffer_bytes", max_buffer_bytes, MIN_REQUEST_BYTES)
        checks.integer("max_request_bytes", max_request_bytes, MIN_REQUEST_BYTES, MAX_REQUEST_BYTES)
        checks.one_of("overflow", overflow, get_args(Overflow))
        checks.boolean("background", background)
        transport = PushTransport(client_of() if rdb is None else rdb, key_name(key))
        buffer = EventBuffer(capacity, max_buffer_bytes, max_request_bytes, size, byte_limit, keep=True)
        around: Any = _PushBuffer(buffer)
        delivery = Delivery(
            around,
            transport,
            Reporter(),
            overflow=overflow,
            max_retry_delay=checks.seconds("max_retry_delay_seconds", max_retry_delay_seconds),
            background=background,
            shutdown_timeout=checks.seconds("shutdown_timeout", shutdown_timeout, zero=True),
            flush_interval=None if flush_interval is None else checks.seconds("flush_interval", flush_interval),
        )
        self._transport = transport
        self._buffer = buffer
        # What `input` goes by, in one: another thread may call `__init__` again in the middle of it.
        self._parts = buffer, transport, delivery
        self._open(delivery)

    def _in_use(self) -> bool:
        return super()._in_use() or (self._transport.pushed > 0 and not self._buffer.closed)

    __reduce__ = refuse_copy

    def input(self, payload: Payload) -> None:
        """Take an event; with a `batch_size` of 1 it is in Redis when this returns. No error of Redis is raised.

        Raises:
            TypeError: `payload` is no mapping, or has a key that JSON has no form for. Nothing is queued then.
        """
        event = encode(payload)
        buffer, transport, delivery = self._parts
        if buffer.batch_size == 1 and not (buffer.unsettled_events or buffer.closed):
            if buffer.forked:
                delivery.notice_fork()
            if transport.push(event):
                return
        answer = buffer.append_encoded(KeptEvent(event, event))
        if answer:
            delivery.answer(answer)

    def reached_limit(self) -> bool:
        """Whether there is enough queued to push: `batch_size`, `byte_limit`, or a full buffer."""
        return self._buffer.due

    def stats(self) -> EmitterStats:
        """One consistent look at the counters; `sent_events` are those that Redis has."""
        stats = self._delivery.stats()
        pushed, size = self._transport.pushed, self._transport.pushed_bytes
        return replace(
            stats,
            sent_events=stats.sent_events + pushed,
            sent_bytes=stats.sent_bytes + size,
            requests=stats.requests + pushed,
        )

    @property
    def rdb(self) -> Any:
        """The client; may be assigned. Events that are queued go by the new one, too."""
        return self._transport.rdb

    @rdb.setter
    def rdb(self, value: Any) -> None:
        checks.has_methods("rdb", value, ("rpush",), "a redis.Redis")
        self._transport.rdb = value

    @property
    def key(self) -> str:
        """The list's key; may be assigned. Events that are queued go to the new list, too."""
        return self._transport.key

    @key.setter
    def key(self, value: str) -> None:
        self._transport.key = key_name(value)

    @property
    def batch_size(self) -> int:
        """Queued events at which they are pushed."""
        return self._buffer.batch_size

    def __repr__(self) -> str:
        transport: PushTransport | None = vars(self).get("_transport")
        return f"<{type(self).__name__} {'without a key' if transport is None else repr(transport.key)}>"
