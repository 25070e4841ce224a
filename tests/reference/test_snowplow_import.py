"""What `Snowplow` writes to the log, and what an import of it costs and needs."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import snowplow_tracker

import fastemit
from fastemit import Snowplow
from tests.support.environment import output_of

pytestmark = pytest.mark.usefixtures("no_trackers")

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
