"""A plain Python model of `EventBuffer`, which does each thing to the buffer and to itself and compares."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastemit._batch import Batch
from fastemit._buffer import NOTIFY_ALWAYS, NOTIFY_WHEN_DUE, EventBuffer
from tests.support.buffer import (
    OVERHEAD,
    PREFIX,
    UNSTAMPED,
    drain,
    events_in,
    make_buffer,
    of_size,
    size_of,
    stamped,
)
from tests.support.segment_files import Shelf, recover_all

REQUEST_BYTES = 1024
SEGMENT_BYTES = REQUEST_BYTES - OVERHEAD


@dataclass
class Event:
    """What the model knows of one event."""

    seq: int
    size: int
    strings: dict[str, str]
    stm: str = UNSTAMPED
    # Events sealed together; None for one that may share a request with any other.
    group: int | None = None
    server_errors: int = 0


@dataclass
class Held:
    """A batch that is out, and the views of its body."""

    batch: Batch
    events: list[Event]
    views: list[memoryview] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(event.size for event in self.events)


@dataclass
class Kept:
    """A view that outlived its batch. `content` is None where nothing is promised about what it reads."""

    view: memoryview
    content: bytes | None


class Model:
    def __init__(
        self, bounds: tuple[int, int], batch_size: int, byte_limit: int | None, notify: int, in_files: bool = False
    ) -> None:
        capacity, max_bytes = bounds
        self.buffer = make_buffer(capacity, max_bytes, REQUEST_BYTES, batch_size, byte_limit, in_files)
        self.buffer.notify = notify
        self.folder = Path(tempfile.mkdtemp(prefix="fastemit-model-")) if in_files else None
        self.shelf = None if self.folder is None else Shelf(self.folder)
        if self.shelf is not None:
            self.shelf.serve(self.buffer)
        self.segment_bytes = min(SEGMENT_BYTES, max_bytes)
        self.queue: list[Event] = []
        self.out: list[Held] = []
        self.kept: list[Kept] = []
        self.groups = itertools.count()
        self.next_seq = self.sent = self.sent_bytes = self.retried = 0
        self.lost = {"overflow": 0, "rejected": 0, "oversize": 0, "closed": 0}
        self.pressed = False

    # -- the model's sums -------------------------------------------------------------------------

    @property
    def queued_bytes(self) -> int:
        return sum(event.size for event in self.queue)

    @property
    def total_events(self) -> int:
        return len(self.queue) + sum(len(held.events) for held in self.out)

    @property
    def total_bytes(self) -> int:
        return self.queued_bytes + sum(held.size for held in self.out)

    @property
    def due(self) -> bool:
        buffer = self.buffer
        full = self.total_events >= buffer.capacity or self.total_bytes >= buffer.max_bytes
        return (
            len(self.queue) >= buffer.batch_size
            or (buffer.byte_limit is not None and self.queued_bytes >= buffer.byte_limit)
            or (bool(self.queue) and (self.pressed or full))
        )

    @property
    def room(self) -> int:
        return self.buffer.max_bytes - self.total_bytes

    def fits(self, size: int) -> bool:
        return self.total_events < self.buffer.capacity and size <= self.room

    # -- in ---------------------------------------------------------------------------------------

    def put(self, payload: dict[str, Any], starving: bool = False) -> None:
        before = dict(payload)
        self.buffer.starving = starving
        strings = stamped(payload)
        size = size_of(payload)
        encoded = EventBuffer.encode(payload)
        too_large = size > self.buffer.max_bytes
        accepted = not too_large and self.fits(size) and not starving
        assert self.buffer.too_large(encoded) == too_large
        assert self.buffer.has_room_for(encoded) == self.fits(size)

        answer = self.buffer.append(payload)

        self.buffer.starving = False
        assert payload == before
        if accepted:
            self.queue.append(Event(self.next_seq, size, strings))
            self.next_seq += 1
            notified = self.buffer.notify == NOTIFY_ALWAYS
            assert answer == (notified or (self.buffer.notify == NOTIFY_WHEN_DUE and self.due))
        else:
            self.pressed = self.pressed or not too_large or starving
            assert answer == encoded

    def drop_oldest_for(self, size: int) -> None:
        dropped = 0
        flying = sum(len(held.events) for held in self.out)
        flying_bytes = sum(held.size for held in self.out)
        hopeless = flying >= self.buffer.capacity or flying_bytes + size > self.buffer.max_bytes
        # What is in flight takes the room, so dropping all of the queue would not do.
        while self.queue and not hopeless and not self.fits(size):
            self.queue.pop(0)
            dropped += 1
        self.lost["overflow"] += dropped
        assert self.buffer.drop_oldest(EventBuffer.encode(of_size(size))) == dropped

    # -- out --------------------------------------------------------------------------------------

    def take(self, aim: int | None, at_least: int) -> None:
        batch = self.buffer.take(aim, at_least)
        self.pressed = False
        if batch is None:
            assert not self.queue
            return
        count = len(batch)
        held = Held(batch, self.queue[:count])
        del self.queue[:count]
        self.out.append(held)
        assert [event.seq for event in held.events] == list(range(batch.seq, batch.seq + count))
        assert batch.nbytes == held.size
        assert batch.oversize == (held.size > self.segment_bytes)
        assert not batch.oversize or count == 1
        limit = self.segment_bytes if aim is None else min(aim, self.segment_bytes)
        assert held.size <= limit or count <= at_least
        groups = {event.group for event in held.events}
        assert len(groups) == 1
        assert batch.server_errors >= max(event.server_errors for event in held.events)
        # What leaves a sealed batch in a part of its own stays apart.
        group = None if groups == {None} else next(self.groups)
        for event in held.events:
            event.group = group

    def pick(self, index: int) -> Held:
        return self.out[index % len(self.out)]

    def stamp(self, index: int, milliseconds: int) -> None:
        held = self.pick(index)
        held.batch.stamp(milliseconds)
        for event in held.events:
            event.stm = f"{milliseconds:013}"

    def body(self, index: int, keep: bool) -> None:
        held = self.pick(index)
        view = held.batch.body()
        assert view.readonly
        assert len(view) == held.size + OVERHEAD
        assert view[: len(PREFIX)] == PREFIX
        assert events_in(view) == [{**event.strings, "stm": event.stm} for event in held.events]
        assert held.batch.decode() == events_in(view)
        if keep:
            held.views.append(view)
        else:
            view.release()

    def note_server_error(self, index: int, seal: bool) -> None:
        held = self.pick(index)
        held.batch.server_errors += 1
        for event in held.events:
            event.server_errors = held.batch.server_errors
        if seal:
            held.batch.seal()
            group = next(self.groups)
            for event in held.events:
                event.group = group

    def split(self, index: int) -> None:
        held = self.pick(index)
        count = len(held.events)
        if count < 2:
            with pytest.raises(ValueError, match="cannot be split"):
                held.batch.split()
            return
        half = Held(held.batch.split(), held.events[: count // 2])
        held.events = held.events[count // 2 :]
        self.out.append(half)
        # Nothing is promised about views from before the cut.
        self.kept += [Kept(view, None) for view in held.views]
        held.views = []
        assert (half.batch.seq, len(half.batch)) == (half.events[0].seq, count // 2)
        assert half.batch.server_errors == held.batch.server_errors
        if half.events[0].group is not None:
            group = next(self.groups)
            for event in half.events:
                event.group = group

    # -- what becomes of it -----------------------------------------------------------------------

    def settle(self, index: int, how: str) -> None:
        held = self.out.pop(index % len(self.out))
        count = len(held.events)
        batch = held.batch
        del held.batch
        settled = how in ("sent", "rejected", "overflow")
        if how == "collect":
            # A view keeps its batch, also one from before a split.
            earlier = [kept for kept in self.kept if kept.view.obj is batch]
            self.kept = [kept for kept in self.kept if kept.view.obj is not batch]
            for view in held.views + [kept.view for kept in earlier]:
                view.release()
        else:
            self.kept += [Kept(view, bytes(view) if settled else None) for view in held.views]
        if how == "sent":
            batch.sent()
            self.sent += count
            self.sent_bytes += held.size
        elif settled:
            batch.dropped(how)
            self.lost[how] += count
        elif how == "yield":
            batch.yield_place()
            for event in held.events:
                event.seq = self.next_seq
                self.next_seq += 1
        elif how != "collect":
            batch.give_back(how == "retried")
        if how in ("yield", "retried"):
            self.retried += count
        if not settled:
            self.queue = sorted(self.queue + held.events, key=lambda event: event.seq)

    def let_go_of_view(self, index: int) -> None:
        self.kept.pop(index % len(self.kept)).view.release()

    def look_and_trim(self, keep: int) -> None:
        assert self.buffer.snapshot() == [{**event.strings, "stm": event.stm} for event in self.queue]
        spare = self.buffer.spare_segments
        segments = self.buffer.segments
        self.buffer.trim(keep)
        assert self.buffer.spare_segments == min(spare, keep)
        assert self.buffer.segments == segments - max(spare - keep, 0)

    # -- files ------------------------------------------------------------------------------------

    def tend(self, keep: int | None) -> None:
        """What the owner of the files does, if the buffer has any: removes finished ones, makes spare ones, parks."""
        if self.shelf is not None:
            self.shelf.tend(keep)
            assert not self.buffer.wants_service
            assert self.buffer.spare_files >= self.shelf.spares

    def is_left_by_a_crash(self) -> None:
        """What a process that died here would leave is all that is neither sent nor dropped, and nothing else."""
        if self.folder is None:
            return
        held = [event for out in self.out for event in out.events]
        copy = Path(tempfile.mkdtemp(prefix="fastemit-crash-"))
        try:
            shutil.copytree(self.folder, copy, dirs_exist_ok=True)
            after = EventBuffer(10_000, 1 << 30, REQUEST_BYTES, 1, files=True)
            recovered = recover_all(copy, after)
            assert [left.damaged for left in recovered] == [[]] * len(recovered)
            found = [{**event, "stm": ""} for event in drain(after)]
        finally:
            shutil.rmtree(copy)
        expected = [{**event.strings, "stm": ""} for event in self.queue + held]
        assert sorted(sorted(event.items()) for event in found) == sorted(sorted(event.items()) for event in expected)

    # -- always -----------------------------------------------------------------------------------

    def agrees(self) -> None:
        buffer = self.buffer
        in_flight = [event for held in self.out for event in held.events]
        unsettled = self.queue + in_flight
        in_flight_bytes = sum(held.size for held in self.out)
        assert buffer.check() == 0
        assert buffer.counts() == (
            len(self.queue),
            self.queued_bytes,
            len(in_flight),
            self.sent,
            self.sent_bytes,
            self.retried,
            self.lost,
        )
        assert (buffer.in_flight_events, buffer.in_flight_bytes) == (len(in_flight), in_flight_bytes)
        assert buffer.unsettled_events == self.total_events <= buffer.capacity
        assert self.total_bytes <= buffer.max_bytes
        assert buffer.next_seq == self.next_seq
        assert buffer.head_seq == (self.queue[0].seq if self.queue else self.next_seq)
        assert buffer.oldest_seq == min((event.seq for event in unsettled), default=self.next_seq)
        assert buffer.due == buffer.wanted == self.due

    def views_of_settled_batches_stay(self) -> None:
        for kept in self.kept:
            if kept.content is not None:
                assert kept.view == kept.content

    def finish(self) -> None:
        while self.out:
            self.settle(0, "give back")
        expected = [{**event.strings, "stm": event.stm} for event in self.queue]
        assert drain(self.buffer) == expected
        for kept in self.kept:
            kept.view.release()
        assert self.buffer.unsettled_events == 0
        assert self.buffer.check() == 0
        assert self.buffer.segments == self.buffer.spare_segments
        if self.shelf is not None:
            self.tend(None)
            assert self.buffer.mapped_files == self.buffer.spare_files == len(self.shelf.numbers())

    def clean_up(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder)
