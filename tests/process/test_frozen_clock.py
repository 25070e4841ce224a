"""A test suite, say, that freezes Python's clock or sets it back: emitters go by the system's own."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from unittest import mock

import freezegun
import pytest

from fastemit import _time as clock
from fastemit.testing import Collector
from tests.support.delivery import Script, rigged
from tests.support.emitters import QUICK
from tests.support.slow import slow_but_one_of_each
from tests.support.stores import ListStore

MakeEmitter = Callable[..., Any]
FROZEN = "2030-01-01"
FROZEN_STM = "1893456000000"
#: Seconds of the real clock in which what is tested has happened, or failed.
PATIENCE = 10.0


@contextlib.contextmanager
def frozen_by_freezegun() -> Iterator[None]:
    with freezegun.freeze_time(FROZEN):
        yield


@contextlib.contextmanager
def frozen_by_time_machine() -> Iterator[None]:
    time_machine = pytest.importorskip("time_machine")
    with time_machine.travel(f"{FROZEN}T00:00:00+00:00", tick=False):
        yield


@contextlib.contextmanager
def patched(monotonic: Callable[[], float]) -> Iterator[None]:
    """What `time` has is replaced, `time.sleep` by something that returns at once."""
    with (
        mock.patch("time.monotonic", monotonic),
        mock.patch("time.perf_counter", monotonic),
        mock.patch("time.time", return_value=int(FROZEN_STM) / 1000),
        mock.patch("time.time_ns", return_value=int(FROZEN_STM) * 1_000_000),
        mock.patch("time.sleep"),
    ):
        yield


def frozen_by_mock() -> contextlib.AbstractContextManager[None]:
    return patched(lambda: 5.0)


def set_back_by_mock() -> contextlib.AbstractContextManager[None]:
    """Each look at the clock finds it a second earlier."""
    steps = itertools.count(1e6, -1)
    return patched(lambda: next(steps))


CLOCKS = [frozen_by_freezegun, frozen_by_time_machine, frozen_by_mock, set_back_by_mock]
SENDING = {
    "post": dict,
    "get": lambda: {"method": "get"},
    "store": lambda: {"event_store": ListStore()},
}
INLINE = {
    "post-inline": lambda: {"background": False},
    "get-inline": lambda: {"background": False, "method": "get"},
    "store-inline": lambda: {"background": False, "event_store": ListStore()},
}
every_clock = pytest.mark.parametrize("clock_of_python", CLOCKS, ids=lambda way: way.__name__)


def with_every_clock(settings: dict[str, Any]) -> pytest.MarkDecorator:
    """Each kind of emitter with each clock; slow is what says no more of a clock or a kind than a case before it."""
    cases = slow_but_one_of_each(
        [(clock, SENDING.get(kind) or INLINE[kind]) for clock in CLOCKS for kind in settings],
        lambda case: case[0],
        lambda case: case[1],
    )
    names = [f"{clock.__name__}-{kind}" for clock in CLOCKS for kind in settings]
    return pytest.mark.parametrize(("clock_of_python", "settings"), cases, ids=names)


in_a_thread = with_every_clock(SENDING)
everywhere = with_every_clock(SENDING | INLINE)


@contextlib.contextmanager
def in_real_seconds(most: float, least: float = 0.0) -> Iterator[None]:
    began = clock.monotonic()
    yield
    assert least <= clock.monotonic() - began < most


@in_a_thread
def test_what_failed_while_the_clock_stood_is_retried_while_it_stands(
    collector: Collector, make_emitter: MakeEmitter, clock_of_python: Any, settings: Any
) -> None:
    collector.respond(500, times=2)
    emitter = make_emitter(batch_size=1, max_retry_delay_seconds=QUICK, **settings())
    with clock_of_python():
        emitter.input({"n": "1"})
        collector.wait_for(1, PATIENCE)
    assert [request.status for request in collector.requests] == [500, 500, 200]


@in_a_thread
def test_what_failed_while_the_clock_stood_is_retried_when_it_goes_again(
    collector: Collector, make_emitter: MakeEmitter, clock_of_python: Any, settings: Any
) -> None:
    collector.respond(500, times=None)
    emitter = make_emitter(batch_size=1, max_retry_delay_seconds=QUICK, **settings())
    with clock_of_python():
        emitter.input({"n": "1"})
        collector.wait_for_requests(1, PATIENCE)
    collector.reset()
    collector.wait_for(1, PATIENCE)


@in_a_thread
def test_a_flush_timer_that_is_set_while_the_clock_stands_runs(
    collector: Collector, make_emitter: MakeEmitter, clock_of_python: Any, settings: Any
) -> None:
    emitter = make_emitter(batch_size=100, **settings())
    with clock_of_python():
        emitter.set_flush_timer(0.05)
        emitter.input({"n": "1"})
        collector.wait_for(1, PATIENCE)


@everywhere
def test_close_retries_while_the_clock_stands(
    collector: Collector, make_emitter: MakeEmitter, clock_of_python: Any, settings: Any
) -> None:
    collector.respond(500, times=2)
    emitter = make_emitter(batch_size=100, max_retry_delay_seconds=QUICK, **settings())
    with clock_of_python():
        emitter.input({"n": "1"})
        assert emitter.close(PATIENCE) == 0
    assert len(collector.events) == 1


@everywhere
def test_close_ends_in_time_while_the_clock_stands(
    collector: Collector, make_emitter: MakeEmitter, clock_of_python: Any, settings: Any
) -> None:
    collector.respond(500, times=None)
    emitter = make_emitter(batch_size=100, max_retry_delay_seconds=QUICK, **settings())
    with clock_of_python():
        emitter.input({"n": "1"})
        with in_real_seconds(PATIENCE, least=0.2):
            assert emitter.close(0.2) == 1


@every_clock
@pytest.mark.parametrize("background", [True, False])
def test_drain_ends_in_time_while_the_clock_stands(
    collector: Collector, make_emitter: MakeEmitter, clock_of_python: Any, background: bool
) -> None:
    collector.respond(hang=True)
    emitter = make_emitter(batch_size=100, background=background)
    with clock_of_python():
        emitter.input({"n": "1"})
        with in_real_seconds(PATIENCE, least=0.1):
            assert emitter.drain(0.1) is False


@every_clock
def test_an_answer_without_end_is_given_up_while_the_clock_stands(
    collector: Collector, make_emitter: MakeEmitter, clock_of_python: Any
) -> None:
    collector.respond(200, body=b"x" * 1000, headers={"X-Long": "x" * 1000}, drip=0.01)
    # Not enough for the status line, which decides once it is there.
    emitter = make_emitter(request_timeout=(5, 0.05))
    with clock_of_python(), in_real_seconds(5.0):
        assert emitter.http_post("{}") == -1


@every_clock
@pytest.mark.parametrize("background", [True, False])
def test_a_date_to_retry_after_is_compared_with_the_date_that_it_is(
    collector: Collector, make_emitter: MakeEmitter, clock_of_python: Any, background: bool
) -> None:
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    collector.respond(503, headers={"Retry-After": later})
    emitter = make_emitter(batch_size=100, background=background)
    with clock_of_python():
        emitter.input({"n": "1"})
        assert emitter.drain(PATIENCE) is False
    assert 15 < emitter.retry_delay <= 30


@everywhere
def test_stm_is_the_time_that_the_program_sees(
    collector: Collector, make_emitter: MakeEmitter, clock_of_python: Any, settings: Any
) -> None:
    emitter = make_emitter(batch_size=100, **settings())
    with clock_of_python():
        emitter.input({"n": "1"})
        assert emitter.drain(PATIENCE)
    assert [event["stm"] for event in collector.events] == [FROZEN_STM]


@every_clock
@pytest.mark.parametrize("background", [True, False])
def test_waiting_for_room_ends_in_time_while_the_clock_stands(
    collector: Collector, make_emitter: MakeEmitter, clock_of_python: Any, background: bool
) -> None:
    collector.respond(500, times=2)
    emitter = make_emitter(
        batch_size=1, buffer_capacity=1, overflow="block", max_retry_delay_seconds=QUICK, background=background
    )
    with clock_of_python(), in_real_seconds(PATIENCE):
        for number in range(3):
            emitter.input({"n": str(number)})
        assert emitter.close(PATIENCE) == 0
    assert [event["n"] for event in collector.events] == ["0", "1", "2"]


@every_clock
@pytest.mark.parametrize("batch_size", [1, 100])
def test_a_redis_emitter_closes_in_time_while_the_clock_stands(clock_of_python: Any, batch_size: int) -> None:
    redis = pytest.importorskip("redis")
    from fastemit import RedisEmitter
    from tests.support.redis_server import QUICK as QUICK_CLIENT

    emitter = RedisEmitter(redis.Redis(port=9, **QUICK_CLIENT), batch_size=batch_size, max_retry_delay_seconds=QUICK)
    with clock_of_python():
        emitter.input({"n": "1"})
        with in_real_seconds(PATIENCE, least=0.2):
            assert emitter.close(0.2) == 1


@every_clock
def test_a_redis_worker_moves_events_and_ends_while_the_clock_stands(
    rdb: Any, collector: Collector, make_emitter: MakeEmitter, clock_of_python: Any
) -> None:
    from fastemit import Emitter, RedisWorker

    collector.respond(500, times=2)
    worker = RedisWorker(Emitter(collector.url, max_retry_delay_seconds=QUICK), rdb, poll_interval=0.01)
    with clock_of_python():
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        rdb.rpush("snowplow", b'{"n": "1"}')
        collector.wait_for(1, PATIENCE)
        rdb.rpush("snowplow", b'{"n": "2"}')
        collector.wait_for(2, PATIENCE)
        worker.request_shutdown()
        thread.join(PATIENCE)
    assert not thread.is_alive()


@every_clock
def test_a_celery_emitter_closes_in_time_while_the_clock_stands(clock_of_python: Any) -> None:
    celery = pytest.importorskip("celery")
    from fastemit import CeleryEmitter

    app = celery.Celery(broker="redis://127.0.0.1:9/0")
    app.conf.broker_transport_options = {"socket_connect_timeout": 1}
    emitter = CeleryEmitter("http://127.0.0.1:9", celery_app=app, max_retry_delay_seconds=QUICK)
    with clock_of_python():
        emitter.input({"n": "1"})
        with in_real_seconds(PATIENCE, least=0.2):
            assert emitter.close(0.2) == 1


@pytest.mark.parametrize("background", [True, False])
def test_a_process_ends_in_time_while_the_clock_stands(tmp_path: Path, background: bool) -> None:
    with rigged() as rig:
        rig.collector.respond(500, times=None)
        ended = Script(rig, tmp_path)(
            f"""
            freezegun.freeze_time("{FROZEN}").start()
            emitter = Emitter(URL, background={background}, shutdown_timeout=0.3, max_retry_delay_seconds=0.02)
            put(emitter, 1)
            """,
            preamble=f"""
            import freezegun, logging
            logging.basicConfig()
            # What is imported while it stands may keep the functions of then.
            with freezegun.freeze_time("{FROZEN}"):
                import fastemit
            """,
        )
    assert ended.status == 0
    assert "closed with 1 event left" in ended.errors


@every_clock
def test_the_wait_of_the_collector_ends_in_time_while_the_clock_stands(
    collector: Collector, clock_of_python: Any
) -> None:
    with clock_of_python(), in_real_seconds(PATIENCE, least=0.1), pytest.raises(TimeoutError):
        collector.wait_for(1, 0.1)


@every_clock
def test_the_clock_goes_on_and_sleep_takes_its_time(clock_of_python: Any) -> None:
    with clock_of_python(), in_real_seconds(PATIENCE, least=0.05):
        clock.sleep(0.05)


def test_the_clock_is_that_of_time_where_nothing_replaces_it() -> None:
    before = time.monotonic(), time.time()
    between = clock.monotonic(), clock.wall_clock()
    after = time.monotonic(), time.time()
    # A microsecond, since the two make a float of nanoseconds in different ways.
    for earlier, value, later in zip(before, between, after, strict=True):
        assert earlier - 1e-6 <= value <= later + 1e-6


def test_a_signal_handler_s_exception_ends_sleep() -> None:
    signal = pytest.importorskip("signal")
    if not hasattr(signal, "setitimer"):
        pytest.skip("no setitimer")

    def ring(*_: object) -> None:
        raise InterruptedError

    previous = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with in_real_seconds(PATIENCE), pytest.raises(InterruptedError):
            clock.sleep(2 * PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
