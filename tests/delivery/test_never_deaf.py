"""An emitter goes on: after whatever went wrong, a flush and a close end, and the next event arrives."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastemit import Emitter
from tests.support.delivery import DEADLINE, Rig, Running, answering, eventually, numbers, put, within
from tests.support.logs import Asking


@pytest.fixture
def log() -> Iterator[Callable[[logging.Handler], None]]:
    """Adds handlers to fastemit's logger, which then tells everything; takes them off again."""
    logger = logging.getLogger("fastemit")
    level, before = logger.level, list(logger.handlers)
    logger.setLevel(logging.DEBUG)
    yield logger.addHandler
    logger.setLevel(level)
    logger.handlers[:] = before


BACKGROUND = pytest.mark.parametrize("background", [True, False])
DOWN: dict[str, Any] = {"status": 503, "headers": {"Retry-After": "60"}}


def goes_on(rig: Rig, emitter: Emitter, number: int = 7) -> bool:
    """Whether another event arrives by a flush, and a close ends."""
    rig.collector.reset()
    put(emitter, first=number)
    with within(5):
        Running(emitter.flush).result()
        # Older ones may be there still, and go in a request of their own.
        eventually(lambda: number in numbers(rig.collector.events))
        assert Running(lambda: emitter.close(2)).result() == 0
    return True


# -- a backoff with nothing queued -------------------------------------------------------------------------------------


@BACKGROUND
@pytest.mark.parametrize("call", ["drain", "flush", "close"])
def test_an_oversize_event_that_is_dropped_while_the_gate_is_shut_leaves_no_one_waiting(
    rig: Rig, background: bool, call: str
) -> None:
    emitter = rig.emitter(background=background, max_request_bytes=1024)
    put(emitter)
    rig.shut_the_gate(emitter)
    emitter.flush()
    emitter.input({"n": "1", "x": "y" * 5000})
    rig.collector.respond(**DOWN)
    with within(5):
        Running(emitter.flush).result()
        stats = emitter.stats()
        assert (stats.dropped_events["oversize"], stats.queued_events, stats.retry_delay) == (1, 0, 60)
        Running(getattr(emitter, call)).result()
    if call != "close":
        assert goes_on(rig, emitter)


@BACKGROUND
def test_events_of_send_events_that_fail_shut_the_gate_and_go_with_the_next_flush(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(background=background)
    for first in (0, 10):
        rig.collector.respond(**DOWN)
        emitter.send_events([{"n": str(first)}, {"n": str(first + 1)}])
        assert (emitter.retry_delay, emitter.stats().queued_events) == (60, 2)
        rig.collector.reset()
        assert Running(lambda: emitter.drain(DEADLINE)).result() is True
        assert numbers(rig.collector.events) == [first, first + 1]
    assert goes_on(rig, emitter)


@BACKGROUND
def test_send_events_that_is_rejected_while_the_gate_is_shut_leaves_it_working(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(background=background)
    put(emitter)
    rig.shut_the_gate(emitter)
    rig.collector.respond(400)
    emitter.send_events([{"n": "1"}])
    assert goes_on(rig, emitter)


class Failing(Emitter):
    failures = 0

    def send_events(self, evts: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise LookupError
        super().send_events(evts)


@BACKGROUND
def test_an_overridden_send_events_that_raises_leaves_no_one_waiting(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(Failing, background=background)
    emitter.failures = 2  # type: ignore[attr-defined]
    put(emitter)
    for expected in (False, False, True):
        assert Running(lambda: emitter.drain(DEADLINE)).result() is expected
    assert goes_on(rig, emitter)


@pytest.mark.parametrize("background", [True, False])
def test_flushes_end_while_drop_oldest_drops_what_they_wait_for(rig: Rig, background: bool) -> None:
    statuses = iter(range(10**9))
    rig.collector.respond(lambda _: (200, 503, 400, 500)[next(statuses) % 4], times=None)
    emitter = rig.emitter(
        overflow="drop_oldest", buffer_capacity=2, max_retry_delay_seconds=0.001, background=background
    )
    over = threading.Event()
    flushed = [0, 0]

    def produce() -> None:
        while not over.is_set():
            put(emitter)

    def flush(me: int) -> None:
        while not over.is_set():
            emitter.flush()
            flushed[me] += 1

    running = [Running(produce), Running(produce), Running(lambda: flush(0)), Running(lambda: flush(1))]
    # One that waits for a request takes 0.2 s here: five threads are after the GIL.
    eventually(lambda: min(flushed) >= 10 and emitter.stats().dropped_events["overflow"] >= 50)
    over.set()
    for each in running:
        each.result()
    assert goes_on(rig, emitter)


@BACKGROUND
def test_an_event_larger_than_everything_pushes_nothing_out_and_ends_no_flush(rig: Rig, background: bool) -> None:
    rig.collector.respond(**DOWN)
    emitter = rig.emitter(overflow="drop_oldest", max_buffer_bytes=2048, background=background)
    put(emitter, 2)
    emitter.flush()
    emitter.input({"x": "y" * 10_000})
    stats = emitter.stats()
    assert (stats.dropped_events, stats.queued_events) == (
        {"overflow": 0, "rejected": 0, "oversize": 1, "closed": 0},
        2,
    )
    assert emitter.drain(DEADLINE) is True
    assert numbers(rig.collector.events)[-2:] == [0, 1]


# -- in the calling thread ---------------------------------------------------------------------------------------------


def test_close_without_a_thread_waits_for_the_request_of_another_thread(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(background=False, batch_size=1)
    sending = Running(lambda: put(emitter))
    rig.collector.wait_for_requests(1)
    closing = Running(lambda: emitter.close(DEADLINE))
    assert closing.goes_on()
    rig.collector.release()
    assert closing.result() == 0
    sending.result()


def test_close_without_a_thread_gives_up_on_the_request_of_another_thread_in_time(rig: Rig) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(background=False, batch_size=1)
    sending = Running(lambda: put(emitter))
    rig.collector.wait_for_requests(1)
    with within(2.0, at_least=0.2):
        assert emitter.close(0.2) == 1
    rig.collector.release()
    sending.result()


@pytest.mark.parametrize("call", ["flush", "async_flush", "drain", "input", "close"])
def test_a_call_after_a_callback_closed_without_time_does_not_spin(rig: Rig, call: str) -> None:
    emitter = rig.emitter(background=False, on_success=lambda _: emitter.close(0), max_request_bytes=1024)
    put(emitter, 100)
    with within(5):
        Running(emitter.flush).result()
        assert 0 < len(rig.collector.requests) < 5
        before = time.process_time()
        Running(lambda: put(emitter) if call == "input" else getattr(emitter, call)()).result()
    assert time.process_time() - before < 1.0
    assert emitter.stats().queued_events > 0


@pytest.mark.parametrize("by", ["room", "close"])
def test_an_input_that_waits_for_the_request_of_another_thread_is_woken(rig: Rig, by: str) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter(background=False, batch_size=1, buffer_capacity=1, overflow="block")
    sending = Running(lambda: put(emitter))
    rig.collector.wait_for_requests(1)
    waiting = Running(lambda: put(emitter, first=1))
    assert waiting.goes_on()
    if by == "close":
        assert emitter.close(0) == 1
        waiting.result(2.0)
        assert emitter.stats().dropped_events["closed"] == 1
        rig.collector.release()
    else:
        rig.collector.release()
        waiting.result()
        assert numbers(rig.collector.wait_for(2)) == [0, 1]
    sending.result()


def test_an_input_that_waits_for_the_backoff_is_woken_by_close(rig: Rig) -> None:
    rig.collector.respond(times=None, **DOWN)
    emitter = rig.emitter(background=False, batch_size=1, buffer_capacity=1, overflow="block")
    put(emitter)
    waiting = Running(lambda: put(emitter, first=1))
    assert waiting.goes_on()
    assert emitter.close(0) == 1
    waiting.result(2.0)
    assert emitter.stats().dropped_events["closed"] == 1


def test_an_input_that_waits_for_the_backoff_is_woken_by_room(rig: Rig) -> None:
    rig.collector.respond(**DOWN)
    emitter = rig.emitter(background=False, batch_size=1, buffer_capacity=1, overflow="block")
    put(emitter)
    waiting = Running(lambda: put(emitter, first=1))
    assert waiting.goes_on()
    emitter.flush()
    waiting.result(2.0)
    assert numbers(rig.collector.wait_for(2))[-2:] == [0, 1]


# -- send_events beside a flush ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 503])
def test_send_events_ends_no_flush_that_waits_for_others(rig: Rig, status: int) -> None:
    rig.collector.respond(hang=True)
    emitter = rig.emitter()
    put(emitter, 3)
    flushing = Running(lambda: emitter.drain(DEADLINE))
    rig.collector.wait_for_requests(1)
    rig.collector.respond(status, headers={"Retry-After": "60"})
    # More of them, with larger numbers in a buffer of their own than those that the flush waits for.
    emitter.send_events([{"n": str(number)} for number in range(10, 20)])
    assert flushing.goes_on()
    rig.collector.release()
    assert flushing.result() is True
    assert emitter.stats().sent_events == 3


# -- what raises -------------------------------------------------------------------------------------------------------


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise LookupError

    __repr__ = __str__


class Manager:
    def urlopen(self, *_: object, **__: object) -> object:
        raise _Unspeakable

    def clear(self) -> None:
        pass


@BACKGROUND
def test_an_exception_that_cannot_describe_itself_is_a_failed_request(rig: Rig, background: bool) -> None:
    emitter = rig.emitter(pool_manager=Manager(), background=background)
    put(emitter)
    assert Running(lambda: emitter.drain(DEADLINE)).result() is False
    assert (emitter.stats().last_error, emitter.stats().queued_events) == ("_Unspeakable", 1)


class Flushing(Emitter):
    def flush(self) -> None:
        raise _Unspeakable


class SendingNothing(Emitter):
    def send_events(self, evts: Any) -> None:
        raise _Unspeakable


def test_an_exception_that_cannot_describe_itself_may_come_out_of_every_hook(rig: Rig) -> None:
    def callback(*_: object) -> None:
        raise _Unspeakable

    emitter = rig.emitter(on_success=callback, on_failure=callback)
    rig.collector.respond(400)
    put(emitter)
    assert Running(lambda: emitter.drain(DEADLINE)).result() is True
    assert goes_on(rig, emitter)
    sending = rig.emitter(SendingNothing)
    put(sending)
    assert Running(lambda: sending.drain(DEADLINE)).result() is False
    timed = rig.emitter(Flushing)
    timed.set_flush_timer(0.01)
    put(timed)
    assert Running(lambda: timed.drain(DEADLINE)).result() is True


class Broken(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.raised = 0

    def emit(self, _record: logging.LogRecord) -> None:
        self.raised += 1
        raise LookupError


class BrokenFilter(logging.NullHandler):
    def __init__(self) -> None:
        super().__init__()
        self.raised = 0

    def handle(self, record: logging.LogRecord) -> bool:
        return bool(self.filter(record))

    def filter(self, _record: logging.LogRecord) -> bool:
        self.raised += 1
        raise LookupError


@BACKGROUND
@pytest.mark.parametrize("kind", [Broken, BrokenFilter])
def test_a_log_handler_or_filter_that_raises_breaks_nothing(
    rig: Rig, log: Callable[[logging.Handler], None], kind: Any, background: bool
) -> None:
    broken = kind()
    log(broken)
    for status in (500, 400, 302, 200):
        rig.collector.respond(status)
    emitter = rig.emitter(
        background=background, buffer_capacity=1, batch_size=1000, overflow="drop_newest", max_retry_delay_seconds=0.01
    )
    for number in range(4):
        put(emitter, 2, first=number)
        Running(emitter.flush).result()
    assert broken.raised > 0
    assert goes_on(rig, emitter)
    put(emitter)
    assert emitter.stats().dropped_events["closed"] == 1


# -- the log, and locks ------------------------------------------------------------------------------------------------


def test_no_line_is_written_while_a_lock_is_held(rig: Rig, log: Callable[[logging.Handler], None]) -> None:
    def callback(*_: object) -> None:
        raise LookupError

    def busy() -> None:
        raise RuntimeError("can't start new thread")

    asking = Asking()
    log(asking)
    for status in (500, 400, 302, 200):
        rig.collector.respond(status, headers={"Location": "/elsewhere"})
    emitter = rig.emitter(
        buffer_capacity=1,
        overflow="drop_newest",
        on_success=callback,
        on_failure=callback,
        max_retry_delay_seconds=0.01,
    )
    asking.emitter = emitter
    for number in range(5):
        put(emitter, 2, first=number)
        emitter.input({"x": "y" * 1000})
        emitter.flush()
    rig.collector.respond(times=None, **DOWN)
    put(emitter)
    assert emitter.close(0.2) == 1
    put(emitter)
    for told in (
        "request: ",
        "request failed",
        "(overflow)",
        "(rejected)",
        "(closed)",
        "callback raised",
        "1 events left",
    ):
        assert any(told in line for line in asking.lines), told
    assert asking.locked == []


def test_that_no_thread_can_be_started_is_not_told_while_a_lock_is_held(
    rig: Rig, log: Callable[[logging.Handler], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Asking()
    log(asking)
    emitter = rig.emitter()
    asking.emitter = emitter
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("fastemit-sender"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    put(emitter)
    assert any("no sender thread" in line for line in asking.lines)
    assert asking.locked == []


# -- secrets -----------------------------------------------------------------------------------------------------------


class Listening(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += logging.Formatter().format(record) + repr(record.args) + "\n"


FAULTS = ["refused", "garbage", "redirect", "silence", "no name", "not tls"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("through", ["nothing", "proxy", "session", "pool_manager"])
def test_nothing_secret_is_told_whatever_goes_wrong(
    rig: Rig,
    log: Callable[[logging.Handler], None],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    through: str,
) -> None:
    import requests
    import urllib3

    listening = Listening()
    log(listening)
    answers = {
        "garbage": b"hush\r\n\r\n",
        "redirect": b"HTTP/1.1 302 x\r\nContent-Length: 0\r\nLocation: http://u:hush@h/?hush#hush\r\n\r\n",
        "silence": b"",
        "not tls": b"HTTP/1.1 400 x\r\n\r\n",
    }
    with answering(*[answers.get(fault, b"")] * 9) as server:
        port = 1 if fault == "refused" else server.port
        host = "no-such-host.invalid" if fault == "no name" else "127.0.0.1"
        scheme = "https" if fault == "not tls" else "http"
        given: dict[str, Any] = {}
        if through == "proxy":
            monkeypatch.setenv(f"{scheme}_proxy", f"http://user:hush@{host}:{port}")
            host, port = "collector.invalid", 80
        elif through == "session":
            given["session"] = requests.Session()
        elif through == "pool_manager":
            given["pool_manager"] = urllib3.PoolManager()
        emitter = rig.emitter(
            endpoint=f"{scheme}://user:hush@{host}:{port}/prefix",
            headers={"X-Key": "hush"},
            request_timeout=0.2,
            **given,
        )
        emitter.input({"hush": "hush"})
        assert Running(emitter.drain).result() is False
        told = [listening.text, repr(emitter), emitter.endpoint, repr(emitter.stats()), str(vars(emitter.stats()))]
        emitter.close(0)
    assert emitter.stats().failed_requests == 1
    # The collector's own words are another matter: they are what went wrong.
    assert [text for text in told if "hush" in text.replace("BadStatusLine('hush", "").replace("hush\\r\\n", "")] == []
