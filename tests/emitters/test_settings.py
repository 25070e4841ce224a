"""The rules for settings: one for each name, the same in every constructor and for every attribute."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter, EmitterConfiguration
from fastemit._settings import RULES, Settings, checked
from fastemit.celery import CeleryEmitter
from fastemit.redis import RedisEmitter
from tests.support.configuration import TAKEN, message_of, refused

#: Arguments of a constructor that are not settings: they say where events go, or are of this class alone.
OWN = {
    Emitter: {"endpoint", "protocol", "port", "method"},
    AsyncEmitter: {"endpoint", "protocol", "port", "method", "thread_count"},
    CeleryEmitter: {"endpoint", "protocol", "port", "method", "celery_app"},
    RedisEmitter: {"rdb", "key"},
    EmitterConfiguration: set(),
}
#: Settings that are another thing there: the worker calls no callback, and has certificates of its own.
OTHERWISE = {CeleryEmitter: {"on_success", "on_failure", "on_lost", "ca_certs"}}
#: What leaves it to the emitter, or to the store or the method.
LEFT_OPEN = {"batch_size", "buffer_capacity", "max_buffer_bytes"}


class Client:
    """What a `RedisEmitter` takes for a client of Redis."""

    def rpush(self, name: Any, *values: Any) -> int:
        raise ConnectionError("nobody is there")


def settings_of(cls: type) -> dict[str, Any]:
    """The names of its settings, and their defaults."""
    parameters = inspect.signature(cls).parameters
    return {name: each.default for name, each in parameters.items() if name not in OWN[cls]}


def made(cls: Any, **settings: Any) -> Any:
    if cls is EmitterConfiguration:
        return cls(**settings)
    return cls(Client(), **settings) if cls is RedisEmitter else cls("example.com", **settings)


def cases() -> Iterator[Any]:
    """(class, a setting that it has, a value that is refused)."""
    for cls in OWN:
        names = settings_of(cls).keys() - OTHERWISE.get(cls, set())
        for name, value in refused():
            if name in names:
                yield pytest.param(cls, name, value, id=f"{cls.__name__}-{name}-{value!r:.20}")


def assignable() -> Iterator[Any]:
    """(class, an attribute that can be assigned, a value that is refused)."""
    for cls in (Emitter, AsyncEmitter, CeleryEmitter):
        for name, value in refused():
            attribute = inspect.getattr_static(cls, name, None)
            if attribute is not None and name != "event_store" and name not in OTHERWISE.get(cls, set()):
                yield pytest.param(cls, name, value, id=f"{cls.__name__}-{name}-{value!r:.20}")


def test_the_value_has_a_field_for_each_rule() -> None:
    assert list(inspect.get_annotations(Settings)) == list(RULES)


@pytest.mark.parametrize("name", RULES)
def test_the_rule_gives_the_value_that_is_kept(name: str) -> None:
    kept = {name: str(TAKEN[name]) for name in ("ca_certs", "spool")}
    assert checked(name, TAKEN[name]) == kept.get(name, TAKEN[name])


@pytest.mark.parametrize("name", ["session", "pool_manager", "event_store", "on_success", "on_failure"])
def test_an_object_of_the_user_s_is_kept_itself(name: str) -> None:
    assert getattr(Settings.checked(batch_size=3, **{name: TAKEN[name]}), name) is TAKEN[name]


@pytest.mark.parametrize("cls", OWN)
def test_there_is_a_rule_for_each_setting_of_a_constructor(cls: type) -> None:
    assert settings_of(cls).keys() - RULES.keys() == set()
    assert len(settings_of(cls)) >= 10


@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter, EmitterConfiguration])
def test_a_constructor_over_http_has_every_setting(cls: type) -> None:
    assert settings_of(cls).keys() == RULES.keys() == TAKEN.keys()


@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter, CeleryEmitter, RedisEmitter])
def test_the_default_of_a_setting_is_the_same_in_every_constructor(cls: type) -> None:
    defaults = {name: vars(Settings).get(name, ...) for name in RULES}
    own = {AsyncEmitter: {"overflow": "drop_newest"}, RedisEmitter: {"batch_size": 1}}.get(cls, {})
    for name, default in settings_of(cls).items():
        if default is None and (name in LEFT_OPEN or defaults[name] is ...):
            continue
        assert (name, default) == (name, own.get(name, defaults[name]))


@pytest.mark.parametrize(("cls", "name", "value"), list(cases()))
def test_what_the_rule_refuses_every_constructor_refuses_in_its_words(cls: Any, name: str, value: Any) -> None:
    assert message_of(lambda: made(cls, **{name: value})) == message_of(lambda: checked(name, value))


@pytest.mark.parametrize(("cls", "name", "value"), list(assignable()))
def test_what_the_rule_refuses_cannot_be_assigned(cls: Any, name: str, value: Any) -> None:
    emitter = made(cls)
    before = getattr(emitter, name)
    assert message_of(lambda: setattr(emitter, name, value)) == message_of(lambda: checked(name, value))
    assert getattr(emitter, name) == before


@pytest.mark.parametrize(
    ("cls", "name"),
    [(cls, name) for cls in OWN for name, default in settings_of(cls).items() if default is not None],
)
def test_none_is_refused_where_it_is_not_the_default(cls: Any, name: str) -> None:
    kind, text = message_of(lambda: made(cls, **{name: None}))
    assert kind is TypeError
    assert text.startswith(f"{name} must be ")


def test_the_settings_of_an_emitter_cannot_be_changed() -> None:
    settings = Settings.checked(batch_size=3)
    with pytest.raises(AttributeError, match="batch_size"):
        settings.batch_size = 4
    with pytest.raises(AttributeError, match="batch_size"):
        del settings.batch_size
    assert settings.batch_size == 3


def test_the_settings_of_an_emitter_do_not_show_a_header() -> None:
    assert "secret" not in repr(Settings.checked(batch_size=3, headers={"X-Key": "secret"}))


@pytest.mark.parametrize("name", ["request_timeout", "max_retry_delay_seconds", "flush_interval"])
def test_seconds_may_be_any_real_number_and_no_other(name: str) -> None:
    half = checked(name, Fraction(1, 2))
    assert half == checked(name, 0.5)
    for wrong in (Decimal("0.5"), 0.5j, "0.5", True):
        with pytest.raises(TypeError, match="seconds"):
            checked(name, wrong)
