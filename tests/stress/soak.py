"""A soak: random load, random faults, random forks and restarts for some minutes, and then the books.

    python -m tests.stress.soak --minutes 10 [--seed 12345]

Everything random comes from the seed, which is printed; what meets what is a matter of time all the same.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastemit.testing import Collector, Request
from tests.stress.soak_books import Books, Event, Period, Report
from tests.stress.soak_crowd import SHORTEST, VARIES, Crowd

#: Seconds within which an answer that was on its way when connections were cut may have been lost.
MARGIN = 1.0
#: Seconds that a producer may take after its load, until it is taken for hung: inputs that wait for room under a bad
#: sky, its children's closes and its own of 30 s each, and all of that on a busy machine.
PATIENCE = 150.0
#: Seconds more for the soak itself: to stop the collector, to kill what hangs, to balance the books.
LEEWAY = 60.0
#: Seconds by which a request that its client has given up may arrive late, on a busy machine.
BUSY = 2.0
#: Longer than the producers wait for an answer.
TOO_LATE = 4.0
#: Seconds to get the collector's port back.
PORT_IN_USE = 10.0
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
        self.failed: list[str] = []
        self.requests = 0
        self._chance = chance
        self._books = books
        self._over = threading.Event()
        self._collector = Collector(max_bytes=None).start()
        self.port = self._collector.port
        self.url = self._collector.url
        self._script: list[str] = []
        self._cuts: list[Cut] = []
        self._write_script()
        self._thread = threading.Thread(target=self._run, daemon=True)

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
        try:
            self._rage()
        except Exception:  # noqa: BLE001 - a soak without its faults is none, so it is told at the end
            self.failed.append(f"the soak's own collector failed:\n{traceback.format_exc()}")

    def _rage(self) -> None:
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
        self._collector = Collector(port=self.port, max_bytes=None)
        if clear:
            self._script = []
        else:
            self._write_script()
        self._cuts = []
        self._listen()
        self.met["restart"] += 1
        self._enter(requests, script, cuts)

    def _listen(self) -> None:
        # A client that tries a port which nobody listens on may, by chance, be given that very port for its own end.
        deadline = time.monotonic() + PORT_IN_USE
        while True:
            try:
                self._collector.start()
                return
            except OSError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.05)

    def _stop(self) -> list[Request]:
        began = time.monotonic()
        self._collector.close()
        self._cuts.append((began, time.monotonic()))
        return self._collector.requests

    def _enter(self, requests: list[Request], script: list[str] | None = None, cuts: list[Cut] | None = None) -> None:
        """Enter the requests of a life in the books; the script's answers went to them in this order."""
        script, cuts = self._script if script is None else script, self._cuts if cuts is None else cuts
        owners: dict[int, str] = {}
        for number, request in enumerate(requests):
            name = script[number] if number < len(script) else "ok"
            fault = FAULTS[name]
            accepted = fault.answer.get("accept") or (request.status is not None and request.status < 300)
            late = request.arrived + fault.answer.get("delay", 0) + MARGIN
            # What a connection had received before it was cut is read, and answered in vain, after it.
            near_a_cut = any(began <= late and request.arrived <= end + MARGIN for began, end in cuts)
            events = events_of(request)
            refused = request.status == 400 or (request.status == 413 and len(events) == 1)
            certain = bool(accepted or refused) and fault.heard and not near_a_cut
            answered = request.arrived + fault.answer.get("delay", 0)
            self._books.request(events, bool(accepted), certain, refused, answered)
            for process in {name for name, _, _ in events}:
                if owners.setdefault(request.connection, process) != process:
                    self._books.shared(owners[request.connection], process)
            self.met[name] += 1
        self.requests += len(requests)


def events_of(request: Request) -> list[Event]:
    return [(event["p"], event["t"], int(event["n"])) for event in request.events]


def close_books(books: Books, directory: Path, crowd: Crowd) -> None:
    reports = {path.stem: json.loads(path.read_text()) for path in directory.glob("*.json")}
    deaf: dict[str, list[Period]] = {}
    for name, told in reports.items():
        told.pop("settings")
        # Towards its deadline a close gives requests less and less time.
        deaf[name] = [(told.pop("deadline") - TOO_LATE, float("inf"))]
    for path in directory.glob("*.timeouts"):
        for line in path.read_text().splitlines():
            began, ended = map(float, line.split())
            deaf.setdefault(path.stem, []).append((began, ended + BUSY))
    books.again(deaf)
    for path in sorted(directory.glob("*.sent")):
        name = path.stem
        lines = (line.split() for line in path.read_text().splitlines())
        sent = [(thread, int(number)) for thread, number in lines]
        if name in reports:
            books.process(name, Report(**reports[name]), sent)
        elif name in crowd.killed or name.partition("-")[0] in crowd.hung:
            books.figures["killed"] += 1
            books.called_back(name, sent)
        else:
            books.fault(f"{name} ended without a report")


def soak(minutes: float, seed: int, directory: Path, script: Path, producers: int, patience: float) -> bool:
    """Run, print what there was, and say whether all was well."""
    chance = random.Random(seed)
    books = Books()
    sky = Sky(chance=random.Random(chance.random()), books=books)
    crowd = Crowd(random.Random(chance.random()), directory, sky.url, script, producers, patience)
    started = time.monotonic()
    limit = Limit(minutes * 60 + longest(patience), crowd)
    try:
        sky.start()
        while time.monotonic() < started + minutes * 60 and crowd.tend():
            time.sleep(0.02)
        sky.clear()
        crowd.wait()
        sky.end()
        close_books(books, directory, crowd)
    finally:
        crowd.kill()
        limit.cancel()
    tell(time.monotonic() - started, books, sky, crowd)
    wrong = books.wrong + sky.failed + crowd.failed
    if not books.figures["processes"]:
        wrong.append("no process came to its end, so nothing was tested")
    for text in wrong:
        print(f"WRONG: {text}")
    if untold := books.figures["faults"] - len(books.wrong):
        print(f"WRONG: and {untold:,} more of these")
    print(f"{'FAILED: see WRONG above' if wrong else 'OK: every event is accounted for'} (seed {seed})")
    return not wrong


def tell(seconds: float, books: Books, sky: Sky, crowd: Crowd) -> None:
    """Print the figures."""
    figures = books.figures
    print(f"{seconds:.0f} s; {crowd.started} producers were started, and {len(crowd.killed)} of them killed at random")
    print(
        f"{figures['processes']} processes (producers and their forked children) ended by themselves; of their events,"
    )
    for name, what in {
        "given": "were given to input()",
        "dropped": "the emitter dropped, and said so",
        "left": "were left when the time for the close was up, and the emitter said so",
        "lost": "were lost: they did not arrive, and the emitter says nothing of it (must be 0)",
    }.items():
        print(f"  {figures[name]:>9,} {what}")
    print("at the collector, events of killed processes included,")
    for name, what in {
        "arrived": "arrived",
        "heard": "of them were answered so that the answer surely came back: they must not come again",
        "doubled": "came again, where the answer may have been lost (allowed: at least once)",
        "missed": "of them where the answer went out in time, but the request had timed out or a close ended (allowed)",
    }.items():
        print(f"  {figures[name]:>9,} {what}")
    print(f"the slowest producer ended {crowd.slowest:.1f} s after its load")
    print(f"{sky.requests:,} requests, and what was done to them:")
    print("  " + ", ".join(f"{name} {count:,}" for name, count in sky.met.most_common()))


def longest(patience: float) -> float:
    """Seconds that a soak takes beyond its minutes at the most."""
    return SHORTEST + VARIES + patience + LEEWAY


class Limit:
    """The end of a soak that does not come to its own: it says where it is, leaves no process behind, and exits."""

    def __init__(self, seconds: float, crowd: Crowd) -> None:
        self._seconds = seconds
        self._crowd = crowd
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        print(f"WRONG: the soak itself hangs: it is not over after {self._seconds:.0f} s. Where it is:", flush=True)
        faulthandler.dump_traceback(sys.stdout)
        self._crowd.kill()
        print("FAILED: see WRONG above", flush=True)
        os._exit(1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="A soak of fastemit: random load, faults, forks, kills and restarts, and books event by event.",
        epilog="Exit status: 0 if every event is accounted for and nothing hung, 1 if not.",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to make load (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=None, help="what a run printed, to make the same choices again")
    parser.add_argument("--producers", type=int, default=4, help="how many at a time (default: %(default)d)")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        help="seconds after its load until a producer is taken for hung (default: %(default)g)",
    )
    parser.add_argument(
        "--producer",
        type=Path,
        default=Path(__file__).with_name("soak_producer.py"),
        help="another program in place of soak_producer.py, to test the soak itself",
    )
    arguments = parser.parse_args()
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    minutes: float = arguments.minutes
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    most = minutes + longest(arguments.patience) / 60
    print(f"a soak of {minutes:g} min, which ends after {most:.1f} min at the latest; again with --seed {seed}")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        try:
            well = soak(minutes, seed, Path(directory), arguments.producer, arguments.producers, arguments.patience)
        except KeyboardInterrupt:
            print("stopped before the end; its processes were killed, and nothing was checked")
            return 130
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
