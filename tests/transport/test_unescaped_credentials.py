"""A user or password that is not percent-encoded: it is refused, and never sent to the host that it seems to name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter, EmitterConfiguration, Snowplow
from fastemit.cli import main
from tests.support.emitters import TP2

ESCAPED = "/ is written %2F"

#: An address of this kind is read as the host `hush`, or `1234`, with a path.
AMBIGUOUS = [
    "https://hush/hush@collector.example.com",
    "hush/hush@collector",
    "https://hush/hush@collector:8080/prefix",
    "https://hush/@collector.example.com",
    "https://hush/hush@hush@collector.example.com",
    "https://user:12/hush@collector.example.com",
    "https://hush@12/hush@collector.example.com",
    "https://user:hush/hush@collector.example.com",
    "https://a.hush.example/hush@collector.example.com",
    "https://127.0.0.1/hush@collector:80",
    "https://127.0.0.1/hush@localhost",
    "https://hush?hush@collector.example.com",
    "https://hush#hush@collector.example.com",
    "https://b.1/hush@collector",
]


@pytest.mark.parametrize("endpoint", AMBIGUOUS)
@pytest.mark.parametrize("cls", [Emitter, AsyncEmitter])
def test_a_slash_that_may_belong_to_a_password_is_an_error_that_tells_how_to_escape_it(cls: Any, endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint must be ") as error:
        cls(endpoint)
    assert ESCAPED in str(error.value)
    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://collector.example.com/@team",
        "https://collector.example.com/team@home/a",
        "http://localhost:9090/a@b",
        "http://127.0.0.1:9090/@a/b.c",
        "http://[::1]:9090/a@b",
        "https://xn--bcher-kva.xn--p1ai/a@b",
        "https://collector.example.com./a@b",
        "http://collector:9090/a%40b.example.com",
    ],
)
def test_a_path_with_an_at_sign_stays_a_path_where_it_can_be_nothing_else(endpoint: str) -> None:
    assert Emitter(endpoint).endpoint == endpoint + TP2


def test_the_settings_of_a_tracker_refuse_it() -> None:
    with pytest.raises(ValueError, match=ESCAPED) as error:
        Snowplow.create_tracker("unescaped", AMBIGUOUS[0], emitter_config=EmitterConfiguration())
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_the_command_line_refuses_it(more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "events.ndjson").write_text('{"e":"pv"}\n')
    assert main(["send", AMBIGUOUS[0], str(tmp_path / "events.ndjson"), *more]) == 2
    errors = capsys.readouterr().err
    assert ESCAPED in errors
    assert "hush" not in errors
    assert errors.count("\n") == 1


def test_the_command_line_takes_user_and_password_of_the_environment_only_for_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTEMIT_COLLECTOR_CREDENTIALS", "user:hush")
    (tmp_path / "events.ndjson").write_text('{"e":"pv"}\n')
    assert (
        main(["send", "https://me:other@collector.example.com/a://b", str(tmp_path / "events.ndjson"), "--dry-run"])
        == 0
    )
    assert main(["send", "https://hush/hush@collector.example.com", "--dry-run"]) == 2
    assert "hush" not in capsys.readouterr().err


@pytest.mark.parametrize("proxy", ["http://hush/hush@proxy:3128", "http://hush?hush@proxy:3128", "hush#hush@proxy"])
def test_the_address_of_a_proxy_is_refused_with_the_name_of_its_variable(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ValueError, match="HTTPS_PROXY in the environment must be") as error:
        Emitter("https://collector.example.com")
    assert ESCAPED in str(error.value)
    assert "hush" not in str(error.value)
