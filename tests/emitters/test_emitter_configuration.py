"""`EmitterConfiguration`: what it takes and refuses, and what an emitter is made with."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest
import snowplow_tracker

from fastemit import Emitter, EmitterConfiguration
from fastemit.emitter_configuration import REFERENCE_SETTINGS, SETTINGS, arguments_of
from tests.support.configuration import TAKEN, message_of, refused


class Names(dict[str, Any]):
    """A store that is a mapping as well."""

    def add_event(self, payload: Any) -> bool:
        return True

    def get_events_batch(self) -> list[Any]:
        return []

    def cleanup(self, batch: Any, need_retry: bool) -> None: ...

    def size(self) -> int:
        return 0


# -- the interface ---------------------------------------------------------------------------------------------------


def test_the_positional_parameters_are_the_references_in_its_order() -> None:
    reference = inspect.signature(snowplow_tracker.EmitterConfiguration).parameters
    ours = inspect.signature(EmitterConfiguration).parameters
    positional = [name for name, parameter in ours.items() if parameter.kind is not parameter.KEYWORD_ONLY]
    assert positional == list(reference) == list(REFERENCE_SETTINGS)


def test_the_settings_are_those_of_the_emitter() -> None:
    of_the_emitter = set(inspect.signature(Emitter).parameters) - {"endpoint", "protocol", "port", "method"}
    assert set(inspect.signature(EmitterConfiguration).parameters) == set(SETTINGS) == of_the_emitter == set(TAKEN)


def test_everything_public_in_the_reference_is_there() -> None:
    names = {name for name in dir(snowplow_tracker.EmitterConfiguration) if not name.startswith("_")}
    assert names - set(dir(EmitterConfiguration)) == set()


def test_every_default_leaves_the_setting_to_the_emitter() -> None:
    assert {parameter.default for parameter in inspect.signature(EmitterConfiguration).parameters.values()} == {None}
    assert EmitterConfiguration().emitter_arguments() == {}


@pytest.mark.parametrize("name", REFERENCE_SETTINGS)
def test_what_is_not_set_reads_as_in_the_reference(name: str) -> None:
    assert getattr(EmitterConfiguration(), name) == getattr(snowplow_tracker.EmitterConfiguration(), name)


@pytest.mark.parametrize("name", REFERENCE_SETTINGS)
def test_what_is_set_reads_as_in_the_reference(name: str) -> None:
    theirs = snowplow_tracker.EmitterConfiguration(**{name: TAKEN[name]})
    assert getattr(EmitterConfiguration(**{name: TAKEN[name]}), name) == getattr(theirs, name) == TAKEN[name]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(inspect.getattr_static(EmitterConfiguration, name))


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_kept_at_construction(name: str) -> None:
    config = EmitterConfiguration(**{name: TAKEN[name]})
    assert getattr(config, name) == TAKEN[name]
    assert config.emitter_arguments() == {name: TAKEN[name]}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_can_be_assigned(name: str) -> None:
    config = EmitterConfiguration()
    setattr(config, name, TAKEN[name])
    assert config.emitter_arguments() == {name: TAKEN[name]}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_is_assigned_none_is_the_emitters_again(name: str) -> None:
    config = EmitterConfiguration(**{name: TAKEN[name]})
    setattr(config, name, None)
    assert config.emitter_arguments() == {}


@pytest.mark.parametrize(("name", "value"), list(refused()))
def test_what_the_emitter_refuses_is_refused_at_construction_in_its_words(name: str, value: Any) -> None:
    expected = message_of(lambda: Emitter("example.com", **{name: value}))
    assert message_of(lambda: EmitterConfiguration(**{name: value})) == expected


@pytest.mark.parametrize(("name", "value"), list(refused()))
def test_what_is_assigned_is_checked_and_a_refusal_changes_nothing(name: str, value: Any) -> None:
    config = EmitterConfiguration(**{name: TAKEN[name]})
    expected = message_of(lambda: Emitter("example.com", **{name: value}))
    assert message_of(lambda: setattr(config, name, value)) == expected
    assert getattr(config, name) == TAKEN[name]


def test_one_configuration_is_not_another_one() -> None:
    first, second = EmitterConfiguration(), EmitterConfiguration()
    first.set_retry_code(500, False)
    first.custom_retry_codes[401] = True
    first.batch_size = 3
    assert (second.custom_retry_codes, second.batch_size) == ({}, None)


def test_the_reference_shares_its_retry_codes() -> None:
    # What the test above is about. Put back, for it is shared with every other test.
    first, second = snowplow_tracker.EmitterConfiguration(), snowplow_tracker.EmitterConfiguration()
    first.set_retry_code(500, False)
    assert second.custom_retry_codes.pop(500) is False


@pytest.mark.parametrize(("name", "value"), [("custom_retry_codes", {500: False}), ("headers", {"X-Key": "value"})])
def test_a_dict_is_copied(name: str, value: Any) -> None:
    given: Any = dict(value)
    config = EmitterConfiguration(**{name: given})
    given.clear()
    assert getattr(config, name) == value


def test_a_store_that_is_a_mapping_is_not_copied() -> None:
    store = Names()
    assert EmitterConfiguration(event_store=store).event_store is store


def test_a_property_of_a_subclass_counts() -> None:
    class Small(EmitterConfiguration):
        @property
        def buffer_capacity(self) -> int:
            return 5

        @buffer_capacity.setter
        def buffer_capacity(self, value: Any) -> None: ...

    assert Small().emitter_arguments() == {"buffer_capacity": 5}


def test_the_arguments_make_an_emitter() -> None:
    config = EmitterConfiguration(batch_size=3, custom_retry_codes={500: False})
    emitter = Emitter("example.com", **config.emitter_arguments())
    config.custom_retry_codes[502] = False
    assert (emitter.batch_size, emitter.custom_retry_codes) == (3, {500: False})


def test_what_is_put_into_the_retry_codes_is_checked() -> None:
    config: Any = EmitterConfiguration(custom_retry_codes={500: False})
    with pytest.raises(TypeError, match=r"^custom_retry_codes must be "):
        config.custom_retry_codes["500"] = True
    assert config.custom_retry_codes == {500: False}


# -- the reference's own ---------------------------------------------------------------------------------------------


def test_the_references_configuration_gives_the_same_arguments() -> None:
    settings = {name: TAKEN[name] for name in REFERENCE_SETTINGS}
    theirs = snowplow_tracker.EmitterConfiguration(**settings)
    assert arguments_of(theirs) == EmitterConfiguration(**settings).emitter_arguments() == settings


def test_the_references_configuration_with_nothing_set_gives_no_arguments() -> None:
    assert arguments_of(snowplow_tracker.EmitterConfiguration()) == {}


# -- retry codes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize("status", [100, 199, 300, 401, 500, 599])
def test_set_retry_code_adds_a_rule_as_the_reference_does(status: int, retry: bool) -> None:
    ours = EmitterConfiguration(custom_retry_codes={418: True})
    theirs = snowplow_tracker.EmitterConfiguration(custom_retry_codes={418: True})
    assert ours.set_retry_code(status, retry) is theirs.set_retry_code(status, retry) is True
    assert ours.custom_retry_codes == theirs.custom_retry_codes == {418: True, status: retry}


def test_set_retry_code_retries_by_default() -> None:
    config = EmitterConfiguration()
    config.set_retry_code(status_code=403)
    assert config.custom_retry_codes == {403: True}


def test_set_retry_code_replaces_a_rule() -> None:
    config = EmitterConfiguration(custom_retry_codes={500: False})
    config.set_retry_code(500)
    assert config.custom_retry_codes == {500: True}


@pytest.mark.parametrize(
    ("status", "retry"),
    [("500", True), (500.0, True), (None, True), (500, "yes"), (500, 1), (500, None), (200, True), (299, False)],
)
def test_set_retry_code_refuses_what_the_reference_refuses(
    status: Any, retry: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = EmitterConfiguration()
    theirs = snowplow_tracker.EmitterConfiguration(custom_retry_codes={})
    assert theirs.set_retry_code(status, retry) is False
    capsys.readouterr()
    assert ours.set_retry_code(status, retry) is False
    assert (ours.custom_retry_codes, theirs.custom_retry_codes) == ({}, {})
    assert capsys.readouterr() == ("", "")
    assert [(record.name, record.levelno) for record in caplog.records] == [("fastemit", logging.WARNING)]


@pytest.mark.parametrize("status", [True, 0, 99, 600, -500, []])
def test_set_retry_code_refuses_what_no_answer_has(status: Any) -> None:
    config = EmitterConfiguration()
    assert config.set_retry_code(status) is False
    assert config.custom_retry_codes == {}


# -- intended differences --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["batch_size", "byte_limit", "buffer_capacity"])
@pytest.mark.parametrize(("value", "theirs", "ours"), [("1", ValueError, TypeError), (-1, ValueError, ValueError)])
def test_a_wrong_type_is_a_type_error_where_the_reference_has_a_value_error(
    name: str, value: Any, theirs: type[Exception], ours: type[Exception]
) -> None:
    with pytest.raises(theirs, match=name):
        snowplow_tracker.EmitterConfiguration(**{name: value})
    with pytest.raises(ours, match=name):
        EmitterConfiguration(**{name: value})


@pytest.mark.parametrize("value", [0, True])
@pytest.mark.parametrize("name", ["batch_size", "byte_limit", "buffer_capacity"])
def test_zero_and_true_are_refused_where_the_reference_takes_them(name: str, value: Any) -> None:
    assert getattr(snowplow_tracker.EmitterConfiguration(**{name: value}), name) == value
    with pytest.raises((TypeError, ValueError), match=name):
        EmitterConfiguration(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("on_success", 1),
        ("on_failure", 1),
        ("request_timeout", "1"),
        ("custom_retry_codes", {"500": 1}),
        ("event_store", 1),
        ("session", 1),
    ],
)
def test_what_the_reference_does_not_check_is_checked(name: str, value: Any) -> None:
    assert getattr(snowplow_tracker.EmitterConfiguration(**{name: value}), name) == value
    with pytest.raises(TypeError, match=name):
        EmitterConfiguration(**{name: value})
