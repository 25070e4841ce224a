"""The matrix of faults: {each fault} x {each point of an exchange} x {one, several sender threads}.

`python -m tests.stress.fault_matrix [SCALE]` runs it and prints the table of docs/guarantees.md. SCALE multiplies
the number of faults in each cell.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fastemit import AsyncEmitter
from fastemit.testing import Collector
from tests.support.faulty_network import KINDS, PHASES, Fault, FaultyNetwork

EVENTS = 120
SEVERAL = 4
#: Seconds that a request waits where that is what ends the fault, and where it is not.
SHORT, LONG = 0.3, 10.0
MAX_SECONDS = 30.0


@dataclass(frozen=True)
class Cell:
    fault: Fault
    threads: int

    def faults(self, scale: int = 1) -> int:
        """How many strike."""
        if self.fault.stalls:
            return scale * self.threads
        return scale * (self.threads + (1 if self.threads == 1 else 2))

    def __str__(self) -> str:
        return f"{self.fault}, {self.threads} threads"


@dataclass(frozen=True)
class Figures:
    """What one cell came to.

    Attributes:
        faults: how many struck.
        events: accepted by `input`.
        lost: of these, not once arrived.
        doubled: arrivals more than one for each event.
        explained: arrivals more than one that have to be: the collector had the request, and its answer was lost.
        misplaced: events for which arrivals are not exactly one and what is explained.
        in_order: whether the first arrivals were in the order of `input`.
        accounted: whether `stats` says at the end that every event was sent, and none dropped.
    """

    faults: int
    events: int
    lost: int
    doubled: int
    explained: int
    misplaced: int
    in_order: bool
    accounted: bool


def cells() -> list[Cell]:
    faults = [
        Fault(kind, phase, {"delay": 0.05, "throttle": 2 * SHORT}.get(kind, 0.0)) for kind in KINDS for phase in PHASES
    ]
    return [Cell(fault, threads) for fault in faults for threads in (1, SEVERAL)]


def run(cell: Cell, scale: int = 1) -> Figures:
    """Send events through the fault until it is over, and then some; count what arrived."""
    faults = cell.faults(scale)
    with Collector() as collector, FaultyNetwork(collector.port) as network:
        emitter = AsyncEmitter(
            network.url,
            thread_count=cell.threads,
            batch_size=5,
            max_request_bytes=4096,
            max_retry_delay_seconds=0.02,
            request_timeout=SHORT if cell.fault.stalls else LONG,
            overflow="block",
        )
        number = _put(emitter, range(10))
        emitter.drain(MAX_SECONDS)
        if cell.fault.phase == "connect":
            network.drop_connections()
        network.arm(cell.fault, faults)
        deadline = time.monotonic() + MAX_SECONDS
        # A request more for each fault that is left: several may have struck at once, or a throttled one waits.
        while True:
            number += _produce(emitter, number, cell.threads)
            while not emitter.drain(1.0) and time.monotonic() < deadline:
                pass
            if network.hits == faults or time.monotonic() >= deadline:
                break
            if cell.fault.phase == "connect":
                network.drop_connections()
        stats = emitter.stats()
        network.client_is_done()
        left = emitter.close(1.0)
        network.settle()
        arrivals = Counter(int(event["n"]) for event in collector.events)
        first_arrivals = list(dict.fromkeys(int(event["n"]) for event in collector.events))
        explained = Counter(n for passage in network.passages if passage.answer_lost for n in passage.numbers)
        return Figures(
            faults=network.hits,
            events=number,
            lost=sum(not arrivals[n] for n in range(number)),
            doubled=sum(arrivals.values()) - len(arrivals),
            explained=explained.total(),
            misplaced=sum(arrivals[n] != 1 + explained[n] for n in range(number)),
            in_order=first_arrivals == sorted(first_arrivals),
            accounted=(left, stats.sent_events, sum(stats.dropped_events.values())) == (0, number, 0),
        )


def _put(emitter: AsyncEmitter, numbers: Iterable[int]) -> int:
    count = 0
    for number in numbers:
        emitter.input({"n": f"{number:06}", "text": "x" * 300})
        count += 1
    return count


def _produce(emitter: AsyncEmitter, first: int, threads: int) -> int:
    """Events from so many threads at once; how many."""
    share = EVENTS // threads
    producers = [
        threading.Thread(target=_put, args=(emitter, range(first + at * share, first + (at + 1) * share)), daemon=True)
        for at in range(threads)
    ]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join(MAX_SECONDS)
    return share * threads


def table(results: list[tuple[Cell, Figures]]) -> str:
    """The figures in Markdown: a line for each fault and phase, one and several threads beside each other."""
    lines = [
        f"| fault | struck while | faults (1 / {SEVERAL} threads) | events | lost | doubled | arrived, answer lost |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    by_fault: dict[Fault, list[Figures]] = {}
    for cell, figures in results:
        by_fault.setdefault(cell.fault, []).append(figures)
    while_ = {
        "connect": "connecting",
        "headers": "sending headers",
        "body": "sending body",
        "waiting": "waiting",
        "status": "reading the status",
        "answer": "reading the rest",
    }
    for fault, row in by_fault.items():
        columns = [
            " / ".join(str(getattr(figures, name)) for figures in row)
            for name in ("faults", "events", "lost", "doubled", "explained")
        ]
        lines.append(f"| {fault.kind} | {while_[fault.phase]} | {' | '.join(columns)} |")
    everything = [figures for _, figures in results]
    sums = [sum(getattr(f, name) for f in everything) for name in ("faults", "events", "lost", "doubled", "explained")]
    lines.append(f"| **all** | {len(results)} cells | {' | '.join(f'**{total:,}**' for total in sums)} |")
    return "\n".join(lines)


def main() -> int:
    scale = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    results = [(cell, run(cell, scale)) for cell in cells()]
    print(table(results))
    wrong = [cell for cell, figures in results if figures.misplaced or figures.lost or not figures.accounted]
    for cell in wrong:
        print(f"not as promised: {cell}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
