"""Fixtures of the tests of fork and exit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.delivery import Rig
from tests.support.processes import WatchedScript


@pytest.fixture
def run(rig: Rig, tmp_path: Path) -> WatchedScript:
    """Runs scripts that send to the collector of `rig`, under a watchdog."""
    return WatchedScript(rig, tmp_path)
