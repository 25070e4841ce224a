"""What the benchmarks share: sizes, the page view, and timing by the event."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import orjson

SMOKE = os.environ.get("FASTEMIT_BENCH_SMOKE", "") not in ("", "0")

#: A page view of 12 fields, all strings.
PAGE_VIEW: dict[str, str] = {
    "e": "pv",
    "url": "https://shop.example.com/tea",
    "page": "Green tea, all sorts",
    "refr": "https://search.example.com/",
    "eid": "7b4dd3c2-5a1e-4f3e-9c39-2f5a3f1d8a61",
    "dtm": "1767225600000",
    "tv": "py-1.1.0",
    "tna": "shop",
    "aid": "web",
    "p": "web",
    "uid": "visitor-19",
    "lang": "en-GB",
}
#: Its size in JSON as orjson writes it.
PAGE_VIEW_BYTES = 266
#: The same event as a Tracker gives it to `input`: `dtm` is an int.
PAGE_VIEW_WITH_INT: dict[str, Any] = {**PAGE_VIEW, "dtm": int(PAGE_VIEW["dtm"])}

#: Strings of every kind, each with the text that is repeated in it.
STRINGS = {
    "ASCII": "The quick brown fox jumps over the lazy dog. ",
    "a quote in 32": "x" * 31 + '"',
    "a quote in 8": 'abcdefg"',
    "quotes only": '"',
    "control characters": "\x01",
    "latin-1": "Größe über café, naïve Straße à côté ",
    "Cyrillic": "Съешь же ещё этих мягких французских булок да выпей чаю ",
    "CJK": "日本語の文章には漢字と仮名が混ざる。",
    "CJK and ASCII": "商品 page 1: 緑茶 (green tea), 500円. ",
    "emoji": "😀🎉🚀",
    "emoji and ASCII": "Great tea 😀 and the party 🎉 was fine, thanks! ",
}


def event_of(size: int) -> dict[str, str]:
    """An event that takes so many bytes in JSON, nearly all of them in one string."""
    event = {"e": "ue", "p": "web", "tv": "py-1.1.0", "data": ""}
    event["data"] = "x" * (size - len(orjson.dumps(event)))
    return event


def timer_per_event(events: int) -> Callable[[], float]:
    """A clock for pytest-benchmark by which a round of so many events takes as long as one of them."""
    return lambda: time.perf_counter() / events


def interleaved(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each run returned in each round. They take turns, so that the machine is equally busy for all of them."""
    results: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        names = list(runs)
        # The order changes, so that no run always comes after the slowest one.
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            results[name].append(runs[name]())
    return results


def medians(results: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in results.items()}
