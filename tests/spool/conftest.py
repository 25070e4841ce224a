"""A shelf of mapped files in a folder of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastemit import _buffer
from tests.support.segment_files import Shelf

#: Steps are counted in a debug build alone, which `make sanitize` makes.
collect_ignore = [] if _buffer.die_at_step(0) else ["test_crash_at_each_step.py"]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)
