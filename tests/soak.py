"""A soak: random load, random faults, random forks and restarts for some minutes, and then the books.

    python tests/soak.py --minutes 10 [--seed 12345]

Everything random comes from the seed, which is printed; what meets what is a matter of time all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak_books import Books, Event, Report

from fastemit.testing import Collector, Request

PRODUCERS = 4
#: Seconds within which an answer that was on its way when connections were cut may have been lost.
MARGIN = 1.0
#: Seconds for the last processes to end once the sky is clear.
PATIENCE = 90.0
#: Longer than the producers wait for an answer.
TOO_LATE = 4.0
#: Connections were cut: from when, to when.
Cut = tuple[float, float]


@dataclass(frozen=True)
class Fault:
    """How a request is answered.

    Attributes:
        weight: how often, in comparison.
        answer: arguments of `Collector.respond`.
        heard: whether an answer of 2xx surely gets to its client.
    """

    weight: int
    answer: dict[str, Any]
    heard: bool = True


FAULTS = {
    "ok": Fault(60, {}),
    "a little late": Fault(8, {"delay": 0.05}),
    "late": Fault(4, {"delay": 0.3}),
    "closes": Fault(3, {"close": True}),
    "interim": Fault(2, {"interim": (103,)}),
    "large": Fault(1, {"body": b"x" * 200_000}),
    "cut short": Fault(2, {"close_after_headers": True}),
    "500": Fault(4, {"status": 500}),
    "503": Fault(3, {"status": 503}),
    "503, wait": Fault(2, {"status": 503, "headers": {"Retry-After": "1"}}),
    "429": Fault(2, {"status": 429}),
    "redirect": Fault(1, {"status": 302, "headers": {"Location": "/elsewhere"}}),
    "rejected": Fault(1, {"status": 400}),
    "too large": Fault(2, {"status": 413}),
    "reset": Fault(4, {"reset": True}),
    "hang-up": Fault(4, {"hang_up": True}),
    "taken, reset": Fault(4, {"reset": True, "accept": True}, heard=False),
    "taken, hang-up": Fault(4, {"hang_up": True, "accept": True}, heard=False),
    "silence": Fault(1, {"hang": True, "status": 503}),
    "taken, silence": Fault(1, {"hang": True, "status": 503, "accept": True}, heard=False),
    "too late": Fault(1, {"delay": TOO_LATE}, heard=False),
    "drips": Fault(1, {"drip": 0.1}, heard=False),
}


class Sky:
    """The collector, which lives for some seconds at a time, and what it does to requests."""

    def __init__(self, chance: random.Random, books: Books) -> None:
        self.met: Counter[str] = Counter()
        self.requests = 0
        self._chance = chance
        self._books = books
        self._over = threading.Event()
        self._collector = Collector().start()
        self.port = self._collector.port
        self.url = self._collector.url
        self._script: list[str] = []
        self._cuts: list[Cut] = []
        self._write_script()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def clear(self) -> None:
        """From here on all is well."""
        self._over.set()
        self._thread.join()
        self._restart(0, clear=True)

    def end(self) -> None:
        self._enter(self._stop())

    def _write_script(self) -> None:
        names, weights = list(FAULTS), [fault.weight for fault in FAULTS.values()]
        # A life in which most is well, or not.
        if self._chance.random() < 0.3:
            weights[0] = 10
        self._script = self._chance.choices(names, weights, k=20_000)
        for name in self._script:
            self._collector.respond(**FAULTS[name].answer)

    def _run(self) -> None:
        while not self._over.is_set():
            self._cuts = []
            for _ in range(self._chance.randrange(1, 5)):
                if self._over.wait(0.5 + self._chance.random() * 3):
                    return
                began = time.monotonic()
                self._collector.drop_connections()
                self._cuts.append((began, time.monotonic()))
                self.met["cut"] += 1
            self._restart(self._chance.choice([0, 0.2, 1.0]))

    def _restart(self, pause: float, clear: bool = False) -> None:
        """Refuse connections for a while, and come back as a new server."""
        requests = self._stop()
        script, cuts = self._script, self._cuts
        self._over.wait(pause)
        self._collector = Collector(port=self.port)
        if clear:
            self._script = []
        else:
            self._write_script()
        self._cuts = []
        self._collector.start()
        self.met["restart"] += 1
        self._enter(requests, script, cuts)

    def _stop(self) -> list[Request]:
        began = time.monotonic()
        self._collector.close()
        self._cuts.append((began, time.monotonic()))
        return self._collector.requests

    def _enter(self, requests: list[Request], script: list[str] | None = None, cuts: list[Cut] | None = None) -> None:
        """Enter the requests of a life in the books; the script's answers went to them in this order."""
        script, cuts = self._script if script is None else script, self._cuts if cuts is None else cuts
        for number, request in enumerate(requests):
            name = script[number] if number < len(script) else "ok"
            fault = FAULTS[name]
            accepted = fault.answer.get("accept") or (request.status is not None and request.status < 300)
            late = request.arrived + fault.answer.get("delay", 0) + MARGIN
            # What a connection had received before it was cut is read, and answered in vain, after it.
            near_a_cut = any(began <= late and request.arrived <= end + MARGIN for began, end in cuts)
            certain = accepted and fault.heard and not near_a_cut
            self._books.request(events_of(request), bool(accepted), certain)
            self.met[name] += 1
        self.requests += len(requests)


def events_of(request: Request) -> list[Event]:
    return [(event["p"], event["t"], int(event["n"])) for event in request.events]


class Crowd:
    """The producers: some at a time, each for some seconds; one in five is killed."""

    def __init__(self, chance: random.Random, directory: Path, url: str) -> None:
        self.killed: set[str] = set()
        self.failed: list[str] = []
        self.started = 0
        self._chance = chance
        self._directory = directory
        self._url = url
        self._running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        self._groups: list[int] = []

    def tend(self) -> None:
        """Look after those that run, and start others in place of those that ended."""
        self._look()
        while len(self._running) < PRODUCERS:
            self._start()

    def wait(self) -> None:
        """Until all have ended, children of those that were killed as well."""
        deadline = time.monotonic() + PATIENCE
        while (self._running or self._groups) and time.monotonic() < deadline:
            self._look()
            self._groups = [group for group in self._groups if alive(group)]
            time.sleep(0.05)
        for name, (process, _) in self._running.items():
            process.kill()
            process.wait()
            self.failed.append(f"{name} does not end")
        if self._groups and not self._running:
            self.failed.append("a forked child does not end")

    def _start(self) -> None:
        name = f"p{self.started}"
        self.started += 1
        seconds = 0.5 + self._chance.random() * 8
        setup = {
            "url": self._url,
            "directory": str(self._directory),
            "name": name,
            "seed": self._chance.randrange(2**32),
            "seconds": seconds,
        }
        # From 3.12 on a fork beside other threads warns; that is what this is about.
        command = [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            str(Path(__file__).with_name("soak_producer.py")),
        ]
        with (self._directory / f"{name}.err").open("wb") as errors:
            process = subprocess.Popen([*command, json.dumps(setup)], stderr=errors, start_new_session=True)
        die = time.monotonic() + seconds * self._chance.random() if self._chance.random() < 0.2 else float("inf")
        self._running[name] = process, die
        self._groups.append(process.pid)

    def _look(self) -> None:
        for name, (process, die) in list(self._running.items()):
            if time.monotonic() >= die and process.poll() is None:
                process.kill()
                process.wait()
                self.killed.add(name)
            if process.poll() is not None:
                del self._running[name]
                said = (self._directory / f"{name}.err").read_text()
                if said or (process.returncode != 0 and name not in self.killed):
                    self.failed.append(f"{name} ended with status {process.returncode}: {said[-2000:]}")


def alive(group: int) -> bool:
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def close_books(books: Books, directory: Path, killed: set[str]) -> None:
    for path in sorted(directory.glob("*.sent")):
        name = path.stem
        lines = (line.split() for line in path.read_text().splitlines())
        sent = [(thread, int(number)) for thread, number in lines]
        report = path.with_suffix(".json")
        if report.exists():
            told = json.loads(report.read_text())
            told.pop("settings")
            books.process(name, Report(**told), sent)
        elif name in killed:
            books.figures["killed"] += 1
            books.called_back(name, sent)
        else:
            books.fault(f"{name} ended without a report")


def soak(minutes: float, seed: int, directory: Path) -> bool:
    """Run, print what there was, and say whether all was well."""
    chance = random.Random(seed)
    books = Books()
    sky = Sky(chance=random.Random(chance.random()), books=books)
    crowd = Crowd(random.Random(chance.random()), directory, sky.url)
    started = time.monotonic()
    sky.start()
    while time.monotonic() < started + minutes * 60:
        crowd.tend()
        time.sleep(0.02)
    sky.clear()
    crowd.wait()
    sky.end()
    close_books(books, directory, crowd.killed)
    figures = books.figures
    print(f"{time.monotonic() - started:.0f} s, {crowd.started} processes started, {len(crowd.killed)} killed")
    print(f"{figures['processes']} processes, forked ones among them, ended by themselves:")
    for name in ("given", "arrived", "dropped", "left", "doubled", "lost"):
        print(f"  {name} {figures[name]:,}")
    print(f"{sky.requests:,} requests: " + ", ".join(f"{name} {count:,}" for name, count in sky.met.most_common()))
    wrong = books.wrong + crowd.failed
    for text in wrong:
        print(f"WRONG: {text}")
    print(f"the books are {'balanced' if not wrong else 'NOT balanced'} (seed {seed})")
    return not wrong and figures["processes"] > 0


def main() -> int:
    parser = argparse.ArgumentParser(description="A soak of fastemit.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"soaking for {arguments.minutes:g} minutes; again with --seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        return 0 if soak(arguments.minutes, seed, Path(directory)) else 1


if __name__ == "__main__":
    sys.exit(main())
