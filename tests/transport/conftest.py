"""Fixtures of the tests of connections, which run over both ways that requests go: the lean one, and http.client's."""

from __future__ import annotations

import pytest

from fastemit._transport import HttpTransport
from tests.support.bad_network import Certified

#: Modules whose tests run over each way.
BOTH_WAYS = {
    "test_endless_answers",
    "test_faulty_network",
    "test_network_oddities",
    "test_harmed_connections",
    "test_odd_heads",
    "test_one_answer_each",
    "test_transport",
    "test_transport_routes",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in BOTH_WAYS:
        metafunc.parametrize("http_way", ["lean", "http.client"], indirect=True)


@pytest.fixture(autouse=True)
def http_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How requests go: "lean", as they do for users, or "http.client"."""
    chosen: str = getattr(request, "param", "lean")
    monkeypatch.setattr(HttpTransport, "lean", chosen == "lean")
    return chosen


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return Certified(tmp_path_factory.mktemp("ca"))
