"""`RedisWorker`: takes events out of Redis, has them sent, and lets Redis forget those that are settled."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections import deque
from typing import Any, Final

import orjson

from fastemit._buffer import EventBuffer, refuse_copy
from fastemit._delivery import Delivery, Inbox, Reporter, unmade
from fastemit._settings import checks
from fastemit._signals import handling, raise_of_signal_handler
from fastemit._stores import BatchAround, BufferAround
from fastemit._time import monotonic
from fastemit.emitters import DEFAULT_BUFFER_BYTES, Emitter
from fastemit.event_store import DEFAULT_BUFFER_CAPACITY
from fastemit.redis.scripts import DEFAULT_KEY, LOST, InFlight, client_of, key_name
from fastemit.stats import EmitterStats, described
from fastemit.typing import EmitterProtocol, FailureCallback, PayloadDict, RedisProtocol, SuccessCallback

#: The key and the types are what `snowplow_tracker.redis.redis_worker` has, too.
__all__ = ["DEFAULT_KEY", "EmitterProtocol", "PayloadDict", "RedisProtocol", "RedisWorker"]

#: Events that one script takes at the most: Redis serves nobody else meanwhile.
TAKE_EVENTS: Final = 2000
#: Bytes after which a script takes no more.
TAKE_BYTES: Final = 1_000_000
#: Seconds to wait after an error of Redis: at first, and at the most.
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 5.0


class _Entry:
    """An event that the worker has taken."""

    __slots__ = ("dead", "event", "raw", "settled", "yielded")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.event: Any = None  # as the buffer takes it, of one that found no room
        self.settled = False
        self.dead = False  # it is to go to the dead list
        self.yielded = False  # it has gone to the end of the queue, and is to go there in Redis


class _SourceBatch(BatchAround):
    """A batch whose settling is noted for Redis."""

    # One from before a fork is the parent's to tell Redis of.

    def sent(self) -> None:
        ours, seq, count = self.ours, self.seq, len(self)
        super().sent()
        if ours:
            self._owner.settled(seq, count)

    def dropped(self, reason: str) -> None:
        ours, seq, count = self.ours, self.seq, len(self)
        super().dropped(reason)
        if ours:
            self._owner.settled(seq, count)

    def yield_place(self) -> None:
        if self.ours:
            self._owner.yielded(self._batch)
        else:
            super().yield_place()


class _Source(BufferAround):
    """The buffer of a worker: it knows by its number what each event was taken as."""

    left_in = "Redis"

    batch_class = _SourceBatch

    def __init__(self, native: EventBuffer, inbox: Inbox) -> None:
        super().__init__(native)
        self.__dict__.update(entries={}, lock=threading.Lock(), worker_inbox=inbox)

    def put(self, event: Any, entry: _Entry) -> Any:
        """Queue an encoded event; what `EventBuffer.append_encoded` answers."""
        with self.lock:
            number = self.native.next_seq
            # Before it is there to be taken.
            self.entries[number] = entry
            answer = self.native.append_encoded(event)
            if not isinstance(answer, int):
                del self.entries[number]
        return answer

    def settled(self, seq: int, count: int) -> None:
        for number in range(seq, seq + count):
            self.entries.pop(number).settled = True
        self.worker_inbox.put(None)

    def yielded(self, batch: Any) -> None:
        with self.lock:
            entry = self.entries.pop(batch.seq)
            self.entries[self.native.next_seq] = entry
            batch.yield_place()
            entry.yielded = True
        self.worker_inbox.put(None)


class _WorkerReporter(Reporter):
    """Calls the emitter's callbacks, also those that are assigned later."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        super().__init__()

    @property
    def on_success(self) -> SuccessCallback | None:
        return self._emitter.on_success

    @on_success.setter
    def on_success(self, value: object) -> None:
        """Told by the emitter."""

    @property
    def on_failure(self) -> FailureCallback | None:
        return self._emitter.on_failure

    @on_failure.setter
    def on_failure(self, value: object) -> None:
        """Told by the emitter."""


@checks.fixed(
    emitter="make another RedisWorker for another emitter",
    rdb="make another RedisWorker for another Redis",
    key="make another RedisWorker for another list",
)
class RedisWorker:
    """Moves events from a Redis list to the collector of an emitter, until it is told to stop.

    An event leaves Redis when the collector has taken or refused it. Any number of workers share a list; what a worker
    had that was killed is sent by the others, or by the next one.

    Args:
        emitter: a fastemit `Emitter` or `AsyncEmitter`. Its collector, settings, sender threads and callbacks are
            used; a buffer of the worker's own, of the same size, bounds what it takes.
        rdb: a `redis.Redis` or `redis.RedisCluster`, with `decode_responses` on or off. Default: localhost:6379.
        key: the list's key. Default "snowplow".
        poll_interval: seconds between two looks into an empty list. Default 0.1.
        takeover_after: seconds without a sign of life after which a worker is taken for dead. Default 30.

    Raises:
        TypeError, ValueError: naming the argument, the value and what is allowed.

    Thread safety: one thread calls `run`; any thread, and a signal handler, may call the rest.
    """

    _emitter: Emitter = unmade()
    _rdb: Any = unmade()
    _key: str = unmade()
    _delivery: Delivery = unmade()
    _inbox: Inbox = unmade()
    _running = False

    # 0.8 and before had RedisWorker(_consumer, key, dbr).
    @checks.renamed(dbr="rdb", _consumer="emitter")
    def __init__(
        self,
        emitter: Emitter,
        rdb: Any = None,
        key: str = DEFAULT_KEY,
        *,
        poll_interval: float = 0.1,
        takeover_after: float = 30.0,
    ) -> None:
        if self._running:
            raise RuntimeError("RedisWorker.__init__ was called again while run() is at work: make another worker")
        if not isinstance(emitter, Emitter):
            raise TypeError(f"emitter must be a fastemit.Emitter or AsyncEmitter, not {type(emitter).__name__}")
        if rdb is not None:
            checks.has_methods("rdb", rdb, ("execute_command",), "None or a redis.Redis")
        self._emitter = emitter
        self._rdb = client_of() if rdb is None else rdb
        self._key = key_name(key)
        self.poll_interval = checks.seconds("poll_interval", poll_interval)
        self.takeover_after = checks.seconds("takeover_after", takeover_after)
        #: Events that went to the dead list, and events of dead workers that this one has put back into the list.
        self.dead_events = 0
        self.recovered_events = 0
        self._stopping = False
        self._inbox = Inbox()
        self._report = _WorkerReporter(emitter)
        self._start_over()

    __reduce__ = refuse_copy

    def _start_over(self) -> None:
        given = self.emitter._delivery
        query = self.emitter.method == "get"
        theirs = self.emitter._delivery.buffer
        # Of an emitter with an event store of its own: see StoreBuffer.
        capacity = DEFAULT_BUFFER_CAPACITY if theirs.capacity == sys.maxsize else theirs.capacity
        max_bytes = getattr(theirs, "max_bytes", DEFAULT_BUFFER_BYTES)
        # Events go as soon as there are any: batches grow by themselves while requests are under way.
        self._buffer = EventBuffer(capacity, max_bytes, theirs.max_request_bytes, 1, query=query, keep=query)
        source: Any = _Source(self._buffer, self._inbox)
        self._source = source
        self._delivery = Delivery(
            source,
            self.emitter._transport,
            self._report,
            max_retry_delay=self.emitter.max_retry_delay_seconds,
            custom_retry_codes=self.emitter.custom_retry_codes,
            thread_count=self.emitter._thread_count,
            shutdown_timeout=given.shutdown_timeout,
            hooks=given._hooks,
        )
        self._redis = InFlight(self.rdb, self.key, self.takeover_after)
        self._held: deque[_Entry] = deque()  # what Redis has in flight for this worker, oldest first
        self._waiting: deque[_Entry] = deque()  # of these, what has not been put into the buffer yet
        self._ended = False  # `run` has returned; another begins anew, with counters at 0
        self._unsure = False  # a step failed, and may have been done all the same
        self._signed_at = self._looked_at = float("-inf")

    @property
    def emitter(self) -> Emitter:
        """The emitter whose collector, settings and callbacks are used."""
        return self._emitter

    @property
    def rdb(self) -> Any:
        """The client."""
        return self._rdb

    @property
    def key(self) -> str:
        """The list's key."""
        return self._key

    # -- the life of a worker ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `request_shutdown`, SIGTERM or SIGINT; then send what is in hand, and put back what is left.

        The signals are listened to when this is the main thread; the earlier handlers are put back. The emitter's
        `shutdown_timeout` bounds the end.
        """
        self._running = True
        try:
            if self._ended:
                self._start_over()
            # Here, not when it was made: each of several forked children that run the same worker is one of its own.
            self._redis.begin()
            with handling(self.request_shutdown, signal.SIGTERM, signal.SIGINT):
                try:
                    self._work()
                finally:
                    # Also when a signal handler of the program's raises: what is in hand goes back at once.
                    self._end()
        finally:
            self._running = False

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping:
            # What the log holds back: there may be no sender yet that does so.
            self._report.tell_faults()
            try:
                busy = self._step()
                pause = FIRST_PAUSE
            except Exception as error:  # noqa: BLE001 - a client has many errors, and Redis comes back after each
                self._failed(error)
                self._rest(pause)
                # A worker that could be at it again before it is taken for dead should be.
                pause = min(2 * pause, LAST_PAUSE, self.takeover_after / 4)
                continue
            if not busy:
                self._rest(self.poll_interval)

    def request_shutdown(self, *_: Any) -> None:
        """Have `run` end soon, or not begin; from anywhere."""
        self._stopping = True
        self._inbox.put(None)

    def stats(self) -> EmitterStats:
        """The counters of what this worker has taken and sent; `dead_events` and `recovered_events` are beside it."""
        return self._delivery.stats()

    def _rest(self, seconds: float) -> None:
        """Wait for so many seconds, or for a note of what came after the last step began."""
        if not self._stopping:
            self._inbox.wait(seconds)

    def _end(self) -> None:
        deadline = monotonic() + self._delivery.shutdown_timeout
        self._delivery.begin_close(deadline)
        self._tell_until_sent(deadline)
        self._delivery.finish_close(deadline)
        try:
            if self._unsure:
                self._agree()
            self._tell_redis()
            while self._redis.recover(self._redis.id):
                pass
        except Exception as error:  # noqa: BLE001 - the others find it when its sign of life has expired
            self._report.log.add("Redis failed", described(error))
        self._report.log.flush()
        self._stopping = False
        self._ended = True

    def _tell_until_sent(self, deadline: float) -> None:
        """Go on telling Redis, so that a worker that takes long to end is not taken for dead meanwhile."""
        pause = self.poll_interval
        while self._buffer.unsettled_events and (left := deadline - monotonic()) > 0:
            self._inbox.wait(min(pause, left))
            try:
                if self._unsure:
                    self._agree()
                self._tell_redis()
                pause = self.poll_interval
            except Exception as error:  # noqa: BLE001 - as in `run`
                self._failed(error)
                pause = min(2 * pause, LAST_PAUSE)

    def _failed(self, error: Exception) -> None:
        self._unsure = True
        raise_of_signal_handler(error)
        self._report.log.add("Redis failed", described(error))

    # -- one step ----------------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Tell Redis what is settled, and take what there is room for. False when there is nothing to do."""
        # This step sees to all of them. Left there, each would cut a later rest short.
        while self._inbox.wait(0)[0]:
            pass
        if self._unsure:
            self._agree()
        self._tell_redis()
        now = monotonic()
        if now - self._looked_at > self.takeover_after / 3:
            self._take_over()
            self._looked_at = now
        self._put_in()
        room = min(self._buffer.capacity - self._buffer.unsettled_events, TAKE_EVENTS)
        if self._waiting or room <= 0:
            return False
        taken = self._redis.take(len(self._held), room, TAKE_BYTES)
        if isinstance(taken, int):
            self._check(taken)
            return True
        if not taken:
            return False
        self._signed_at = now
        self._note(taken)
        self._put_in()
        return True

    def _note(self, taken: list[bytes]) -> None:
        entries = [_Entry(raw) for raw in taken]
        self._held += entries
        self._waiting += entries

    def _put_in(self) -> None:
        """Queue what is waiting, as far as there is room."""
        while self._waiting:
            entry = self._waiting[0]
            if not self._queue(entry):
                break
            self._waiting.popleft()
        hooks = self.emitter._delivery._hooks
        if hooks is not None and hooks.decide_when:
            # Nothing else would send it.
            self._delivery.request_flush()

    def _queue(self, entry: _Entry) -> bool:
        event = entry.event
        if event is None:
            try:
                event = self._buffer.prepare(_event_of(entry.raw))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no event
                return self._bury(entry, f"no event ({type(error).__name__})")
        answer = self._source.put(event, entry)
        # One that has no room is asked about at each look; to read 10 MB again each time would keep a core busy.
        entry.event = None if isinstance(answer, int) else event
        if isinstance(answer, int):
            if answer:
                self._delivery.answer(answer)
            return True
        if self._buffer.too_large(event):
            return self._bury(entry, f"{len(entry.raw)} bytes, more than the buffer may hold")
        return False

    def _bury(self, entry: _Entry, why: str) -> bool:
        entry.dead = True
        self.dead_events += 1
        self._report.log.add("events moved to the dead list", why)
        return True

    # -- what Redis is told ------------------------------------------------------------------------------------------

    def _tell_redis(self) -> None:
        """Move and forget what is to be, and give a sign of life."""
        for entry in [entry for entry in self._held if entry.yielded or entry.dead]:
            if entry.settled and not entry.dead:
                entry.yielded = False
                continue
            if not self._check(self._redis.move(len(self._held), entry.raw, self._redis.dead if entry.dead else None)):
                return
            self._take_out(entry)
            if not entry.dead:
                entry.yielded = False
                self._held.append(entry)
        count = 0
        for entry in self._held:
            if not entry.settled:
                break
            count += 1
        now = monotonic()
        if count or (self._held and now - self._signed_at > self.takeover_after / 4):
            if not self._check(self._redis.settle(len(self._held), count)):
                return
            self._signed_at = now
            for _ in range(count):
                self._held.popleft()

    def _take_out(self, entry: _Entry) -> None:
        """What LREM does: the first that has this value goes. If that is another entry, the two change places."""
        for place, other in enumerate(self._held):
            if other.raw == entry.raw:
                self._held[self._held.index(entry)] = other
                del self._held[place]
                return

    def _check(self, answer: int) -> bool:
        """What a step answered. False when it was not done."""
        if answer == LOST:
            # Taken for dead. The list is for the others; what is in the buffer is sent all the same.
            self._report.log.add("taken for dead", f"after {self.takeover_after:g} s, with {len(self._held)} events")
            self._redis.begin()
            self._held.clear()
            self._waiting.clear()
        elif answer < 0:
            self._unsure = True
        return answer >= 0

    def _agree(self) -> None:
        """Learn what Redis has in flight for this worker, after a step of which nobody knows whether it was done."""
        known: dict[bytes, list[_Entry]] = {}
        # Those that are settled are taken last: of two that are the same, the other one is still to be sent.
        for entry in sorted(self._held, key=lambda entry: not entry.settled):
            known.setdefault(entry.raw, []).append(entry)
        held = self._redis.all_held()
        self._unsure = False
        self._held.clear()
        for raw in held:
            same = known.get(raw)
            if same:
                self._held.append(same.pop())
            else:
                self._note([raw])
        # Moved to the dead list already.
        still = set(map(id, self._held))
        self._waiting = deque(entry for entry in self._waiting if id(entry) in still)

    def _take_over(self) -> None:
        """Put back what dead workers had."""
        for worker in self._redis.others():
            while moved := self._redis.recover(worker):
                self.recovered_events += moved
                self._report.log.add("events of a dead worker put back", f"worker {worker}", moved)


def _event_of(raw: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(raw)
    except ValueError:
        # What `json` writes and orjson refuses to read: NaN, lone surrogates.
        event = json.loads(raw)
    if not isinstance(event, dict):
        raise TypeError(f"an event is a JSON object, not {type(event).__name__}")
    return event
