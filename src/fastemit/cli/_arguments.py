"""Types of arguments that several commands have."""

from __future__ import annotations

import argparse
import math


def positive(text: str) -> float:
    """A number greater than 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: a number greater than 0 is expected")
    return number
