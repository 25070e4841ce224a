"""Fixtures that the tests of whole emitters share."""

from __future__ import annotations

import functools
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

import fastemit
from fastemit._delivery import schedule
from fastemit._delivery.retry import Backoff
from fastemit.testing import Collector
from tests.support.delivery import Rig, rigged
from tests.support.emitters import CountingAsyncEmitter, CountingEmitter, Recorder, accounted, sender_threads
from tests.support.environment import PROXY_VARIABLES
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.redis_server import RedisServer

MakeEmitter = Callable[..., Any]
_CLOSE_TIMEOUT = 0.01


def pytest_collection_finish() -> None:
    """Have the garbage collector leave the thousands of tests alone: it would look at all of them each time."""
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    # A shell starts what it runs in the background with SIGINT ignored, and every program of a test would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go straight to the loopback, whatever the machine's settings."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def no_short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first delay of a second, which chance may make a millisecond, over before anybody looks."""
    monkeypatch.setattr(schedule, "Backoff", functools.partial(Backoff, chance=lambda: 0.999))


@pytest.fixture
def recorder() -> Recorder:
    """Both callbacks of an emitter."""
    return Recorder()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of the test's own."""
    with Collector() as collector:
        yield collector


@pytest.fixture
def no_trackers() -> Iterator[None]:
    """No tracker of a test is found by the next one."""
    yield
    import snowplow_tracker  # not every Python has it

    fastemit.Snowplow.reset()
    snowplow_tracker.Snowplow.reset()


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A collector, and emitters that end with it."""
    with rigged() as rig:
        yield rig


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of the module's own."""
    from tests.support.redis_server import running  # it skips what imports it where there is no package redis

    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def rdb(server: RedisServer) -> Iterator[Any]:
    """A client of `server`, which is empty."""
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def _senders_that_end() -> Iterator[set[threading.Thread]]:
    """Sender threads of closed emitters: none of them may be left at the end."""
    threads: set[threading.Thread] = set()
    yield threads
    for thread in threads:
        thread.join(5.0)
    assert [thread.name for thread in threads if thread.is_alive()] == []


def _adds_up(emitter: Any) -> bool:
    returned: int = emitter.returned
    return accounted(emitter.stats()) == returned


@pytest.fixture
def make_emitter(collector: Collector, _senders_that_end: set[threading.Thread]) -> Iterator[MakeEmitter]:
    """Makes emitters (`cls=CountingAsyncEmitter` for the other kind) that send to `collector` and are closed after it.

    At teardown, what the counters of each tell has to add up to the calls of its `input` that returned.
    """
    before = set(sender_threads())
    made: list[Any] = []

    def make(endpoint: str | None = None, *, cls: Any = CountingEmitter, **settings: Any) -> Any:
        emitter = cls(collector.url if endpoint is None else endpoint, **settings)
        made.append(emitter)
        return emitter

    yield make
    for emitter in made:
        emitter.close(_CLOSE_TIMEOUT)
    _senders_that_end.update(set(sender_threads()) - before)
    for emitter in made:
        # A thread that waited in `input` returns from it a moment after the close.
        until(functools.partial(_adds_up, emitter), 5.0)


@pytest.fixture
def make_async_emitter(make_emitter: MakeEmitter) -> MakeEmitter:
    """As `make_emitter`, an `AsyncEmitter`."""

    def make(endpoint: str | None = None, **settings: Any) -> Any:
        return make_emitter(endpoint, cls=CountingAsyncEmitter, **settings)

    return make
