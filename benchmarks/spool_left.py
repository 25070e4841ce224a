"""A program that dies and leaves events in a spool.

python benchmarks/spool_left.py FOLDER URL EVENTS
"""

from __future__ import annotations

import os
import sys
from itertools import repeat

from bench_support import PAGE_VIEW

import fastemit


def main() -> None:
    folder, url, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
    emitter = fastemit.Emitter(url, spool=folder, batch_size=events + 1, buffer_capacity=events + 1)
    for _ in repeat(None, events):
        emitter.input(PAGE_VIEW)
    assert emitter.stats().queued_events == events
    os._exit(0)


if __name__ == "__main__":
    main()
