"""`Snowplow`: trackers of snowplow-tracker by namespace, with fastemit's emitter inside."""

from __future__ import annotations

import gc
import inspect
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import snowplow_tracker
import trustme
from snowplow_tracker import PageView, Subject, Tracker, TrackerConfiguration

import fastemit
from fastemit import Emitter, EmitterConfiguration, Snowplow
from fastemit.emitter_configuration import REFERENCE_SETTINGS
from fastemit.testing import Collector
from tests.support.configuration import TAKEN
from tests.support.emitters import QUICK, Recorder, join, threads_of, until

Create = Callable[..., Tracker]
BOTH = pytest.mark.parametrize("registry", [Snowplow, snowplow_tracker.Snowplow], ids=["ours", "reference"])
#: Settings that an emitter shows.
SHOWN = sorted(set(TAKEN) & set(dir(Emitter)) - {"event_store"})


def emitter_of(tracker: Tracker) -> Any:
    (emitter,) = tracker.emitters
    return emitter


def page(number: int = 0) -> PageView:
    return PageView(page_url=f"https://example.com/{number}")


def urls(collector: Collector) -> list[str]:
    return [event["url"] for event in collector.events]


@pytest.fixture(autouse=True)
def _forget_trackers() -> Iterator[None]:
    yield
    Snowplow.reset()
    snowplow_tracker.Snowplow.reset()


@pytest.fixture
def create(collector: Collector) -> Iterator[Create]:
    """`Snowplow.create_tracker`, to `collector` if nothing else is said; the emitters are closed after the test."""
    made: list[weakref.ref[Any]] = []

    def create_tracker(namespace: str = "shop", endpoint: str | None = None, **arguments: Any) -> Tracker:
        tracker = Snowplow.create_tracker(namespace, collector.url if endpoint is None else endpoint, **arguments)
        made.append(weakref.ref(emitter_of(tracker)))
        return tracker

    yield create_tracker
    for reference in made:
        if (emitter := reference()) is not None:
            emitter.close(0)


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


def output_of(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    return done.stdout.strip()


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


# -- the registry ----------------------------------------------------------------------------------------------------


@BOTH
def test_trackers_are_found_by_namespace(registry: Any) -> None:
    first, second = registry.create_tracker("a", "example.com"), registry.create_tracker("b", "example.com")
    assert [registry.get_tracker(name) for name in ("a", "b", "c")] == [first, second, None]


@BOTH
def test_a_users_tracker_can_be_added(registry: Any) -> None:
    tracker = Tracker("mine", fastemit.Emitter("example.com"))
    assert registry.add_tracker(tracker) is tracker
    assert registry.get_tracker("mine") is tracker


@BOTH
@pytest.mark.parametrize("value", [None, "shop", 1, Tracker])
def test_what_is_no_tracker_is_not_added(registry: Any, value: Any) -> None:
    assert registry.add_tracker(value) is None


@BOTH
def test_a_removed_tracker_is_not_found_and_its_namespace_free(registry: Any) -> None:
    first = registry.create_tracker("shop", "example.com")
    registry.remove_tracker(first)
    assert registry.get_tracker("shop") is None
    second = registry.create_tracker("shop", "example.com")
    assert registry.get_tracker("shop") is second is not first


@BOTH
def test_a_tracker_is_removed_by_namespace(registry: Any) -> None:
    kept = registry.create_tracker("a", "example.com")
    registry.create_tracker("b", "example.com")
    registry.remove_tracker_by_namespace("b")
    assert [registry.get_tracker(name) for name in ("a", "b")] == [kept, None]


@BOTH
def test_removing_what_is_not_there_changes_nothing(registry: Any) -> None:
    kept = registry.create_tracker("a", "example.com")
    registry.remove_tracker_by_namespace("b")
    registry.remove_tracker(Tracker("b", fastemit.Emitter("example.com")))
    assert registry.get_tracker("a") is kept


@BOTH
def test_reset_forgets_all(registry: Any) -> None:
    for name in ("a", "b"):
        registry.create_tracker(name, "example.com")
    registry.reset()
    assert [registry.get_tracker(name) for name in ("a", "b")] == [None, None]


def test_a_removed_tracker_still_sends(create: Create, collector: Collector) -> None:
    tracker = create()
    Snowplow.remove_tracker(tracker)
    tracker.track(page(1))
    tracker.flush()
    assert urls(collector) == ["https://example.com/1"]


def test_what_is_queued_at_reset_is_sent(create: Create, collector: Collector) -> None:
    create().track(page(1))
    Snowplow.reset()
    gc.collect()
    collector.wait_for(1)
    assert urls(collector) == ["https://example.com/1"]


def test_of_threads_that_take_one_namespace_one_wins() -> None:
    together = threading.Barrier(8)
    won: list[Tracker] = []
    lost: list[TypeError] = []

    def take(number: int) -> None:
        tracker = Tracker("shop", Emitter("http://127.0.0.1:1"))
        together.wait()
        try:
            won.append(Snowplow.add_tracker(tracker))
        except TypeError as error:
            lost.append(error)

    join(threads_of(8, take))
    assert (len(won), len(lost)) == (1, 7)
    assert Snowplow.get_tracker("shop") is won[0]


def test_threads_may_add_and_remove_side_by_side() -> None:
    def use(number: int) -> None:
        for turn in range(50):
            tracker = Snowplow.create_tracker(f"{number}", "http://127.0.0.1:1")
            assert Snowplow.get_tracker(f"{number}") is tracker
            if turn % 2:
                Snowplow.remove_tracker(tracker)
            else:
                Snowplow.remove_tracker_by_namespace(f"{number}")
        done.append(number)

    done: list[int] = []
    join(threads_of(4, use))
    until(lambda: sorted(done) == [0, 1, 2, 3])


# -- the log ---------------------------------------------------------------------------------------------------------


def lines_of(registry: Any, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        registry.add_tracker(None)
        registry.remove_tracker(registry.create_tracker("shop", "example.com"))
        registry.remove_tracker_by_namespace("shop")
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if line.startswith("Tracker ")]


def test_the_lines_are_the_references_and_fastemits_logger_has_them(caplog: pytest.LogCaptureFixture) -> None:
    expected = lines_of(snowplow_tracker.Snowplow, caplog)
    assert lines_of(Snowplow, caplog) == expected
    assert {(record.name, record.levelno) for record in caplog.records} == {("fastemit", logging.INFO)}


def test_nothing_is_written_unless_it_is_asked_for() -> None:
    program = """
import fastemit
fastemit.Snowplow.create_tracker("shop", "example.com")
fastemit.Snowplow.remove_tracker_by_namespace("shop")
"""
    assert output_of(program) == ""


def test_the_root_logger_is_left_as_it_is() -> None:
    program = """
import logging
root = logging.getLogger()
before = (root.level, root.handlers[:])
import fastemit
fastemit.Snowplow.create_tracker("shop", "example.com")
print(before == (root.level, root.handlers))
"""
    assert output_of(program) == "True"


# -- import ----------------------------------------------------------------------------------------------------------


def test_snowplow_tracker_is_imported_at_first_use() -> None:
    program = """
import sys, fastemit
before = "snowplow_tracker" in sys.modules
fastemit.Snowplow
print(before, "snowplow_tracker" in sys.modules, fastemit.Snowplow is fastemit.snowplow.Snowplow)
"""
    assert output_of(program) == "False True True"


@pytest.mark.parametrize(
    "use",
    [
        "fastemit.Snowplow",
        "from fastemit import Snowplow",
        "import fastemit.snowplow",
        "hasattr(fastemit, 'Snowplow')",
        "fastemit.Tracker",
        "from fastemit import Tracker",
        "import fastemit.tracker",
    ],
)
def test_without_the_package_an_import_error_says_what_to_install(use: str) -> None:
    program = f"""
import sys, fastemit
sys.modules["snowplow_tracker"] = None
for _ in range(2):
    try:
        {use}
    except ImportError as error:
        print(error)
"""
    expected = (
        'fastemit.Tracker and fastemit.Snowplow need the package snowplow-tracker: pip install "fastemit[tracker]"'
    )
    assert output_of(program).splitlines() == [expected, expected]


def test_what_snowplow_tracker_itself_misses_is_not_called_the_extra() -> None:
    program = """
import sys, fastemit
sys.modules["requests"] = None
try:
    fastemit.Snowplow
except ImportError as error:
    print(error.name)
"""
    assert output_of(program) == "requests"


def test_without_the_package_everything_else_works() -> None:
    program = """
import sys
sys.modules["snowplow_tracker"] = None
from fastemit import *
import fastemit, inspect
print(Emitter("example.com").batch_size, EmitterConfiguration(batch_size=3).emitter_arguments())
print("Snowplow" in dir(fastemit), ("Emitter", Emitter) in inspect.getmembers(fastemit))
"""
    assert output_of(program).splitlines() == ["10 {'batch_size': 3}", "False True"]


def test_with_the_package_the_name_is_listed_before_it_is_imported() -> None:
    program = """
import sys, fastemit
print("Snowplow" in dir(fastemit), "snowplow_tracker" in sys.modules)
"""
    assert output_of(program) == "True False"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'fastemit' has no attribute 'Snowplough'$"):
        _ = fastemit.Snowplough  # type: ignore[attr-defined]
