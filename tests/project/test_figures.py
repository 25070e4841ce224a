"""The figures on the pages are those of benchmarks/results.json, which `make bench` writes."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from fastemit._settings import DEFAULT_BUFFER_BYTES

ROOT = Path(__file__).resolve().parents[2]
FIGURES = {
    figure["name"]: figure for figure in json.loads((ROOT / "benchmarks/results.json").read_text("utf-8"))["figures"]
}


def detail(row: str, name: str) -> float:
    return float(FIGURES[row]["detail"][name])


def rounds_to(measured: float, told: str) -> bool:
    """Whether `told` is `measured`, to the digits that it has; zeros at the end of a whole number are no digits."""
    digits = told.replace(",", "")
    unit = Decimal(1).scaleb(-len(digits.partition(".")[2]) if "." in digits else len(digits) - len(digits.rstrip("0")))
    return abs(Decimal(digits) - Decimal(measured)) <= unit / 2 * Decimal("1.001")


def found(page: str, pattern: str) -> tuple[str, ...]:
    """The groups of the one place of a page that has this pattern."""
    places = list(re.finditer(pattern, (ROOT / page).read_text("utf-8")))
    assert len(places) == 1, f"{page} has {len(places)} places like {pattern}"
    return places[0].groups()


@pytest.mark.parametrize(
    ("told", "measured", "same"),
    [("1,390,000", 1_393_813, True), ("1,390,000", 1_396_000, False), ("0.7", 0.658, True), ("0.7", 0.64, False)],
)
def test_a_figure_is_compared_to_the_digits_it_has(told: str, measured: float, same: bool) -> None:
    assert rounds_to(measured, told) is same


@pytest.mark.parametrize(
    ("pattern", "measured"),
    [
        (r"none lost \| ([\d,]+) \|", detail("end to end", "fastemit, events/s")),
        (r"none lost \| [\d,]+ \| (\d+) times as many", FIGURES["end to end"]["value"]),
        (r"CPU of the process for an event \| ([\d.]+) us", detail("CPU", "fastemit, CPU us")),
        (r"CPU of the process for an event \| [\d.]+ us \| 1/(\d+)", FIGURES["CPU"]["value"]),
        (r"sender idle \| ([\d.]+) us", detail("input, one int", "fastemit, ns") / 1000),
        (r"sender idle \| [\d.]+ us \| 1/(\d+)", FIGURES["input, one int, to the reference"]["value"]),
        (r"; ([\d.]+) times `orjson.dumps` alone", FIGURES["input, one int"]["value"]),
    ],
)
@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_a_figure_of_the_first_pages_is_measured(page: str, pattern: str, measured: float) -> None:
    (told,) = found(page, pattern)
    assert rounds_to(measured, told)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("all values strings", "all strings"),
        ("one value an int, as trackers leave `dtm`", "one int"),
        ("with spaces, as `json.dumps` writes them", "spaces, as json.dumps writes them"),
        ("compressed with gzip", "gzip"),
        ("those that have to be parsed by Python", "parsed"),
    ],
)
def test_a_figure_of_the_command_line_is_measured(row: str, name: str) -> None:
    (told,) = found("docs/cli.md", rf"\| {row} \| ([\d,]+) \|")
    assert rounds_to(detail("fastemit send", f"{name}, events/s"), told)


@pytest.mark.parametrize(
    ("row", "pattern"),
    [
        ("input, all strings", r"some ([\d,]+) ns when .*?, where bare `orjson.dumps` takes\s+([\d,]+) .*? ([\d,]+);"),
        ("input, one int", r"with one int, as a Tracker leaves it, ([\d,]+), ([\d,]+) and ([\d,]+)\."),
    ],
)
def test_the_time_of_input_is_measured(row: str, pattern: str) -> None:
    told = found("docs/performance.md", pattern)
    names = ("fastemit, ns", "orjson.dumps, ns", "reference, ns")
    assert [rounds_to(detail(row, name), figure) for name, figure in zip(names, told, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("pattern", "measured"),
    [
        (r"request an event, some (\d+) us", 1e6 / detail("GET", "fastemit, events/s")),
        (
            r"and some: ([\d.]+) us an event",
            detail("on_success", "with on_success, CPU us") - detail("on_success", "without, CPU us"),
        ),
        (r"100-byte events \(([\d.]+) times\)", FIGURES["events of 100 B"]["value"]),
        (r"queued event: (\d+) bytes", FIGURES["memory of a queued event"]["value"]),
    ],
)
def test_a_figure_of_the_performance_page_is_measured(pattern: str, measured: float) -> None:
    (told,) = found("docs/performance.md", pattern)
    assert rounds_to(measured, told)


@pytest.mark.parametrize("name", list(FIGURES))
def test_a_row_of_the_benchmarks_table_is_measured(name: str) -> None:
    (told,) = found("benchmarks/README.md", rf"(?m)^\| {re.escape(name)} \| (-?[\d,.]+) \|")
    sign = -1 if told.startswith("-") else 1
    assert rounds_to(sign * FIGURES[name]["value"], told.lstrip("-"))


def test_the_memory_of_the_larger_buffer_for_fastapi_is_measured_and_allowed() -> None:
    capacity, again, size = found(
        "docs/recipes/fastapi.md", r"buffer_capacity=([\d_]+)`.* ([\d,]+) events are 40 s, and some (\d+) MB"
    )
    events = int(capacity)
    assert events == int(again.replace(",", "")) == 40 * 5_000
    needed = events * FIGURES["memory of a queued event"]["value"]
    assert rounds_to(needed / 1_000_000, size)
    assert needed < DEFAULT_BUFFER_BYTES
