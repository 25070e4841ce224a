"""The fuzzer of `buffer_fuzz.py`, for a short while; `make fuzz SECONDS=60` has it run for longer."""

from __future__ import annotations

import os
import random

import pytest

from tests.support.buffer_fuzz import fails, fuzz, run, shortened


def test_the_buffer_and_its_model_agree_on_random_programs() -> None:
    seed = int(os.environ.get("FASTEMIT_FUZZ_SEED") or random.SystemRandom().randrange(2**32))
    print(f"FASTEMIT_FUZZ_SEED={seed}")
    # At least so many: under the sanitizers on a busy machine two seconds are few.
    ran, steps = fuzz(2.0, seed, least=20)
    assert steps > ran >= 20


def test_a_program_does_the_same_again() -> None:
    code = random.Random(1).randbytes(500)
    assert run(code) == run(code) > 20


def test_a_buffer_that_is_wrong_is_found_and_its_program_made_short(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a buffer that does not drop where its model does.
    monkeypatch.setattr(
        "tests.support.buffer_model.Model.drop_oldest_for", lambda model, size: model.queue and model.queue.pop()
    )
    code = next(code for seed in range(100) if fails(code := random.Random(seed).randbytes(500)))
    assert fails(shortened(code, 2.0))
    assert len(shortened(code, 2.0)) < 100
