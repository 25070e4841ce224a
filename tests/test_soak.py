"""The soak's books see what they are there to see; and a soak of a few seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from soak_books import Books, Event, Report

A: list[Event] = [("p", "0", 0), ("p", "0", 1), ("p", "0", 2)]


def report(given: int = 3, sent: int = 3, dropped: int = 0, left: int = 0, calls_back: bool = False) -> Report:
    return Report({"0": given}, sent, dropped, left, calls_back)


def wrong(books: Books) -> list[str]:
    return [text.replace("p/0", "p") for text in books.wrong]


def test_the_books_balance_when_all_arrived_once() -> None:
    books = Books()
    books.request(A, accepted=True, certain=True)
    books.process("p", report(calls_back=True), [("0", 0), ("0", 1), ("0", 2)])
    assert (books.wrong, books.figures["arrived"], books.figures["doubled"]) == ([], 3, 0)


def test_the_books_balance_when_a_lost_answer_made_doubles() -> None:
    books = Books()
    books.request(A, accepted=True, certain=False)
    books.request(A, accepted=True, certain=True)
    books.process("p", report(), [])
    assert (books.wrong, books.figures["arrived"], books.figures["doubled"]) == ([], 3, 3)


def test_the_books_balance_when_what_is_missing_was_dropped_or_left() -> None:
    books = Books()
    books.request(A[:1], accepted=True, certain=True)
    books.request(A[1:], accepted=False, certain=False)
    books.process("p", report(sent=1, dropped=1, left=1), [])
    assert books.wrong == []


def test_the_books_miss_an_event_that_never_arrived() -> None:
    books = Books()
    books.request(A[:2], accepted=True, certain=True)
    books.process("p", report(), [])
    assert wrong(books) == ["p: 1 events are missing, where 0 were dropped and 0 left"]
    assert books.figures["lost"] == 1


def test_the_books_miss_a_whole_thread() -> None:
    books = Books()
    books.process("p", report(), [])
    assert books.figures["lost"] == 3


def test_the_books_find_a_double_after_a_certain_answer() -> None:
    books = Books()
    books.request(A, accepted=True, certain=True)
    books.request(A[1:2], accepted=True, certain=True)
    assert wrong(books) == ["event 1 of p came again after an answer that was surely heard"]


def test_the_books_find_an_event_that_nobody_gave() -> None:
    books = Books()
    books.request(A, accepted=True, certain=True)
    books.process("p", report(given=2, sent=2), [])
    assert wrong(books) == ["p was given 2 events, and number 2 came"]


def test_the_books_find_counters_that_do_not_add_up() -> None:
    books = Books()
    books.request(A, accepted=True, certain=True)
    books.process("p", report(sent=2), [])
    assert wrong(books) == ["p was given 3, and tells of 2 sent, 0 dropped and 0 left"]


def test_the_books_find_drops_that_were_none() -> None:
    books = Books()
    books.request(A, accepted=True, certain=True)
    books.process("p", report(sent=2, dropped=1), [])
    assert wrong(books) == ["p: 1 dropped and 0 left, where no more than 0 can be"]


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        ([("0", 0), ("0", 0)], "event 0 of p was called back 2 times"),
        ([("0", 2)], "event 2 of p was called back as sent, and never arrived"),
        ([("1", 0)], "event 0 of p/1 was called back as sent, and never arrived"),
    ],
)
def test_the_books_find_a_callback_that_is_wrong(sent: list[tuple[str, int]], fault: str) -> None:
    books = Books()
    books.request(A[:2], accepted=True, certain=True)
    books.called_back("p", sent)
    assert wrong(books) == [fault]


def test_the_books_find_a_callback_that_is_missing() -> None:
    books = Books()
    books.request(A, accepted=True, certain=True)
    books.process("p", report(calls_back=True), [("0", 0), ("0", 1)])
    assert wrong(books) == ["p tells of 3 events sent, and called back for 2"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
@pytest.mark.timeout(150)
def test_a_soak_of_some_seconds() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)}
    command = [sys.executable, str(Path(__file__).with_name("soak.py")), "--minutes", "0.08"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=140, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
