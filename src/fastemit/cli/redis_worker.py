"""`fastemit redis-worker`: sends the events of a Redis list, in the foreground."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastemit._time import monotonic
from fastemit.cli._arguments import (
    CREDENTIALS,
    REDIS_URL,
    add_request_options,
    collector_address,
    command,
    with_credentials,
)
from fastemit.cli.collector import _stop_signals, _stopped
from fastemit.stats import described, logger

if TYPE_CHECKING:
    from fastemit import AsyncEmitter
    from fastemit.redis import RedisWorker

_DESCRIPTION = """\
Take the events that a RedisEmitter (fastemit's or snowplow-tracker's) has put into a Redis list, and send them
to a collector. An event leaves Redis when the collector has taken or refused it. Any number of workers share a
list, on any number of machines. When a worker is killed, the others send the events that it had.

SIGINT (Ctrl-C) or SIGTERM stops the worker: it sends what it has in hand, for at most --shutdown-timeout
seconds, puts the rest back, and prints a summary."""

_EPILOG = f"""\
Everybody on a machine can see a command line, so passwords belong into the environment:
  {REDIS_URL}              the address of Redis, where --redis-url is not given
  {CREDENTIALS}  user:password for the collector, where its address has none

addresses of Redis (user and password are percent-encoded: / is %2F, # is %23):
  redis://user:password@host:6379/0                        one server; rediss:// for TLS
  unix://user:password@/path/to/socket?db=0                a socket of this machine
  redis+cluster://user:password@host:6379,host:6379        a Cluster; rediss+cluster:// for TLS
  redis+sentinel://user:password@host:26379,host/primary/0 what the Sentinels say is the primary of this name;
                                                           their own password: ?sentinel_password=...

exit status:
  0    stopped by a signal; everything that was not sent is in Redis
  1    the worker could not work: Redis does not answer, refuses the user, or is a node of a Cluster
  2    a usage error
  3    stopped by a signal while Redis failed; what the worker had is sent by another one after --takeover-after"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = command(
        subparsers, "redis-worker", "send the events of a Redis list to a collector", _DESCRIPTION, _EPILOG
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
        # This is no default of argparse, because that would print it.
        help=f"its address, see below (default: {REDIS_URL} of the environment, or redis://localhost:6379/0)",
    )
    parser.add_argument("--key", default="snowplow", help="the list's key (default: %(default)s)")
    parser.add_argument(
        "--connect-timeout",
        metavar="SECONDS",
        type=_seconds,
        default=10.0,
        help="seconds in which Redis has to answer at the start (default: %(default)g)",
    )
    parser.add_argument(
        "--wait", action="store_true", help="wait at the start, however long it takes, until Redis answers"
    )
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
        help="the most seconds between a signal and the end (default: %(default)g)",
    )
    add_request_options(parser)
    parser.add_argument("--json", action="store_true", help="print nothing but the result, as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no counts while events are sent")
    return parser


def run(args: argparse.Namespace) -> int:
    """Work until a signal comes."""
    from fastemit.cli._progress import log_lines, progress_on
    from fastemit.cli._redis import UnusableRedisError, connected, redis_url

    started = monotonic()
    try:
        emitter = _emitter(args)
    except (ImportError, TypeError, ValueError) as error:
        return _fail(str(error), 1 if isinstance(error, ImportError) else 2)
    with log_lines(progress_on(sys.stderr, None, wanted=False)), _stop_signals() as stop:
        try:
            client = connected(
                redis_url(args.redis_url),
                args.key,
                args.connect_timeout,
                args.wait,
                lambda seconds: _stopped(stop, seconds),
                lambda line: logger.warning("%s", line),
            )
            worker = None if client is None else _worker(args, emitter, client)
        except (UnusableRedisError, TypeError, ValueError) as error:
            return _fail(str(error), 1 if isinstance(error, UnusableRedisError) else 2)
        if worker is None:
            # It was stopped before Redis answered, so it has taken nothing.
            return 3
        status = _work(worker, args, lambda seconds: _stopped(stop, seconds))
    if args.json:
        print(json.dumps(_result(worker, status, monotonic() - started)), flush=True)
    return status


def _work(worker: RedisWorker, args: argparse.Namespace, stopped: Callable[[float], bool]) -> int:
    from fastemit.cli._redis import MOVED, is_moved

    ended_well: list[bool] = []

    def work() -> None:
        worker.run()
        ended_well.append(True)

    thread = threading.Thread(target=work, name="fastemit-redis-worker")
    thread.start()
    _say(args, f"redis-worker moves {args.key!r} to {worker.emitter.endpoint}")
    shown = _counts(worker)
    moved = False
    while not stopped(1.0) and thread.is_alive() and not moved:
        moved = is_moved(worker._trouble, worker.rdb)
        counts = _counts(worker)
        if counts != shown and not args.quiet:
            shown = counts
            _say(args, counts)
    worker.request_shutdown()
    thread.join()
    _say(args, f"redis-worker stopped: {_counts(worker)}")
    if moved:
        return _fail(MOVED, 1)
    if not ended_well:
        return 1
    return 0 if worker._trouble is None else 3


def _say(args: argparse.Namespace, line: str) -> None:
    if not args.json:
        print(line, flush=True)


def _fail(message: str, status: int) -> int:
    print(f"fastemit: error: {message}", file=sys.stderr)
    return status


def _emitter(args: argparse.Namespace) -> AsyncEmitter:
    # If a package is missing, the error of the second import says what to install.
    from fastemit import AsyncEmitter, RedisWorker  # noqa: F401
    from fastemit.redis.scripts import key_name

    key_name(args.key)
    try:
        return AsyncEmitter(
            with_credentials(args.collector),
            method=args.method,
            thread_count=args.threads,
            request_timeout=args.timeout,
            buffer_capacity=args.buffer_capacity,
            shutdown_timeout=args.shutdown_timeout,
            headers=dict(args.header),
            ca_certs=args.ca_certs,
        )
    except OSError as error:
        raise ValueError(f"{args.ca_certs or 'the certificate authorities'}: {error.strerror or error}") from error


def _worker(args: argparse.Namespace, emitter: AsyncEmitter, client: Any) -> RedisWorker:
    from fastemit import RedisWorker

    return RedisWorker(emitter, client, args.key, takeover_after=args.takeover_after)


def _result(worker: RedisWorker, status: int, seconds: float) -> dict[str, Any]:
    """What `--json` prints."""
    stats = worker.stats()
    return {
        "status": status,
        "sent": stats.sent_events,
        "rejected": stats.dropped_events["rejected"] + stats.dropped_events["oversize"],
        "dead": worker.dead_events,
        "recovered": worker.recovered_events,
        "left": stats.queued_events + stats.in_flight_events,
        "requests": stats.requests,
        "failed_requests": stats.failed_requests,
        "last_error": stats.last_error,
        "redis_error": None if worker._trouble is None else described(worker._trouble),
        "seconds": round(seconds, 3),
    }


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
