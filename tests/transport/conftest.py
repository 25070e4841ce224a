"""Fixtures of the tests of connections."""

from __future__ import annotations

import pytest

from tests.support.bad_network import Certified


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return Certified(tmp_path_factory.mktemp("ca"))
