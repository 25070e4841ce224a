"""Arguments out of all bounds, or that cannot be shown: the error still names the argument."""

from __future__ import annotations

import pytest

from fastemit import Emitter

HUGE = 10**5000


class _Mute:
    def __repr__(self) -> str:
        raise LookupError


@pytest.mark.parametrize("value", [10**30, -(10**30), HUGE, -HUGE], ids=["large", "low", "huge", "deep"])
@pytest.mark.parametrize(
    "name",
    [
        "port",
        "batch_size",
        "byte_limit",
        "request_timeout",
        "max_retry_delay_seconds",
        "buffer_capacity",
        "max_buffer_bytes",
        "max_request_bytes",
        "shutdown_timeout",
        "flush_interval",
    ],
)
def test_a_number_out_of_all_bounds_is_a_value_error_that_names_its_argument(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be") as raised:
        Emitter("localhost", **{name: value})
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("value", [10**30, HUGE], ids=["large", "huge"])
@pytest.mark.parametrize("call", ["close", "drain", "sync_flush", "set_flush_timer"])
def test_a_timeout_out_of_all_bounds_is_a_value_error_that_names_it(call: str, value: int) -> None:
    with pytest.raises(ValueError, match="timeout must be"):
        getattr(Emitter("localhost"), call)(value)


def test_a_status_out_of_all_bounds_is_a_value_error_that_names_its_argument() -> None:
    with pytest.raises(ValueError, match="custom_retry_codes must be"):
        Emitter("localhost", custom_retry_codes={HUGE: True})


@pytest.mark.parametrize("name", ["batch_size", "request_timeout", "overflow", "on_success", "background"])
def test_a_value_that_cannot_describe_itself_is_a_type_error_that_names_its_argument(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be .*_Mute"):
        Emitter("localhost", **{name: _Mute()})  # type: ignore[arg-type]
