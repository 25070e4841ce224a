"""`fastemit bench`: compares fastemit with snowplow_tracker on this machine, in a minute."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from statistics import median
from typing import Any, Final

from fastemit._signals import handling
from fastemit._time import monotonic
from fastemit._words import counted
from fastemit.cli._arguments import command, positive

_DESCRIPTION = """\
Send page views of 12 fields to a server in a process of its own, on the loopback of this machine: with
fastemit.Emitter, and with snowplow_tracker.Emitter if that is installed, both with their default settings;
and with snowplow_tracker.Emitter set up for speed, with a requests.Session and batch_size=500.

The emitters take turns, so that other work of this machine slows all of them in the same way. The figures are the
medians of the rounds. A round lasts from the first call of `input` until the server has counted every event.
CPU is the time of all threads of this process, without the server."""

#: What a Tracker gives to an emitter for a page view: `dtm` is an int.
_PAGE_VIEW: Final[dict[str, Any]] = {
    "e": "pv",
    "url": "https://shop.example.com/tea",
    "page": "Green tea, all sorts",
    "refr": "https://search.example.com/",
    "eid": "7b4dd3c2-5a1e-4f3e-9c39-2f5a3f1d8a61",
    "dtm": 1767225600000,
    "tv": "py-1.1.0",
    "tna": "shop",
    "aid": "web",
    "p": "web",
    "uid": "visitor-19",
    "lang": "en-GB",
}
_FASTEMIT: Final = "fastemit.Emitter"
_REFERENCE: Final = "snowplow_tracker.Emitter"
_TUNED: Final = "the same, session and batch_size=500"
_EVERY: Final = 250  # events between two looks at the clock
_MOST_ROUNDS: Final = 7
_LEAST_ROUND: Final = 0.5  # seconds
_HINT: Final = (
    'snowplow-tracker is not installed, so fastemit is measured alone; pip install "fastemit[tracker]" for both'
)


class BenchError(Exception):
    """There is no result. The message tells the user why."""


@dataclass
class Contender:
    """One emitter, and what its rounds gave.

    Attributes:
        name: as it is shown.
        open: makes an emitter that sends to a URL. Returns what takes an event, and what waits until all are sent.
        rates: events a second, of each round.
        costs: CPU microseconds of an event, of each round.
        events: how many it sent in all.
    """

    name: str
    open: Callable[[str], tuple[Callable[[dict[str, Any]], object], Callable[[], object]]]
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    events: int = 0


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = command(subparsers, "bench", "compare fastemit with snowplow_tracker on this machine", _DESCRIPTION)
    parser.add_argument(
        "--seconds", type=positive, default=60.0, metavar="N", help="how long to measure in all (default: %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure, and print a table."""
    from fastemit.cli._progress import log_lines, progress_on

    # Every emitter here looks at HTTP_PROXY, but the server is on this machine.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    contenders = _contenders()
    progress = progress_on(sys.stderr, 100, not args.quiet)
    if len(contenders) == 1:
        progress.say(f"fastemit: warning: {_HINT}")
    rounds = max(min(_MOST_ROUNDS, int(args.seconds / len(contenders) / _LEAST_ROUND)), 1)
    seconds = args.seconds / len(contenders) / rounds
    try:
        with log_lines(progress), _interrupts() as interrupted, _sink() as sink:
            for number in range(rounds * len(contenders)):
                # The order changes, so that none always comes after the slowest one.
                turn, place = divmod(number, len(contenders))
                contender = contenders[(turn + place) % len(contenders)]
                progress.update(100 * number // (rounds * len(contenders)), f"round {turn + 1}: {contender.name}")
                _round(contender, sink, seconds, interrupted)
    except (BenchError, OSError) as error:
        progress.close()
        print(f"fastemit: error: {error}", file=sys.stderr)
        return 1
    finally:
        progress.close()
    print(json.dumps(_result(contenders, rounds, seconds)) if args.json else _table(contenders, rounds, seconds))
    return 0


def _contenders() -> list[Contender]:
    import fastemit

    def ours(url: str) -> Any:
        # All defaults but one: after a Ctrl-C the server is gone, so the emitter must not wait for it.
        emitter = fastemit.Emitter(url, shutdown_timeout=0)

        def finish() -> None:
            left, stats = emitter.close(60), emitter.stats()
            if left or sum(stats.dropped_events.values()):
                raise BenchError(
                    f"{_FASTEMIT}: {counted(left, 'event')} left, {stats.dropped_events} dropped: {stats.last_error}"
                )

        return emitter.input, finish

    contenders = [Contender(_FASTEMIT, ours)]
    try:
        requests: Any = import_module("requests")
        snowplow_tracker: Any = import_module("snowplow_tracker")
    except ImportError:
        return contenders
    # It logs two INFO lines a request to a handler on the root logger. Without them it is a little faster.
    logging.getLogger("snowplow_tracker.emitters").setLevel(logging.WARNING)

    def theirs(url: str) -> Any:
        emitter = snowplow_tracker.Emitter(url)
        return emitter.input, emitter.sync_flush

    def tuned(url: str) -> Any:
        emitter = snowplow_tracker.Emitter(url, batch_size=500, session=requests.Session())
        return emitter.input, emitter.sync_flush

    return [*contenders, Contender(_REFERENCE, theirs), Contender(_TUNED, tuned)]


class Sink:
    """The server. Knows its address, and asks it how many events came."""

    def __init__(self, url: str) -> None:
        import urllib3

        self.url = url
        self._pool = urllib3.connection_from_url(url)

    def count(self) -> int:
        """Events since the last call."""
        answer = self._pool.request("GET", "/counts", retries=False, timeout=30)
        return int(answer.data)


@contextlib.contextmanager
def _sink() -> Iterator[Sink]:
    """A server in a process of its own. Ctrl-C is for this process alone, which then ends the other."""
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    # Not by -m, which looks for modules in the current directory first: a copy.py of the user's there is not Python's.
    program = "import sys; sys.path[:] = sys.argv[1:]; from fastemit.cli import _sink; _sink.main()"
    command = [sys.executable, "-c", program, *sys.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **apart) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise BenchError("the server did not start")
            yield Sink(f"http://127.0.0.1:{port}")
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that is not empty after a Ctrl-C.

    An exception alone is not enough, because Python ignores one that is raised in a finalizer, and emitters have some.
    """
    interrupted: list[int] = []

    def interrupt(number: int, _: object) -> None:
        interrupted.append(number)
        raise KeyboardInterrupt

    with handling(interrupt, signal.SIGINT):
        yield interrupted


def _round(contender: Contender, sink: Sink, seconds: float, interrupted: list[int]) -> None:
    """One round, of about so many seconds."""
    take, finish = contender.open(sink.url)
    sink.count()
    events = 0
    cpu, started = time.process_time(), monotonic()
    until = started + seconds
    while monotonic() < until:
        for _ in range(_EVERY):
            take(_PAGE_VIEW)
        events += _EVERY
        if interrupted:
            raise KeyboardInterrupt
    finish()
    took, cpu = monotonic() - started, time.process_time() - cpu
    arrived = sink.count()
    if arrived != events:
        raise BenchError(
            f"{contender.name}: {counted(events, 'event was', 'events were', ',')} given in, and {arrived:,} arrived"
        )
    contender.events += events
    contender.rates.append(events / took)
    contender.costs.append(cpu / events * 1e6)


def _result(contenders: list[Contender], rounds: int, seconds: float) -> dict[str, Any]:
    """What `--json` prints."""
    import platform

    from fastemit import __version__

    return {
        "fastemit": __version__,
        "snowplow_tracker": _reference_version(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "rounds": rounds,
        "seconds_a_round": round(seconds, 3),
        "emitters": [
            {
                "name": contender.name,
                "events": contender.events,
                "events_per_second": round(median(contender.rates)),
                "cpu_microseconds_per_event": round(median(contender.costs), 3),
            }
            for contender in contenders
        ],
    }


def _reference_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("snowplow-tracker")
    except PackageNotFoundError:
        return None


def _table(contenders: list[Contender], rounds: int, seconds: float) -> str:
    """The result for people."""
    ours = contenders[0]
    rate, cost = median(ours.rates), median(ours.costs)
    rows = [("", "events/s", "CPU us/event", "fastemit is" if len(contenders) > 1 else "")]
    for contender in contenders:
        theirs, their_cost = median(contender.rates), median(contender.costs)
        ratio = f"{rate / theirs:,.1f} times as fast, at 1/{their_cost / cost:,.1f} of the CPU"
        rows.append((contender.name, f"{theirs:,.0f}", f"{their_cost:,.2f}", "" if contender is ours else ratio))
    lines = [f"{a:<38}{b:>12}{c:>14}   {d}".rstrip() for a, b, c, d in rows]
    told = "every event was counted by the server"
    lines.append(f"Medians of {rounds} rounds of {seconds:.1f} s, in turn, on {os.cpu_count()} cores; {told}.")
    return "\n".join(lines)
