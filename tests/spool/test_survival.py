"""What was accepted outlives the process, however that ends, and the next emitter sends it."""

from __future__ import annotations

import logging
import random
import re
from pathlib import Path
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter
from fastemit.testing import Collector
from tests.support.delivery import DEADLINE, Rig
from tests.support.emitters import accounted
from tests.support.spool import Producer, arrivals, homes, leave, nothing_lost, segments
from tests.support.waiting import until

METHODS = pytest.mark.parametrize("method", ["post", "get"])
BACKGROUND = pytest.mark.parametrize("background", [True, False])


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def send_what_is_there(url: str, spool: Path, **settings: Any) -> int:
    """What the next process does; how many events it has taken over."""
    emitter = Emitter(url, spool=spool, **settings)
    try:
        assert emitter.drain(DEADLINE, retry=True)
        assert accounted(emitter.stats()) == emitter.stats().recovered_events
        return emitter.stats().recovered_events
    finally:
        assert emitter.close() == 0


# -- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("down", [False, True])
def test_a_killed_process_loses_nothing_that_it_had_accepted(
    collector: Collector, spool: Path, tmp_path: Path, threads: int, down: bool
) -> None:
    if down:
        collector.respond(503, times=None)
    accepted = Producer(collector.url, spool, tmp_path / "books", threads=threads).kill_after(500)
    collector.reset() if down else None
    send_what_is_there(collector.url, spool)
    nothing_lost(collector, accepted)
    assert homes(spool) == []


def test_a_killed_process_that_sends_by_get_loses_nothing(collector: Collector, spool: Path, tmp_path: Path) -> None:
    collector.respond(503, times=None)
    accepted = Producer(collector.url, spool, tmp_path / "books", method="get", batch_size=5).kill_after(60)
    collector.reset()
    collector.respond(200, times=None)
    send_what_is_there(collector.url, spool, method="get")
    nothing_lost(collector, accepted)


def _killed_again_and_again(collector: Collector, spool: Path, tmp_path: Path, rounds: int) -> None:
    """Each process takes over what the one before has left, and is killed in the middle of it."""
    chance = random.Random(14)
    accepted: list[int] = []
    for turn in range(rounds):
        if turn % 3 == 2:
            collector.respond(503, times=2)
        books = tmp_path / f"books-{turn}"
        producer = Producer(collector.url, spool, books, first=turn * 100_000, threads=chance.choice([1, 4]))
        accepted += producer.kill_after(chance.randrange(1, 400))
    # What is left of the failures comes one after the other.
    send_what_is_there(collector.url, spool, max_retry_delay_seconds=0.02)
    nothing_lost(collector, accepted, kills=rounds)


def test_processes_that_are_killed_one_after_the_other_lose_nothing(
    collector: Collector, spool: Path, tmp_path: Path
) -> None:
    _killed_again_and_again(collector, spool, tmp_path, 4)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_300_processes_that_are_killed_lose_nothing(collector: Collector, spool: Path, tmp_path: Path) -> None:
    _killed_again_and_again(collector, spool, tmp_path, 300)


def test_two_processes_that_take_over_at_once_send_each_event_once(
    collector: Collector, spool: Path, tmp_path: Path
) -> None:
    collector.respond(503, times=None)
    accepted = Producer(collector.url, spool, tmp_path / "books").kill_after(300)
    # A request that was under way may still be read, and what it carries was in flight.
    until(lambda: not collector._open)
    collector.reset()
    left = set(homes(spool))
    both = [Producer(collector.url, spool, tmp_path / f"books-{each}", first=each * 10**6) for each in (1, 2)]
    # Until they have settled it, too: what is killed between an answer and that sends it again.
    until(lambda: set(accepted) <= set(arrivals(collector)) and not left & set(homes(spool)), 30.0)
    for producer in both:
        accepted += producer.kill_after(1)
    send_what_is_there(collector.url, spool)
    # The second may have taken over what the first had in flight, and was killed with that in flight.
    nothing_lost(collector, accepted, kills=2)
    assert max(arrivals(collector)[number] for number in range(300)) == 1


# -- other ends ------------------------------------------------------------------------------------------------------


@METHODS
@BACKGROUND
def test_a_process_that_ends_without_its_exit_handlers_leaves_its_events(
    rig: Rig, spool: Path, method: str, background: bool
) -> None:
    leave(rig.collector.url, spool, "put(3)", method=method, background=background, batch_size=10)
    assert len(homes(spool)) == 1
    assert send_what_is_there(rig.collector.url, spool, method=method) == 3
    assert arrivals(rig.collector) == {0: 1, 1: 1, 2: 1}
    assert homes(spool) == []


def test_a_close_leaves_what_it_cannot_send_and_says_where(
    rig: Rig, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig.collector.respond(503, times=None)
    lost: list[str] = []
    emitter = Emitter(rig.collector.url, spool=spool, on_lost=lambda reason, _: lost.append(reason))
    emitter.input({"n": 1})
    with caplog.at_level(logging.WARNING, "fastemit"):
        assert emitter.close(0.05) == 1
    (home,) = homes(spool)
    assert f"closed with 1 event left, which stays in {spool / home}" in caplog.text
    assert lost == []
    rig.collector.reset()
    assert send_what_is_there(rig.collector.url, spool) == 1


def test_the_end_of_the_process_leaves_what_it_cannot_send(rig: Rig, spool: Path) -> None:
    rig.collector.respond(503, times=None)
    script = "import logging; logging.basicConfig(); put(2); from fastemit._process import lifecycle; lifecycle.end()"
    done = leave(rig.collector.url, spool, script, shutdown_timeout=0.1)
    (home,) = homes(spool)
    assert f"closed with 2 events left, which stay in {spool / home}" in done.stderr
    rig.collector.reset()
    assert send_what_is_there(rig.collector.url, spool) == 2


def test_a_directory_with_nothing_in_it_is_removed(rig: Rig, spool: Path) -> None:
    emitter = rig.emitter(spool=spool)
    emitter.input({"n": 1})
    assert len(homes(spool)) == 1
    assert emitter.close() == 0
    assert homes(spool) == []
    done = leave(rig.collector.url, spool, "put(2); from fastemit._process import lifecycle; lifecycle.end()")
    assert (done.returncode, homes(spool)) == (0, [])


def test_an_emitter_that_takes_nothing_makes_no_directory(rig: Rig, spool: Path) -> None:
    rig.emitter(spool=spool).close()
    assert list(spool.iterdir()) == []


@BACKGROUND
def test_an_emitter_that_is_dropped_leaves_nothing_behind(rig: Rig, spool: Path, background: bool) -> None:
    emitter = Emitter(rig.collector.url, spool=spool, background=background, batch_size=1)
    emitter.input({"n": 1})
    assert emitter.drain(DEADLINE)
    del emitter
    until(lambda: homes(spool) == [])


# -- taking over -----------------------------------------------------------------------------------------------------


@BACKGROUND
def test_the_events_of_the_dead_go_before_its_own_in_their_order(rig: Rig, spool: Path, background: bool) -> None:
    leave(rig.collector.url, spool, "put(5)", batch_size=10)
    emitter = rig.emitter(spool=spool, background=background)
    for number in range(5, 8):
        emitter.input({"n": number})
    assert emitter.drain(DEADLINE)
    assert [int(event["n"]) for event in rig.collector.events] == list(range(8))
    assert emitter.stats().recovered_events == 5
    assert accounted(emitter.stats()) == 8


def test_a_line_says_how_many_and_from_when(rig: Rig, spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    leave(rig.collector.url, spool, "put(5)", batch_size=10)
    with caplog.at_level(logging.INFO, "fastemit"):
        send_what_is_there(rig.collector.url, spool)
    text = "sending 5 events that 1 dead process left in .*, the oldest from 20[0-9-]+ [0-9:]+ UTC"
    assert len(re.findall(text, caplog.text)) == 1


def test_an_emitter_that_runs_looks_again(rig: Rig, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastemit._spool.spool.LOOK_EVERY", 0.05)
    emitter = rig.emitter(spool=spool)
    emitter.input({"n": 7})
    leave(rig.collector.url, spool, "put(2)", batch_size=10)
    until(lambda: emitter.stats().recovered_events == 2)
    until(lambda: arrivals(rig.collector)[0] == 1)


def test_what_is_for_another_collector_is_left_alone_with_one_warning(
    rig: Rig, spool: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastemit._spool.spool.LOOK_EVERY", 0.01)
    leave("http://user:secret@127.0.0.1:9", spool, "put(3)", batch_size=10)
    with caplog.at_level(logging.WARNING, "fastemit"):
        emitter = rig.emitter(spool=spool)
        emitter.input({"n": 7})
        emitter.flush()
        until(lambda: emitter._delivery._spool._life.look_at > 0)  # type: ignore[union-attr]
        emitter.close()
    lines = [line for line in caplog.messages if "left alone" in line]
    assert len(lines) == 1
    assert f"fastemit spool {spool} --send COLLECTOR" in lines[0]
    assert "has 3 events for http://127.0.0.1:9/" in lines[0]
    assert "secret" not in caplog.text + next(spool.glob("*/owner.json")).read_text()
    assert arrivals(rig.collector) == {7: 1}


def test_what_a_living_process_has_is_not_touched(rig: Rig, spool: Path) -> None:
    first = rig.emitter(spool=spool)
    first.input({"n": 1})
    second = rig.emitter(spool=spool)
    second.input({"n": 2})
    assert second.drain(DEADLINE)
    assert second.stats().recovered_events == 0
    assert arrivals(rig.collector) == {2: 1}
    assert len(homes(spool)) == 2


def test_what_is_full_takes_over_as_there_is_room(rig: Rig, spool: Path) -> None:
    leave(rig.collector.url, spool, "put(500)", batch_size=1000)
    emitter = rig.emitter(spool=spool, buffer_capacity=20)
    emitter.async_flush()
    until(lambda: arrivals(rig.collector) == dict.fromkeys(range(500), 1))
    assert emitter.stats().recovered_events == 500


@pytest.mark.parametrize("files", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_files_are_taken_over(rig: Rig, spool: Path, files: int) -> None:
    script = f"""
for number in range({files}):
    e.input({{"n": number, "x": "y" * 900}})
"""
    leave(rig.collector.url, spool, script, batch_size=10**6, max_request_bytes=1100, max_retry_delay_seconds=9)
    assert len(segments(spool)) > files // 2
    emitter = Emitter(rig.collector.url, spool=spool)
    assert emitter.drain(50)
    assert set(arrivals(rig.collector)) == set(range(files))
    emitter.close()
    assert homes(spool) == []


def test_an_async_emitter_takes_over_with_all_its_threads(rig: Rig, spool: Path) -> None:
    leave(rig.collector.url, spool, "put(3000)", batch_size=10**6, max_request_bytes=2000)
    emitter = AsyncEmitter(rig.collector.url, spool=spool, thread_count=4)
    assert emitter.drain(30)
    assert arrivals(rig.collector) == dict.fromkeys(range(3000), 1)
    emitter.close()


# -- files in the steady state ---------------------------------------------------------------------------------------


def test_a_long_outage_keeps_few_files_in_memory_and_arrives_in_order(rig: Rig, spool: Path) -> None:
    rig.collector.respond(503, times=None)
    emitter = rig.emitter(spool=spool, max_request_bytes=20_000, max_retry_delay_seconds=0.05)
    for number in range(20_000):
        emitter.input({"n": number, "x": "y" * 100})
    assert len(segments(spool)) > 100
    until(lambda: emitter._buffer.mapped_files < 30)  # type: ignore[attr-defined]
    rig.collector.reset()
    rig.collector.respond(200, times=None)
    assert emitter.drain(30, retry=True)
    assert [int(event["n"]) for event in rig.collector.events] == list(range(20_000))


def test_files_are_used_again(rig: Rig, spool: Path) -> None:
    emitter = rig.emitter(spool=spool, max_request_bytes=2000)
    for round_ in range(50):
        for number in range(5):
            emitter.input({"n": round_ * 5 + number, "x": "y" * 100})
        assert emitter.drain(DEADLINE)
    assert len(segments(spool)) < 15


def test_the_disk_is_written_as_often_as_asked(rig: Rig, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastemit._spool import ground

    synced: list[str] = []
    original = ground.sync_file

    def sync_file(name: str, within: int) -> None:
        original(name, within)
        synced.append(name)

    monkeypatch.setattr(ground, "sync_file", sync_file)
    emitter = rig.emitter(spool=spool, spool_sync=0.05)
    emitter.input({"n": 1})
    until(lambda: len(synced) >= 2)
    assert "00000001.seg" in synced
