"""When a sender is due, and how one that sleeps is woken: once, by whoever makes it due."""

from __future__ import annotations

import gc
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from fastemit._buffer import NOTIFY_ALWAYS, NOTIFY_NEVER, NOTIFY_WHEN_DUE, EventBuffer
from tests.support.buffer import make_buffer, must_take, numbered, of_size, put

Inbox = SimpleQueue[None]


def asleep(buffer: EventBuffer) -> Inbox:
    """The inbox of a sender that has armed."""
    inbox: Inbox = SimpleQueue()
    assert buffer.arm(inbox, buffer.signals)
    return inbox


# -- due -------------------------------------------------------------------------------------------


def test_nothing_queued_is_never_due() -> None:
    buffer = make_buffer(capacity=1, batch_size=1, byte_limit=1)
    assert not buffer.due
    put(buffer, {})
    batch = must_take(buffer)
    assert isinstance(buffer.append({}), bytes)
    assert not buffer.due
    batch.give_back()
    assert buffer.due


def test_batch_size_events_are_due() -> None:
    buffer = make_buffer(batch_size=3)
    put(buffer, *numbered(2))
    assert not buffer.due
    put(buffer, {})
    assert buffer.due


def test_byte_limit_bytes_are_due() -> None:
    buffer = make_buffer(byte_limit=200)
    put(buffer, of_size(100), of_size(99))
    assert not buffer.due
    buffer.drop_oldest(EventBuffer.encode(of_size(1_000_000 - 99)))
    put(buffer, of_size(101))
    assert buffer.due


@pytest.mark.parametrize("bounds", [{"capacity": 2}, {"max_bytes": 80}], ids=["events", "bytes"])
def test_a_full_buffer_is_due(bounds: dict[str, int]) -> None:
    buffer = make_buffer(**bounds)
    put(buffer, of_size(40))
    assert not buffer.due
    put(buffer, of_size(40))
    assert buffer.due


def test_a_buffer_that_has_refused_an_event_is_due_until_the_next_take() -> None:
    buffer = make_buffer(max_bytes=100)
    put(buffer, of_size(60))
    assert isinstance(buffer.append(of_size(41)), bytes)
    assert buffer.due
    must_take(buffer).give_back()
    assert not buffer.due


def test_an_event_that_never_fits_makes_nothing_due() -> None:
    buffer = make_buffer(max_bytes=100)
    put(buffer, of_size(40))
    assert isinstance(buffer.append(of_size(101)), bytes)
    assert not buffer.due


def test_limits_can_be_set_later() -> None:
    buffer = make_buffer()
    put(buffer, of_size(100), of_size(100))
    buffer.batch_size = 2
    assert buffer.due
    buffer.batch_size = 3
    assert not buffer.due
    buffer.byte_limit = 200
    assert (buffer.due, buffer.byte_limit) == (True, 200)
    buffer.byte_limit = None
    assert (buffer.due, buffer.byte_limit) == (False, None)


# -- what append answers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notify", "answers"),
    [(NOTIFY_NEVER, [0, 0, 0]), (NOTIFY_WHEN_DUE, [0, 1, 1]), (NOTIFY_ALWAYS, [1, 1, 1])],
)
def test_notify_says_when_append_asks_for_a_call(notify: int, answers: list[int]) -> None:
    buffer = make_buffer(batch_size=2)
    assert buffer.notify == NOTIFY_ALWAYS
    buffer.notify = notify
    assert [buffer.append({}) for _ in range(3)] == answers
    assert buffer.append_encoded(b"{}") == answers[-1]


# -- sleeping --------------------------------------------------------------------------------------


def test_the_event_that_makes_it_due_wakes_one_sleeper_once() -> None:
    buffer = make_buffer(batch_size=2)
    first, second = asleep(buffer), asleep(buffer)
    put(buffer, {})
    assert first.qsize() + second.qsize() == 0
    put(buffer, {})
    assert first.qsize() + second.qsize() == 1
    put(buffer, {})
    assert (first.qsize(), second.qsize()) == (1, 1)
    put(buffer, {})
    assert (first.qsize(), second.qsize()) == (1, 1)


def test_a_refused_event_wakes_a_sleeper() -> None:
    buffer = make_buffer(max_bytes=100)
    inbox = asleep(buffer)
    put(buffer, of_size(60))
    assert inbox.empty()
    assert isinstance(buffer.append(of_size(41)), bytes)
    assert inbox.qsize() == 1


@pytest.mark.parametrize(
    ("count", "bounds"),
    [
        pytest.param(11, {"capacity": 20, "batch_size": 2}, id="half the events"),
        pytest.param(11, {"max_bytes": 2000, "batch_size": 2}, id="half the bytes"),
        pytest.param(11, {"max_request_bytes": 1024, "batch_size": 2}, id="a full request"),
        pytest.param(11, {"capacity": 1000, "batch_size": 600}, id="not due"),
    ],
)
def test_while_it_lingers_a_sender_is_wanted_for_much_only(count: int, bounds: dict[str, int]) -> None:
    buffer = make_buffer(**bounds)
    inbox = asleep(buffer)
    buffer.linger = True
    put(buffer, *[of_size(100)] * 5)
    assert not buffer.wanted
    assert inbox.empty()
    put(buffer, *[of_size(100)] * (count - 5))
    assert buffer.wanted is buffer.due
    assert inbox.qsize() == buffer.due
    buffer.linger = False
    assert buffer.wanted is buffer.due


def test_a_refused_event_wakes_a_sleeper_that_lingers() -> None:
    buffer = make_buffer(max_bytes=200)
    inbox = asleep(buffer)
    buffer.linger = True
    put(buffer, of_size(60))
    assert isinstance(buffer.append(of_size(180)), bytes)
    assert (buffer.wanted, inbox.qsize()) == (True, 1)


def test_nobody_sleeps_while_it_is_due() -> None:
    buffer = make_buffer(batch_size=1)
    put(buffer, {})
    inbox: Inbox = SimpleQueue()
    assert not buffer.arm(inbox, buffer.signals)
    put(buffer, {})
    assert inbox.empty()
    assert not buffer.disarm(inbox)


def test_nobody_sleeps_through_a_signal_from_before() -> None:
    buffer = make_buffer()
    seen = buffer.signals
    buffer.signal()
    inbox: Inbox = SimpleQueue()
    assert not buffer.arm(inbox, seen)
    assert buffer.arm(inbox, buffer.signals)
    assert inbox.empty()


def test_a_sleeper_that_disarms_in_time_gets_no_note() -> None:
    buffer = make_buffer(batch_size=1)
    inbox = asleep(buffer)
    assert buffer.disarm(inbox)
    put(buffer, {})
    buffer.signal(everyone=True)
    assert inbox.empty()


def test_a_sleeper_that_disarms_too_late_has_a_note() -> None:
    buffer = make_buffer(batch_size=1)
    inbox = asleep(buffer)
    put(buffer, {})
    assert not buffer.disarm(inbox)
    assert inbox.qsize() == 1


def test_each_sleeper_disarms_for_itself() -> None:
    buffer = make_buffer(batch_size=1)
    first, second = asleep(buffer), asleep(buffer)
    assert buffer.disarm(first)
    put(buffer, {})
    assert (first.qsize(), second.qsize()) == (0, 1)


@pytest.mark.parametrize(("everyone", "woken"), [(False, 1), (True, 3)])
def test_a_signal_wakes_one_or_everyone(everyone: bool, woken: int) -> None:
    buffer = make_buffer()
    inboxes = [asleep(buffer) for _ in range(3)]
    seen = buffer.signals
    buffer.signal(everyone)
    assert sum(inbox.qsize() for inbox in inboxes) == woken
    assert buffer.signals == seen + 1
    assert sum(buffer.disarm(inbox) for inbox in inboxes) == 3 - woken


class Telling:
    """An inbox that calls something when it is told."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.notes = 0

    def put(self, item: None) -> None:
        self.notes += 1
        self.call()


def raising() -> None:
    raise LookupError("of a signal handler")


def test_everyone_is_told_although_one_lies_down_again_meanwhile() -> None:
    buffer = make_buffer()
    inboxes: list[Telling] = []
    inboxes += [Telling(lambda: buffer.arm(inboxes[0], buffer.signals)), Telling(lambda: None)]
    for inbox in inboxes:
        assert buffer.arm(inbox, buffer.signals)
    buffer.signal(everyone=True)
    assert [inbox.notes for inbox in inboxes] == [1, 1]
    assert [buffer.disarm(inbox) for inbox in inboxes] == [True, False]


def test_a_sender_that_lies_down_while_garbage_is_collected_in_a_signal_is_woken_by_the_next_event() -> None:
    """Before Python 3.12 any allocation of a container may collect garbage."""

    class Garbage:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            buffer.signal(everyone=True)
            armed.append(buffer.arm(inbox, buffer.signals))

    buffer = make_buffer(batch_size=1)
    inbox: Inbox = SimpleQueue()
    armed: list[bool] = []
    before = gc.get_threshold()
    gc.freeze()  # what there is already takes no time to look through
    for threshold in range(1, 60):
        armed.clear()
        gc.disable()
        Garbage()
        hold = [[] for _ in range(200)]  # type: ignore[var-annotated] # the list objects that Python keeps are used up
        gc.set_threshold(threshold)
        gc.enable()
        buffer.signal(everyone=True)
        gc.set_threshold(*before)
        del hold
        gc.collect()
        put(buffer, {})
        assert armed == [True]
        assert inbox.qsize() == 1 or not buffer.disarm(inbox)
        assert inbox.qsize() == 1
        inbox.get()
        must_take(buffer).sent()
    gc.unfreeze()


@pytest.mark.parametrize("everyone", [False, True])
def test_a_sender_that_could_not_be_told_sleeps_on_and_the_others_are_told(everyone: bool) -> None:
    buffer = make_buffer(batch_size=1)
    inboxes = [Telling(lambda: None), Telling(raising), Telling(lambda: None), Telling(raising)]
    for inbox in inboxes:
        assert buffer.arm(inbox, buffer.signals)
    with pytest.raises(LookupError):
        buffer.signal(everyone)
    assert [inbox.notes for inbox in inboxes] == ([1, 1, 1, 1] if everyone else [0, 0, 0, 1])
    inboxes[1].call = inboxes[3].call = lambda: None
    put(buffer, {})
    assert [buffer.disarm(inbox) for inbox in inboxes].count(True) == (1 if everyone else 3)


def test_what_is_raised_while_a_sender_is_told_comes_out_of_append_and_the_next_event_tells_it() -> None:
    buffer = make_buffer(batch_size=1)
    inbox = Telling(raising)
    assert buffer.arm(inbox, buffer.signals)
    with pytest.raises(LookupError):
        buffer.append({})
    inbox.call = lambda: None
    put(buffer, {})
    assert (inbox.notes, buffer.queued_events, buffer.disarm(inbox)) == (2, 2, False)


def test_an_inbox_that_is_armed_twice_sleeps_once() -> None:
    buffer = make_buffer()
    inbox = asleep(buffer)
    assert buffer.arm(inbox, buffer.signals)
    assert buffer.disarm(inbox)
    assert not buffer.disarm(inbox)


def test_an_inbox_is_told_apart_by_what_it_is_and_not_by_its_equality() -> None:
    class Equal(Telling):
        def __eq__(self, other: object) -> bool:
            raise AssertionError

        __hash__ = None  # type: ignore[assignment]

    buffer = make_buffer(batch_size=1)
    inboxes = [Equal(lambda: None) for _ in range(3)]
    for inbox in inboxes:
        assert buffer.arm(inbox, buffer.signals)
    assert buffer.disarm(inboxes[1])
    buffer.signal(everyone=True)
    assert [inbox.notes for inbox in inboxes] == [1, 0, 1]


# -- hold, starving --------------------------------------------------------------------------------


def test_no_event_wakes_anybody_during_hold() -> None:
    buffer = make_buffer(batch_size=1)
    buffer.hold = True
    put(buffer, {})
    inbox = asleep(buffer)
    put(buffer, {})
    assert inbox.empty()
    buffer.hold = False
    put(buffer, {})
    assert inbox.qsize() == 1


def test_a_signal_wakes_during_hold() -> None:
    buffer = make_buffer()
    buffer.hold = True
    inbox = asleep(buffer)
    buffer.signal()
    assert inbox.qsize() == 1


def test_only_urgent_events_go_ahead_of_the_starving() -> None:
    buffer = make_buffer()
    buffer.starving = 1
    assert buffer.append({}) == b"{}"
    assert buffer.append_encoded(b"{}") == b"{}"
    assert buffer.append_encoded(b"{}", urgent=True) == 1
    assert buffer.due
    buffer.starving = 0
    assert buffer.append({}) == 1


def test_urgent_is_no_way_around_the_bounds() -> None:
    buffer = make_buffer(capacity=1)
    put(buffer, {})
    assert buffer.append_encoded(b"{}", urgent=True) == b"{}"
