"""Emitters whose `__init__` was a mock or failed: they can be printed and closed, and say what is wrong otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

import fastemit

pytest.importorskip("redis")
NAMES = ["Emitter", "AsyncEmitter", "RedisEmitter", "CeleryEmitter"]
NOT_CALLED = r"^{name}\.__init__ has not been called"

Make = Callable[[str], Any]


def with_a_mock(name: str) -> Any:
    if name == "CeleryEmitter":
        pytest.importorskip("celery")
    cls: Any = getattr(fastemit, name)
    with mock.patch.object(cls, "__init__", return_value=None):
        return cls("example.com")


def that_failed(name: str) -> Any:
    if name == "CeleryEmitter":
        pytest.importorskip("celery")
    cls: Any = getattr(fastemit, name)
    emitter = cls.__new__(cls)
    with pytest.raises((TypeError, ValueError)):
        emitter.__init__("example.com", shutdown_timeout="soon")
    return emitter


EACH = pytest.mark.parametrize("name", NAMES)
BOTH_WAYS = pytest.mark.parametrize("make", [with_a_mock, that_failed])


@EACH
@BOTH_WAYS
def test_it_can_be_printed(make: Make, name: str) -> None:
    assert repr(make(name)).startswith(f"<{name}")


@EACH
@BOTH_WAYS
def test_it_can_be_closed_as_a_fixture_does(make: Make, name: str) -> None:
    with make(name) as emitter:
        pass
    assert (emitter.close(), emitter.close(timeout=1)) == (0, 0)


@EACH
def test_what_it_has_not_says_that_init_has_not_been_called(name: str) -> None:
    emitter = with_a_mock(name)
    read = ["batch_size", "retry_delay", "timer", "retry_timer"]
    read += ["rdb", "key"] if name == "RedisEmitter" else ["endpoint", "method", "event_store", "custom_retry_codes"]
    for attribute in read:
        with pytest.raises(AttributeError, match=NOT_CALLED.format(name=name)):
            getattr(emitter, attribute)
        assert not hasattr(emitter, attribute)


@EACH
def test_what_it_cannot_do_says_that_init_has_not_been_called(name: str) -> None:
    emitter = with_a_mock(name)
    for call in (emitter.flush, emitter.sync_flush, emitter.drain, emitter.stats, lambda: emitter.input({"e": "pv"})):
        with pytest.raises((AttributeError, RuntimeError), match=NOT_CALLED.format(name=name)):
            call()


def test_a_subclass_that_closes_itself_when_it_is_collected_does_so_in_silence() -> None:
    class Closing(fastemit.Emitter):
        def __del__(self) -> None:
            self.close(0)

    # What `__del__` raises is a warning, and a warning fails the test.
    with pytest.raises(ValueError, match=r"^endpoint must be "):
        Closing("")


def test_a_tracker_takes_one() -> None:
    tracker = pytest.importorskip("snowplow_tracker").Tracker("ns", with_a_mock("Emitter"))
    assert repr(tracker.emitters) == "[<Emitter without an endpoint>]"


def test_a_worker_whose_init_was_a_mock_can_be_printed_and_says_what_is_wrong() -> None:
    worker = with_a_mock("RedisWorker")
    assert "RedisWorker" in repr(worker)
    for call in (worker.request_shutdown, worker.stats, lambda: worker.emitter):
        with pytest.raises(AttributeError, match=NOT_CALLED.format(name="RedisWorker")):
            call()
