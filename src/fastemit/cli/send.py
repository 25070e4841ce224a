"""`fastemit send`: newline-delimited JSON payloads from files or standard input to a collector."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from fastemit._time import monotonic
from fastemit._words import counted
from fastemit.cli._arguments import (
    CREDENTIALS,
    add_request_options,
    collector_address,
    command,
    positive,
    with_credentials,
)

if TYPE_CHECKING:
    from fastemit.cli._sending import Sending

_DESCRIPTION = """\
Send events to a collector: one JSON object a line, the payload of one event, as a tracker gives it to an emitter:

  {"e":"pv","url":"https://example.com","page":"Home","p":"web","tv":"py-1.1.0","eid":"..."}

Values are strings. A number is sent as its text, true and false as "true" and "false"; a name whose value is
null is left out. An object or array as a value makes a bad line, as does everything else that is not such an
object; blank lines are skipped. The sent timestamp, stm, is set anew.

Files may be compressed with gzip, whatever their name, and so may standard input. On a terminal the progress
is shown. What the collector refuses (400, 401, 403, 410, 422; a single event with 413 or 414) is not sent again;
after any other failure it is retried, and nothing is lost meanwhile: reading waits."""

_EPILOG = """\
SIGINT (Ctrl-C) and SIGTERM end the reading, send what has been read, and report; a second one does not wait.

exit status:
  0    every event of every line was delivered
  1    something was not: a bad line, an event that was refused or not delivered, an input that cannot be read
  2    a usage error
  130  ended by SIGINT; 143 by SIGTERM

examples:
  fastemit send https://collector.example.com events.ndjson.gz
  zcat events-*.gz | fastemit send http://localhost:9090 --rate 1000 --failed failed.ndjson
  fastemit send https://collector.example.com failed.ndjson"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = command(subparsers, "send", "send events from files or standard input", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "collector",
        metavar="COLLECTOR",
        type=collector_address,
        help="its address; https without a scheme. May hold a port, a path prefix and user:password@, which everybody "
        f"on this machine can see: {CREDENTIALS} in the environment, as user:password, keeps them out of it",
    )
    # Without a default argparse would name FILE among the arguments that are required.
    parser.add_argument(
        "files", metavar="FILE", nargs="*", default=[], help="what to send; - for standard input (the default)"
    )
    parser.add_argument(
        "--method",
        choices=("post", "get"),
        default="post",
        help="get makes one request an event (default: %(default)s)",
    )
    parser.add_argument("--rate", type=positive, metavar="N", help="most events a second (default: no limit)")
    parser.add_argument("--dry-run", action="store_true", help="read and check everything, and send nothing")
    parser.add_argument(
        "--failed",
        metavar="FILE",
        help="append the events that were refused or not delivered to FILE, which `send` can read",
    )
    parser.add_argument(
        "--on-bad-line",
        choices=("continue", "stop"),
        default="continue",
        help="what to do after a line that holds no event, which is reported (default: %(default)s)",
    )
    add_request_options(parser)
    parser.add_argument(
        "--give-up-after",
        type=positive,
        default=60.0,
        metavar="SECONDS",
        help="end after this time without a delivered event (default: %(default)g)",
    )
    parser.add_argument(
        "--drain-timeout",
        type=positive,
        default=10.0,
        metavar="SECONDS",
        help="after a signal, for sending what has been read (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="show no progress and print no result; errors remain")
    return parser


def run(args: argparse.Namespace) -> int:
    """Send, report, and return the exit status."""
    from fastemit.cli._input import Input, InputError
    from fastemit.cli._progress import progress_on
    from fastemit.cli._sending import Sending
    from fastemit.cli._undelivered import FailedFile

    if not args.files and sys.stdin is not None and sys.stdin.isatty():
        return _fail("FILE is missing, and standard input is a terminal; name it - to type events there", 2)
    try:
        emitter = _emitter(args)
        inputs = [Input(name) for name in args.files or ["-"]]
    except (ValueError, InputError) as error:
        return _fail(str(error), 2 if isinstance(error, ValueError) else 1)
    failed = FailedFile(None)
    if args.failed is not None and not args.dry_run:
        try:
            status = os.stat(args.failed) if os.path.exists(args.failed) else None
            if status is not None and (status.st_dev, status.st_ino) in [source.identity for source in inputs]:
                return _fail(f"argument --failed: {args.failed} is one of the files to send", 2)
            failed = FailedFile(args.failed)
        except OSError as error:
            return _fail(f"{args.failed}: {error.strerror}", 1)
    sizes = [source.size for source in inputs]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    sending = Sending(
        inputs,
        emitter,
        progress_on(sys.stderr, total, not args.quiet),
        failed,
        rate=args.rate,
        stop_on_bad_line=args.on_bad_line == "stop",
        drain_timeout=args.drain_timeout,
        patience=args.give_up_after,
    )
    started = monotonic()
    sending.run()
    result = _result(sending, monotonic() - started)
    if args.json:
        print(json.dumps(result))
    elif not args.quiet:
        print(_told(result))
    if sending.signal:
        return 128 + sending.signal
    return 0 if result["complete"] else 1


def _emitter(args: argparse.Namespace) -> Any:
    """An emitter for this run, or None. Raises `ValueError` for what is wrong with its arguments."""
    import fastemit
    from fastemit._transport import parse_endpoint

    if args.dry_run:
        parse_endpoint(with_credentials(args.collector))
        return None
    try:
        return fastemit.Emitter(
            with_credentials(args.collector),
            method=args.method,
            request_timeout=args.timeout,
            # This is room for a few full requests, so that neither side has to wait for the other.
            buffer_capacity=50_000,
            overflow="block",
            # Lines that come slowly from a pipe do not wait for a full batch.
            flush_interval=1.0,
            shutdown_timeout=0.0,
            headers=dict(args.header),
            ca_certs=args.ca_certs,
        )
    except OSError as error:
        raise ValueError(f"{args.ca_certs or 'the certificate authorities'}: {error.strerror or error}") from error


def _fail(message: str, status: int) -> int:
    print(f"fastemit: error: {message}", file=sys.stderr)
    return status


def _result(sending: Sending, seconds: float) -> dict[str, Any]:
    """What `--json` prints."""
    delivered = refused = requests = failed_requests = 0
    last_error = None
    if sending.emitter is not None:
        stats = sending.emitter.stats()
        delivered, requests, failed_requests = stats.sent_events, stats.requests, stats.failed_requests
        refused = stats.dropped_events["rejected"] + stats.dropped_events["oversize"]
        last_error = stats.last_error
    undelivered = 0 if sending.emitter is None else sending.events - delivered - refused
    whole = not (sending.bad_count or sending.errors or sending.stopped or refused or undelivered)
    return {
        "complete": whole,
        "dry_run": sending.emitter is None,
        "events": sending.events,
        "delivered": delivered,
        "refused": refused,
        "undelivered": undelivered,
        "bad_lines": sending.bad_count,
        "first_bad_lines": sending.bad_lines,
        "errors": sending.errors,
        "stopped": sending.stopped,
        "stopped_at": sending.where,
        "requests": requests,
        "failed_requests": failed_requests,
        "last_error": last_error,
        "seconds": round(seconds, 3),
        "events_per_second": round((sending.events if sending.emitter is None else delivered) / max(seconds, 1e-9)),
    }


def _told(result: dict[str, Any]) -> str:
    """The result as a line for people."""
    parts = [f"{_counted(result['events'], 'event')} read"]
    if result["dry_run"]:
        parts.append("nothing sent (dry run)")
    else:
        parts.append(f"{result['delivered']:,} delivered in {_counted(result['requests'], 'request')}")
    for name, words in (("refused", "refused"), ("undelivered", "not delivered")):
        if result[name]:
            parts.append(f"{result[name]:,} {words}")
    if result["bad_lines"]:
        parts.append(_counted(result["bad_lines"], "bad line"))
    parts.append(f"{result['seconds']:.1f} s ({result['events_per_second']:,} events/s)")
    if result["stopped"]:
        parts.append(
            f"stopped ({result['stopped']})" + (f" after {result['stopped_at']}" if result["stopped_at"] else "")
        )
    return ", ".join(parts)


def _counted(number: int, what: str) -> str:
    return counted(number, what, style=",")
