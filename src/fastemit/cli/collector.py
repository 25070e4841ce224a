"""`fastemit collector`: the development collector in the foreground."""

from __future__ import annotations

import argparse
import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastemit._signals import handling

if TYPE_CHECKING:
    from fastemit.testing import Collector

_DESCRIPTION = """\
Run a Snowplow collector for development. It takes POST to .../com.snowplowanalytics.snowplow/tp2 and GET of
.../i, answers 200, and judges each event against the payload_data 1-0-4 rules. What came is served like
Snowplow Micro does:

  /micro/all    how many events came, were good and bad
  /micro/good   the good events (POST a JSON with event_type, schema, contexts, limit to filter)
  /micro/bad    the bad ones, with the reasons (POST vendor, version, limit to filter)
  /micro/reset  forget them
  /health       "ok"

Everything received is kept in memory. SIGINT (Ctrl-C) or SIGTERM stops the collector, which prints a
summary."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "collector",
        help="run a collector for development",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host", type=_host, default="127.0.0.1", help="name or address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=_port, default=9090, help="port to listen on, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="print no counts while events arrive")
    return parser


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes. Raises `OSError` when the address cannot be used."""
    from fastemit.testing import Collector

    with _stop_signals() as stop, Collector(args.host, args.port) as collector:
        print(f"collector listening on {collector.url}", flush=True)
        shown = (0, 0)
        while not _stopped(stop, 1.0):
            counts = _counts(collector)[1:] if not args.quiet else shown
            if counts != shown:
                shown = counts
                print(_describe(*counts), flush=True)
    requests, good, bad = _counts(collector)
    print(f"collector stopped after {requests} requests, {_describe(good, bad)}", flush=True)
    return 0


def _counts(collector: Collector) -> tuple[int, int, int]:
    return len(collector.requests), len(collector.good), len(collector.bad)


def _describe(good: int, bad: int) -> str:
    return f"{good + bad} events: {good} good, {bad} bad"


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


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r}: a port from 0 to 65535 is expected")
    return int(text)
