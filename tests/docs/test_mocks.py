"""What `docs/testing.md` says of mocks of `requests`: they see nothing of an emitter, and all of one with a session."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import requests

from fastemit.testing import Collector
from tests.support.pages import ROOT

MakeEmitter = Callable[..., Any]
#: Begins to mock the requests to an address, and gives a function that tells how many it has seen.
Mocked = Callable[[str], contextlib.AbstractContextManager[Callable[[], int]]]


@contextlib.contextmanager
def by_responses(url: str) -> Iterator[Callable[[], int]]:
    responses = pytest.importorskip("responses")
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mocked:
        mocked.add(responses.POST, re.compile(re.escape(url)))
        mocked.add(responses.GET, re.compile(re.escape(url)))
        yield lambda: len(mocked.calls)


@contextlib.contextmanager
def by_requests_mock(url: str) -> Iterator[Callable[[], int]]:
    requests_mock = pytest.importorskip("requests_mock")
    with requests_mock.Mocker() as mocked:
        mocked.register_uri(requests_mock.ANY, re.compile(re.escape(url)))
        yield lambda: mocked.call_count


@contextlib.contextmanager
def by_httmock(url: str) -> Iterator[Callable[[], int]]:
    httmock = pytest.importorskip("httmock")
    seen: list[str] = []

    @httmock.all_requests
    def answer(_: object, request: Any) -> dict[str, int]:
        assert request.url.startswith(url)
        seen.append(request.url)
        return {"status_code": 200}

    with httmock.HTTMock(answer):
        yield lambda: len(seen)


MOCKS = pytest.mark.parametrize("mocked", [by_responses, by_requests_mock, by_httmock])
METHODS = pytest.mark.parametrize("method", ["post", "get"])


@MOCKS
@METHODS
def test_a_mock_sees_nothing_of_an_emitter_which_sends_to_the_real_collector(
    make_emitter: MakeEmitter, collector: Collector, mocked: Mocked, method: str
) -> None:
    emitter = make_emitter(method=method)
    with mocked(collector.url) as seen:
        emitter.input({"e": "pv"})
        emitter.flush()
        assert (seen(), len(collector.events)) == (0, 1)


@MOCKS
@METHODS
@pytest.mark.parametrize("background", [True, False])
def test_a_mock_sees_each_request_of_an_emitter_with_a_session(
    make_emitter: MakeEmitter, collector: Collector, mocked: Mocked, method: str, background: bool
) -> None:
    emitter = make_emitter(method=method, session=requests.Session(), background=background)
    with mocked(collector.url) as seen:
        emitter.input({"e": "pv"})
        emitter.flush()
        assert (seen(), len(collector.requests)) == (1, 0)
    assert emitter.stats().sent_events == 1


def test_a_patched_http_post_keeps_everything_from_the_network(make_emitter: MakeEmitter, collector: Collector) -> None:
    emitter = make_emitter()
    with mock.patch("fastemit.Emitter.http_post", return_value=200) as http_post:
        emitter.input({"e": "pv"})
        emitter.flush()
    assert (http_post.call_count, len(collector.requests), emitter.stats().sent_events) == (1, 0, 1)


def test_the_page_says_so_for_each_of_them() -> None:
    page = (ROOT / "docs" / "testing.md").read_text("utf-8")
    table = page[page.index("| you have | write |") : page.index("With a `session` the emitter sends")]
    for name in ("responses", "requests_mock", "httmock"):
        assert f"| `{name}` |" in table
        assert f'title="test_with_{name}.py"' in page
