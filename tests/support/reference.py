"""What the tests against the reference package share: emitters of 1.1.0, and where older versions of it lie."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import snowplow_tracker

from tests.support.delivery import Ended, run_script

#: Where the Makefile puts snowplow-tracker 0.15.0: `pip install --target`.
REFERENCE_0_15 = Path(sys.prefix) / "reference-0.15"

needs_reference_0_15 = pytest.mark.skipif(
    not REFERENCE_0_15.is_dir(), reason=f"snowplow-tracker 0.15.0 is not in {REFERENCE_0_15}: make test puts it there"
)

#: And 1.0.0.
REFERENCE_1_0 = Path(sys.prefix) / "reference-1.0"

needs_reference_1_0 = pytest.mark.skipif(
    not REFERENCE_1_0.is_dir(), reason=f"snowplow-tracker 1.0.0 is not in {REFERENCE_1_0}: make test puts it there"
)

#: Makes an emitter of the reference, by default an `Emitter` whose `batch_size` is never reached.
Reference = Callable[..., Any]


@contextlib.contextmanager
def references(url: str) -> Iterator[Reference]:
    """Emitters of the reference that send to `url`, and whose retries wait for half a minute."""
    made: list[Any] = []

    def make(cls: Any = snowplow_tracker.Emitter, **settings: Any) -> Any:
        emitter = cls(url, **{"batch_size": 1000, **settings})
        made.append(emitter)
        return emitter

    with mock.patch.object(snowplow_tracker.emitters, "random", SimpleNamespace(random=lambda: 30.0)):
        yield make
        for emitter in made:
            emitter._cancel_retry_timer()


#: Runs a script, with an address as its argument, in a process that has 0.15.0 for its `snowplow_tracker`.
RunWith015 = Callable[[str, str], Ended]

_IS_IT = 'import snowplow_tracker\nassert "reference-0.15" in snowplow_tracker.__file__\n'


def runner_with_0_15(directory: Path, monkeypatch: pytest.MonkeyPatch) -> RunWith015:
    def run(script: str, url: str) -> Ended:
        with monkeypatch.context() as patch:
            # `run_script` makes the PYTHONPATH of the process from this.
            patch.setattr(sys, "path", [str(REFERENCE_0_15), *sys.path])
            return run_script(directory, script, url, preamble=_IS_IT)

    return run
