"""`make demo`: 50,000 events through fastemit's Tracker and emitter, the same through snowplow_tracker's, and a table.

At the end a producer is killed, and the next one sends what it has left. It exits with 1 and one line unless exactly
the events that were tracked arrived, each once.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import snowplow_tracker
from demo_collector import CollectorProcess, DemoError
from demo_events import events
from demo_spool import survive
from snowplow_tracker.events import Event

import fastemit

_EVERY = 500  # events between two looks at the clock


@dataclass
class Run:
    """What one emitter did with one stream of events."""

    events: int
    seconds: float
    cpu_seconds: float
    requests: int
    delivered: int = 0

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    @property
    def cpu_microseconds(self) -> float:
        return self.cpu_seconds / self.events * 1e6


class Progress:
    """One line that overwrites itself on a terminal; elsewhere a line half-way and one at the end."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._terminal = sys.stdout.isatty()
        self._shown_at = 0.0
        self._halfway = False
        self.note("")

    def note(self, text: str) -> None:
        """Something passing, for a terminal only."""
        if self._terminal:
            self._show(text)

    def update(self, done: int, fraction: float) -> None:
        now = time.monotonic()
        if self._terminal and now - self._shown_at > 0.1:
            self._shown_at = now
            self._show(f"{done:,} events ({min(fraction, 1):.0%})")
        elif not self._terminal and fraction >= 0.5 and not self._halfway:
            self._halfway = True
            self._show(f"{done:,} events so far")

    def end(self, text: str) -> None:
        self._show(text)
        if self._terminal:
            print(flush=True)

    def _show(self, text: str) -> None:
        if self._terminal:
            print(f"\r\x1b[K{self._title}: {text}", end="", flush=True)
        elif text:
            print(f"{self._title}: {text}", flush=True)


class Recorder:
    """Stands in for an emitter and keeps the payloads that the Tracker makes."""

    def __init__(self) -> None:
        self.payloads: list[dict[str, Any]] = []

    def input(self, payload: dict[str, Any]) -> None:
        self.payloads.append(payload)


class CountingReference(snowplow_tracker.Emitter):
    """The reference's Emitter as it is; it keeps no count of its requests, so they are counted here."""

    requests = 0

    def http_post(self, data: str) -> int:
        self.requests += 1
        return int(super().http_post(data))


def run(
    title: str,
    collector: CollectorProcess,
    emitter: Any,
    feed: Callable[[Any], str],
    items: Iterable[Any],
    count: int,
    limit: float,
) -> Run:
    """Feed `items` until all `count` are in or `limit` seconds are over, flush, and check what arrived."""
    progress = Progress(title)
    ids: list[str] = []
    cpu, start = time.process_time(), time.perf_counter()
    for item in items:
        ids.append(feed(item))
        if len(ids) % _EVERY == 0:
            elapsed = time.perf_counter() - start
            progress.update(len(ids), max(len(ids) / count, elapsed / limit))
            if elapsed > limit:
                break
    emitter.flush()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    requests = emitter.requests if isinstance(emitter, CountingReference) else emitter.stats().requests
    result = Run(len(ids), seconds, cpu, requests)
    progress.note(f"{len(ids):,} events sent in {seconds:.1f} s, checking what arrived")
    result.delivered = collector.check(title, ids)
    progress.end(f"{len(ids):,} events sent in {seconds:.1f} s; every one arrived, once")
    return result


def tracked(title: str, collector: CollectorProcess, tracker_class: Any, emitter: Any, count: int, limit: float) -> Run:
    """Events made and tracked by a Tracker, as a program does."""
    tracker = tracker_class(namespace="demo", emitters=emitter, app_id="shop")

    def track(event: Event) -> str:
        event_id = tracker.track(event)
        assert event_id is not None
        return event_id

    return run(title, collector, emitter, track, events(count), count, limit)


def ready_made(title: str, collector: CollectorProcess, emitter: Any, payloads: list[Any], limit: float) -> Run:
    """Payloads that a Tracker made before, so that the emitter's cost is all there is."""

    def give(payload: dict[str, Any]) -> str:
        emitter.input(payload)
        return str(payload["eid"])

    return run(title, collector, emitter, give, payloads, len(payloads), limit)


def tracker_cost(tracker_class: Any, count: int) -> tuple[float, list[dict[str, Any]]]:
    """CPU microseconds that an event and its payload take with an emitter that only keeps it; and the payloads."""
    recorder = Recorder()
    tracker = tracker_class(namespace="demo", emitters=recorder, app_id="shop")
    started = time.process_time()
    for event in events(count):
        tracker.track(event)
    return (time.process_time() - started) / count * 1e6, recorder.payloads


def table(fast: Run, fast_emitter: Run, reference: Run, fast_alone: Run, reference_alone: Run) -> str:
    """What was measured, fastemit beside snowplow_tracker."""
    rows = [("", "fastemit", "snowplow_tracker", "")]

    def count(name: str, value: Callable[[Run], int], runs: tuple[Run, Run]) -> None:
        rows.append((name, f"{value(runs[0]):,}", f"{value(runs[1]):,}", ""))

    def block(first: str, runs: tuple[Run, Run]) -> None:
        ours, theirs = runs
        times = f"{ours.rate / theirs.rate:,.1f} times as many"
        part = f"1/{theirs.cpu_microseconds / ours.cpu_microseconds:,.1f}"
        count(first, lambda r: r.events, runs)
        rows.append(("  events a second", f"{ours.rate:,.0f}", f"{theirs.rate:,.0f}", times))
        cpu = [f"{r.cpu_microseconds:,.1f}" for r in runs]
        rows.append(("  CPU microseconds an event", cpu[0], cpu[1], part))
        count("  HTTP requests", lambda r: r.requests, runs)
        count("  events delivered", lambda r: r.delivered, runs)
        count("  events lost", lambda r: r.events - r.delivered, runs)

    rows.append(("Tracker and emitter", "", "", ""))
    block("  events tracked", (fast, reference))
    rows.append(("snowplow_tracker's Tracker, each emitter", "", "", ""))
    block("  events tracked", (fast_emitter, reference))
    rows.append(("Emitter alone, events made before", "", "", ""))
    block("  events given in", (fast_alone, reference_alone))
    return "\n".join(f"{a:<42}{b:>10}{c:>18}  {d}".rstrip() for a, b, c, d in rows)


def demo(count: int, limit: float) -> None:
    with CollectorProcess() as collector:
        print(
            f"A collector runs at {collector.url}, in a process of its own. All emitters have their default settings."
        )
        with fastemit.Emitter(collector.url) as emitter:
            fast = tracked("1/5 fastemit.Tracker, fastemit.Emitter", collector, fastemit.Tracker, emitter, count, 60)
        with fastemit.Emitter(collector.url) as emitter:
            title = "2/5 snowplow_tracker.Tracker, fastemit.Emitter"
            fast_emitter = tracked(title, collector, snowplow_tracker.Tracker, emitter, count, 60)
        title = "3/5 snowplow_tracker.Tracker, snowplow_tracker.Emitter"
        slow = CountingReference(collector.url)
        reference = tracked(title, collector, snowplow_tracker.Tracker, slow, count, limit)
        our_cost, payloads = tracker_cost(fastemit.Tracker, count)
        their_cost, _ = tracker_cost(snowplow_tracker.Tracker, count)
        with fastemit.Emitter(collector.url) as emitter:
            fast_alone = ready_made("4/5 fastemit.Emitter alone", collector, emitter, payloads, 60)
        title = "5/5 snowplow_tracker.Emitter alone"
        reference_alone = ready_made(title, collector, CountingReference(collector.url), payloads, limit)
    print()
    print(table(fast, fast_emitter, reference, fast_alone, reference_alone))
    print()
    print("CPU microseconds of making an event and its payload, the event being the same in both:")
    print(f"{our_cost:.1f} with fastemit.Tracker, {their_cost:.1f} with snowplow_tracker.Tracker.")
    print("The ids of the events that the collector received are those that were tracked, each once, none malformed.")
    if sys.platform != "win32":
        print()
        survive(max(count // 10, 1))


def interrupt(number: int, frame: Any) -> None:
    """End as with Ctrl-C; a second one does not interrupt the ending, which takes a few seconds at most."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=50_000, help="how many to send through fastemit (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each run of the reference (%(default)s)")
    args = parser.parse_args()
    if args.events < 1 or args.seconds <= 0:
        parser.error("--events and --seconds must be more than 0")
    # The reference logs two INFO lines a request on the root logger's handler, which would bury this output. Without
    # them it is a little faster than its users find it.
    logging.getLogger("snowplow_tracker.emitters").setLevel(logging.WARNING)
    # Both emitters honour HTTP_PROXY; the collector is on this machine.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), interrupt)
    try:
        demo(args.events, args.seconds)
    except KeyboardInterrupt:
        print("\nInterrupted; the collector has been stopped.")
        return 130
    except DemoError as error:
        print(f"\nThe demo failed. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
