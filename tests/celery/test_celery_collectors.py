"""What a worker itself knows of collectors: which ones tasks may name, and its own credentials for them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from fastemit.testing import Collector
from tests.support.celery_workers import PATIENCE, MakeEmitter, RedisServer, Worker, app_of, patiently, running
from tests.support.delivery import put
from tests.support.stores import python_blocks

# The package imports Celery, so only once the line above has found it.
from fastemit.celery import CeleryEmitter  # isort: skip
from fastemit.celery.collectors import Collectors, NotAllowedError  # isort: skip
from fastemit.celery.worker import Destination  # isort: skip
from fastemit._transport import parse_endpoint  # isort: skip


def to(address: str, method: Any = "post", **more: Any) -> Destination:
    return Destination(parse_endpoint(address, method=method), method, **more)


def allowed(*addresses: str, **variables: str) -> Collectors:
    return Collectors.read({"fastemit_allowed_collectors": list(addresses)} if addresses else {}, variables)


@pytest.mark.parametrize("name", ["fastemit_allowed_collectors", "fastemit_passwords", "FASTEMIT_PASSWORDS"])
def test_a_slash_that_may_belong_to_a_password_is_an_error_of_its_setting(name: str) -> None:
    address = "https://hush/hush@c.example.com"
    settings, variables = ({}, {name: address}) if name.isupper() else ({name: [address]}, {})
    with pytest.raises(ValueError, match=f"^{name}: endpoint must be .* / is written %2F") as error:
        Collectors.read(settings, variables)
    assert "hush" not in str(error.value)
    with pytest.raises(ValueError, match=r"endpoint must be .* / is written %2F"):
        CeleryEmitter(address, celery_app=app_of("redis://127.0.0.1:9/0"))


# -- which collectors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize(
    "address",
    [
        "https://c.example.com",
        "c.example.com",
        "https://C.example.com:443/",
        "http://10.0.0.7:8080/prefix",
        "[::1]:9090",
    ],
)
def test_a_collector_that_is_allowed_is_sent_to(address: str, method: str) -> None:
    collectors = allowed("c.example.com", "http://10.0.0.7:8080/prefix/", "https://[::1]:9090")
    assert collectors.complete(to(address, method)) == to(address, method)


@pytest.mark.parametrize(
    "address",
    [
        "http://c.example.com",
        "https://c.example.com:8443",
        "https://c.example.com/prefix",
        "https://c.example.com.evil.example",
        "https://evil.example",
        "http://169.254.169.254/latest",
    ],
)
def test_any_other_is_not(address: str) -> None:
    for collectors in (
        allowed("https://c.example.com"),
        allowed(FASTEMIT_ALLOWED_COLLECTORS="https://c.example.com http://d.example.com"),
    ):
        with pytest.raises(NotAllowedError, match="fastemit_allowed_collectors does not name it"):
            collectors.complete(to(address))


def test_a_header_cannot_name_another_collector_to_what_answers() -> None:
    destination = to("https://c.example.com", headers={"hOST": "evil.example"})
    with pytest.raises(NotAllowedError, match="header Host"):
        allowed("https://c.example.com").complete(destination)
    assert allowed().complete(destination) == destination


def test_without_a_list_all_are_allowed() -> None:
    assert allowed().complete(to("http://anything.example")) == to("http://anything.example")


def test_the_documented_settings_are_read() -> None:
    (block,) = [block for _, block in python_blocks("docs/scaling-celery.md") if "fastemit_passwords" in block]
    settings: dict[str, Any] = {}
    exec(block, settings)
    collectors = Collectors.read(settings, {})
    found = collectors.complete(to("https://collector.example.com"))
    assert (found.endpoint.username, found.endpoint.password) == ("user", "password")
    assert found.headers == {"X-Api-Key": "4711"}
    collectors.complete(to("http://10.0.0.7:8080/prefix", "get"))


def test_an_empty_list_allows_none() -> None:
    with pytest.raises(NotAllowedError):
        Collectors.read({"fastemit_allowed_collectors": []}, {}).complete(to("https://c.example.com"))


def test_the_configuration_is_stronger_than_the_environment() -> None:
    collectors = allowed("https://c.example.com", FASTEMIT_ALLOWED_COLLECTORS="https://d.example.com")
    collectors.complete(to("https://c.example.com"))
    with pytest.raises(NotAllowedError):
        collectors.complete(to("https://d.example.com"))


# -- credentials -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "collectors",
    [
        Collectors.read({"fastemit_passwords": ["https://bob:p%3Aw@c.example.com"]}, {}),
        Collectors.read({}, {"FASTEMIT_PASSWORDS": "https://bob:p%3Aw@c.example.com http://eve:x@d.example.com"}),
    ],
)
def test_a_password_of_the_worker_s_own_goes_to_its_collector_alone(collectors: Collectors) -> None:
    for address in ("https://c.example.com", "https://ann:old@c.example.com"):
        endpoint = collectors.complete(to(address)).endpoint
        assert (endpoint.username, endpoint.password) == ("bob", "p:w")
    for other in ("http://c.example.com", "https://c.example.com:444", "https://evil.example"):
        assert collectors.complete(to(other)).endpoint.password is None


def test_secret_headers_of_the_worker_s_own_go_to_their_collector_alone() -> None:
    collectors = Collectors.read({"fastemit_secret_headers": [("https://c.example.com", "X-Api-Key", "own")]}, {})
    destination = to("https://c.example.com", headers={"x-api-key": "theirs", "X-Team": "tea"})
    assert collectors.complete(destination).headers == {"X-Team": "tea", "X-Api-Key": "own"}
    assert collectors.complete(to("https://evil.example")).headers == {}


def test_passwords_are_not_in_the_repr() -> None:
    passwords, headers = ["https://bob:swordfish@c"], [("https://c", "A", "key")]
    settings = {"fastemit_passwords": passwords, "fastemit_secret_headers": headers}
    assert "swordfish" not in repr(Collectors.read(settings, {}))
    assert "key" not in repr(Collectors.read(settings, {}))


@pytest.mark.parametrize(
    ("settings", "variables", "told"),
    [
        ({"fastemit_allowed_collectors": "https://c"}, {}, "fastemit_allowed_collectors must be a list"),
        ({"fastemit_allowed_collectors": [5]}, {}, "fastemit_allowed_collectors: endpoint must be"),
        ({"fastemit_allowed_collectors": ["ftp://c"]}, {}, "fastemit_allowed_collectors: endpoint must be"),
        ({"fastemit_allowed_collectors": ["https://a:swordfish@c"]}, {}, "without user and password"),
        ({}, {"FASTEMIT_ALLOWED_COLLECTORS": "https://c ftp://d"}, "FASTEMIT_ALLOWED_COLLECTORS: endpoint must be"),
        ({"fastemit_passwords": "https://a:swordfish@c"}, {}, "fastemit_passwords must be a list"),
        ({"fastemit_passwords": ["https://swordfish@c"]}, {}, "fastemit_passwords must hold addresses such as"),
        ({"fastemit_passwords": ["ftp://a:swordfish@c"]}, {}, "fastemit_passwords: endpoint must be"),
        ({}, {"FASTEMIT_PASSWORDS": "https://swordfish@c"}, "FASTEMIT_PASSWORDS must hold addresses such as"),
        ({"fastemit_secret_headers": [("https://c", "swordfish")]}, {}, "fastemit_secret_headers must hold an address"),
        ({"fastemit_secret_headers": [("https://c", "A", "sword\nfish")]}, {}, "fastemit_secret_headers must be"),
    ],
)
def test_settings_are_checked_and_show_no_password(settings: Any, variables: dict[str, str], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told) as caught:
        Collectors.read(settings, variables)
    assert "swordfish" not in str(caught.value)


# -- real workers ----------------------------------------------------------------------------------------------------


def test_a_worker_sends_to_allowed_collectors_alone_and_keeps_the_rest(
    shared: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker = shared.database(15)
    with Collector() as other:
        for number, url in enumerate((other.url, collector.url)):
            emitter = make_down(url, celery_app=app_of(broker))
            put(emitter, 1, number)
            emitter.flush()
        more = f"fastemit_allowed_collectors = [{collector.url!r}]\n"
        with running(tmp_path, broker, more=more) as worker:
            collector.wait_for(1, PATIENCE)
            patiently(lambda: "events not sent: fastemit_allowed_collectors does not name it" in worker.log)
            worker.stop()
        assert other.requests == []
        # A list that was too short loses nothing.
        assert shared.client(db=15).llen("celery") == 1


def test_a_worker_s_own_credentials_are_used_and_cross_no_broker(
    shared: RedisServer, make_down: MakeEmitter, collector: Collector, tmp_path: Path
) -> None:
    broker, client = shared.database(15), shared.client(db=15)
    client.flushdb()
    collector.respond(503)
    collector.respond(hang=True)
    more = (
        f"fastemit_passwords = ['http://bob:swordfish@127.0.0.1:{collector.port}']\n"
        f"fastemit_secret_headers = [({collector.url!r}, 'X-Team', 'marmalade')]\n"
    )
    emitter = make_down(collector.url, celery_app=app_of(broker), max_retry_delay_seconds=0.05)
    with running(tmp_path, broker, more=more):
        put(emitter, 1)
        emitter.flush()
        for request in collector.wait_for_requests(2, PATIENCE):
            assert request.headers["Authorization"] == "Basic " + base64.b64encode(b"bob:swordfish").decode()
            assert request.headers["X-Team"] == "marmalade"
        stored = str([client.lrange(key, 0, -1) for key in client.keys("celery*") if client.type(key) == b"list"])
        stored += "".join(decoded(value) for value in client.hvals("unacked"))
        inspect = app_of(broker).control.inspect(timeout=10, limit=1)
        told = stored + str([inspect.conf(), inspect.conf(with_defaults=True), inspect.active()])
        collector.release()
        collector.wait_for(1, PATIENCE)
    assert '"n":"000000"' in stored.replace("\\", "")
    assert [each for each in ("swordfish", "marmalade", "Ym9iOnN3b3JkZmlzaA") if each in told] == []


def decoded(value: bytes) -> str:
    """A message of a Redis broker, with its body as text."""
    import json

    message = json.loads(value)[0]
    return base64.b64decode(message["body"]).decode() + str(message["headers"])


@pytest.mark.parametrize("setting", ["fastemit_allowed_collectors = 'https://c'", "fastemit_passwords = ['https://c']"])
def test_a_worker_with_wrong_settings_does_not_start(setting: str, shared: RedisServer, tmp_path: Path) -> None:
    worker = Worker(tmp_path, shared.database(15), more=setting + "\n")
    try:
        assert worker.process.wait(PATIENCE) == 1
        assert f"fastemit: {setting.split()[0]}" in worker.log
        assert "Traceback" not in worker.log
    finally:
        worker.kill()
