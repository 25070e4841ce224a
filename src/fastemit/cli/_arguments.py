"""Types of arguments that several commands have."""

from __future__ import annotations

import argparse
import math
import os


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
    """The address of a collector. The name of a file is refused: it is there because COLLECTOR was forgotten."""
    # A folder may have the name of a host, as a mirror of a site has.
    if os.path.exists(text) and not os.path.isdir(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is a file, where the address of the collector is expected; if a host has that name, "
            f"write https://{text}"
        )
    return text
