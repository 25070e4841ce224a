"""Types of arguments that several commands use."""

from __future__ import annotations

import argparse
import math
import os
import re
from typing import Any, Final
from urllib.parse import quote

# Everybody on a machine can see a command line, so passwords may be given in the environment.
#: User and password of the collector.
CREDENTIALS: Final = "FASTEMIT_COLLECTOR_CREDENTIALS"
#: The address of Redis.
REDIS_URL: Final = "FASTEMIT_REDIS_URL"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def positive(text: str) -> float:
    """A number greater than 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: a number greater than 0 is expected")
    return number


def collector_address(text: str) -> str:
    """The address of a collector. The name of a file is refused, because then COLLECTOR was forgotten."""
    # A folder may have the name of a host, as a mirror of a site has.
    if os.path.exists(text) and not os.path.isdir(text):
        # What begins with a slash or a dot is no host.
        hint = "" if text[0] in "/." else f"; if a host has that name, write https://{text}"
        raise argparse.ArgumentTypeError(f"{text!r} is a file, where the address of the collector is expected{hint}")
    return text


def with_credentials(address: str) -> str:
    """The address of a collector, with the user and password of the environment where it has none of its own.

    Raises:
        ValueError: they are not in the form user:password. The message does not show them.
    """
    given = os.environ.get(CREDENTIALS)
    # Only at its beginning: a password or a path may hold the same characters.
    scheme = _SCHEME.match(address)
    start = scheme.end() if scheme else 0
    rest = address[start:]
    if not given or "@" in rest.partition("/")[0]:
        return address
    user, colon, password = given.partition(":")
    if not (user and colon):
        raise ValueError(f"{CREDENTIALS} must be user:password")
    return f"{address[:start]}{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def header(text: str) -> tuple[str, str]:
    """NAME:VALUE, taken apart."""
    name, colon, value = text.partition(":")
    if not (colon and name.strip()):
        # Not the text itself: a header may carry a secret.
        raise argparse.ArgumentTypeError("NAME:VALUE is expected")
    return name.strip(), value.strip()


def command(
    subparsers: Any, name: str, what: str, description: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Add a command to the command line: its name, what it does in a line, and the text of its help."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=what, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how requests to a collector are made."""
    parser.add_argument(
        "--timeout", type=positive, metavar="SECONDS", help="for a request (default: 10 to connect, 30 for the answer)"
    )
    parser.add_argument(
        "--ca-certs", metavar="PATH", help="file or directory of authorities to verify the collector by"
    )
    parser.add_argument(
        "--header", action="append", type=header, default=[], metavar="NAME:VALUE", help="add a header to each request"
    )
