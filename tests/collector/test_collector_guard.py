"""What a page in a browser cannot do to the development collector of the person that looks at it."""

from __future__ import annotations

from typing import Any

import pytest

from fastemit.testing import Collector
from tests.support.collector import EVENT, TP2, Client, envelope, raw_post, talk


def asked(collector: Collector, method: str, path: str, host: str | None, *headers: str, version: str = "1.1") -> int:
    """The status of a request with this Host."""
    lines = [f"{method} {path} HTTP/{version}", *headers, "Connection: close", "Content-Length: 0"]
    lines[1:1] = [] if host is None else [f"Host: {host}"]
    return int(talk(collector, "\r\n".join([*lines, "", ""]).encode()).split()[1])


FOREIGN = ["evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example", "8.8.8.8", "x", ""]
OWN = ["localhost", "LOCALHOST:9090", "localhost.", "shop.localhost:1", "127.0.0.1", "127.1.2.3:80", "[::1]:9090"]

# -- Host ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", ["/micro/good", "/micro/reset", "/health", "/i?e=pv", "/"])
def test_a_host_that_is_no_loopback_name_is_refused(collector: Collector, host: str, path: str) -> None:
    with Client(collector) as client:
        client.post(EVENT)
    assert asked(collector, "GET", path, host) == 403
    assert collector.events == [EVENT]
    assert len(collector.requests) == 1


def test_the_refusal_says_how_to_allow_the_name(collector: Collector) -> None:
    answer = talk(collector, raw_post(envelope(EVENT)).replace(b"localhost", b"evil.example"))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"'evil.example'" in answer
    assert b"--allow-host" in answer
    assert collector.requests == []


@pytest.mark.parametrize("host", OWN)
def test_names_of_the_loopback_are_taken(collector: Collector, host: str) -> None:
    assert asked(collector, "GET", "/micro/all", host) == 200
    assert asked(collector, "GET", "/i?e=pv", host) == 200


def test_a_request_from_before_http_1_1_needs_no_host(collector: Collector) -> None:
    assert asked(collector, "GET", "/health", None, version="1.0") == 200
    assert asked(collector, "GET", "/health", "evil.example", version="1.0") == 403


def test_a_request_to_a_proxy_may_be_for_any_host(collector: Collector) -> None:
    assert asked(collector, "GET", "http://far.example/i?e=pv", "far.example") == 200


def test_names_can_be_allowed() -> None:
    with Collector(allowed_hosts=["Collector", "shop.test"]) as collector:
        assert asked(collector, "GET", "/health", "collector:9090") == 200
        assert asked(collector, "GET", "/health", "SHOP.test.") == 200
        assert asked(collector, "GET", "/health", "other.test") == 403


def test_a_collector_for_other_machines_takes_addresses_and_no_foreign_names() -> None:
    with Collector("0.0.0.0") as collector:
        assert asked(collector, "GET", "/health", "192.168.7.7:9090") == 200
        assert asked(collector, "GET", "/health", "[fe80::1]:9090") == 200
        assert asked(collector, "GET", "/health", "localhost") == 200
        assert asked(collector, "GET", "/health", "evil.example") == 403


@pytest.mark.parametrize(
    ("value", "error", "told"),
    [
        ("collector", TypeError, "a sequence of names"),
        ([1], TypeError, "have to be strings"),
        (["collector:9090"], ValueError, "without a port"),
        ([""], ValueError, "without a port"),
    ],
)
def test_allowed_hosts_are_checked(value: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=f"allowed_hosts=.*{told}"):
        Collector(allowed_hosts=value)


# -- reset -----------------------------------------------------------------------------------------------------------

CROSS_SITE = [
    ("Origin: http://evil.example",),
    ("Origin: null",),
    ("Origin: http://localhost:1",),
    ("Sec-Fetch-Site: cross-site",),
    ("Sec-Fetch-Site: same-site",),
    ("Sec-Fetch-Site: same-origin", "Origin: http://evil.example"),
    ("Referer: http://evil.example/page?http://{own}/",),
    ("Referer: http://[",),
]


@pytest.mark.parametrize("headers", CROSS_SITE)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_of_another_origin_cannot_reset(collector: Collector, method: str, headers: tuple[str, ...]) -> None:
    own = f"localhost:{collector.port}"
    with Client(collector) as client:
        client.post(EVENT)
    marks = [header.replace("{own}", own) for header in headers]
    assert asked(collector, method, "/micro/reset", own, *marks) == 403
    assert collector.events == [EVENT]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "header",
    [
        None,
        "Sec-Fetch-Site: none",
        "Sec-Fetch-Site: same-origin",
        "Origin: http://{own}",
        "Referer: http://{own}/micro",
    ],
)
def test_a_program_a_person_and_a_page_of_the_collector_s_own_can_reset(
    collector: Collector, method: str, header: str | None
) -> None:
    own = f"localhost:{collector.port}"
    with Client(collector) as client:
        client.post(EVENT)
    marks = [] if header is None else [header.replace("{own}", own)]
    assert asked(collector, method, "/micro/reset", own, *marks) == 200
    assert collector.events == []


def test_where_browsers_say_nothing_with_a_get_a_reset_needs_post() -> None:
    with Collector("0.0.0.0") as collector:
        assert asked(collector, "GET", "/micro/reset", "192.168.7.7:9090") == 403
        assert asked(collector, "POST", "/micro/reset", "192.168.7.7:9090") == 200
        assert asked(collector, "GET", "/micro/reset", "localhost:9090") == 200


def test_a_head_resets_nothing(collector: Collector) -> None:
    with Client(collector) as client:
        client.post(EVENT)
    assert asked(collector, "HEAD", "/micro/reset", "localhost") == 405
    assert collector.events == [EVENT]


def test_pages_of_other_origins_may_still_send_events(collector: Collector) -> None:
    data = raw_post(envelope(EVENT), "Origin: http://shop.test:3000", "Sec-Fetch-Site: cross-site")
    assert talk(collector, data).startswith(b"HTTP/1.1 200 ")
    assert collector.requests[0].path == TP2
