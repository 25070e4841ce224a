"""One process of the soak: an emitter with random settings, threads with random load, random forks and a random end.

Its one argument is JSON: `url`, `directory` (where it reports), `name`, `seed`, `seconds`. It writes `NAME.sent`, the
events of each `on_success` as they are called back, and at its end `NAME.json`, what it gave and what its emitter told;
`NAME.timeouts` says from when to when a request of it timed out. Whenever it gets SIGUSR2, it writes the stacks of all
its threads to `NAME.stacks`. A forked child does all of this under a name of its own.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any


def report_at_exit(producer: list[Producer]) -> None:
    if producer:
        producer[0].report()


_producer: list[Producer] = []
# Before fastemit is imported, so that it runs after fastemit has closed what is open.
atexit.register(report_at_exit, _producer)

from fastemit import AsyncEmitter, Emitter, logger  # noqa: E402

#: Longer than anything here lasts, so that what is left at the end of a process is left for a reason.
SHUTDOWN = 30.0
#: Connect and read, in seconds.
TIMEOUTS = (2.0, 3.0)
#: Seconds without a request after which an emitter that has something to send is taken for asleep: far more than a
#: request may take, and the delay after it.
ASLEEP = 15.0
#: Seconds that an emitter is watched for that, at the most.
WATCHED = 20.0


class TimeoutNotes(logging.Handler):
    """Keeps, in a file, from when to when a request ran that got no answer in time: also on a machine so busy that
    an answer which was there was not read."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.DEBUG)
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple) and len(record.args) == 4 and record.msg.startswith("request: "):
            text, milliseconds = record.args[2:]
            if "timed out" in str(text) and float(str(milliseconds)) >= min(TIMEOUTS) * 1e3:
                now = time.monotonic()
                os.write(self.file, f"{now - float(str(milliseconds)) / 1e3} {now}\n".encode())


class Producer:
    """The load of one process."""

    def __init__(self, url: str, directory: str, name: str, seed: int, seconds: float) -> None:
        self.directory = Path(directory)
        self.name = name
        self.random = random.Random(seed)
        self.until = time.monotonic() + seconds
        self.given: dict[str, int] = {}
        self.children: list[int] = []
        self.settings = self.random_settings()
        self.ends = 0.0  # since when it closes
        self.open_files()
        if self.random.random() < 0.6:
            self.settings["on_success"] = self.note_sent
        cls = Emitter
        if self.random.random() < 0.5:
            cls = AsyncEmitter
            self.settings["thread_count"] = self.random.choice([1, 2, 4])
        self.emitter = cls(url, **self.settings)

    def random_settings(self) -> dict[str, Any]:
        pick = self.random.choice
        settings: dict[str, Any] = {
            "method": pick(["post", "post", "post", "post", "get"]),
            "batch_size": pick([1, 10, 10, 100]),
            "buffer_capacity": pick([50, 1000, 10_000]),
            "max_request_bytes": pick([2_000, 50_000, 1_000_000]),
            "overflow": pick(["backpressure", "drop_newest", "drop_oldest", "block"]),
            "max_retry_delay_seconds": pick([0.05, 0.2, 0.5]),
            "request_timeout": TIMEOUTS,
            "shutdown_timeout": SHUTDOWN,
            "background": pick([True, True, True, True, False]),
        }
        if self.random.random() < 0.3:
            settings["flush_interval"] = pick([0.01, 0.1, 1.0])
        return settings

    def open_files(self) -> None:
        self.stacks = (self.directory / f"{self.name}.stacks").open("wb")
        faulthandler.register(signal.SIGUSR2, self.stacks, all_threads=True)
        logger.handlers = [TimeoutNotes(self.directory / f"{self.name}.timeouts")]
        self.journal = os.open(self.directory / f"{self.name}.sent", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note_sent(self, events: list[dict[str, Any]]) -> None:
        # One write, which a kill does not cut in two.
        text = "".join(f"{event['t']} {event['n']}\n" for event in events)
        os.write(self.journal, text.encode())

    def produce(self, thread: str, seed: int, until: float) -> None:
        chance = random.Random(seed)
        take, given, name = self.emitter.input, self.given, self.name
        given[thread] = number = 0
        while time.monotonic() < until:
            for _ in range(chance.randrange(1, 60)):
                take({"p": name, "t": thread, "n": number, "x": "x" * chance.choice([0, 10, 200])})
                number += 1
                given[thread] = number
            time.sleep(chance.random() * 0.06)

    def run(self) -> None:
        threads = [
            threading.Thread(target=self.produce, args=(str(number), self.random.random(), self.until))
            for number in range(self.random.choice([1, 1, 2, 3]))
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < self.until:
            time.sleep(self.random.random() * 0.3)
            self.do_something()
        for thread in threads:
            thread.join()
        for number, child in enumerate(self.children):
            _, status = os.waitpid(child, 0)
            if status:
                code = os.waitstatus_to_exitcode(status)
                print(f"its child {self.name}-{number} ended with status {code}", file=sys.stderr)

    def do_something(self) -> None:
        action = self.random.choice(["flush", "drain", "collect", "timer", "stats", "fork", "fork"])
        if action == "flush":
            self.emitter.async_flush()
        elif action == "drain":
            # In a thread that sends by itself a timeout cuts requests short, whose answers are then missed.
            self.emitter.drain(self.random.random() if self.settings["background"] else None)
        elif action == "collect":
            gc.collect()
        elif action == "timer":
            self.emitter.set_flush_timer(0.05)
        elif action == "stats":
            stats = self.emitter.stats()
            held = stats.queued_events + stats.in_flight_events
            assert held <= self.settings["buffer_capacity"], stats
        elif action == "fork" and len(self.children) < 3:
            self.fork()

    def fork(self) -> None:
        name, seed = f"{self.name}-{len(self.children)}", self.random.random()
        child = os.fork()
        if child:
            self.children.append(child)
            return
        self.name, self.given, self.children = name, {}, []
        self.random = random.Random(seed)
        os.close(self.journal)
        # Kept until the signal has its new file.
        inherited = self.stacks
        self.open_files()
        inherited.close()
        self.produce("0", self.random.random(), time.monotonic() + self.random.random())
        self.end()

    def end(self) -> None:
        """Close in some way; the report is written at the exit."""
        way = self.random.choice(["close", "close", "exit", "with", "rest"])
        if way == "rest":
            self.watch()
        self.ends = time.monotonic()
        if way == "close":
            self.emitter.close()
        elif way == "with":
            with self.emitter:
                pass
        sys.exit()

    def watch(self) -> None:
        """See that what is due is sent by itself, whatever the weather: no flush and no close wakes the sender."""
        if not self.settings["background"]:
            return
        requests, asleep = -1, 0.0
        until = time.monotonic() + WATCHED
        while (now := time.monotonic()) < until:
            stats = self.emitter.stats()
            due = stats.queued_events >= self.emitter.batch_size or stats.retry_delay
            if not stats.in_flight_events and not (due and stats.queued_events):
                return
            if stats.requests != requests:
                requests, asleep = stats.requests, now + ASLEEP
            elif now > asleep:
                sys.exit(f"{self.name}: the emitter has events to send, and made no request for {ASLEEP:g} s: {stats}")
            time.sleep(0.02)

    def report(self) -> None:
        stats = self.emitter.stats()
        told = {
            "given": self.given,
            "sent": stats.sent_events,
            "dropped": dict(stats.dropped_events),
            "left": stats.queued_events + stats.in_flight_events,
            "calls_back": "on_success" in self.settings,
            "overflow": self.settings["overflow"],
            "capacity": self.settings["buffer_capacity"],
            "closing": time.monotonic() - self.ends,
            "deadline": self.ends + SHUTDOWN,
            "shutdown": SHUTDOWN,
            "settings": {name: value for name, value in self.settings.items() if name != "on_success"},
        }
        path = self.directory / f"{self.name}.json"
        path.with_suffix(".part").write_text(json.dumps(told))
        path.with_suffix(".part").rename(path)


def main() -> None:
    faulthandler.enable()
    logger.setLevel(logging.DEBUG)
    producer = Producer(**json.loads(sys.argv[1]))
    _producer.append(producer)
    producer.run()
    producer.end()


if __name__ == "__main__":
    main()
