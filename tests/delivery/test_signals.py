"""Signal handlers that run while the emitter sends or waits: what they raise is the program's, and time goes on."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from fastemit import Emitter
from fastemit._signals import of_signal_handler
from tests.support.delivery import DEADLINE, Rig, Running, numbers, put, within
from tests.support.slow import slow
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs a signal of the user's")


class SoftLimit(Exception):
    """As Celery's SoftTimeLimitExceeded: an exception like any other, from a handler."""


class Handling:
    """Sets the handler of SIGUSR1, and puts back what was there."""

    def __call__(self, handler: Any) -> None:
        signal.signal(signal.SIGUSR1, handler)

    def raising(self, error: BaseException) -> None:
        def handler(_number: int, _frame: object) -> None:
            raise error

        self(handler)


@pytest.fixture
def handling() -> Iterator[Handling]:
    before = signal.getsignal(signal.SIGUSR1)
    yield Handling()
    signal.signal(signal.SIGUSR1, before)


def strike() -> None:
    signal.raise_signal(signal.SIGUSR1)


def strike_when(condition: Callable[[], object]) -> Running:
    def run() -> None:
        until(condition)
        # A moment, so that the main thread is in the wait that it is to be woken from.
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    return Running(run)


ERRORS = [SoftLimit("over"), TimeoutError("alarm"), ConnectionResetError("mine"), SystemExit(3), KeyboardInterrupt()]
errors = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


# -- what a handler raises during a request is the program's -----------------------------------------------------------


@errors
@pytest.mark.parametrize("call", ["flush", "drain", "sync_flush", "close", "input"])
def test_what_a_handler_raises_during_a_request_comes_out_of_the_call(
    rig: Rig, handling: Handling, error: BaseException, call: str
) -> None:
    emitter = rig.emitter(background=False, batch_size=2)
    handling.raising(error)
    rig.collector.respond(hang=True)
    put(emitter)
    striking = strike_when(lambda: rig.collector.requests)
    with pytest.raises(type(error)) as raised:
        put(emitter, first=1) if call == "input" else getattr(emitter, call)()
    striking.result()
    assert raised.value is error
    stats = emitter.stats()
    assert (stats.in_flight_events, stats.queued_events) == (0, 2 if call == "input" else 1)
    # It says nothing of the collector.
    assert (emitter.retry_delay, stats.failed_requests) == (0, 0)


@errors
@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("through", ["ours", "session"])
def test_a_request_that_a_handler_breaks_off_strands_no_event(
    rig: Rig, handling: Handling, error: BaseException, method: str, through: str
) -> None:
    with requests.Session() as session:
        given = {"session": session} if through == "session" else {}
        emitter = rig.emitter(background=False, method=method, batch_size=100, **given)
        handling.raising(error)
        rig.collector.respond(hang=True)
        put(emitter, 3)
        striking = strike_when(lambda: rig.collector.requests)
        with pytest.raises(type(error)):
            emitter.flush()
        striking.result()
        rig.collector.release()
        assert emitter.drain(DEADLINE) is True
        assert sorted(set(numbers(rig.collector.events))) == [0, 1, 2]
        assert emitter.stats().sent_events == 3


class Posts(Emitter):
    def http_post(self, data: str) -> int:
        strike()
        return super().http_post(data)


class Sends(Emitter):
    def send_events(self, evts: Any) -> None:
        strike()
        super().send_events(evts)


class Manager:
    """A pool manager, as it may be a user's."""

    def urlopen(self, *_: object, **__: object) -> object:
        strike()
        raise AssertionError("the signal has not come")

    def clear(self) -> None:
        pass


@errors
@pytest.mark.parametrize("kind", ["http_post", "send_events", "pool_manager"])
def test_what_a_handler_raises_in_code_of_the_user_s_comes_out_and_the_event_stays(
    rig: Rig, handling: Handling, error: BaseException, kind: str
) -> None:
    cls = {"http_post": Posts, "send_events": Sends}.get(kind, Emitter)
    given = {"pool_manager": Manager()} if kind == "pool_manager" else {}
    emitter = rig.emitter(cls, background=False, **given)
    handling.raising(error)
    put(emitter)
    with pytest.raises(type(error)):
        emitter.flush()
    assert (emitter.stats().queued_events, emitter.stats().in_flight_events) == (1, 0)
    assert emitter.retry_delay == 0
    handling(signal.SIG_IGN)
    if kind != "pool_manager":
        assert emitter.drain(DEADLINE) is True
        assert numbers(rig.collector.events) == [0]


@errors
@pytest.mark.parametrize("status", [200, 400])
def test_what_a_handler_raises_during_a_callback_comes_out_and_the_event_is_settled(
    rig: Rig, handling: Handling, error: BaseException, status: int
) -> None:
    rig.collector.respond(status)
    emitter = rig.emitter(background=False, on_success=lambda _: strike(), on_failure=lambda *_: strike())
    handling.raising(error)
    put(emitter)
    with pytest.raises(type(error)):
        emitter.flush()
    stats = emitter.stats()
    assert (stats.sent_events + stats.dropped_events["rejected"], stats.queued_events) == (1, 0)
    assert emitter.drain(DEADLINE) is True


def test_what_a_handler_raises_while_a_line_is_logged_comes_out(rig: Rig, handling: Handling) -> None:
    class Striking(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            strike()

    handling.raising(SoftLimit())
    striking = Striking()
    emitter = rig.emitter(overflow="drop_newest", buffer_capacity=1, batch_size=1)
    emitter.close()
    logging.getLogger("fastemit").addHandler(striking)
    try:
        with pytest.raises(SoftLimit):
            put(emitter)
    finally:
        logging.getLogger("fastemit").removeHandler(striking)
    assert emitter.stats().dropped_events["closed"] == 1


@errors
def test_what_a_handler_raises_while_a_flush_waits_for_a_sender_comes_out(
    rig: Rig, handling: Handling, error: BaseException
) -> None:
    emitter = rig.emitter()
    handling.raising(error)
    rig.collector.respond(hang=True)
    put(emitter)
    striking = strike_when(lambda: rig.collector.requests)
    with pytest.raises(type(error)):
        emitter.flush()
    striking.result()
    rig.collector.release()
    assert emitter.drain(DEADLINE) is True
    assert numbers(rig.collector.events) == [0]


# -- and nothing else is -----------------------------------------------------------------------------------------------


def test_a_flush_in_the_except_block_of_what_a_handler_raised_fails_like_any_other(
    rig: Rig, handling: Handling
) -> None:
    rig.collector.close()
    emitter = rig.emitter(background=False)
    handling.raising(SoftLimit())
    put(emitter)
    try:
        strike()
    except SoftLimit:
        assert emitter.drain() is False
    assert (emitter.stats().failed_requests, emitter.stats().queued_events) == (1, 1)


def test_a_flush_in_a_handler_fails_like_any_other(rig: Rig, handling: Handling) -> None:
    rig.collector.close()
    emitter = rig.emitter(background=False)
    drained: list[bool] = []
    handling(lambda *_: drained.append(emitter.drain()))
    put(emitter)
    strike()
    assert (drained, emitter.stats().failed_requests) == ([False], 1)


def test_a_callback_that_raises_the_same_kind_by_itself_changes_nothing(rig: Rig, handling: Handling) -> None:
    def callback(_: object) -> None:
        raise SoftLimit

    handling.raising(SoftLimit())
    emitter = rig.emitter(background=False, on_success=callback)
    put(emitter)
    assert emitter.drain(DEADLINE) is True


class Stops:
    """A service whose `stop` is called by hand and by SIGTERM."""

    def stop(self, *_: object) -> None:
        raise SoftLimit

    def stop_with(self, _number: object = None, _frame: object = None) -> None:
        raise SoftLimit


@pytest.mark.parametrize("called", ["stop", "stop_with"])
def test_what_a_handler_raises_that_a_callback_calls_as_a_function_changes_nothing(
    rig: Rig, handling: Handling, called: str
) -> None:
    stop = getattr(Stops(), called)
    handling(stop)
    emitter = rig.emitter(background=False, on_success=lambda _: stop())
    put(emitter)
    assert emitter.drain(DEADLINE) is True


def test_a_handler_that_has_thrown_its_frame_away_is_known(rig: Rig, handling: Handling) -> None:
    def handler(_number: int, frame: object) -> None:
        del frame
        raise SoftLimit

    handling(handler)
    emitter = rig.emitter(background=False, on_success=lambda _: strike())
    put(emitter)
    with pytest.raises(SoftLimit):
        emitter.flush()


def test_a_sender_thread_does_not_look_for_handlers() -> None:
    def handler(*_: object) -> None:
        raise SoftLimit

    def called() -> BaseException | None:
        try:
            handler(signal.SIGUSR1, inspect.currentframe())
        except SoftLimit as error:
            return of_signal_handler(error)
        return None

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert type(called()) is SoftLimit
        assert Running(called).result() is None
    finally:
        signal.signal(signal.SIGUSR1, before)


class _Object:
    def __call__(self, *_: object) -> None:
        raise SoftLimit

    def method(self, *_: object) -> None:
        raise SoftLimit


@pytest.mark.parametrize(
    "handler",
    [_Object(), _Object().method, functools.partial(_Object().method, 1)],
    ids=["object", "method", "partial"],
)
def test_a_handler_of_any_kind_is_known(rig: Rig, handling: Handling, handler: Any) -> None:
    handling(handler)
    emitter = rig.emitter(background=False, on_success=lambda _: strike())
    put(emitter)
    with pytest.raises(SoftLimit):
        emitter.flush()


# -- a handler that takes long -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, slow(False)])
@pytest.mark.parametrize("call", ["drain", "close", "sync_flush"])
def test_a_timed_wait_ends_though_a_handler_runs_across_its_deadline(
    rig: Rig, handling: Handling, call: str, background: bool
) -> None:
    handled: list[float] = []

    def handler(*_: object) -> None:
        time.sleep(0.3)
        handled.append(time.monotonic())

    handling(handler)
    rig.collector.respond(hang=True, times=None)
    emitter = rig.emitter(background=background)
    put(emitter)
    timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])
    timer.start()
    with within(5.0, at_least=0.3):
        getattr(emitter, call)(0.2)
    ended = time.monotonic()
    timer.join()
    # At once when the handler is done, and not some other time.
    assert len(handled) == 1
    assert ended - handled[0] < 1.0


@pytest.mark.parametrize("overflow", ["block", "backpressure"])
def test_an_input_that_waits_for_room_goes_on_waiting_after_a_handler(
    rig: Rig, handling: Handling, overflow: str
) -> None:
    handled: list[int] = []
    handling(lambda number, _: handled.append(number))
    rig.collector.respond(hang=True)
    emitter = rig.emitter(overflow=overflow, buffer_capacity=1, batch_size=1)
    put(emitter)

    def strike_and_release() -> None:
        rig.collector.wait_for_requests(1)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: handled)
        rig.collector.release()

    striking = Running(strike_and_release)
    put(emitter, first=1)
    striking.result()
    assert emitter.drain(DEADLINE) is True
    assert numbers(rig.collector.events) == [0, 1]
