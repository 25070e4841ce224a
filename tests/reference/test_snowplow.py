"""`Snowplow`: trackers of snowplow-tracker by namespace, with fastemit's emitter inside."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import snowplow_tracker
import trustme
from snowplow_tracker import Subject, Tracker, TrackerConfiguration

import fastemit
from fastemit import Emitter, EmitterConfiguration, Snowplow
from fastemit.emitter_configuration import REFERENCE_SETTINGS
from fastemit.testing import Collector
from tests.support.configuration import TAKEN
from tests.support.emitters import QUICK, Recorder
from tests.support.snowplow import BOTH, Create, emitter_of, page, urls

pytestmark = pytest.mark.usefixtures("no_trackers")

#: Settings that an emitter shows.
SHOWN = sorted(set(TAKEN) & set(dir(Emitter)) - {"event_store"})


@pytest.fixture
def settings_given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each emitter that `Snowplow` makes is made with."""
    given: list[dict[str, Any]] = []

    class Told(Emitter):
        def __init__(self, endpoint: str, **settings: Any) -> None:
            given.append({"endpoint": endpoint, **settings})
            super().__init__(endpoint, **settings)

    monkeypatch.setattr("fastemit.snowplow.Emitter", Told)
    return given


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate authority."""
    file = tmp_path_factory.mktemp("authorities") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    return file


# -- create_tracker --------------------------------------------------------------------------------------------------


def test_the_parameters_are_the_references() -> None:
    reference = inspect.signature(snowplow_tracker.Snowplow.create_tracker).parameters
    ours = inspect.signature(Snowplow.create_tracker).parameters
    assert list(ours) == list(reference)
    assert [ours[name].default for name in ("method", "app_id", "subject")] == ["post", None, None]


def test_no_default_is_mutable() -> None:
    parameters = inspect.signature(Snowplow.create_tracker).parameters
    assert (parameters["tracker_config"].default, parameters["emitter_config"].default) == (None, None)


def test_everything_public_in_the_reference_is_there() -> None:
    names = {name for name in dir(snowplow_tracker.Snowplow) if not name.startswith("_")}
    assert names - set(dir(Snowplow)) == set()


def test_the_tracker_and_the_emitter_are_ours(create: Create) -> None:
    tracker = create()
    assert type(tracker) is fastemit.Tracker
    assert isinstance(tracker, Tracker)
    assert type(emitter_of(tracker)) is Emitter


@pytest.mark.parametrize("method", ["post", "get"])
def test_a_tracked_event_arrives(create: Create, collector: Collector, method: str) -> None:
    subject = Subject().set_user_id("alice")
    tracker = create("shop", method=method, app_id="till", subject=subject)
    tracker.track(page(1))
    tracker.flush()
    (event,) = collector.events
    assert (event["url"], event["tna"], event["aid"], event["uid"]) == (
        "https://example.com/1",
        "shop",
        "till",
        "alice",
    )
    assert [request.method for request in collector.requests] == [method.upper()]


def test_arguments_can_be_given_by_position(collector: Collector) -> None:
    subject, config = Subject(), EmitterConfiguration(batch_size=4)
    tracker = Snowplow.create_tracker("a", collector.url, "get", "app", subject, TrackerConfiguration(False), config)
    emitter = emitter_of(tracker)
    assert (tracker.subject, tracker.encode_base64) == (subject, False)
    assert tracker.standard_nv_pairs["aid"] == "app"
    assert (emitter.method, emitter.batch_size) == ("get", 4)


def test_the_trackers_configuration_is_passed_on(create: Create) -> None:
    tracker = create(tracker_config=TrackerConfiguration(encode_base64=False, json_encoder=repr))
    assert (tracker.encode_base64, tracker.json_encoder) == (False, repr)


@BOTH
def test_without_a_trackers_configuration_it_is_the_references_default(registry: Any) -> None:
    tracker = registry.create_tracker("shop", "example.com")
    expected = TrackerConfiguration()  # 1.0.0 has another default than 1.1.0
    assert (tracker.encode_base64, tracker.json_encoder) == (expected.encode_base64, expected.json_encoder)


@BOTH
@pytest.mark.parametrize("endpoint", ["example.com", "http://example.com:8080", "https://example.com/"])
def test_the_collectors_address_is_the_references(registry: Any, endpoint: str) -> None:
    expected = snowplow_tracker.Emitter(endpoint).endpoint
    assert emitter_of(registry.create_tracker("shop", endpoint)).endpoint == expected


# -- settings of the emitter -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TAKEN)
def test_a_setting_arrives_in_the_emitter(
    create: Create, settings_given: list[dict[str, Any]], collector: Collector, name: str, authorities: Path
) -> None:
    value: Any = authorities if name == "ca_certs" else TAKEN[name]
    create(emitter_config=EmitterConfiguration(**{name: value}))
    assert settings_given == [{"endpoint": collector.url, "method": "post", name: value}]


@pytest.mark.parametrize("name", REFERENCE_SETTINGS)
def test_a_setting_of_the_references_configuration_arrives_too(
    create: Create, settings_given: list[dict[str, Any]], collector: Collector, name: str
) -> None:
    create(emitter_config=snowplow_tracker.EmitterConfiguration(**{name: TAKEN[name]}))
    assert settings_given == [{"endpoint": collector.url, "method": "post", name: TAKEN[name]}]


def test_a_setting_is_seen_on_the_emitter(create: Create) -> None:
    settings = {name: TAKEN[name] for name in SHOWN}
    emitter = emitter_of(create(emitter_config=EmitterConfiguration(**settings)))
    assert {name: getattr(emitter, name) for name in settings} == settings
    assert {"batch_size", "byte_limit", "custom_retry_codes", "max_retry_delay_seconds"} <= set(settings)


@pytest.mark.parametrize("config", [None, EmitterConfiguration(), snowplow_tracker.EmitterConfiguration()])
def test_what_is_not_set_is_the_emitters_default(
    create: Create, settings_given: list[dict[str, Any]], collector: Collector, config: Any
) -> None:
    create(emitter_config=config)
    assert settings_given == [{"endpoint": collector.url, "method": "post"}]


@pytest.mark.parametrize("configuration", [EmitterConfiguration, snowplow_tracker.EmitterConfiguration])
def test_the_capacity_arrives(create: Create, configuration: Any) -> None:
    tracker = create(emitter_config=configuration(buffer_capacity=25))
    assert emitter_of(tracker).event_store.buffer_capacity == 25


def test_the_reference_drops_the_capacity() -> None:
    # What the test above is about.
    config = snowplow_tracker.EmitterConfiguration(buffer_capacity=25)
    tracker = snowplow_tracker.Snowplow.create_tracker("shop", "example.com", emitter_config=config)
    assert emitter_of(tracker).event_store.buffer_capacity == 10_000


def test_one_tracker_does_not_change_anothers_settings(create: Create) -> None:
    first, second = create("a"), create("b")
    emitter_of(first).custom_retry_codes = {500: False}
    assert emitter_of(second).custom_retry_codes == {}


def test_a_configuration_can_be_used_again(create: Create) -> None:
    config = EmitterConfiguration(buffer_capacity=25, custom_retry_codes={500: False})
    first = create("a", emitter_config=config)
    config.set_retry_code(502, False)
    config.buffer_capacity = 30
    second = create("b", emitter_config=config)
    emitters = [emitter_of(first), emitter_of(second)]
    assert [emitter.custom_retry_codes for emitter in emitters] == [{500: False}, {500: False, 502: False}]
    assert [emitter.event_store.buffer_capacity for emitter in emitters] == [25, 30]


def test_whatever_has_the_references_settings_is_a_configuration(create: Create) -> None:
    class Mine:
        def __init__(self) -> None:
            self.__dict__.update(dict.fromkeys(REFERENCE_SETTINGS), batch_size=3, shutdown_timeout=0)

    assert emitter_of(create(emitter_config=Mine())).batch_size == 3


@pytest.mark.parametrize("configuration", [EmitterConfiguration, snowplow_tracker.EmitterConfiguration])
def test_retry_rules_and_callbacks_work(create: Create, collector: Collector, configuration: Any) -> None:
    told = Recorder()
    config = configuration(on_success=told.success, on_failure=told.failure)
    config.custom_retry_codes = {}
    config.set_retry_code(401)
    config.set_retry_code(500, False)
    tracker = create(emitter_config=config)
    collector.respond(500)
    collector.respond(401)
    tracker.track(page(1))
    tracker.flush()
    tracker.track(page(2))
    tracker.flush()
    tracker.flush()
    assert urls(collector) == ["https://example.com/2"]
    assert [count for count, _ in told.failures] == [0, 0]
    assert [[event["url"] for event in events] for events in told.successes] == [["https://example.com/2"]]
    assert emitter_of(tracker).stats().dropped_events["rejected"] == 1


def test_the_longest_delay_is_kept_to(create: Create, collector: Collector) -> None:
    tracker = create(emitter_config=EmitterConfiguration(max_retry_delay_seconds=QUICK))
    collector.respond(503, times=4)
    tracker.track(page(1))
    tracker.flush()
    collector.wait_for(1)
    assert len(collector.requests) == 5


# -- what is refused -------------------------------------------------------------------------------------------------


@BOTH
def test_no_endpoint_is_a_type_error(registry: Any) -> None:
    with pytest.raises(TypeError):
        registry.create_tracker("shop", None)
    assert registry.get_tracker("shop") is None


@BOTH
def test_a_namespace_that_is_taken_is_a_type_error(registry: Any) -> None:
    first = registry.create_tracker("shop", "example.com")
    with pytest.raises(TypeError, match=r"^Tracker with this namespace already exists"):
        registry.create_tracker("shop", "example.org")
    assert registry.get_tracker("shop") is first


@BOTH
def test_a_tracker_that_is_there_already_is_a_type_error(registry: Any) -> None:
    tracker = registry.create_tracker("shop", "example.com")
    with pytest.raises(TypeError, match=r"^Tracker with this namespace already exists"):
        registry.add_tracker(tracker)


@BOTH
def test_an_empty_endpoint_is_a_value_error(registry: Any) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        registry.create_tracker("shop", "")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"endpoint": None}, TypeError, r"^endpoint must be "),
        ({"namespace": None}, TypeError, r"^namespace must be a string, not NoneType None$"),
        ({"namespace": 1}, TypeError, r"^namespace must be a string, not int 1$"),
        ({"method": "put"}, ValueError, r"^method must be one of 'get', 'post', not 'put'$"),
        ({"emitter_config": {}}, TypeError, r"^emitter_config must be None or an EmitterConfiguration, not dict {}$"),
        ({"emitter_config": EmitterConfiguration}, TypeError, r"^emitter_config must be None or an Emitter"),
        ({"emitter_config": TrackerConfiguration()}, TypeError, r"^emitter_config must be None or an Emitter"),
        ({"tracker_config": {}}, TypeError, r"^tracker_config must be None or a TrackerConfiguration, not dict {}$"),
        ({"tracker_config": EmitterConfiguration()}, TypeError, r"^tracker_config must be None or a TrackerC"),
        ({"emitter_config": snowplow_tracker.EmitterConfiguration(batch_size=0)}, ValueError, r"^batch_size must be "),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_registered(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Snowplow.create_tracker(**{"namespace": "shop", "endpoint": "example.com", **arguments})
    assert Snowplow.get_tracker("shop") is None
