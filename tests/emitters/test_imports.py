"""What `import fastemit` does, and does not."""

from __future__ import annotations

import pytest

import fastemit
from tests.support.environment import output_of

PUBLIC = {
    "AsyncEmitter",
    "Emitter",
    "EmitterConfiguration",
    "EmitterStats",
    "EventStore",
    "InMemoryEventStore",
    "__version__",
    "logger",
}


@pytest.mark.parametrize("module", ["fastemit", "fastemit.testing", "fastemit.testing.plugin", "fastemit.cli"])
def test_no_optional_package_is_imported(module: str) -> None:
    program = f"""
import sys, {module}
from fastemit import Emitter, EmitterConfiguration, InMemoryEventStore
print(sorted({{"requests", "redis", "celery", "snowplow_tracker", "certifi", "orjson"}} & set(sys.modules)))
"""
    assert output_of(program) == "['orjson']"


def test_no_thread_is_started_and_no_socket_opened_by_import_or_construction() -> None:
    program = """
import sys, threading
opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith("socket.") else None)
import fastemit
from fastemit import *
print(opened)
# urllib3 looks at its own import whether an IPv6 socket can be bound, and closes it.
import urllib3
opened.clear()
emitters = [fastemit.Emitter("http://127.0.0.1:1"), fastemit.AsyncEmitter("http://127.0.0.1:1", flush_interval=1)]
print(threading.active_count(), opened)
"""
    assert output_of(program) == "[]\n1 []"


def test_the_audit_hook_above_would_see_a_socket() -> None:
    program = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith("socket.") else None)
import socket
socket.socket().close()
print(opened)
"""
    assert output_of(program) == "['socket.__new__']"


def test_logging_is_left_as_it_is() -> None:
    program = """
import logging
root = logging.getLogger()
before = (root.level, root.handlers[:], logging.root.manager.disable)
import fastemit
from fastemit import *
logger = logging.getLogger("fastemit")
print(before == (root.level, root.handlers, logging.root.manager.disable), [type(h).__name__ for h in logger.handlers])
print(logger.level, logger.propagate, fastemit.logger is logger)
"""
    assert output_of(program) == "True ['NullHandler']\n0 True True"


def test_the_public_names_are_there() -> None:
    assert set(fastemit.__all__) >= PUBLIC
    assert [name for name in fastemit.__all__ if not hasattr(fastemit, name)] == []


def test_a_star_import_brings_the_public_names() -> None:
    assert output_of(f"from fastemit import *; print({sorted(PUBLIC)} == sorted({PUBLIC} & set(dir())))") == "True"


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("emitters", ["Emitter", "AsyncEmitter"]),
        ("event_store", ["EventStore", "InMemoryEventStore"]),
        ("emitter_configuration", ["EmitterConfiguration"]),
        ("snowplow", ["Snowplow"]),
        (
            "typing",
            [
                "EmitterProtocol",
                "PayloadDict",
                "PayloadDictList",
                "HttpProtocol",
                "Method",
                "SuccessCallback",
                "FailureCallback",
            ],
        ),
    ],
)
def test_modules_have_the_references_names(module: str, names: list[str]) -> None:
    imported = __import__(f"fastemit.{module}", fromlist=names)
    assert [name for name in names if not hasattr(imported, name)] == []


@pytest.mark.parametrize("module", ["emitter_configuration", "emitters", "event_store", "stats", "typing"])
def test_a_public_module_is_there_without_an_import_of_its_own(module: str) -> None:
    assert output_of(f"import fastemit; print(fastemit.{module}.__name__)") == f"fastemit.{module}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fastemit' has no attribute 'Emiter'"):
        fastemit.Emiter  # noqa: B018


def test_dir_lists_what_was_not_asked_for_yet() -> None:
    assert output_of(f"import fastemit; print(sorted({PUBLIC} - set(dir(fastemit))))") == "[]"


def test_a_path_through_the_version() -> None:
    assert output_of("import fastemit; print(fastemit.__version__)") == fastemit.__version__


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("RedisEmitter", "redis", "redis"),
        ("RedisWorker", "redis", "redis"),
        ("Snowplow", "snowplow_tracker", "tracker"),
    ],
)
def test_a_name_that_needs_an_extra_says_which(name: str, package: str, extra: str) -> None:
    program = f"""
import sys
sys.modules["{package}"] = None  # as if it were not installed
import fastemit
try:
    fastemit.{name}
except ImportError as error:
    print(error)
"""
    assert f'pip install "fastemit[{extra}]"' in output_of(program)
