"""The address of a Redis: what is understood, and that nothing of an address that cannot be used is shown."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trustme

from fastemit.redis._clients import AddressError, client_of
from tests.support.redis_command import run
from tests.support.redis_server import RedisServer, Relay, redis
from tests.support.slow import slow_but

#: Half of it is read as a host, a port or a path, as each of these characters has it.
SECRETS = [
    "Tr0ub4dor/3x",
    "12345/s3cret",
    "AKIA#s3cret",
    "ab?s3cret",
    "tok@en#s3cret",
    "s3/cret/0",
    "s3[cret",
    "s3 cr/et",
]


def settings_of(client: Any) -> dict[str, Any]:
    settings: dict[str, Any] = client.connection_pool.connection_kwargs
    return settings


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "redis+cluster", "rediss+sentinel", "http"])
@pytest.mark.parametrize("user", ["", "me"])
def test_no_part_of_a_password_is_shown(secret: str, scheme: str, user: str) -> None:
    rest = "/var/run/redis.sock" if scheme == "unix" else "redis.internal:6379/0"
    try:
        client = client_of(f"{scheme}://{user}:{secret}@{rest}", 0.1)
    except redis.RedisError as error:
        # Understood as it was meant, and asked for its nodes.
        shown = str(error)
    except AddressError as error:
        shown = str(error)
    else:
        assert settings_of(client)["password"] == secret
        return
    assert [part for part in ("Tr0ub4dor", "12345", "AKIA", "ab?", "tok", "s3", "cret", "3x") if part in shown] == []


def test_a_password_that_is_percent_encoded_is_understood() -> None:
    client = client_of("redis://me:a%2Fb%23c%3Fd%40e%3Af%25@host:7/3")
    wanted = {"username": "me", "password": "a/b#c?d@e:f%", "host": "host", "port": 7, "db": 3}
    assert {name: settings_of(client)[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis://", {"host": "localhost", "port": 6379}),
        ("REDIS://host", {"host": "host", "port": 6379}),
        ("redis://[::1]:7/1", {"host": "::1", "port": 7, "db": 1}),
        ("redis://host/0?socket_timeout=5&client_name=x", {"socket_timeout": 5.0, "client_name": "x"}),
        ("unix:///tmp/redis.sock?db=2", {"path": "/tmp/redis.sock", "db": 2}),
        ("unix://me:pw@/tmp/redis.sock", {"path": "/tmp/redis.sock", "username": "me", "password": "pw"}),
    ],
)
def test_an_address_of_one_server(url: str, wanted: dict[str, Any]) -> None:
    assert {name: settings_of(client_of(url))[name] for name in wanted} == wanted


def test_an_address_of_sentinels() -> None:
    client = client_of("redis+sentinel://me:pw@one:1,two/orders/2?sentinel_password=spw&socket_timeout=5")
    pool = client.connection_pool
    wanted = {"username": "me", "password": "pw", "db": 2, "socket_timeout": 5.0}
    assert {name: settings_of(client)[name] for name in wanted} == wanted
    assert pool.service_name == "orders"
    sentinels = [settings_of(each) for each in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"], each["password"]) for each in sentinels] == [
        ("one", 1, "spw"),
        ("two", 26379, "spw"),
    ]


def test_sentinels_without_a_name_are_asked_for_mymaster() -> None:
    assert client_of("redis+sentinel://one").connection_pool.service_name == "mymaster"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("host:6379", "scheme"),
        ("redis://one,two", "several hosts"),
        ("redis://host:0", "host or port"),
        ("redis://host:99999", "host or port"),
        ("redis://host/snowplow", "database"),
        ("redis+cluster://host/1", "no database but 0"),
        ("redis+sentinel://host/primary/x", "database"),
        ("unix://tmp/redis.sock", "slash"),
        ("redis://host?socket_timeout=soon", "argument"),
        ("redis://host?no_such_argument=1", "argument"),
        ("redis+sentinel://host?no_such_argument=1", "argument"),
    ],
)
def test_an_address_that_cannot_be_used_says_why_and_what_can(url: str, why: str) -> None:
    with pytest.raises(AddressError, match=rf"{why}.*redis://host:6379/0"):
        client_of(url)


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["rediss", "rediss+sentinel"])
@pytest.mark.parametrize(
    ("query", "checked"),
    [("", True), ("?ssl_check_hostname=false", False), ("?ssl_cert_reqs=none", None)],
)
def test_tls_checks_the_name_of_the_host_unless_the_address_says_otherwise(
    scheme: str, query: str, checked: bool | None
) -> None:
    assert settings_of(client_of(f"{scheme}://host{query}")).get("ssl_check_hostname") is checked


def test_a_certificate_of_another_host_is_refused(server: RedisServer, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    certificate = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(certificate))
    with Relay(server.port, context) as relay:
        url = f"rediss://localhost:{relay.port}/0?ssl_ca_certs={certificate}"
        with client_of(url) as client, pytest.raises(redis.RedisError, match=r"[Hh]ostname"):
            client.ping()
        # Only its name is wrong.
        with client_of(f"{url}&ssl_check_hostname=false") as client:
            assert client.ping()


# -- the environment ---------------------------------------------------------------------------------------------------


def worker(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run("--connect-timeout", "0.3", *arguments, **variables)


@pytest.mark.parametrize("secret", slow_but(SECRETS[:2], SECRETS[:4]))
def test_the_command_line_shows_no_part_of_a_password(secret: str) -> None:
    done = worker("--collector", "c.example.com", FASTEMIT_REDIS_URL=f"redis://:{secret}@redis.internal:6379/0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fastemit: error: the address of Redis cannot be used: ")
    assert [part for part in ("Tr0ub4dor", "12345", "AKIA", "ab?", "s3cret") if part in done.stderr] == []


def test_the_address_of_redis_comes_from_the_environment_and_the_command_line_wins() -> None:
    there = {"FASTEMIT_REDIS_URL": "redis://:pw@127.0.0.1:9/0"}
    done = worker("--collector", "http://127.0.0.1:9", **there)
    assert (done.returncode, "127.0.0.1:9" in done.stderr) == (1, True)
    done = worker("--collector", "http://127.0.0.1:9", "--redis-url", "redis://127.0.0.1:10/0", **there)
    assert (done.returncode, "127.0.0.1:10" in done.stderr) == (1, True)


def test_help_does_not_show_the_address_of_the_environment() -> None:
    done = worker("--help", FASTEMIT_REDIS_URL="redis://:s3cret@host", FASTEMIT_COLLECTOR_CREDENTIALS="me:s3cret")
    assert (done.returncode, "FASTEMIT_REDIS_URL" in done.stdout, "s3cret" in done.stdout) == (0, True, False)


@pytest.mark.parametrize("given", ["s3cret", ":s3cret"])
def test_credentials_that_are_none_are_a_usage_error_that_does_not_show_them(given: str) -> None:
    done = worker("--collector", "c.example.com", FASTEMIT_COLLECTOR_CREDENTIALS=given)
    assert (done.returncode, "user:password" in done.stderr, "s3cret" in done.stderr) == (2, True, False)
