"""The arguments of `Emitter` and `AsyncEmitter`: what is refused and how, what is allowed, what can be read back."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import snowplow_tracker
import urllib3

import fastemit
from fastemit import AsyncEmitter, Emitter

NAN, INF = float("nan"), float("inf")
BOTH = [Emitter, AsyncEmitter]
INTEGERS = {
    "port": "from 1 to 65535",
    "batch_size": "at least 1",
    "byte_limit": "at least 1",
    "buffer_capacity": "at least 1",
    "max_buffer_bytes": "at least 1024",
    "max_request_bytes": "from 1024 to 1073741824",
}
SECONDS = {
    "max_retry_delay_seconds": "greater than 0",
    "shutdown_timeout": "0 or more",
    "flush_interval": "greater than 0",
}
REQUIRED = ["protocol", "method", "overflow", "background"]
REQUIRED += ["max_request_bytes", "max_retry_delay_seconds", "shutdown_timeout"]
NOT_NUMBERS = [True, False, "1", b"1", (1, 2, 3), [1], {}, object, 1j]
OVERFLOWS = "one of 'backpressure', 'drop_newest', 'drop_oldest', 'block'"
CODES = "a dict of HTTP status codes (100 to 599) to True (retry) or False"
HEADERS = "a mapping of header names to strings"
PATH = "the path of a file or directory"


def wrong_types() -> Iterator[tuple[str, Any, str]]:
    """(argument, value, what the message says is allowed)."""
    value: Any = None
    for name, allowed in INTEGERS.items():
        # A port may be its digits.
        wrong = [each for each in [*NOT_NUMBERS, 1500.0] if not (name == "port" and isinstance(each, str))]
        yield from ((name, value, allowed) for value in wrong)
    for name, allowed in SECONDS.items():
        yield from ((name, value, allowed) for value in NOT_NUMBERS)
    for name in REQUIRED:
        yield name, None, ""
    for value in (True, "1", b"1", {}, {1, 2}, object):
        yield "request_timeout", value, "(connect, read) pair"
    for name in ("on_success", "on_failure", "on_lost"):
        yield from ((name, value, "callable or None") for value in (1, True, "print", b"f", (1, 2, 3), []))
    for value in ([], "500", 500, True, b"", {500}, (500, True, 1)):
        yield "custom_retry_codes", value, CODES
    for value in ({"500": True}, {True: True}, {500.0: True}, {None: True}):
        yield "custom_retry_codes", value, CODES
    for value in ({500: 1}, {500: None}, {500: "yes"}):
        yield "custom_retry_codes", value, CODES
    yield from (("headers", value, HEADERS) for value in ([], "X: y", b"X: y", 1, True, [("X", "y")]))
    yield from (("ca_certs", value, PATH) for value in (1, True, b"/etc", (1, 2, 3), []))
    for value in (1, "pool", b"", (1, 2, 3), object(), urllib3.PoolManager):
        yield "pool_manager", value, "urllib3.PoolManager"
    yield from (("background", value, "True or False") for value in (0, 1, "yes", b"", (1, 2, 3)))
    yield from (("overflow", value, OVERFLOWS) for value in (1, True, b"block", ("block",)))
    yield from (("protocol", value, "one of 'http', 'https'") for value in (1, True, b"http", (1, 2, 3)))
    yield from (("method", value, "one of 'get', 'post'") for value in (1, True, b"post", (1, 2, 3)))
    for value in (None, 1, True, b"example.com", (1, 2, 3), ["example.com"], Path("example.com")):
        yield "endpoint", value, "a collector's address such as"


def wrong_values() -> Iterator[tuple[str, Any, str]]:
    """(argument, value, what the message says is allowed)."""
    value: Any = None
    for name, allowed in INTEGERS.items():
        yield from ((name, value, allowed) for value in (0, -1, -(2**70)))
    for value in (65536, 99999, "", "0", "65536", " 8080", "8080 ", "80a", "+80", "8_0", "1.5", "\u0661", "9" * 5000):
        yield "port", value, "from 1 to 65535, or its digits as a str"
    yield from (("max_request_bytes", value, INTEGERS["max_request_bytes"]) for value in (1023, 2**30 + 1))
    yield "max_buffer_bytes", 1023, INTEGERS["max_buffer_bytes"]
    for name, allowed in SECONDS.items():
        yield from ((name, value, allowed) for value in (NAN, INF, -INF, -1, -0.1, 1e300))
    yield from ((name, 0, SECONDS[name]) for name in ("max_retry_delay_seconds", "flush_interval"))
    for value in (NAN, INF, -1, 0, 0.0):
        yield "request_timeout", value, "a number of seconds greater than 0"
    for value in ((), (1,), (1, 2, 3), [1, 2, 3]):
        yield "request_timeout", value, "(connect, read) pair"
    yield from (("custom_retry_codes", value, CODES) for value in ({99: True}, {600: False}, {0: True}, {-500: True}))
    yield from (("overflow", value, OVERFLOWS) for value in ("", "drop", "BLOCK"))
    yield from (("protocol", value, "one of 'http', 'https'") for value in ("", "ftp", "HTTPS"))
    yield from (("method", value, "one of 'get', 'post'") for value in ("", "put", "POST"))
    yield from (("ca_certs", value, PATH) for value in ("", "/does/not/exist", Path("/does/not/exist")))


def shown(value: object) -> str:
    """The least of a value that a message has to show."""
    return repr(value)[:97]


@pytest.mark.parametrize(("name", "value", "allowed"), list(wrong_types()))
def test_a_wrong_type_is_a_type_error_that_explains(name: str, value: Any, allowed: str) -> None:
    for cls in BOTH:
        with pytest.raises(TypeError) as error:
            cls(**{"endpoint": "example.com", name: value})
        assert str(error.value).startswith(name)
        # The value of a header may be a secret.
        assert name == "headers" or shown(value) in str(error.value)
        assert allowed in str(error.value)


@pytest.mark.parametrize(("name", "value", "allowed"), list(wrong_values()))
def test_a_wrong_value_is_a_value_error_that_explains(name: str, value: Any, allowed: str) -> None:
    for cls in BOTH:
        with pytest.raises(ValueError, match=rf"^{name} ") as error:
            cls(**{"endpoint": "example.com", name: value})
        assert shown(value) in str(error.value)
        assert allowed in str(error.value)


@pytest.mark.parametrize("value", [None, *NOT_NUMBERS, 1.0])
def test_thread_count_of_a_wrong_type_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^thread_count must be an integer from 1 to 1000, not ") as error:
        AsyncEmitter("example.com", thread_count=value)
    assert shown(value) in str(error.value)


@pytest.mark.parametrize("value", [0, -1, 1001, 2**70])
def test_thread_count_out_of_range_is_a_value_error(value: int) -> None:
    with pytest.raises(ValueError, match=rf"^thread_count must be an integer from 1 to 1000, not {value}$"):
        AsyncEmitter("example.com", thread_count=value)


@pytest.mark.parametrize(
    ("value", "wrong", "error"),
    [
        ((1, "2"), "'2'", TypeError),
        ((True, 2), "True", TypeError),
        ((None, "2"), "'2'", TypeError),
        ((0, None), "0", ValueError),
        ([1, b"2"], "b'2'", TypeError),
        ((1, 0), "0", ValueError),
        ((-1, 1), "-1", ValueError),
        ((1, NAN), "nan", ValueError),
        ((INF, 1), "inf", ValueError),
    ],
)
def test_each_half_of_a_timeout_pair_is_checked(value: Any, wrong: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^request_timeout must be .*number of seconds greater than 0") as raised:
        Emitter("example.com", request_timeout=value)
    assert wrong in str(raised.value)


@pytest.mark.parametrize(
    ("headers", "named", "error"),
    [
        ({1: "x"}, "1", TypeError),
        ({None: "x"}, "None", TypeError),
        ({b"X": "x"}, "b'X'", TypeError),
        ({"X": 1}, "'X'", TypeError),
        ({"X": None}, "'X'", TypeError),
        ({"X": b"x"}, "'X'", TypeError),
        ({"X": ["x"]}, "'X'", TypeError),
        ({"X": "hush\r\nInjected: 1"}, "'X'", ValueError),
        ({"X": "hush\nInjected: 1"}, "'X'", ValueError),
        ({"X": "hush\rInjected: 1"}, "'X'", ValueError),
        ({"X": "hush\0"}, "'X'", ValueError),
        ({"X": "hush\u20ac"}, "'X'", ValueError),
        ({"X\r\nInjected": "1"}, r"'X\r\nInjected'", ValueError),
        ({"": "x"}, "''", ValueError),
        ({"X:": "x"}, "'X:'", ValueError),
        ({"X Y": "x"}, "'X Y'", ValueError),
        ({"Ž": "x"}, "'Ž'", ValueError),
        ({"Content-Type": "text/plain"}, "'Content-Type'", ValueError),
        ({"content-length": "3"}, "'content-length'", ValueError),
        ({"Transfer-Encoding": "chunked"}, "'Transfer-Encoding'", ValueError),
        ({"CONNECTION": "close"}, "'CONNECTION'", ValueError),
    ],
)
def test_a_bad_header_is_named_and_its_value_not_shown(headers: Any, named: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^headers must ") as raised:
        Emitter("example.com", headers=headers)
    assert named in str(raised.value)
    assert "hush" not in str(raised.value)


def test_a_file_without_certificates_is_a_value_error(tmp_path: Path) -> None:
    file = tmp_path / "authorities.pem"
    file.write_text("nothing of the kind")
    with pytest.raises(ValueError, match=r"^ca_certs must be a file or directory of PEM certificates") as error:
        Emitter("example.com", ca_certs=file)
    assert str(file) in str(error.value)


def test_a_directory_without_certificates_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^ca_certs must be a file or directory of PEM certificates") as error:
        Emitter("example.com", ca_certs=tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_authorities_named_in_the_environment_have_to_be_there(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/does/not/exist")
    with pytest.raises(ValueError, match=rf"^{variable} must be .* not '/does/not/exist'"):
        Emitter("example.com")


@pytest.mark.parametrize("cls", BOTH)
def test_session_and_pool_manager_together_are_a_value_error(cls: Any) -> None:
    with pytest.raises(ValueError, match=r"^session and pool_manager must not both be given"):
        cls("example.com", session=object(), pool_manager=urllib3.PoolManager())


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("name", ["session", "event_store", "pool_manager"])
@pytest.mark.parametrize("value", [object(), "x", 5, dict])
def test_an_object_without_the_methods_is_a_type_error(cls: Any, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be None or "):
        cls("example.com", **{name: value})


@pytest.mark.parametrize("cls", BOTH)
def test_everything_allowed_at_once_is_taken(cls: Any) -> None:
    emitter = cls(
        "example.com",
        protocol="http",
        port=65535,
        method="post",
        batch_size=1,
        on_success=print,
        on_failure=print,
        byte_limit=1,
        request_timeout=(0.001, 3600),
        max_retry_delay_seconds=0.001,
        buffer_capacity=1,
        custom_retry_codes={100: True, 599: False},
        event_store=None,
        session=None,
        overflow="block",
        max_buffer_bytes=1024,
        max_request_bytes=1024,
        shutdown_timeout=0,
        background=False,
        flush_interval=0.001,
        headers={"X-Key": "y", "Authorization": "Bearer z"},
        ca_certs=None,
        pool_manager=urllib3.PoolManager(),
    )
    assert emitter.endpoint == "http://example.com:65535/com.snowplowanalytics.snowplow/tp2"


@pytest.mark.parametrize("cls", BOTH)
def test_the_positional_parameters_are_the_references_in_its_order(cls: Any) -> None:
    reference = inspect.signature(getattr(snowplow_tracker, cls.__name__)).parameters
    ours = inspect.signature(cls).parameters
    assert [name for name, parameter in ours.items() if parameter.kind is not parameter.KEYWORD_ONLY] == list(reference)


@pytest.mark.parametrize("cls", BOTH)
def test_no_default_is_mutable(cls: Any) -> None:
    defaults = [parameter.default for parameter in inspect.signature(cls).parameters.values()]
    assert [default for default in defaults if isinstance(default, (dict, list, set))] == []


def test_what_one_emitter_is_told_is_not_another_ones() -> None:
    first, second = Emitter("example.com"), Emitter("example.com")
    first.custom_retry_codes[500] = False
    first.custom_retry_codes = {418: False}
    assert second.custom_retry_codes == {}


def test_retry_codes_are_copied_at_construction() -> None:
    codes = {500: False}
    emitter = Emitter("example.com", custom_retry_codes=codes)
    codes[502] = False
    assert emitter.custom_retry_codes == {500: False}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("endpoint", "https://example.com/com.snowplowanalytics.snowplow/tp2"),
        ("method", "post"),
        ("batch_size", 10),
        ("byte_limit", None),
        ("bytes_queued", None),
        ("request_timeout", None),
        ("on_success", None),
        ("on_failure", None),
        ("on_lost", None),
        ("max_retry_delay_seconds", 60),
        ("retry_delay", 0),
        ("custom_retry_codes", {}),
    ],
)
@pytest.mark.parametrize("cls", BOTH)
def test_attributes_have_the_references_names_and_defaults(cls: Any, name: str, expected: Any) -> None:
    assert getattr(cls("example.com"), name) == expected


def test_the_stores_and_the_timers_attributes_are_readable() -> None:
    emitter = Emitter("example.com", byte_limit=1000)
    emitter.input({"e": "pv"})
    assert emitter.event_store.event_buffer == [{"e": "pv"}]
    assert emitter.event_store.size() == 1
    assert emitter.event_store.buffer_capacity == 10_000
    assert emitter.bytes_queued == emitter.stats().queued_bytes > 0
    assert (emitter.timer.is_active(), emitter.retry_timer.is_active()) == (False, False)
    emitter.close(0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("on_success", print),
        ("on_failure", print),
        ("on_lost", print),
        ("batch_size", 3),
        ("byte_limit", 1000),
        ("byte_limit", None),
        ("request_timeout", 3.5),
        ("request_timeout", (1, 2)),
        ("request_timeout", None),
        ("custom_retry_codes", {500: False}),
    ],
)
def test_attributes_that_can_be_assigned(name: str, value: Any) -> None:
    emitter = Emitter("example.com", byte_limit=7, request_timeout=7)
    setattr(emitter, name, value)
    assert getattr(emitter, name) == value


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("on_success", 1, TypeError),
        ("on_failure", "f", TypeError),
        ("on_lost", "f", TypeError),
        ("batch_size", 0, ValueError),
        ("batch_size", True, TypeError),
        ("byte_limit", -1, ValueError),
        ("request_timeout", "1", TypeError),
        ("request_timeout", NAN, ValueError),
        ("custom_retry_codes", {600: True}, ValueError),
    ],
)
def test_what_is_assigned_is_checked_and_a_refusal_changes_nothing(name: str, value: Any, error: Any) -> None:
    emitter = Emitter("example.com")
    before = getattr(emitter, name)
    with pytest.raises(error, match=rf"^{name} must be "):
        setattr(emitter, name, value)
    assert getattr(emitter, name) == before


def test_batch_size_is_lowered_to_the_capacity() -> None:
    emitter = Emitter("example.com", batch_size=100, buffer_capacity=7)
    constructed = emitter.batch_size
    emitter.batch_size = 50
    assert (constructed, emitter.batch_size) == (7, 7)


@pytest.mark.parametrize("call", ["drain", "sync_flush", "close", "set_flush_timer"])
@pytest.mark.parametrize(("value", "error"), [("1", TypeError), (True, TypeError), (-1, ValueError), (NAN, ValueError)])
def test_timeouts_of_calls_are_checked(call: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^timeout must be a number of seconds"):
        getattr(fastemit.Emitter("example.com"), call)(value)
