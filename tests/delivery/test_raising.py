"""What raises inside an emitter breaks nothing, no log line is written while a lock is held, and no secret is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastemit import Emitter
from tests.support.deaf import BACKGROUND, DOWN, goes_on
from tests.support.delivery import DEADLINE, Rig, Running, answering, put
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
        "1 event left",
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
