"""Nothing is lost to a faulty network, and doubled only what the collector had when its answer was lost.

`FASTEMIT_LONG=1` lets ten times as many faults strike.
"""

from __future__ import annotations

import os

import pytest

from tests.stress.fault_matrix import Cell, Figures, cells, run, table
from tests.support.slow import slow_but_one_of_each

SCALE = 10 if os.environ.get("FASTEMIT_LONG") else 1
CELLS = cells()


@pytest.mark.parametrize(
    "cell", slow_but_one_of_each(CELLS, lambda cell: cell.fault.kind, lambda cell: cell.fault.phase), ids=str
)
def test_every_event_arrives_and_twice_only_where_the_answer_was_lost(cell: Cell) -> None:
    figures = run(cell, SCALE)
    assert figures.faults == cell.faults(SCALE)
    assert (figures.lost, figures.misplaced, figures.accounted) == (0, 0, True)
    assert figures.doubled == figures.explained
    kind, phase = cell.fault.kind, cell.fault.phase
    if kind == "throttle" and phase in ("connect", "headers", "body"):
        # It arrives in the end, after the client has given it up.
        assert figures.explained > 0
    elif kind == "delay" or phase in ("connect", "headers", "body", "answer"):
        assert figures.explained == 0
    else:
        assert figures.explained >= cell.faults(SCALE)
    if cell.threads == 1:
        assert figures.in_order


def test_the_table_has_a_line_for_each_fault_and_a_sum() -> None:
    lines = table([(cell, Figures(2, 10, 0, 3, 3, 0, True, True)) for cell in CELLS]).splitlines()
    assert len(lines) == 2 + len(CELLS) / 2 + 1
    assert lines[2] == "| cut | connecting | 2 / 2 | 10 / 10 | 0 / 0 | 3 / 3 | 3 / 3 |"
    assert lines[-1] == "| **all** | 84 cells | **168** | **840** | **0** | **252** | **252** |"
