"""Arguments as older programs and the environment give them: names of before, ports as digits, half a timeout."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import requests

import fastemit
from fastemit import AsyncEmitter, Emitter, EmitterConfiguration
from fastemit.testing import Collector
from tests.support.delivery import silent, within

MakeEmitter = Callable[..., Any]


def of(name: str) -> Any:
    """A class of fastemit's that may need an extra."""
    pytest.importorskip({"R": "redis", "C": "celery"}.get(name[0], "fastemit"))
    return getattr(fastemit, name)


# -- names of before -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Emitter", "AsyncEmitter", "CeleryEmitter", "EmitterConfiguration"])
def test_buffer_size_is_called_batch_size_now(name: str) -> None:
    arguments = () if name == "EmitterConfiguration" else ("example.com",)
    with pytest.raises(TypeError, match=r"^buffer_size is called batch_size now: write batch_size=3$"):
        of(name)(*arguments, buffer_size=3)


@pytest.mark.parametrize(("old", "new"), [("dbr", "rdb"), ("_consumer", "emitter")])
def test_the_worker_s_old_names_are_answered_with_today_s(old: str, new: str) -> None:
    with pytest.raises(TypeError, match=rf"^{old} is called {new} now: write {new}=None$"):
        of("RedisWorker")(Emitter("example.com"), **{old: None})


def test_a_subclass_that_passes_an_old_name_on_is_told_too() -> None:
    class Mine(Emitter):
        def __init__(self, endpoint: str, **settings: Any) -> None:
            super().__init__(endpoint, **settings)

    with pytest.raises(TypeError, match=r"^buffer_size is called batch_size now"):
        Mine("example.com", buffer_size=3)


def test_a_name_that_there_never_was_is_python_s_own_error() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'bufer_size'"):
        Emitter("example.com", bufer_size=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["Emitter", "AsyncEmitter", "CeleryEmitter", "EmitterConfiguration", "RedisWorker"])
def test_the_signature_is_that_of_today(name: str) -> None:
    parameters = inspect.signature(of(name)).parameters
    assert not {"buffer_size", "dbr", "_consumer", "args", "kwargs"} & parameters.keys()
    assert len(parameters) > 2


def test_the_flush_timer_s_second_argument_of_before_is_answered_with_what_to_do() -> None:
    with Emitter("http://127.0.0.1:1", shutdown_timeout=0) as emitter:
        with pytest.raises(TypeError, match=r"^flush_now is gone: call flush\(\)"):
            emitter.set_flush_timer(5, flush_now=True)  # type: ignore[call-arg]
        assert not emitter.timer.is_active()


# -- a port as digits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["8080", "08080", 8080])
@pytest.mark.parametrize("name", ["Emitter", "AsyncEmitter", "CeleryEmitter"])
def test_a_port_may_be_its_digits(name: str, port: Any) -> None:
    assert of(name)("example.com", port=port).endpoint == (
        "https://example.com:8080/com.snowplowanalytics.snowplow/tp2"
    )


def test_the_address_by_hand_takes_digits_too() -> None:
    assert Emitter.as_collector_uri("example.com", "http", "8080", "get") == "http://example.com:8080/i"


def test_events_go_to_a_port_that_was_given_as_digits(make_emitter: MakeEmitter, collector: Collector) -> None:
    host, port = collector.url.removeprefix("http://").split(":")
    emitter = make_emitter(host, protocol="http", port=port)
    emitter.input({"e": "pv"})
    emitter.flush()
    assert len(collector.events) == 1


def test_a_worker_of_celery_gets_the_port_as_a_number() -> None:
    emitter = of("CeleryEmitter")("example.com", port="8080")
    assert emitter._publisher.destination.endpoint.port == 8080


# -- half a timeout --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [((None, 5), (10.0, 5.0)), ((3, None), (3.0, 30.0)), ([None, None], (10.0, 30.0)), ((None, 0.5), (10.0, 0.5))],
)
@pytest.mark.parametrize("name", ["Emitter", "AsyncEmitter", "CeleryEmitter"])
def test_none_in_a_pair_is_the_default_of_its_half(name: str, given: Any, expected: tuple[float, float]) -> None:
    emitter = of(name)("example.com", request_timeout=given)
    assert (emitter._transport.timeout, emitter.request_timeout) == (expected, given)
    emitter.request_timeout = 7
    emitter.request_timeout = given
    assert (emitter._transport.timeout, emitter.request_timeout) == (expected, given)


def test_a_configuration_passes_half_a_timeout_on() -> None:
    config = EmitterConfiguration(request_timeout=(None, 5))
    assert Emitter("example.com", **config.emitter_arguments())._transport.timeout == (10.0, 5.0)


@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
@pytest.mark.parametrize("with_session", [False, True], ids=["pool", "session"])
def test_the_half_that_was_given_holds(make_emitter: MakeEmitter, cls: Any, with_session: bool) -> None:
    settings = {"session": requests.Session()} if with_session else {}
    with silent() as server:
        emitter = make_emitter(server.url, request_timeout=(None, 0.05), **settings)
        emitter.input({"e": "pv"})
        with within(5):
            emitter.sync_flush()
        assert emitter.stats().failed_requests == 1
