"""What CeleryEmitter can be told, how its app is configured, and what is documented of it."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from fastemit import Emitter
from fastemit.celery import CeleryEmitter, app
from fastemit.testing import Collector
from tests.support.celery_workers import PATIENCE, Celery, RedisServer, app_of, running
from tests.support.delivery import numbers
from tests.support.environment import environment
from tests.support.slow import slow
from tests.support.stores import ROOT, python_blocks

URL = "http://127.0.0.1:1"


def output_of(script: str, directory: Path, *arguments: str, **variables: str) -> str:
    """What a script prints that runs in this directory."""
    (directory / "script.py").write_text(textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, "script.py", *arguments],
        cwd=directory,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


# -- arguments -------------------------------------------------------------------------------------------------------


def test_the_positional_arguments_are_the_reference_s_in_its_order() -> None:
    parameters = inspect.signature(CeleryEmitter).parameters.values()
    positional = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert positional == ["endpoint", "protocol", "port", "method", "batch_size", "byte_limit"]


def test_all_that_emitter_has_is_there_but_for_what_cannot_travel() -> None:
    mine, theirs = (set(inspect.signature(cls).parameters) for cls in (CeleryEmitter, Emitter))
    assert theirs - mine == {"session", "pool_manager"}
    assert mine - theirs == {"celery_app"}


@pytest.mark.parametrize("name", ["on_success", "on_failure", "on_lost"])
def test_callbacks_are_refused(name: str) -> None:
    callback: Any = {name: print}
    with pytest.raises(TypeError, match=f"{name} must be None with a CeleryEmitter"):
        CeleryEmitter(URL, **callback)
    emitter = CeleryEmitter(URL)
    with pytest.raises(TypeError, match=f"{name} must be None with a CeleryEmitter"):
        setattr(emitter, name, print)
    setattr(emitter, name, None)
    assert getattr(emitter, name) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"celery_app": "redis://"}, "celery_app must be None or a celery.Celery, not str 'redis://'"),
        ({"celery_app": Celery}, "celery_app must be None or a celery.Celery"),
        ({"ca_certs": 5}, "ca_certs must be a path on the worker's machine, not int"),
        ({"batch_size": "10"}, "batch_size must be"),
        ({"custom_retry_codes": {"404": True}}, "custom_retry_codes must be"),
        ({"request_timeout": "10"}, "request_timeout must be"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        CeleryEmitter(URL, **settings)


def test_the_collector_is_that_of_the_arguments() -> None:
    emitter = CeleryEmitter("collector.example.com", "http", 9090, "get", 7, 5000)
    assert emitter.endpoint == "http://collector.example.com:9090/i"
    assert (emitter.method, emitter.batch_size, emitter.byte_limit) == ("get", 7, 5000)
    assert CeleryEmitter("collector.example.com").endpoint.startswith("https://")


def test_settings_of_the_worker_s_requests_can_be_changed() -> None:
    emitter = CeleryEmitter(URL, request_timeout=3, custom_retry_codes={404: False})
    assert (emitter.request_timeout, emitter.custom_retry_codes) == (3, {404: False})
    emitter.request_timeout = (1, 2)
    emitter.custom_retry_codes = {500: False}
    assert (emitter.request_timeout, emitter.custom_retry_codes) == ((1, 2), {500: False})
    assert emitter._publisher.destination.timeout == (1, 2)
    assert emitter._publisher.destination.retry_codes == {500: False}


def test_the_producer_needs_no_authorities_for_https(tmp_path: Path) -> None:
    script = """
    from fastemit.celery import CeleryEmitter
    print(CeleryEmitter("https://collector.example.com", ca_certs="/of/the/worker.pem"))
    """
    # One that would be refused by an emitter which sends itself.
    assert "CeleryEmitter https" in output_of(script, tmp_path, SSL_CERT_FILE=str(tmp_path / "script.py"))


# -- the app ---------------------------------------------------------------------------------------------------------


def test_the_task_loses_nothing_by_its_settings() -> None:
    task = app.tasks["fastemit.send"]
    assert (task.acks_late, task.reject_on_worker_lost, task.max_retries) == (True, True, None)
    assert (task.ignore_result, task.serializer) == (True, "json")
    assert task.acks_on_failure_or_timeout is False


def test_the_app_is_not_the_current_one_of_the_program(tmp_path: Path) -> None:
    script = """
    from celery import Celery, current_app
    theirs = Celery("theirs")
    import fastemit.celery
    assert current_app._get_current_object() is theirs
    assert "fastemit.send" in theirs.tasks
    """
    output_of(script, tmp_path)


def test_without_a_configuration_the_broker_is_a_redis_on_this_machine(tmp_path: Path) -> None:
    script = """
    from fastemit.celery import app
    print(app.conf.broker_url, app.conf.accept_content, app.conf.task_serializer)
    """
    assert output_of(script, tmp_path) == "redis://localhost:6379/0 ['json'] json"


@pytest.mark.parametrize("name", ["broker_url", "BROKER_URL"])
def test_a_configuration_on_the_path_configures_the_app(name: str, tmp_path: Path) -> None:
    (tmp_path / "snowplow_celery_config.py").write_text(f"{name} = 'redis://127.0.0.1:7/3'")
    script = """
    from fastemit.celery import app
    print(app.conf.broker_url, app.conf.accept_content)
    """
    assert output_of(script, tmp_path) == "redis://127.0.0.1:7/3 ['json']"


@pytest.mark.parametrize(
    ("configuration", "multiplier"),
    [
        ("", 1),
        ("worker_prefetch_multiplier = 7", 7),
        slow("CELERYD_PREFETCH_MULTIPLIER = 7", 7),
        slow("TASK_ROUTES = {}", 1),
    ],
)
def test_the_app_s_own_defaults_are_weaker_than_the_configuration(
    configuration: str, multiplier: int, tmp_path: Path
) -> None:
    (tmp_path / "snowplow_celery_config.py").write_text(configuration)
    script = """
    from fastemit.celery import app
    print(app.conf.worker_prefetch_multiplier, app.conf.broker_connection_retry_on_startup, app.conf.task_acks_late)
    """
    assert output_of(script, tmp_path) == f"{multiplier} True False"


@pytest.mark.parametrize(
    ("configuration", "variables", "options"),
    [
        ("broker_url = 'amqp://h//'", {}, {"confirm_publish": True}),
        slow("BROKER_URL = 'amqp://h//'", {}, {"confirm_publish": True}),
        ("broker_url = ['amqps://h//', 'amqps://i//']", {}, {"confirm_publish": True}),
        slow("broker_write_url = 'pyamqp://h//'", {}, {"confirm_publish": True}),
        ("", {"CELERY_BROKER_URL": "amqp://h//"}, {"confirm_publish": True}),
        slow("broker_url = 'amqp://h//'\nbroker_transport_options = {'a': 1}", {}, {"confirm_publish": True, "a": 1}),
        (
            "broker_url = 'amqp://h//'\nbroker_transport_options = {'confirm_publish': False}",
            {},
            {"confirm_publish": False},
        ),
        (
            "broker_url = 'redis://h/0'\nbroker_transport_options = {'visibility_timeout': 5}",
            {},
            {"visibility_timeout": 5},
        ),
    ],
)
def test_what_is_published_to_rabbitmq_is_confirmed_unless_the_configuration_says_otherwise(
    configuration: str, variables: dict[str, str], options: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "snowplow_celery_config.py").write_text(configuration)
    script = """
    from fastemit.celery import app
    print(dict(app.conf.broker_transport_options), app.conf.broker_connection_max_retries)
    """
    assert output_of(script, tmp_path, **variables) == f"{options} None"


def test_a_configuration_that_cannot_be_imported_says_so(tmp_path: Path) -> None:
    (tmp_path / "snowplow_celery_config.py").write_text("import a_module_that_is_not_there")
    script = """
    try:
        import fastemit.celery
    except ModuleNotFoundError as error:
        print(error.name)
    """
    assert output_of(script, tmp_path) == "a_module_that_is_not_there"


def test_without_celery_the_error_says_what_to_install(tmp_path: Path) -> None:
    script = """
    import sys
    sys.modules["celery"] = None
    try:
        import fastemit.celery
    except ImportError as error:
        print(error)
    """
    assert 'pip install "fastemit[celery]"' in output_of(script, tmp_path)


# -- the documented way ----------------------------------------------------------------------------------------------


def blocks_of(broker: str, collector: Collector) -> list[str]:
    """The examples of our page, with this broker and this collector."""
    return [
        block.replace("redis://localhost:6379/0", broker).replace("collector.example.com", collector.url)
        for _, block in python_blocks("docs/scaling-celery.md")
    ]


def test_the_documented_program_configuration_and_worker_work_together(
    own_server: RedisServer, collector: Collector, tmp_path: Path
) -> None:
    program, configuration, *_ = blocks_of(own_server.url, collector)
    with running(tmp_path, configuration=configuration, loglevel="debug"):
        output_of(program, tmp_path)
        (event,) = collector.wait_for(1, PATIENCE)
    assert (event["url"], event["page"]) == ("https://example.com", "Home")
    assert collector.bad == []


@pytest.mark.slow
def test_the_documented_app_works_with_its_worker(
    own_server: RedisServer, collector: Collector, tmp_path: Path
) -> None:
    _, _, module, *_ = blocks_of(own_server.url, collector)
    (tmp_path / "shop.py").write_text(module)
    with running(tmp_path, configuration="", app="shop"):
        output_of("from shop import emitter\nemitter.input({'e': 'pv'})", tmp_path)
        collector.wait_for(1, PATIENCE)


def test_the_reference_s_example_runs_with_the_import_changed(
    own_server: RedisServer, collector: Collector, tmp_path: Path
) -> None:
    script = """
    import sys
    from snowplow_tracker import PageView, Tracker
    from fastemit.celery import CeleryEmitter

    e = CeleryEmitter(sys.argv[1], protocol="http")
    t = Tracker("ns", e)
    t.track(PageView(page_url="http://www.example.com"))
    t.track(PageView(page_url="http://www.example.com/page1"))
    t.flush()
    t.track(PageView(page_url="http://www.example.com/page2"))
    """
    # The worker's command line is that of the documentation; both find the configuration in their directory.
    with running(tmp_path, own_server.url, loglevel="debug"):
        output_of(script, tmp_path, f"127.0.0.1:{collector.port}")
        events = collector.wait_for(3, PATIENCE)
    pages = ["http://www.example.com", "http://www.example.com/page1", "http://www.example.com/page2"]
    assert sorted(event["url"] for event in events) == pages
    assert collector.bad == []


def test_every_test_that_our_page_names_is_there() -> None:
    files = ("test_celery_faults.py", "test_celery_brokers.py", "test_celery_rabbit.py")
    faults = "".join((ROOT / "tests/celery" / file).read_text() for file in files)
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs/scaling-celery.md").read_text())
    assert len(named) >= 8
    assert [name for name in named if f"def {name}(" not in faults] == []


@pytest.mark.slow
def test_by_hand_is_by_the_worker_too(own_server: RedisServer, collector: Collector, tmp_path: Path) -> None:
    body = '{"schema": "iglu:any", "data": [{"n": "1"}]}'
    with running(tmp_path, own_server.url):
        emitter = CeleryEmitter(collector.url, celery_app=app_of(own_server.url))
        assert emitter.http_post(body) == 202
        assert emitter.http_get({"n": "2"}) == 202
        emitter.send_events([{"n": "3"}])
        collector.wait_for_requests(3, PATIENCE)
        emitter.close()
    requests = collector.requests
    assert [request.body for request in requests if b"iglu:any" in request.body] == [body.encode()]
    assert {"n=2" in request.query for request in requests if request.method == "GET"} == {True}
    assert [numbers(request.events) for request in requests if b"payload_data" in request.body] == [[3]]
