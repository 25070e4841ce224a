"""Where each allocation of a call may fail: after a `MemoryError` nothing has changed, and no sleeper is forgotten.

Only what the native writer writes: orjson ends the process where it finds no memory.
"""

from __future__ import annotations

import itertools

import pytest

from tests.support.buffer import run_script

pytest.importorskip("_testcapi")

#: Runs a call with its first allocation failing, then the second, and so on: that one alone, or all after it as well.
HARNESS = """
import _testcapi
from fastemit._buffer import EventBuffer

class Inbox:
    notes = 0
    def put(self, item):
        [item] * 50  # takes memory
        self.notes += 1

class Dict(dict):
    pass

def made(events, query=False, keep=False, batch_size=1000, capacity=1000):
    buffer = EventBuffer(capacity, 1 << 20, 4000, batch_size, query=query, keep=keep)
    for number in range(events):
        buffer.append({"n": number})
    return buffer

def asleep(buffer):
    inbox = Inbox()
    buffer.hold = True
    assert buffer.arm(inbox, buffer.signals)
    buffer.hold = False
    return inbox

def is_read_back(buffer):
    return not buffer.query or KEEP

def state(buffer):
    queued = buffer.snapshot() if is_read_back(buffer) else None
    return buffer.counts(), buffer.next_seq, buffer.oldest_seq, buffer.unsettled_events, queued

def failing(act, prepare):
    # Each way to fail: whether it raised, and what it had.
    for alone in (True, False):
        allowed = passed = 0
        while passed < 4:
            made = prepare()
            _testcapi.set_nomemory(allowed, allowed + 1 if alone else 0)
            error = False
            try:
                act(*made)
            except MemoryError:
                error = True
            finally:
                _testcapi.remove_mem_hooks()
            yield error, made
            allowed += 1
            passed = 0 if error else passed + 1
            assert allowed < 500, "it never succeeds"

def attempts(prepare, act, in_whole=False):
    # `in_whole`: it may raise with part of its work done.
    raised = 0
    before = inbox = None
    def prepared():
        nonlocal before, inbox
        things = prepare()
        inbox = asleep(things[0])
        before = state(things[0])
        return things
    for error, (buffer, *others) in failing(act, prepared):
        assert buffer.check() == 0
        assert inbox.notes or buffer.disarm(inbox), "the sleeper was forgotten"
        if error:
            raised += 1
            assert in_whole or state(buffer) == before, (before, state(buffer))
            act(buffer, *others)
            assert buffer.check() == 0
        del others  # a batch that is not settled gives its events back
        # What is queued can be handed out.
        while (batch := buffer.take()) is not None:
            assert not is_read_back(buffer) or len(batch.decode()) == len(batch)
            batch.sent()
    return raised
"""

#: How a buffer is made, for each kind of events.
KINDS = {
    "json": "keep=False",
    "json, kept": "keep=True",
    "query": "query=True",
    "query, kept": "query=True, keep=True",
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def raised(script: str, kind: str = "json") -> int:
    """How often the calls of a script, which prints that, raised `MemoryError`."""
    count = run_script(f"KEEP = {'kept' in kind}\n{HARNESS}\n{script}")
    assert isinstance(count, int)
    return count


@each_kind
def test_append(kind: str) -> None:
    script = f"""
print(sum([
    attempts(lambda: (made(64, {KINDS[kind]}),), lambda buffer: buffer.append(payload))
    for payload in ({{"a": "b"}}, {{"a": 1, "b": None}}, {{"a": "x" * 5000}})
]))
"""
    assert raised(script, kind) > 0


@each_kind
def test_append_encoded(kind: str) -> None:
    """With no events before; as many as one index takes; as many as the dict of originals takes before it grows."""
    script = f"""
def prepare():
    buffer = made(fill, {KINDS[kind]})
    return buffer, buffer.prepare(Dict(a="b"))
raised = 0
for fill in (0, 64, 85):
    raised += attempts(prepare, lambda buffer, event: buffer.append_encoded(event))
print(raised)
"""
    assert raised(script, kind) > 0


@pytest.mark.parametrize(
    ("kind", "call"),
    # Lines are for POST alone.
    [*itertools.product(KINDS, ["append(payload)", "append_encoded(event)"]), ("json", "append_line(line)")],
)
def test_an_event_that_is_refused_and_makes_the_buffer_due(kind: str, call: str) -> None:
    """It wakes a sleeper before the answer is made."""
    script = f"""
payload = {{"a": "x" * 2000}}
line = b'{{"a":"%s"}}' % (b"x" * 2000)
def prepare():
    buffer = made(1, {KINDS[kind]}, batch_size=1, capacity=1)
    return buffer, buffer.prepare(payload)
def act(buffer, event):
    assert buffer.{call} not in (0, 1)
print(attempts(prepare, act))
"""
    # One that is encoded already may need no memory at all.
    assert raised(script, kind) >= (0 if "encoded" in call else 1)


@each_kind
def test_an_event_is_queued_once_whatever_becomes_of_the_note_to_a_sleeper(kind: str) -> None:
    script = f"""
untold = 0
def prepare():
    buffer = made(0, {KINDS[kind]}, batch_size=1)
    return buffer, asleep(buffer)
for error, (buffer, inbox) in failing(lambda buffer, inbox: buffer.append({{"a": "b"}}), prepare):
    assert buffer.queued_events == (not error)
    if not error and not inbox.notes:
        untold += 1
        buffer.append({{"a": "c"}})
        assert inbox.notes == 1, "the next event wakes it"
print(untold)
"""
    assert raised(script, kind) > 0


def test_stage() -> None:
    script = """
raised = 0
for fill in (0, 64, 85):
    raised += attempts(lambda: (made(fill, keep=True), Dict(a='b')), lambda buffer, event: buffer.stage(event))
print(raised)
"""
    assert raised(script, "json, kept") > 0


@each_kind
def test_take(kind: str) -> None:
    script = f"""
print(sum([
    attempts(lambda: (made(100, {KINDS[kind]}),), lambda buffer: buffer.take(*arguments))
    for arguments in ((), (100,), (1, 5))
]))
"""
    assert raised(script, kind) > 0


@each_kind
@pytest.mark.parametrize("call", ["split()", "give_back()", "yield_place()", "sent()", "dropped('rejected')"])
def test_what_becomes_of_a_batch(kind: str, call: str) -> None:
    script = f"""
def prepare():
    buffer = made(85, {KINDS[kind]})
    batch = buffer.take()
    if "give_back" in "{call}":
        batch.seal()  # its memory is shrunk
    return buffer, batch
print(attempts(prepare, lambda buffer, batch: batch.{call}))
"""
    # What is sent, dropped or given back needs no object but for what it was made from.
    assert raised(script, kind) > 0 or "kept" not in kind or "give_back" in call


@each_kind
def test_drop_oldest_drops_in_whole_and_counts(kind: str) -> None:
    script = f"""
def prepare():
    buffer = made(80, {KINDS[kind]}, capacity=80)
    return buffer, buffer.prepare({{"a": "b"}})
def act(buffer, event):
    buffer.drop_oldest(event)
    assert buffer.queued_events == 79 == 80 - buffer.counts()[-1]["overflow"]
print(attempts(prepare, act, in_whole=True))
"""
    raised(script, kind)


@pytest.mark.parametrize("everyone", [True, False])
def test_signal(everyone: bool) -> None:
    script = f"""
def prepare():
    buffer = made(0)
    return buffer, [asleep(buffer) for _ in range(4)]
raised = 0
for error, (buffer, inboxes) in failing(lambda buffer, inboxes: buffer.signal({everyone}), prepare):
    raised += error
    told = [inbox.notes > 0 for inbox in inboxes]
    assert all(a or b for a, b in zip(told, [buffer.disarm(inbox) for inbox in inboxes])), "one was forgotten"
    assert error or sum(told) == (4 if {everyone} else 1), "one was not told, and nobody knows"
print(raised)
"""
    assert raised(script) > 0


def test_arm_and_disarm() -> None:
    script = """
def act(buffer):
    for inbox in [Inbox() for _ in range(9)]:
        if buffer.arm(inbox, buffer.signals):
            assert buffer.disarm(inbox)
            assert buffer.arm(inbox, buffer.signals)
print(attempts(lambda: (made(0),), act))
"""
    assert raised(script) > 0


@pytest.mark.parametrize("call", ["buffer.snapshot()", "batch.decode()"])
def test_what_events_were_made_from_is_looked_at(call: str) -> None:
    script = f"""
def prepare():
    buffer = made(50, keep=True)
    return buffer, buffer.take(400)
print(attempts(prepare, lambda buffer, batch: {call}))
"""
    assert raised(script, "json, kept") > 0
