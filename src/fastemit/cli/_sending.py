"""The work of `fastemit send`: lines into an emitter, and what becomes of the events that are not delivered."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import fastemit
from fastemit._buffer import MAX_REQUEST_BYTES, EventBuffer
from fastemit._signals import handling
from fastemit._time import monotonic, sleep
from fastemit._words import counted
from fastemit.cli._input import CHUNK, LONGEST_LINE, Input, InputError
from fastemit.cli._payload import BadLineError, read_payload
from fastemit.cli._progress import Progress, log_lines
from fastemit.cli._undelivered import FailedFile, InFlight

#: How many lines of one kind are shown. Further ones are only counted.
MOST_TOLD: Final = 10
#: Seconds between two looks at the emitter.
TICK: Final = 0.1
#: Seconds in which the reader of the lines should have noticed that it is to stop, unless it waits for room.
_GRACE: Final = 0.3
#: Seconds for the steps of the sender between the buffer and a request.
_GRACE_OF_SENDER: Final = 5.0


class _ReadInterruptedError(BaseException):
    """A signal came while the reader waited for input."""


class Sending:
    """One run of `send`.

    The main thread reads lines and gives them to the emitter, whose own thread sends them. A third one looks at both
    every `TICK`: it shows the progress, and wakes the reader where that waits for room that will not come.

    Args:
        inputs: what to read, in this order.
        emitter: where the events go; None to read and check only. It has to have one sender, and "block" for overflow.
        progress: shows how far it is, and prints.
        failed: gets the events that were not delivered.
        rate: most events a second, or None.
        stop_on_bad_line: a bad line ends the reading.
        drain_timeout: seconds for what is queued when a signal has come.
        patience: seconds without any event settled after which it gives up.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        emitter: fastemit.Emitter | None,
        progress: Progress,
        failed: FailedFile,
        *,
        rate: float | None,
        stop_on_bad_line: bool,
        drain_timeout: float,
        patience: float,
    ) -> None:
        self.emitter = emitter
        self.events = 0  # given to the emitter
        self.bad_lines: list[str] = []  # the first of them
        self.bad_count = 0
        self.errors: list[str] = []  # inputs that could not be read to their end, and the like
        self.where: str | None = None  # the line that it stopped at
        #: Why it ended before its time: None, "bad line", "gave up", "error", or the name of a signal.
        self.stopped: str | None = None
        self.signal = 0
        self._inputs = inputs
        self._progress = progress
        self._failed = failed
        self._rate = rate
        self._stop_on_bad_line = stop_on_bad_line
        self._drain_timeout = drain_timeout
        self._patience = patience
        self._take_line: Callable[[bytes], bool] = _checker() if emitter is None else emitter._input_line
        self._refused = 0
        self._line = 0
        self._hurry = False  # a second signal: wait for nothing more
        self._reading = self._feeding = False
        self._began = self._paced_from = self._moved = monotonic()
        self._settled = 0
        self._closer: threading.Thread | None = None
        self._closing = threading.Lock()
        self._finished = threading.Event()
        self._in_flight = None if emitter is None else InFlight(emitter._transport)
        if emitter is not None:
            emitter.on_failure = self._on_failure

    def run(self) -> None:
        """Read, send, and see to what is left. Returns when nothing is under way any more."""
        watcher = threading.Thread(target=self._watch, name="fastemit-cli-watch", daemon=True)
        with handling(self._on_signal, signal.SIGINT, signal.SIGTERM), log_lines(self._progress, self._tells_itself):
            watcher.start()
            try:
                self._feed()
                if self.emitter is not None:
                    self._finish(self.emitter)
            finally:
                self._finished.set()
                watcher.join()
                self._progress.close()

    # -- from lines to the emitter -----------------------------------------------------------------------------------

    def _feed(self) -> None:
        self._feeding = True
        try:
            for source in self._inputs:
                if not self._feed_one(source):
                    break
        finally:
            self._feeding = False

    def _feed_one(self, source: Input) -> bool:
        """Give an input's lines to the emitter. False if there is to be no other."""
        self._line = 0
        try:
            for lines in source.lines(self._read):
                if isinstance(lines, int):
                    self._line += lines
                    continue
                for some in self._paced(lines):
                    self._give(source, some)
                    if self.stopped is not None:
                        self.where = f"{source.name}:{self._line}"
                        return False
        except InputError as error:
            self._complain(f"{error} (after line {self._line})" if self._line else str(error))
        except _ReadInterruptedError:
            self.where = f"{source.name}:{self._line}"
            return False
        return self.stopped is None

    def _read(self, file: io.FileIO) -> bytes:
        try:
            self._reading = True
            if self.stopped is not None:
                raise _ReadInterruptedError
            return file.read(CHUNK) or b""
        finally:
            self._reading = False

    def _give(self, source: Input, lines: list[bytes]) -> None:
        """The loop that every event goes through."""
        take = self._take_line
        number, given = self._line, 0
        line = b""
        for line in lines:
            number += 1
            # Nine lines in ten are simple, and are checked and copied without becoming a dict.
            if take(line) or self._take_parsed(source, number, line):
                given += 1
            if self.stopped is not None:
                break
        self._line = number
        self.events += given
        if self.stopped is not None and self.emitter is not None:
            self._not_taken(line)

    def _take_parsed(self, source: Input, number: int, line: bytes) -> bool:
        """Take a line that is not simple. False if there is no event in it."""
        try:
            payload = read_payload(line, number == 1)
            if payload is None:
                return False
            if self.emitter is not None:
                self.emitter.input(payload)
        except (BadLineError, UnicodeEncodeError) as error:
            self._bad_line(source, number, error)
            return False
        return True

    def _not_taken(self, last: bytes) -> None:
        """The emitter was closed while the reader waited for room, so the emitter does not have this event."""
        assert self.emitter is not None
        if self.emitter.stats().dropped_events["closed"]:
            self._failed.write([read_payload(last) or {}])

    def _paced(self, lines: list[bytes]) -> Iterator[list[bytes]]:
        """The lines in portions, at the rate asked for."""
        if self._rate is None:
            yield lines
            return
        portion = max(int(self._rate * TICK / 2), 1)
        for start in range(0, len(lines), portion):
            yield lines[start : start + portion]
            # The rate is that of the whole run, but time in which the input was idle does not allow more later.
            self._paced_from = max(self._paced_from, monotonic() - (self.events + portion) / self._rate)
            due = self._paced_from + self.events / self._rate
            while self.stopped is None and (left := due - monotonic()) > 0:
                sleep(min(left, TICK))

    def _bad_line(self, source: Input, number: int, error: Exception) -> None:
        why = "lone surrogates cannot be sent by GET" if isinstance(error, UnicodeEncodeError) else str(error)
        self.bad_count += 1
        if self.bad_count <= MOST_TOLD:
            self.bad_lines.append(f"{source.name}:{number}: {why}")
            self._progress.say(f"fastemit: warning: bad line: {self.bad_lines[-1]}")
        elif self.bad_count == MOST_TOLD + 1:
            self._progress.say("fastemit: warning: further bad lines are only counted")
        if self._stop_on_bad_line:
            self._stop("bad line")

    def _tells_itself(self, line: str) -> bool:
        """Whether the result or an error tells what this line of the log says."""
        # The result has what is left at the close, and what the reader gave in after it. It is not lost if there is a
        # file for it.
        left = line.startswith(("closed with ", "events dropped (closed)"))
        return left or (self.stopped == "gave up" and line.startswith("request failed"))

    def _complain(self, error: str) -> None:
        self.errors.append(error)
        self._progress.say(f"fastemit: error: {error}")

    # -- how it ends -------------------------------------------------------------------------------------------------

    def _stop(self, why: str) -> None:
        if self.stopped is None:
            self.stopped = why

    def _on_signal(self, number: int, _: object) -> None:
        if number == signal.SIGINT and self.stopped == "gave up":
            pass  # sent by `_watch`, so that the read ends
        elif self.signal:
            self._hurry = True
        else:
            self.signal = number
            self._stop(signal.Signals(number).name)
        if self._reading:
            raise _ReadInterruptedError

    def _finish(self, emitter: fastemit.Emitter) -> None:
        """Send what is queued, and see what is left."""
        while not (self.stopped or emitter.drain(TICK)):
            # It ends early if an attempt failed. The next attempt is made when the emitter would make it.
            until = monotonic() + emitter.retry_delay
            while self.stopped is None and monotonic() < until:
                sleep(TICK / 10)
        self._start_closing(emitter)
        while self._closer is not None and self._closer.is_alive() and not self._hurry:
            self._closer.join(TICK)
        self._collect(emitter)

    def _start_closing(self, emitter: fastemit.Emitter) -> None:
        timeout = self._drain_timeout if self.signal or self.stopped == "bad line" else 0.0
        with self._closing:
            if self._closer is None:
                self._closer = threading.Thread(target=emitter.close, args=(timeout,), daemon=True)
                self._closer.start()

    def _collect(self, emitter: fastemit.Emitter) -> None:
        """Everything that is not known to be delivered."""
        self._failed.write(self._left_in(emitter))
        if self._failed.error is not None:
            self._complain(f"the events that were not delivered could not be written: {self._failed.error.strerror}")
        self._failed.close()

    def _left_in(self, emitter: fastemit.Emitter) -> list[dict[str, Any]]:
        """The events that are queued or in a request."""
        assert self._in_flight is not None
        deadline = monotonic() + _GRACE_OF_SENDER
        while True:
            there = emitter.stats()
            left: list[dict[str, Any]] = self._in_flight.events() + emitter.event_store.event_buffer
            # The sender may have some in its hands, between the buffer and a request.
            if len(left) == there.queued_events + there.in_flight_events and emitter.stats() == there:
                return left
            if monotonic() > deadline:
                self._complain("not all events that were not delivered could be written: some were under way")
                return left
            sleep(TICK / 10)

    def _on_failure(self, _: int, events: list[dict[str, Any]]) -> None:
        """Called after each pass with events that were not sent: first those that were refused, then those kept."""
        assert self.emitter is not None
        dropped = self.emitter.stats().dropped_events
        refused = dropped["rejected"] + dropped["oversize"]
        self._failed.write(events[: refused - self._refused])
        self._refused = refused
        if self._failed.error is not None:
            self._stop("error")

    # -- the third thread ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        stuck_since: float | None = None
        while not self._finished.wait(TICK):
            now = monotonic()
            self._show(now)
            if self.emitter is None:
                continue
            self._give_up_if_hopeless(self.emitter, now)
            if self.stopped is None or not self._feeding:
                stuck_since = None
            elif stuck_since is None:
                stuck_since = now
            elif now - stuck_since > _GRACE:
                # Closing wakes what waits for room.
                self._start_closing(self.emitter)

    def _give_up_if_hopeless(self, emitter: fastemit.Emitter, now: float) -> None:
        stats = emitter.stats()
        settled = stats.sent_events + sum(stats.dropped_events.values())
        if settled != self._settled or stats.queued_events + stats.in_flight_events == 0:
            self._settled, self._moved = settled, now
        elif now - self._moved > self._patience and self.stopped is None:
            self._complain(f"gave up after {self._patience:g} s without a delivery: {stats.last_error or 'no answer'}")
            self._stop("gave up")
            if hasattr(signal, "pthread_kill") and self._reading:
                main = threading.main_thread().ident
                assert main is not None
                signal.pthread_kill(main, signal.SIGINT)

    def _show(self, now: float) -> None:
        done = sum(source.done for source in self._inputs)
        took = max(now - self._began, TICK)
        if self.emitter is None:
            self._progress.update(done, f"{counted(self.events, 'event', style=',')} read")
            return
        stats = self.emitter.stats()
        text = f"{stats.sent_events:,} delivered, {stats.sent_events / took:,.0f}/s"
        if self.stopped is not None:
            text += f", {stats.queued_events + stats.in_flight_events:,} left to send"
        elif stats.retry_delay:
            text += f", retrying: {stats.last_error}"
        self._progress.update(done, text)


def _checker() -> Callable[[bytes], bool]:
    """Says of a line whether an emitter would take it as it is."""
    buffer = EventBuffer(1, LONGEST_LINE, MAX_REQUEST_BYTES, 1)
    return lambda line: buffer.append_line(line) is not None
