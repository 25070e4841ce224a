"""`fastemit spool`: what processes have left in a spool, and what to do with it."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from fastemit._time import monotonic, sleep
from fastemit._words import counted
from fastemit.cli._arguments import CREDENTIALS, collector_address, command, positive, with_credentials

if TYPE_CHECKING:
    from fastemit._spool import Facts
    from fastemit.cli._progress import Progress

_DESCRIPTION = """\
Show the directories of a spool. Each belongs to one process. For each: whether the process is alive, the collector
of its events, how many events are not sent yet, the size of its files in bytes, and the time of the oldest event.

A living process sends its own events. The events of a dead process are sent by the next emitter that has the same
spool, collector and method. --send sends them now, to any collector, and --export writes them to a file."""

_EPILOG = """\
exit status:
  0    done
  1    something was not sent or not written
  2    a usage error

examples:
  fastemit spool /var/lib/shop/events
  fastemit spool /var/lib/shop/events --send https://collector.example.com
  fastemit spool /var/lib/shop/events --export left.ndjson && fastemit send https://collector.example.com left.ndjson"""

#: Methods whose events can be sent to a collector.
_METHODS: Final = ("post", "get")
#: Seconds between two looks at how far it is.
_PAUSE: Final = 0.05


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = command(subparsers, "spool", "show, send or export what is in a spool", _DESCRIPTION, _EPILOG)
    parser.add_argument("spool", metavar="DIR", help="the directory that emitters have as their spool")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true", help="print what is there as JSON")
    what.add_argument(
        "--send",
        metavar="COLLECTOR",
        type=collector_address,
        help=f"send the events of dead processes to this collector; credentials as for `send` ({CREDENTIALS})",
    )
    what.add_argument(
        "--export",
        metavar="FILE",
        help="move the events of dead processes into a new FILE of newline-delimited JSON, which `fastemit send` reads",
    )
    parser.add_argument(
        "--give-up-after",
        type=positive,
        default=60.0,
        metavar="SECONDS",
        help="with --send: end after this time without a delivered event (default: %(default)g)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Show, send or export, and return the exit status."""
    if sys.platform == "win32":
        print("fastemit: error: spool is for Linux and macOS, and not for Windows", file=sys.stderr)
        return 1
    if not os.path.isdir(args.spool):
        print(f"fastemit: error: argument DIR: {args.spool} is no directory", file=sys.stderr)
        return 1
    root = os.path.abspath(args.spool)
    if args.send is not None:
        try:
            return _send(root, args.send, args.give_up_after)
        except ValueError as error:
            print(f"fastemit: error: {error}", file=sys.stderr)
            return 2
    if args.export is not None:
        return _export(root, args.export)
    from fastemit._spool import survey

    found = survey(root)
    print(json.dumps([_row(each) for each in found], indent=2) if args.json else _table(found))
    return 0


# -- show ------------------------------------------------------------------------------------------------------------


def _row(facts: Facts) -> dict[str, Any]:
    owner = facts.owner
    return {
        "directory": facts.name,
        "process": None if owner is None else owner.pid,
        "host": None if owner is None else owner.host,
        "alive": facts.alive,
        "endpoint": None if owner is None else owner.endpoint,
        "method": None if owner is None else owner.method,
        "events": facts.events,
        "bytes": facts.bytes,
        "files": facts.files,
        "oldest": None if facts.oldest is None else _date(facts.oldest),
        "unreadable": facts.faults,
    }


def _table(found: list[Facts]) -> str:
    if not found:
        return "nothing is in this spool"
    rows = [("PROCESS", "ALIVE", "METHOD", "EVENTS", "BYTES", "OLDEST", "ENDPOINT")]
    for facts in found:
        row = _row(facts)
        alive = "yes" if facts.alive else "no"
        cells = (row["process"], alive, row["method"], facts.events, facts.bytes, row["oldest"], row["endpoint"])
        rows.append(tuple("-" if cell is None else _shown(str(cell)) for cell in cells))  # type: ignore[arg-type]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _shown(text: str) -> str:
    """A text that others have written, changed so that it cannot control a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _date(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return "?"


# -- send ------------------------------------------------------------------------------------------------------------


def _send(root: str, collector: str, patience: float) -> int:
    """Send what dead processes left. Raises `ValueError` for an address or credentials that cannot be used."""
    from fastemit._spool import survey
    from fastemit._transport import parse_endpoint
    from fastemit.cli._progress import log_lines, progress_on

    collector = with_credentials(collector)
    # Checked even if there is nothing to send.
    parse_endpoint(collector)
    waiting = dict.fromkeys(_METHODS, 0)
    others: list[str] = []
    for each in survey(root):
        if each.alive or each.owner is None or not each.events:
            continue
        if each.owner.method in waiting:
            waiting[each.owner.method] += each.events
        else:
            which = f"{each.name}, for {_shown(each.owner.endpoint)}"
            others.append(f"not sent: {counted(each.events, 'event')} in {which}. Use --export")
    progress = progress_on(sys.stderr, sum(waiting.values()) or None)
    sent = left = 0
    try:
        with log_lines(progress):
            for method, events in waiting.items():
                if events:
                    done, kept = _send_by(root, collector, method, patience, progress, sent)
                    sent += done
                    left += kept
    finally:
        progress.close()
    for line in others:
        print(f"fastemit: warning: {line}", file=sys.stderr)
    print(f"{counted(sent, 'event')} sent, {left} left")
    return 1 if left or others else 0


def _send_by(
    root: str, collector: str, method: Any, patience: float, progress: Progress, before: int
) -> tuple[int, int]:
    """Send what dead processes left for one method. Returns how many events were sent, and how many are left.

    Args:
        before: how many events were sent for other methods.
    """
    from fastemit import Emitter

    class Sender(Emitter):
        # It also takes events that were meant for another collector.
        _any_endpoint = True

    emitter = Sender(collector, method=method, spool=root, max_retry_delay_seconds=5.0)
    emitter.async_flush()
    spool, buffer = emitter._spool, emitter._buffer
    assert spool is not None
    settled, last = 0, monotonic()
    while (spool.waiting or buffer.unsettled_events) and monotonic() - last < patience:
        stats = emitter.stats()
        now = stats.sent_events + sum(stats.dropped_events.values())
        if now != settled:
            settled, last = now, monotonic()
        progress.update(before + stats.sent_events, f"{before + stats.sent_events} sent")
        sleep(_PAUSE)
    waiting = spool.waiting
    emitter.close(0.0 if waiting or buffer.unsettled_events else None)
    stats = emitter.stats()
    refused = sum(stats.dropped_events.values())
    if refused:
        progress.say(f"fastemit: warning: the collector refused {counted(refused, 'event')}: {stats.last_error}")
    return stats.sent_events, stats.queued_events + stats.in_flight_events + refused + waiting


# -- export ----------------------------------------------------------------------------------------------------------


def _export(root: str, path: str) -> int:
    from fastemit._buffer import EventBuffer
    from fastemit._settings import DEFAULT_REQUEST_BYTES
    from fastemit._spool import Estate, Owner

    count = 0
    notes: list[str] = []
    numbers = itertools.count(1)
    with open(path, "x", encoding="utf-8") as file:
        for method in (*_METHODS, "rpush"):
            query = method == "get"
            buffer = EventBuffer(sys.maxsize, sys.maxsize, DEFAULT_REQUEST_BYTES, 1, query=query, files=True)
            owner = Owner.here("", method)
            estate = Estate(root, owner, lambda kind, text: notes.append(text) if kind else None, any_endpoint=True)
            estate.look()
            while estate.claims or estate.waiting:
                estate.feed(buffer, numbers.__next__)
                taken = []
                while (batch := buffer.take()) is not None:
                    taken.append(batch)
                    events = [json.loads(text) for text in batch.texts()] if not query else batch.decode()
                    for event in events:
                        event.pop("stm", None)
                        file.write(json.dumps(event) + "\n")
                        count += 1
                # The events have to be in the file before they leave the spool.
                file.flush()
                os.fsync(file.fileno())
                for batch in taken:
                    batch.sent()
                del taken
                finished = buffer.finished()
                for number in finished:
                    estate.finished(number)
                if not finished and not estate.waiting:
                    break
            estate.let_go()
    for text in notes:
        print(f"fastemit: warning: {text}", file=sys.stderr)
    print(f"{counted(count, 'event')} moved to {path}")
    return 0
