"""`fastemit redis-worker`: sends the events of a Redis list, in the foreground."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

from fastemit.cli._arguments import collector_address
from fastemit.cli.collector import _stop_signals, _stopped
from fastemit.stats import logger

if TYPE_CHECKING:
    from fastemit.redis import RedisWorker

_DESCRIPTION = """\
Take the events that a RedisEmitter (fastemit's or snowplow-tracker's) has put into a Redis list, and send them
to a collector. An event leaves Redis when the collector has taken or refused it. Any number of workers share a
list, on any number of machines; what one had that was killed is sent by the others.

SIGINT (Ctrl-C) or SIGTERM stops the worker: it sends what it has in hand, for at most --shutdown-timeout
seconds, puts the rest back, and prints a summary."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "redis-worker",
        help="send the events of a Redis list to a collector",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--collector",
        required=True,
        type=collector_address,
        help="the collector: a host, or an address with its scheme",
    )
    parser.add_argument(
        "--redis-url",
        metavar="URL",
        default="redis://localhost:6379/0",
        help="redis://, rediss:// (TLS) or unix:// address, with user and password if need be (default: %(default)s)",
    )
    parser.add_argument("--key", default="snowplow", help="the list's key (default: %(default)s)")
    parser.add_argument("--method", choices=("post", "get"), default="post", help="default: %(default)s")
    parser.add_argument(
        "--threads", metavar="N", type=_positive, default=1, help="requests at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--buffer-capacity",
        metavar="N",
        type=_positive,
        default=10_000,
        help="most events that the worker holds at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--takeover-after",
        metavar="SECONDS",
        type=_seconds,
        default=30.0,
        help="seconds without a sign of life after which a worker is taken for dead (default: %(default)g)",
    )
    parser.add_argument(
        "--shutdown-timeout",
        metavar="SECONDS",
        type=_seconds,
        default=5.0,
        help="seconds that the end may take (default: %(default)g)",
    )
    parser.add_argument("--quiet", action="store_true", help="print no counts while events are sent")
    return parser


def run(args: argparse.Namespace) -> int:
    """Work until a signal comes."""
    try:
        worker = _worker(args)
    except (ImportError, TypeError, ValueError) as error:
        print(f"fastemit: error: {error}", file=sys.stderr)
        return 1 if isinstance(error, ImportError) else 2
    # Requests that fail, errors of Redis, workers taken for dead: nobody else would show them.
    shown_on_stderr = logging.StreamHandler()
    shown_on_stderr.setFormatter(logging.Formatter("fastemit: %(levelname)s: %(message)s"))
    logger.addHandler(shown_on_stderr)
    try:
        return _work(worker, args)
    finally:
        logger.removeHandler(shown_on_stderr)


def _work(worker: RedisWorker, args: argparse.Namespace) -> int:
    with _stop_signals() as stop:
        thread = threading.Thread(target=worker.run, name="fastemit-redis-worker")
        thread.start()
        print(f"redis-worker moves {args.key!r} to {worker.emitter.endpoint}", flush=True)
        shown = _counts(worker)
        while not _stopped(stop, 1.0) and thread.is_alive():
            counts = _counts(worker)
            if counts != shown and not args.quiet:
                shown = counts
                print(counts, flush=True)
        worker.request_shutdown()
        thread.join()
    print(f"redis-worker stopped: {_counts(worker)}", flush=True)
    return 0


def _worker(args: argparse.Namespace) -> RedisWorker:
    # The error of the first says what to install.
    from fastemit import AsyncEmitter, RedisWorker
    from fastemit.redis.scripts import client_of

    emitter = AsyncEmitter(
        args.collector,
        method=args.method,
        thread_count=args.threads,
        buffer_capacity=args.buffer_capacity,
        shutdown_timeout=args.shutdown_timeout,
    )
    return RedisWorker(emitter, client_of(args.redis_url), args.key, takeover_after=args.takeover_after)


def _counts(worker: RedisWorker) -> str:
    stats = worker.stats()
    held = stats.queued_events + stats.in_flight_events
    text = (
        f"{stats.sent_events} sent, {stats.dropped_events['rejected']} rejected, {worker.dead_events} dead, "
        f"{worker.recovered_events} recovered, {held} in hand"
    )
    return text if stats.retry_delay == 0 else f"{text}; retrying: {stats.last_error}"


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of at least 1 is expected")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 86400:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of seconds is expected")
    return value
