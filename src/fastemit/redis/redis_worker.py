"""`RedisWorker`: takes events out of Redis and has them sent. Redis forgets an event once it is settled."""

from __future__ import annotations

import signal
from typing import Any, Final

from fastemit._buffer import EventBuffer
from fastemit._delivery import Delivery, Inbox, unmade
from fastemit._settings import DEFAULT_BUFFER_BYTES, DEFAULT_BUFFER_CAPACITY, checks
from fastemit._signals import handling, raise_of_signal_handler
from fastemit._system import refuse_copy
from fastemit._time import monotonic
from fastemit.emitters import Emitter
from fastemit.redis._clients import client_of
from fastemit.redis._health import put_back_of_dead, warn_of_eviction
from fastemit.redis._held import Held
from fastemit.redis._source import Entry, Source, WorkerReporter, event_of
from fastemit.redis.scripts import DEFAULT_KEY, InFlight, key_name
from fastemit.stats import EmitterStats, described
from fastemit.typing import EmitterProtocol, PayloadDict, RedisProtocol

#: The key and the types are here because `snowplow_tracker.redis.redis_worker` has them, too.
__all__ = ["DEFAULT_KEY", "EmitterProtocol", "PayloadDict", "RedisProtocol", "RedisWorker"]

#: The most events that one script takes. It is bounded because Redis serves nobody else meanwhile.
TAKE_EVENTS: Final = 2000
#: Bytes after which a script takes no more.
TAKE_BYTES: Final = 1_000_000
#: Seconds to wait after an error of Redis: the first pause and the longest.
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 5.0


@checks.fixed(
    emitter="make another RedisWorker for another emitter",
    rdb="make another RedisWorker for another Redis",
    key="make another RedisWorker for another list",
)
class RedisWorker:
    """Moves events from a Redis list to the collector of an emitter, until it is told to stop.

    An event leaves Redis when the collector has taken or refused it. Any number of workers may share a list. When a
    worker is killed, the other workers send what it had, or the next worker that starts does.

    Args:
        emitter: a fastemit `Emitter` or `AsyncEmitter`. Its collector, settings, number of threads and callbacks are
            used. The worker has its own buffer of the same size, which bounds what it takes.
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
        self._report = WorkerReporter(emitter)
        self._start_over()

    __reduce__ = refuse_copy

    def _start_over(self) -> None:
        given = self.emitter._delivery
        query = self.emitter.method == "get"
        theirs = self.emitter._settings
        # The batch size is 1, so that events are sent at once. Batches grow by themselves while requests are under way.
        # An emitter with a spool has the bounds of a disk, which are too large for memory.
        capacity, max_bytes = theirs.buffer_capacity, theirs.max_buffer_bytes
        if theirs.spool is not None:
            capacity, max_bytes = DEFAULT_BUFFER_CAPACITY, DEFAULT_BUFFER_BYTES
        self._buffer = EventBuffer(capacity, max_bytes, theirs.max_request_bytes, 1, query=query, keep=query)
        self._source = Source(self._buffer, self._inbox)
        self._delivery = Delivery(
            self._source,
            self.emitter._transport,
            self._report,
            max_retry_delay=self.emitter.max_retry_delay_seconds,
            custom_retry_codes=self.emitter.custom_retry_codes,
            thread_count=self.emitter._thread_count,
            shutdown_timeout=given.shutdown_timeout,
            hooks=given._hooks,
        )
        self._redis = InFlight(self.rdb, self.key, self.takeover_after)
        self._held = Held(self._redis, self._report.log, self.takeover_after)
        self._ended = False  # `run` has returned; the next one begins anew, with counters at 0
        self._trouble: Exception | None = None  # the last error of Redis, until a step succeeds
        self._trouble_since = 0.0  # when the first of these errors came
        self._asked = False  # whether Redis was asked if it may delete the list
        self._looked_at = float("-inf")

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
        """Work until `request_shutdown`, SIGTERM or SIGINT. Then send what was taken, and put back what is left.

        In the main thread `run` handles the two signals, and sets the earlier handlers again at its end. The emitter's
        `shutdown_timeout` bounds how long the end may take.
        """
        self._running = True
        try:
            if self._ended:
                self._start_over()
            # The id is made here and not in `__init__`, so that forked children that run the same worker differ.
            self._redis.begin()
            with handling(self.request_shutdown, signal.SIGTERM, signal.SIGINT):
                try:
                    self._work()
                finally:
                    # Also if a signal handler of the program raises, so that what was taken goes back at once.
                    self._end()
        finally:
            self._running = False

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping:
            # Writes lines that the log holds back, because there may be no sender yet that does so.
            self._report.tell_faults()
            try:
                busy = self._step()
                pause = FIRST_PAUSE
                if self._trouble is not None:
                    self._forget_signs_after(monotonic())
                    self._trouble = None
            except Exception as error:  # noqa: BLE001 - a client has many errors, and Redis comes back after each
                self._failed(error)
                self._rest(pause)
                # The pause stays short enough to give a sign of life before the worker is taken for dead.
                pause = min(2 * pause, LAST_PAUSE, self.takeover_after / 4)
                continue
            if not busy:
                self._rest(self.poll_interval)

    def request_shutdown(self, *_: Any) -> None:
        """Let `run` end soon, or not begin at all. Any thread and any signal handler may call this."""
        self._stopping = True
        self._inbox.put(None)

    def stats(self) -> EmitterStats:
        """The counters of what this worker has taken and sent. See also `dead_events` and `recovered_events`."""
        return self._delivery.stats()

    def _rest(self, seconds: float) -> None:
        """Wait for so many seconds, or until a note comes. A note that came since the last step began counts, too."""
        if not self._stopping:
            self._inbox.wait(seconds)

    def _end(self) -> None:
        deadline = monotonic() + self._delivery.shutdown_timeout
        self._delivery.begin_close(deadline)
        self._tell_until_sent(deadline)
        self._delivery.finish_close(deadline)
        try:
            self._held.tell_redis()
            while self._redis.give_back() > 0:
                pass
            self._trouble = None
        except Exception as error:  # noqa: BLE001 - the other workers put back what is left once this one is silent
            self._trouble = error
            self._report.log.add("Redis failed", described(error))
        self._report.log.flush()
        self._stopping = False
        self._ended = True

    def _tell_until_sent(self, deadline: float) -> None:
        """Go on talking to Redis, so that a worker that takes long to end is not taken for dead meanwhile."""
        pause = self.poll_interval
        while self._buffer.unsettled_events and (left := deadline - monotonic()) > 0:
            self._inbox.wait(min(pause, left))
            try:
                self._held.tell_redis()
                pause = self.poll_interval
            except Exception as error:  # noqa: BLE001 - as in `run`
                self._failed(error)
                pause = min(2 * pause, LAST_PAUSE)

    def _failed(self, error: Exception) -> None:
        self._held.unsure = True
        if self._trouble is None:
            self._trouble_since = monotonic()
        self._trouble = error
        raise_of_signal_handler(error)
        self._report.log.add("Redis failed", described(error))

    def _forget_signs_after(self, now: float) -> None:
        """After an outage the others need time to give a sign of life before they are taken for dead.

        A live worker gives one at least every `takeover_after / 4`, and we look every `takeover_after / 3`.
        """
        if self._trouble is not None and now - self._trouble_since > self.takeover_after / 12:
            self._redis.forget_signs()

    # -- one step ----------------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Tell Redis what is settled, and take events as far as there is room. False if there is nothing to do."""
        # The notes are removed, because this step does all that they ask for. Each would end a later rest too early.
        while self._inbox.wait(0)[0]:
            pass
        self._held.tell_redis()
        now = monotonic()
        if now - self._looked_at > self.takeover_after / 3:
            self._forget_signs_after(now)
            for moved in put_back_of_dead(self._redis, self._report.log):
                self.recovered_events += moved
            self._looked_at = now
        if not self._asked:
            self._asked = True
            warn_of_eviction(self.rdb, self.key)
        self._put_in()
        room = self._buffer.capacity - self._buffer.unsettled_events
        if self._held.waiting or room <= 0:
            return False
        if not self._held.take(min(room, TAKE_EVENTS), TAKE_BYTES):
            return False
        self._put_in()
        return True

    def _put_in(self) -> None:
        """Queue the waiting events, as far as there is room."""
        waiting = self._held.waiting
        while waiting and self._queue(waiting[0]):
            waiting.popleft()
        hooks = self.emitter._delivery._hooks
        if hooks is not None and hooks.decide_when:
            # Such an emitter decides when to send, and nothing else asks it to.
            self._delivery.request_flush()

    def _queue(self, entry: Entry) -> bool:
        event = entry.event
        if event is None:
            try:
                event = self._buffer.prepare(event_of(entry.raw))
            except Exception as error:  # noqa: BLE001 - any error means that it is no event
                return self._bury(entry, f"no event ({type(error).__name__})")
        answer = self._source.put(event, entry)
        # An event without room is tried again in each step. To parse 10 MB each time would keep a core busy.
        entry.event = None if isinstance(answer, int) else event
        if isinstance(answer, int):
            if answer:
                self._delivery.answer(answer)
            return True
        if self._buffer.too_large(event):
            return self._bury(entry, f"{len(entry.raw)} bytes, more than the buffer may hold")
        return False

    def _bury(self, entry: Entry, why: str) -> bool:
        entry.dead = True
        self.dead_events += 1
        self._report.log.add("events moved to the dead list", why)
        return True
