"""The rules without network, clock and chance: verdicts, Retry-After, the backoff."""

from __future__ import annotations

import pytest

from fastemit._delivery.retry import Backoff, Verdict, is_poison_sign, judge, retry_after_seconds

NOW = 1_700_000_000.0
SENT, REJECTED, SPLIT, KEEP = Verdict.SENT, Verdict.REJECTED, Verdict.SPLIT, Verdict.KEEP


@pytest.mark.parametrize(
    ("status", "events", "custom", "expected"),
    [
        (None, 1, {}, KEEP),
        (None, 2, {}, KEEP),
        *((status, 2, {}, SENT) for status in (200, 201, 204, 299)),
        *((status, 2, {}, REJECTED) for status in (400, 401, 403, 410, 422)),
        *((status, 2, {}, KEEP) for status in (199, 300, 302, 399, 402, 404, 408, 409, 418, 429, 499, 500, 503, 599)),
        (413, 2, {}, SPLIT),
        (413, 1, {}, REJECTED),
        (414, 1, {}, REJECTED),
        (414, 2, {}, KEEP),
        (413, 2, {413: True}, SPLIT),
        (413, 2, {413: False}, SPLIT),
        (413, 1, {413: True}, KEEP),
        (414, 1, {414: True}, KEEP),
        (200, 1, {200: True}, SENT),
        (204, 1, {204: False}, SENT),
        (400, 1, {400: True}, KEEP),
        (500, 1, {500: False}, REJECTED),
        (302, 1, {302: False}, REJECTED),
        (500, 1, {502: False}, KEEP),
    ],
)
def test_judge(status: int | None, events: int, custom: dict[int, bool], expected: Verdict) -> None:
    assert judge(status, events, custom) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, False) for status in (None, 200, 429, 499, 503, 600)),
        *((status, True) for status in (500, 502, 504, 599)),
    ],
)
def test_poison_signs_are_server_errors_but_503(status: int | None, expected: bool) -> None:
    assert is_poison_sign(status) is expected


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 7\t", 7.0),
        ("007", 7.0),
        ("0", None),
        ("-7", None),
        ("+7", None),
        ("7.5", None),
        ("7s", None),
        ("\u00b2", None),
        ("1e9", None),
        ("nan", None),
        ("inf", None),
        ("9" * 10_000, 999_999_999_999_999_999.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60.0),
        ("Tue Nov 14 22:14:20 2023", 60.0),
        ("Tue, 14 Nov 2023 23:14:20 +0100", 60.0),
        ("Tue, 14 Nov 2023 22:13:20 GMT", None),
        ("Tue, 14 Nov 2023 22:12:20 GMT", None),
        ("Tue, 99 Nov 2023 22:14:20 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 251_702_387_139.0),
        ("tomorrow", None),
        ("\x00", None),
    ],
)
def test_retry_after(status: int, value: str | None, expected: float | None) -> None:
    assert retry_after_seconds(status, value, NOW) == expected


@pytest.mark.parametrize("status", [None, 200, 302, 400, 413, 500, 502, 504])
def test_retry_after_counts_with_429_and_503_only(status: int | None) -> None:
    assert retry_after_seconds(status, "7", NOW) is None


# -- Backoff -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def backoff() -> Backoff:
    return Backoff(60.0, chance=lambda: 0.5)


def test_each_failure_doubles_the_delay_and_adds_a_chance(backoff: Backoff) -> None:
    delays = []
    for _ in range(8):
        backoff.failed(backoff.generation, NOW)
        delays.append((backoff.delay, backoff.wait, backoff.until - NOW))
    assert delays == [(delay, delay, delay) for delay in (0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 60.0, 60.0)]


def test_ten_failures_of_one_generation_count_once(backoff: Backoff) -> None:
    news = [backoff.failed(0, NOW + number) for number in range(10)]
    assert news == [True] + [False] * 9
    assert (backoff.generation, backoff.delay, backoff.until) == (1, 0.5, NOW + 0.5)


def test_a_late_success_of_an_older_generation_does_not_open(backoff: Backoff) -> None:
    backoff.failed(0, NOW)
    assert backoff.succeeded(0) is False
    assert (backoff.open, backoff.delay) == (False, 0.5)


def test_a_success_of_this_generation_opens_and_resets(backoff: Backoff) -> None:
    backoff.failed(0, NOW)
    assert backoff.succeeded(1) is True
    assert (backoff.open, backoff.delay, backoff.wait) == (True, 0.0, 0.0)


def test_a_success_while_open_is_no_news(backoff: Backoff) -> None:
    assert backoff.succeeded(0) is False


def test_an_older_failure_after_a_reset_changes_nothing(backoff: Backoff) -> None:
    backoff.failed(0, NOW)
    backoff.succeeded(1)
    assert backoff.failed(0, NOW) is False
    assert backoff.open is True


def test_a_chance_of_nothing_is_still_a_backoff() -> None:
    backoff = Backoff(60.0, chance=lambda: 0.0)
    backoff.failed(0, NOW)
    assert (backoff.open, backoff.wait > 0) == (False, True)


@pytest.mark.parametrize(("asked", "wait"), [(None, 0.5), (0.1, 0.5), (30.0, 30.0), (61.0, 60.0), (1e18, 60.0)])
def test_the_longer_of_the_backoff_and_what_is_asked_is_waited(
    backoff: Backoff, asked: float | None, wait: float
) -> None:
    backoff.failed(0, NOW, asked)
    assert (backoff.wait, backoff.until) == (wait, NOW + wait)


def test_what_was_asked_does_not_grow_the_next_delay(backoff: Backoff) -> None:
    backoff.failed(0, NOW, asked=30.0)
    backoff.failed(1, NOW)
    assert backoff.wait == 1.5


def test_hurry_brings_the_end_nearer_and_never_puts_it_off(backoff: Backoff) -> None:
    backoff.failed(0, NOW)
    backoff.hurry(NOW + 1)
    unhurried = backoff.until
    backoff.hurry(NOW + 0.1)
    assert (unhurried, backoff.until) == (NOW + 0.5, NOW + 0.1)
