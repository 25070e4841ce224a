"""`RedisEmitter`, which puts events into a Redis list."""

from __future__ import annotations

import enum
import json
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson
import redis

from fastemit._buffer import EventBuffer
from fastemit._delivery import Delivery, Draining, Reporter, loaded, unmade
from fastemit._encode import KeptEvent, is_plain
from fastemit._interfaces import EventBatch, Outcome
from fastemit._process import sockets
from fastemit._settings import DEFAULT_REQUEST_BYTES, Settings, bounds, checks
from fastemit._signals import guarded
from fastemit._system import refuse_copy
from fastemit._wiring import open_spool
from fastemit.redis._clients import client_of
from fastemit.redis._health import warn_of_eviction
from fastemit.redis.scripts import DEFAULT_KEY, address_of, key_name
from fastemit.stats import EmitterStats, described, logger
from fastemit.typing import LostCallback, Overflow, Payload, PayloadDict, PayloadDictList, RedisProtocol

#: The types and the logger are here because `snowplow_tracker.redis.redis_emitter` has them, too.
__all__ = ["PayloadDict", "RedisEmitter", "RedisProtocol", "logger"]

#: Without these options orjson would write such values in its own way, and `str` would not be called.
_AS_STR: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_dumps: Final = orjson.dumps
#: The types of nearly all values; `json` and orjson write them alike.
_PLAIN: Final = frozenset({str, int, bool, type(None)})


def encode(payload: Payload) -> bytes:
    """An event as it lies in Redis: its JSON. A value that JSON has no type for is written as `str(value)`.

    Raises `TypeError` if the payload is no mapping. Raises what `json.dumps` raises for keys that it refuses, and for a
    value that contains itself.
    """
    if not isinstance(payload, Mapping):
        raise TypeError(f"payload must be a mapping of names to values, not {type(payload).__name__}")
    # A copy first, because the steps below run Python code. Other threads may run then, and change the caller's dict.
    payload = dict(payload if type(payload) is dict else payload.items())
    if not is_plain(payload):
        try:
            payload = {name: _jsonable(value) for name, value in payload.items()}
        except RecursionError:
            # The value contains itself or is very deep: `json` decides.
            return json.dumps(payload, default=str).encode("ascii")
    try:
        return _dumps(payload, str, _AS_STR)
    except TypeError:
        # Lone surrogates, keys that are no strings, integers past 64 bits: `json` writes these, as in snowplow_tracker.
        return json.dumps(payload, default=str).encode("ascii")


def _jsonable(value: Any) -> Any:
    """A copy of `value` in which `str` was called for what JSON has no type for, but encoders write without asking.

    For NaN and infinity orjson writes null, and `json` writes names that are no JSON. For an Enum that is neither text
    nor number orjson writes its value.
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


def _encoded(batch: EventBatch) -> list[bytes]:
    """The events of a batch, each encoded as for Redis."""
    return batch.texts() if batch.in_files else batch.originals()


class _Reporter(Reporter):
    """Decodes events that were encoded for Redis, and gives them to the callbacks."""

    def _decoded(self, batch: EventBatch) -> PayloadDictList:
        return [loaded(event) for event in _encoded(batch)]


class PushTransport:
    """A transport that appends batches to a Redis list. `push` appends a single event."""

    def __init__(self, rdb: Any, key: str) -> None:
        self.rdb = rdb
        self.key = key
        self._asked = False
        self.after_fork()

    def send(self, batch: EventBatch, cap: float | None = None) -> Outcome:
        # `cap` is not used, because the client has timeouts of its own.
        events = _encoded(batch)

        def push() -> Outcome:
            self.rdb.rpush(self.key, *events)
            self._ask_once()
            return Outcome(status=200)

        # A client has many kinds of error. After each of them the events are kept.
        return guarded(
            push, lambda error: Outcome(error=described(error), timed_out=isinstance(error, redis.TimeoutError))
        )

    def push(self, event: bytes) -> bool:
        """Append one event. False if that failed. Redis may have the event even then."""

        def push() -> bool:
            self.rdb.rpush(self.key, event)
            self._ask_once()
            return True

        # The error is not logged here. The sender tries next, and logs why that fails.
        if not guarded(push, lambda _: False):
            return False
        with self._lock:
            self.pushed += 1
            self.pushed_bytes += len(event)
        return True

    def _ask_once(self) -> None:
        # Not asked when the emitter is made, because that must not wait for a server.
        if not self._asked:
            self._asked = True
            warn_of_eviction(self.rdb, self.key)

    def close(self) -> None:
        """The client is the user's."""

    def after_fork(self) -> None:
        # redis-py makes new connections by itself, and closes the numbers of the old ones. Only the idle connections of
        # a user's client are detached, because the child may go on with those that are in use.
        sockets.detach_inherited()
        sockets.detach_all(sockets.idle_of_redis, self.rdb)
        self._lock = threading.Lock()
        self.pushed = self.pushed_bytes = 0


class RedisEmitter(Draining):
    """Appends each event as a JSON string to a list in Redis. Any number of `RedisWorker`s send the events from there.

    The positional parameters are those of `snowplow_tracker.RedisEmitter`. `flush`, `close`, `stats` and the timers are
    those of `Emitter`. An event counts as sent once it is in Redis.

    Args:
        rdb: a `redis.Redis` or `redis.RedisCluster`, with `decode_responses` on or off. `close` leaves it open, since
            it is yours. Default: localhost:6379.
        key: the list's key. Default "snowplow".
        batch_size: events are pushed once so many are queued. With 1, the default, an event is in Redis when `input`
            returns, unless Redis fails. With more, a thread pushes them in batches.
        byte_limit, max_retry_delay_seconds, buffer_capacity: as for `Emitter`, with Redis in the collector's place.
        overflow, max_buffer_bytes, shutdown_timeout, background, flush_interval: likewise.
        max_request_bytes: the most bytes of one push. Default 1,000,000.
        spool, spool_sync: as for `Emitter`, with Redis in the collector's place.
        on_lost: as for `Emitter`: called with the reason and a list of events that will never be in Redis.

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
        buffer_capacity: int | None = None,
        overflow: Overflow = "backpressure",
        max_buffer_bytes: int | None = None,
        max_request_bytes: int = DEFAULT_REQUEST_BYTES,
        shutdown_timeout: float = 5.0,
        background: bool = True,
        flush_interval: float | None = None,
        spool: str | os.PathLike[str] | None = None,
        spool_sync: float | None = None,
        on_lost: LostCallback | None = None,
    ) -> None:
        self._may_begin()
        if rdb is not None:
            checks.has_methods("rdb", rdb, ("rpush",), "None or a redis.Redis")
        settings = Settings.checked(
            batch_size=batch_size,
            byte_limit=byte_limit,
            max_retry_delay_seconds=max_retry_delay_seconds,
            overflow=overflow,
            **bounds(buffer_capacity, max_buffer_bytes, spool),
            max_request_bytes=max_request_bytes,
            shutdown_timeout=shutdown_timeout,
            background=background,
            flush_interval=flush_interval,
            spool=spool,
            spool_sync=spool_sync,
            on_lost=on_lost,
        )
        transport = PushTransport(client_of() if rdb is None else rdb, key_name(key))
        files = None
        if settings.spool is not None:
            address = address_of(transport.rdb, transport.key)
            files = open_spool(settings.spool, address, "rpush", settings.spool_sync)
        buffer = EventBuffer(
            settings.buffer_capacity,
            settings.max_buffer_bytes,
            settings.max_request_bytes,
            min(settings.batch_size, settings.buffer_capacity),
            settings.byte_limit,
            keep=files is None,
            files=files is not None,
        )
        if files is not None:
            files.serve(buffer)
        delivery = Delivery(
            buffer,
            transport,
            _Reporter(on_lost=settings.on_lost),
            overflow=settings.overflow,
            max_retry_delay=settings.max_retry_delay_seconds,
            background=settings.background,
            shutdown_timeout=settings.shutdown_timeout,
            flush_interval=settings.flush_interval,
            spool=files,
        )
        self._transport = transport
        self._buffer = buffer
        # `input` reads all three in one step, because another thread may call `__init__` again meanwhile.
        self._parts = buffer, transport, delivery
        self._open(delivery)

    def _in_use(self) -> bool:
        return super()._in_use() or (self._transport.pushed > 0 and not self._buffer.closed)

    __reduce__ = refuse_copy

    def input(self, payload: Payload) -> None:
        """Take an event; with a `batch_size` of 1 it is in Redis when this returns. No error of Redis is raised.

        Raises:
            TypeError: `payload` is no mapping, or has a key that JSON cannot have. Nothing is queued then.
        """
        event = encode(payload)
        buffer, transport, delivery = self._parts
        if buffer.batch_size == 1 and not (buffer.unsettled_events or buffer.closed):
            if buffer.forked:
                delivery.notice_fork()
            if transport.push(event):
                return
        answer = buffer.append_encoded(event if buffer.in_files else KeptEvent(event, event))
        if answer:
            delivery.answer(answer)

    def reached_limit(self) -> bool:
        """Whether enough is queued for a push: `batch_size` or `byte_limit` is reached, or the buffer is full."""
        return self._buffer.due

    def stats(self) -> EmitterStats:
        """All counters at one point in time. `sent_events` are the events that Redis has taken."""
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
        """The client; may be assigned. The new one is also used for events that are already queued."""
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
        """Events are pushed once so many are queued."""
        return self._buffer.batch_size

    def __repr__(self) -> str:
        transport: PushTransport | None = vars(self).get("_transport")
        return f"<{type(self).__name__} {'without a key' if transport is None else repr(transport.key)}>"
