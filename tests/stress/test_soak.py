"""The soak's books see what they are there to see; and a soak of a few seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.stress.soak_books import Books, Event, Report
from tests.support.environment import environment

A: list[Event] = [("p", "0", 0), ("p", "0", 1), ("p", "0", 2)]


def report(
    given: int = 3,
    sent: int = 3,
    dropped: int = 0,
    left: int = 0,
    calls_back: bool = False,
    reason: str = "overflow",
    overflow: str = "backpressure",
    capacity: int = 2,
    closing: float = 30.0,
) -> Report:
    return Report({"0": given}, sent, {reason: dropped}, left, calls_back, overflow, capacity, closing, shutdown=30.0)


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
    books.request(A[1:2], accepted=False, certain=False)
    books.process("p", report(sent=1, dropped=1, left=1), [])
    assert books.wrong == []


def test_the_books_miss_an_event_that_never_arrived() -> None:
    books = Books()
    books.request(A[:2], accepted=True, certain=True)
    books.process("p", report(), [])
    assert wrong(books) == ["p: 1 event is missing, where 0 were dropped and 0 left"]
    assert books.figures["lost"] == 1


def test_the_books_miss_a_whole_thread() -> None:
    books = Books()
    books.process("p", report(), [])
    assert books.figures["lost"] == 3


def test_the_books_find_a_double_after_a_certain_answer() -> None:
    books = Books()
    books.request(A, accepted=True, certain=True)
    books.request(A[1:2], accepted=True, certain=True)
    books.again({})
    assert wrong(books) == ["event 1 of p came again after an answer that was surely heard"]


def test_the_books_excuse_a_double_whose_request_timed_out_all_the_same() -> None:
    books = Books()
    books.request(A[:2], accepted=True, certain=True, at=5.0)
    books.request(A[:1], accepted=True, certain=True, at=9.0)
    books.request(A[:2], accepted=True, certain=True, at=12.0)
    books.again({"p": [(4.0, 6.0), (20.0, 21.0)]})
    assert wrong(books) == ["event 0 of p came again after an answer that was surely heard"]
    assert books.figures["missed"] == 2


def test_the_books_find_two_processes_on_one_connection() -> None:
    books = Books()
    books.shared("p", "p-0")
    books.shared("p", "p-0")
    assert wrong(books) == ["p and p-0 sent on one connection: each may have read the answers of the other"]


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
        ([("0", 0), ("0", 0)], "on_success was called more than once for event 0 of p"),
        ([("0", 2)], "on_success was called for event 2 of p, which never arrived"),
        ([("1", 0), ("1", 1)], "on_success was called for 2 events (the first: 0) of p/1, which never arrived"),
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
    assert wrong(books) == ["p tells of 3 events sent and 0 left, and called back for 2"]


def test_the_books_balance_when_the_last_answer_came_after_the_report() -> None:
    books = Books()
    books.request(A, accepted=True, certain=False)
    books.process("p", report(sent=2, left=1, calls_back=True), [("0", 0), ("0", 1), ("0", 2)])
    assert books.wrong == []


def test_the_books_find_callbacks_for_more_events_than_were_sent() -> None:
    books = Books()
    books.request(A, accepted=True, certain=False)
    books.process("p", report(sent=2, dropped=1, calls_back=True), [("0", 0), ("0", 1), ("0", 2)])
    assert wrong(books) == ["p tells of 2 events sent and 0 left, and called back for 3"]


def test_the_books_find_events_left_before_the_time_was_up() -> None:
    books = Books()
    books.request(A[:2], accepted=True, certain=True)
    books.process("p", report(sent=2, left=1, closing=2.5), [])
    assert wrong(books) == ["p: 1 event is left after 2.5 s of closing, where it had 30 s"]


def test_the_books_find_events_dropped_as_rejected_that_nobody_refused() -> None:
    books = Books()
    books.request(A[:2], accepted=True, certain=True)
    books.process("p", report(sent=2, dropped=1, reason="rejected"), [])
    assert wrong(books) == ["p: 1 event is dropped as rejected, where the collector refused 0"]


def test_the_books_balance_when_what_was_refused_is_dropped() -> None:
    books = Books()
    books.request(A, accepted=False, certain=True, refused=True)
    books.process("p", report(sent=0, dropped=3, reason="rejected"), [])
    assert books.wrong == []


def test_the_books_find_an_event_that_came_again_after_a_refusal() -> None:
    books = Books()
    books.request(A[:1], accepted=False, certain=True, refused=True)
    books.request(A[:1], accepted=True, certain=True)
    books.again({})
    assert wrong(books) == ["event 0 of p came again after a refusal that was surely heard"]


def test_the_books_balance_when_what_arrived_unheard_is_refused_later() -> None:
    books = Books()
    books.request(A, accepted=True, certain=False)
    books.request(A, accepted=False, certain=True, refused=True)
    books.process("p", report(sent=0, dropped=3, reason="rejected"), [])
    assert books.wrong == []


def test_the_books_find_drops_by_a_policy_that_waits() -> None:
    books = Books()
    books.request(A[:2], accepted=True, certain=True)
    books.process("p", report(sent=2, dropped=1, overflow="block"), [])
    assert wrong(books) == ["p: 1 event is dropped for want of room, though input() is to wait for room"]


def test_the_books_find_drops_where_there_was_room() -> None:
    books = Books()
    books.request(A[:2], accepted=True, certain=True)
    books.process("p", report(sent=2, dropped=1, capacity=3), [])
    assert wrong(books) == ["p: 1 event is dropped for want of room, though there is room for all 3"]


def test_the_books_find_events_dropped_after_a_failed_attempt() -> None:
    books = Books()
    books.request(A, accepted=False, certain=False)
    books.request(A[:2], accepted=True, certain=True)
    books.process("p", report(sent=2, dropped=1), [])
    assert wrong(books) == ["p: 1 event is gone that had been tried, and neither accepted nor refused"]


def test_the_books_find_drops_for_a_reason_that_there_was_not() -> None:
    books = Books()
    books.request(A[:2], accepted=True, certain=True)
    books.process("p", report(sent=2, dropped=1, reason="closed"), [])
    assert wrong(books) == ["p: 1 event is dropped with the reason 'closed', which there was not"]


on_unix = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=290, check=False)


def run_soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python(str(Path(__file__).with_name("soak.py")), *arguments)


@pytest.mark.slow
@on_unix
@pytest.mark.timeout(300)
def test_a_soak_of_some_seconds() -> None:
    done = run_soak("--minutes", "0.08")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


#: A producer that waits for ever, and a forked child of it that does, too, in a function of a telling name.
HANGING = """
import os
import threading
from tests.stress import soak_producer

def wait_for_ever():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

class Hanging(soak_producer.Producer):
    def run(self):
        if not os.fork():
            self.name += "-0"
            self.open_files()
        wait_for_ever()

soak_producer.Producer = Hanging
soak_producer.main()
"""


@pytest.mark.slow
@on_unix
@pytest.mark.timeout(300)
def test_a_producer_and_a_forked_child_that_hang_fail_the_soak_which_shows_where(tmp_path: Path) -> None:
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)
    # By this seed the first load is a short one; the patience is for a Python that starts slowly on a busy machine.
    few = ("--seed", "97", "--producers", "1", "--patience", "5")
    done = run_soak("--minutes", "9", *few, "--producer", str(script))
    assert (done.returncode, done.stderr) == (1, "")
    told = done.stdout.split("WRONG: ")[1]
    assert told.startswith("p0 hung for ")
    assert [part.split("\n")[0] for part in told.split("--- ")[1:]] == ["p0", "p0-0"]
    assert told.count("in wait_for_ever") == 2, told


#: A soak that hangs by itself, with a producer that runs.
STUCK = """
import random
import sys
import threading
from pathlib import Path
from tests.stress import soak
from tests.support.environment import environment

def stuck():
    threading.Event().wait()

directory = Path(sys.argv[1])
crowd = soak.Crowd(random.Random(1), directory, "http://127.0.0.1:9", directory / "hanging.py", 1, 60.0)
crowd.tend()
soak.Limit(1.0, crowd)
stuck()
"""


@on_unix
def test_a_soak_that_hangs_itself_says_where_and_leaves_no_process_behind(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    (tmp_path / "stuck.py").write_text(STUCK)
    # It returns when the last process that has its standard output is gone.
    done = run_python(str(tmp_path / "stuck.py"), str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    assert "the soak itself hangs: it is not over after 1 s" in done.stdout
    assert "in stuck" in done.stdout
