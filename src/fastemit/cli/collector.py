"""`fastemit collector`: the development collector in the foreground."""

from __future__ import annotations

import argparse
import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastemit._signals import handling
from fastemit._words import counted
from fastemit.cli._arguments import command

if TYPE_CHECKING:
    from fastemit.testing import Totals

#: As `Collector` has it, whose module is imported when it is needed.
_MAX_BYTES = 128 * 1024 * 1024
_DESCRIPTION = """\
Run a Snowplow collector for development. It takes POST to .../com.snowplowanalytics.snowplow/tp2 and GET of
.../i, answers 200, and judges each event against the payload_data 1-0-4 rules. What came is served like
Snowplow Micro does:

  /micro/all    how many events came, were good and bad
  /micro/good   the good events (POST a JSON with event_type, schema, contexts, limit to filter)
  /micro/bad    the bad ones, with the reasons (POST vendor, version, limit to filter)
  /micro/reset  forget them
  /health       "ok"

What is received is kept in memory, up to --max-bytes; then the oldest events are forgotten, which is counted and
said. Requests whose Host is not a name of this machine's loopback are refused, since a page in a browser may have its
own name lead there. SIGINT (Ctrl-C) or SIGTERM stops the collector, which prints a summary."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = command(subparsers, "collector", "run a collector for development", _DESCRIPTION)
    parser.add_argument(
        "--host", type=_host, default="127.0.0.1", help="name or address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=_port, default=9090, help="port to listen on, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        type=_name,
        metavar="NAME",
        help="a name by which clients call this collector, such as that of its container; may be repeated",
    )
    parser.add_argument(
        "--max-bytes",
        type=_count,
        default=_MAX_BYTES,
        metavar="N",
        help="bytes of requests that are kept, 1 kB for each besides its body (default: %(default)s, 128 MiB)",
    )
    parser.add_argument("--quiet", action="store_true", help="print no counts while events arrive")
    return parser


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes. Raises `OSError` when the address cannot be used."""
    from fastemit.testing import Collector

    collector = Collector(args.host, args.port, max_bytes=args.max_bytes, allowed_hosts=args.allow_host)
    with _stop_signals() as stop, collector:
        print(f"collector listening on {collector.url}", flush=True)
        shown = "0 events: 0 good, 0 bad"
        while not _stopped(stop, 1.0):
            told = shown if args.quiet else _describe(collector.totals)
            if told != shown:
                shown = told
                print(told, flush=True)
    totals = collector.totals
    print(f"collector stopped after {counted(totals.requests, 'request')}, {_describe(totals)}", flush=True)
    return 0


def _describe(totals: Totals) -> str:
    _, good, bad, forgotten = totals
    gone = f" (the oldest {counted(forgotten, 'is', 'are')} forgotten)" if forgotten else ""
    return f"{counted(good + bad, 'event')}: {good} good, {bad} bad{gone}"


def _stopped(stop: queue.SimpleQueue[None], timeout: float) -> bool:
    # Without a timeout the wait could not be interrupted by Ctrl-C on Windows.
    try:
        stop.get(timeout=timeout)
    except queue.Empty:
        return False
    return True


@contextmanager
def _stop_signals() -> Iterator[queue.SimpleQueue[None]]:
    """A queue that SIGINT and SIGTERM put something in; the earlier handlers come back afterwards.

    Not an Event: a handler that runs while the same thread is inside `Event.wait` can find its lock taken,
    and hang.
    """
    stop: queue.SimpleQueue[None] = queue.SimpleQueue()
    with handling(lambda *_: stop.put(None), signal.SIGINT, signal.SIGTERM):
        yield stop


def _host(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("a name or an address is expected")
    return text


def _name(text: str) -> str:
    if not text or any(character in text for character in ":/ "):
        raise argparse.ArgumentTypeError(f"{text!r}: a name without a port is expected")
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r}: a port from 0 to 65535 is expected")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number, 1 or more, is expected")
    return int(text)
