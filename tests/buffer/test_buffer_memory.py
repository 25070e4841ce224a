"""What the buffer takes, gives back, and does when there is none left. Measured in processes of their own."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from fastemit._buffer import EventBuffer
from tests.support.buffer import CHECKED, SANITIZED, drain, make_buffer, must_take, numbered, of_size, put, run_script

measured = pytest.mark.skipif(
    not sys.platform.startswith("linux") or SANITIZED or CHECKED,
    reason="needs /proc, a plain allocator and a plain build",
)

SUPPORT = """
import gc, json, os, resource, sys
from fastemit._buffer import EventBuffer

def rss():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

PAGE_VIEW = {"e": "pv", "p": "web", "tv": "py-1.1.0", "url": "https://shop.example.com/catalogue/shoes",
             "page": "Shoes", "refr": "https://www.example.org/", "dtm": "1700000000123",
             "eid": "0f0a8b5e-2a43-4a2f-9e0a-0d5bd1a8f3b1", "tna": "shop", "aid": "web", "lang": "en-GB"}
PAGE_VIEW["pad"] = "x" * (266 - len(EventBuffer.encode(PAGE_VIEW | {"pad": ""})))
assert len(EventBuffer.encode(PAGE_VIEW)) == 266
"""


@measured
def test_a_queued_page_view_takes_300_bytes() -> None:
    taken = run_script(
        SUPPORT
        + """
buffer = EventBuffer(300_000, 1 << 30, 1_000_000, 10)
for _ in range(1000):
    buffer.append(PAGE_VIEW)
before = rss()
for _ in range(200_000):
    buffer.append(PAGE_VIEW)
assert buffer.queued_events == 201_000
print((rss() - before) / 200_000)
"""
    )
    assert taken <= 300


@measured
def test_an_emitter_that_carries_little_takes_little() -> None:
    taken = run_script(
        SUPPORT
        + """
def use(buffer):
    for _ in range(3):
        buffer.append(PAGE_VIEW)
    return buffer

first = use(EventBuffer(10_000, 64 << 20, 1_000_000, 10))
before = rss()
buffers = [use(EventBuffer(10_000, 64 << 20, 1_000_000, 10)) for _ in range(1000)]
print((rss() - before) / 1000)
"""
    )
    assert taken < 20_000


@measured
def test_memory_of_a_burst_goes_back_to_the_system() -> None:
    grown, left = run_script(
        SUPPORT
        + """
buffer = EventBuffer(1_000_000, 1 << 30, 1_000_000, 10)

def send(events):
    for _ in range(events):
        buffer.append(PAGE_VIEW)
    full = rss()
    while (batch := buffer.take()) is not None:
        batch.sent()
    return full

send(10)
before = rss()
grown = send(100_000) - before
send(10)
send(10)
print([grown, rss() - before])
"""
    )
    assert grown > 25_000_000
    assert left < 4_000_000


def test_segments_of_a_burst_are_freed_after_a_quiet_round() -> None:
    buffer = make_buffer()
    put(buffer, *[of_size(900)] * 50)
    assert buffer.segments == 50
    drain(buffer)
    assert buffer.segments == buffer.spare_segments == 50
    put(buffer, {})
    drain(buffer)
    assert buffer.segments == 1


def test_a_burst_that_recurs_finds_its_segments() -> None:
    buffer = make_buffer()
    for _ in range(3):
        put(buffer, *[of_size(900)] * 20)
        drain(buffer)
        assert buffer.spare_segments == 20


def test_trim_frees_spare_segments_alone() -> None:
    buffer = make_buffer()
    put(buffer, *[of_size(900)] * 10)
    batches = [must_take(buffer) for _ in range(9)]
    for batch in batches[:6]:
        batch.sent()
    assert (buffer.segments, buffer.spare_segments) == (10, 6)
    buffer.trim(4)
    assert (buffer.segments, buffer.spare_segments) == (8, 4)
    buffer.trim()
    assert (buffer.segments, buffer.spare_segments) == (5, 1)
    buffer.trim(-1)
    assert (buffer.segments, buffer.spare_segments) == (4, 0)


def test_an_oversize_event_leaves_no_memory_behind() -> None:
    buffer = make_buffer()
    put(buffer, of_size(50_000))
    drain(buffer)
    assert buffer.segments == 0


def test_a_steady_stream_takes_no_more_segments() -> None:
    buffer = make_buffer()
    put(buffer, *numbered(30))
    most = 0
    for round_ in range(500):
        put(buffer, *numbered(30))
        batch = must_take(buffer, max_bytes=[10_000, 400][round_ % 2], min_events=30)
        if round_ % 5 == 0:
            batch.give_back()
            batch = must_take(buffer)
        batch.sent()
        most = max(most, buffer.segments)
        while buffer.queued_events > 60:
            must_take(buffer).sent()
    assert most <= 6


@pytest.mark.slow
@measured
def test_nothing_leaks_in_twenty_thousand_rounds_and_their_errors() -> None:
    rss, blocks = run_script(
        SUPPORT
        + """
class Fails:
    def __str__(self):
        raise LookupError

def fails(function, *arguments):
    try:
        function(*arguments)
    except (TypeError, LookupError, ValueError, BufferError):
        return
    raise AssertionError("no error")

buffer = EventBuffer(40, 3000, 1024, 10)
payload = {"n": 1, "e": "pv"}

def round_():
    while buffer.append(PAGE_VIEW) == 1:
        pass
    buffer.drop_oldest(EventBuffer.encode(payload))
    buffer.append(payload)
    buffer.append({"k": "\\ud800", 1: 2})
    fails(buffer.append, None)
    fails(buffer.append, {(1, 2): "x"})
    fails(buffer.append, {"a": 1, "b": Fails()})
    fails(buffer.count_dropped, "unknown")
    batch = buffer.take()
    view = batch.body()
    half = batch.split()
    fails(half.stamp, -1)
    fails(half.dropped, "unknown")
    half.stamp(5)
    half.decode()
    batch.give_back()
    half.give_back()
    buffer.snapshot()
    del view, half
    batch = buffer.take(400)
    collected = buffer.take()
    batch.sent()
    fails(batch.sent)
    del collected
    if buffer.queued_events > 5:
        buffer.take().dropped("rejected")
    EventBuffer(1, 1, 1024, 1)
    fails(EventBuffer, 1, 1, 1, 1)

for number in range(21_000):
    if number == 1000:
        before, blocks = rss(), sys.getallocatedblocks()
    round_()
print([rss() - before, sys.getallocatedblocks() - blocks])
"""
    )
    assert rss < 400_000
    assert blocks < 500


@measured
def test_a_batch_split_to_its_events_reserves_little() -> None:
    """Also where what is reserved counts, as on Windows or under `ulimit -v`: 3000 events are 0.9 MB."""
    reserved = run_script(
        SUPPORT
        + """
def reserved():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")

buffer = EventBuffer(10_000, 64 << 20, 1_000_000, 10)
for _ in range(3000):
    buffer.append(PAGE_VIEW)
before = reserved()
batches = [buffer.take()]
while batches:
    batch = batches.pop()
    if len(batch) > 1:
        batches += [batch, batch.split()]
        batch.seal()
    else:
        batch.give_back()
print(reserved() - before)
"""
    )
    assert reserved < 100_000_000


def test_a_cycle_through_a_sleeper_is_collected() -> None:
    class Inbox:
        def put(self, item: None) -> None:
            raise AssertionError

    buffer = make_buffer()
    put(buffer, *numbered(3))
    inbox = Inbox()
    inbox.held = must_take(buffer)  # type: ignore[attr-defined]
    inbox.view = inbox.held.body()  # type: ignore[attr-defined]
    assert buffer.arm(inbox, buffer.signals)
    gone = weakref.ref(inbox)
    still_here = weakref.ref(buffer)
    del buffer, inbox
    gc.collect()
    assert (gone(), still_here()) == (None, None)


def test_a_payload_is_not_referred_to_any_longer() -> None:
    class Key(str):
        pass

    key, name, value, number, errors = Key("key"), "na" + str(id(object())), "v" * 50, 10**30, object()
    objects = (key, name, value, number, errors)
    buffer = make_buffer()
    before = [sys.getrefcount(thing) for thing in objects]
    for payload in ({key: value, name: number}, {name: value, "number": number}, {"b": [], "c": errors}):
        put(buffer, payload)
        EventBuffer.encode(payload)
    with pytest.raises(TypeError):
        buffer.append({name: value, (1,): number})
    del payload
    assert [sys.getrefcount(thing) for thing in objects] == before


@measured
def test_an_event_that_finds_no_memory_changes_nothing() -> None:
    answer = run_script(
        SUPPORT
        + """
buffer = EventBuffer(100, 1 << 30, 1024, 10)
buffer.append(PAGE_VIEW)
event = b'{"k":"' + b"x" * 50_000_000 + b'"}'
before = buffer.counts()
with open("/proc/self/statm") as statm:
    size = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (size + 20_000_000, resource.RLIM_INFINITY))
message = ""
try:
    buffer.append_encoded(event)
except MemoryError as error:
    message = str(error)
same = buffer.counts() == before and buffer.check() == 0 and buffer.segments == 1
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
buffer.append_encoded(event)
print(json.dumps([message, same, buffer.queued_events]))
"""
    )
    assert answer == ["no memory for an event of 50000008 bytes", True, 2]


@measured
def test_every_allocation_may_fail_and_leave_all_as_it_was() -> None:
    pytest.importorskip("_testcapi")
    answer = run_script(
        SUPPORT
        + """
import _testcapi

def attempts(prepare, act):
    # Let the first allocation fail, then the second, and so on until all of them succeed.
    failed = 0
    for allowed in range(200):
        buffer = prepare()
        before = buffer[0].counts()
        error = False
        _testcapi.set_nomemory(allowed, 0)
        try:
            act(*buffer)
        except MemoryError:
            error = True
        finally:
            _testcapi.remove_mem_hooks()
        assert buffer[0].check() == 0
        if not error:
            return failed
        failed += 1
        assert buffer[0].counts() == before, (before, buffer[0].counts())
        act(*buffer)
        assert buffer[0].check() == 0
    raise AssertionError("it never succeeded")

def filled(events):
    buffer = EventBuffer(1000, 100_000, 4000, 1)
    for _ in range(events):
        buffer.append_encoded(b"{}")
    return buffer

LARGE = b'{"k":"%s"}' % (b"x" * 5000)

def prepare_split():
    buffer = filled(100)
    return buffer, buffer.take()

counts = {
    "first": attempts(lambda: (filled(0),), lambda buffer: buffer.append_encoded(b"{}")),
    "ends": attempts(lambda: (filled(64),), lambda buffer: buffer.append_encoded(b"{}")),
    "oversize": attempts(lambda: (filled(1),), lambda buffer: buffer.append_encoded(LARGE)),
    "split": attempts(prepare_split, lambda buffer, batch: batch.split()),
    "body": attempts(prepare_split, lambda buffer, batch: batch.body()),
}
print(json.dumps(counts))
"""
    )
    # A segment, its bytes, its index; a larger index; a Batch beside the first three; a memoryview.
    assert answer["first"] >= 3
    assert answer["ends"] >= 1
    assert answer["oversize"] >= 3
    assert answer["split"] >= 4
    assert answer["body"] >= 1


@measured
def test_a_take_in_bites_without_memory_takes_all() -> None:
    pytest.importorskip("_testcapi")
    answer = run_script(
        SUPPORT
        + """
import _testcapi

taken = []
for allowed in range(20):
    buffer = EventBuffer(1000, 100_000, 4000, 1)
    for _ in range(100):
        buffer.append_encoded(b"{}")
    batch = None
    _testcapi.set_nomemory(allowed, 0)
    try:
        batch = buffer.take(100)
    except MemoryError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
    assert buffer.check() == 0
    taken.append(0 if batch is None else len(batch))
    assert buffer.unsettled_events == 100
print(json.dumps(sorted(set(taken))))
"""
    )
    assert answer == [0, 4, 100]
