"""Every name that a program may import from snowplow_tracker's modules of emitters is in fastemit's modules, too."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import snowplow_tracker.typing
import typing_extensions

import fastemit.emitters
import fastemit.typing
from tests.support.reference import needs_reference_0_15, runner_with_0_15

MODULES = ["emitters", "event_store", "emitter_configuration", "snowplow", "typing"]
#: Those of 0.15 that 1.0 has not.
EXTRAS_OF_0_15 = ["redis", "redis.redis_emitter", "redis.redis_worker", "celery", "celery.celery_emitter"]
#: What is no part of the emitters' interface: the inner parts of the reference's emitters, and names of the tracker's.
LEFT_OUT = {
    "FlushTimer": "`timer.is_active()`, `set_flush_timer` and `cancel_flush_timer` are the interface",
    "Requester": "`session` and `http_post` are the interface",
    "SelfDescribingJson": "the tracker's: snowplow_tracker.SelfDescribingJson",
    "one_of": "the tracker's: snowplow_tracker.contracts",
}


def own_names(module: types.ModuleType) -> set[str]:
    """The public names of a module that are neither modules nor from the standard library."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and getattr(typing, name, None) is not value
        and getattr(typing_extensions, name, None) is not value
        and getattr(value, "__module__", "").partition(".")[0]
        not in ("celery", "gevent", "logging", "queue", "signal", "warnings", "_warnings")
    }


#: Prints the names of modules, in a process that has another snowplow_tracker, and the time, as such programs do.
_PROGRAM = f"""
import json, time, types, typing, typing_extensions
from importlib import import_module
import snowplow_tracker

{inspect.getsource(own_names)}
modules = {[*MODULES, *EXTRAS_OF_0_15]}
print(json.dumps({{name: sorted(own_names(import_module("snowplow_tracker." + name))) for name in modules}}))
print(time.time())
"""


def missing(module: str, names: set[str]) -> set[str]:
    ours = import_module(f"fastemit.{module}")
    return {name for name in names - LEFT_OUT.keys() if not hasattr(ours, name)}


@pytest.mark.parametrize("module", MODULES)
def test_each_name_of_the_installed_snowplow_tracker_is_here(module: str) -> None:
    names = own_names(import_module(f"snowplow_tracker.{module}"))
    assert names  # there is something to look for
    assert missing(module, names) == set()


@needs_reference_0_15
def test_each_name_of_0_15_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("celery")
    names = json.loads(runner_with_0_15(tmp_path, monkeypatch)(_PROGRAM, "").lines[0])
    assert {"RedisEmitter", "RedisWorker"} <= set(names["redis"])
    assert {"DEFAULT_KEY", "RedisProtocol"} <= {*names["redis.redis_worker"], *names["redis.redis_emitter"]}
    assert {"CeleryEmitter", "Emitter"} <= set(names["celery.celery_emitter"])
    assert {module: missing(module, set(names[module])) for module in names} == {module: set() for module in names}


@pytest.mark.parametrize("module", MODULES)
def test_a_type_checker_sees_each_of_them(module: str) -> None:
    # mypy --strict takes what is imported for the module's own only if `__all__` names it.
    names = own_names(import_module(f"snowplow_tracker.{module}")) - LEFT_OUT.keys()
    assert names - set(import_module(f"fastemit.{module}").__all__) == set()


def test_what_is_left_out_is_not_here_unnoticed() -> None:
    here = {name for name in LEFT_OUT for module in MODULES if hasattr(import_module(f"fastemit.{module}"), name)}
    assert here == set()


@pytest.mark.parametrize("name", ["DEFAULT_MAX_LENGTH", "METHODS", "PAYLOAD_DATA_SCHEMA", "PROTOCOLS"])
def test_a_constant_of_the_emitters_has_the_reference_s_value(name: str) -> None:
    assert getattr(fastemit.emitters, name) == getattr(snowplow_tracker.emitters, name)


@pytest.mark.parametrize("name", ["FORM_NODE_NAMES", "FORM_TYPES", "SUPPORTED_PLATFORMS"])
def test_a_constant_of_the_types_has_the_reference_s_value(name: str) -> None:
    assert getattr(fastemit.typing, name) == getattr(snowplow_tracker.typing, name)


@pytest.mark.parametrize("name", ["FormNodeName", "HttpProtocol", "Method", "SupportedPlatform"])
def test_a_type_of_words_has_the_reference_s_words(name: str) -> None:
    ours, theirs = (typing.get_args(getattr(module, name)) for module in (fastemit.typing, snowplow_tracker.typing))
    assert ours == theirs != ()


def test_the_schema_is_that_of_a_request(collector: Any, make_emitter: Callable[..., Any]) -> None:
    emitter = make_emitter()
    emitter.input({"e": "pv"})
    emitter.flush()
    assert json.loads(collector.requests[0].body)["schema"] == fastemit.emitters.PAYLOAD_DATA_SCHEMA


@pytest.mark.parametrize(
    "module",
    [
        "fastemit",
        "fastemit.emitters",
        "fastemit.snowplow",
        "fastemit.redis.redis_emitter",
        "fastemit.celery.celery_emitter",
    ],
)
def test_the_logger_is_fastemit_s(module: str) -> None:
    assert import_module(module).logger.name == "fastemit"
