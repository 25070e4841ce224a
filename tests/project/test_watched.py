"""The tests' own watchdog of programs reads what they write, and changes nothing of it."""

from __future__ import annotations

import sys

from tests.support.environment import environment
from tests.support.processes import watched

WRITES = """
import os
for number in range(60_000):
    os.write(1, b"%d\\n" % number)
"""


def test_all_that_a_program_writes_is_read_while_it_writes() -> None:
    with watched([sys.executable, "-c", WRITES], env=environment()) as program:
        # Without a rest between two reads, so that many of them meet a write.
        while program.process.poll() is None:
            assert program.output == "" or program.output[0] == "0"
        assert program.output.split() == [str(number) for number in range(60_000)]
