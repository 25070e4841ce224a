"""The books of the soak: what was given, and what became of it, event by event."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

#: An event: the name of its process, its thread, its number there.
Event = tuple[str, str, int]
#: What an event's emitter surely heard of it.
NOTHING, ACCEPTED, REFUSED = range(3)
#: From when to when, on the monotonic clock.
Period = tuple[float, float]
#: Faults that are told in words; the rest is counted.
MOST_TOLD = 20


class Track:
    """The events of one thread, by number.

    Attributes:
        arrivals: how often each was accepted.
        heard: the answer that settles it and surely came to its emitter: NOTHING, ACCEPTED or REFUSED.
        heard_at: when that was.
        seen: whether it was in a request, however that was answered.
        refused: whether it was answered so that its emitter is to drop it.
    """

    def __init__(self) -> None:
        self.arrivals = bytearray()
        self.heard = bytearray()
        self.heard_at = array("d")
        self.seen = bytearray()
        self.refused = bytearray()

    def grow(self, number: int) -> None:
        missing = number + 1 - len(self.arrivals)
        if missing > 0:
            for each in (self.arrivals, self.heard, self.seen, self.refused):
                each.extend(bytes(missing))
            self.heard_at.frombytes(bytes(missing * self.heard_at.itemsize))


@dataclass
class Report:
    """What a process told at its end.

    Attributes:
        given: events given to `input`, by thread.
        sent: events that its emitter counted as sent.
        dropped: events that its emitter counted as dropped, by reason.
        left: events that were queued or in flight when the emitter was closed.
        calls_back: whether there was an `on_success`.
        overflow: the emitter's policy.
        capacity: events that it has room for.
        closing: seconds that the close took.
        shutdown: seconds that it was given.
    """

    given: dict[str, int]
    sent: int
    dropped: dict[str, int]
    left: int
    calls_back: bool
    overflow: str
    capacity: int
    closing: float
    shutdown: float


@dataclass
class Books:
    """What is wrong is told in `wrong`, in words; the rest is figures.

    An answer is certain when nothing that was done to the network can have kept it from its client. After a certain
    answer an event must never be seen again. Where an answer may have been lost, doubles are what at-least-once means.

    Requests are entered as they come, then `again` is called once and `process` or `called_back` for each process.
    """

    wrong: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    tracks: dict[tuple[str, str], Track] = field(default_factory=dict)
    _shared: set[tuple[str, str]] = field(default_factory=set)
    _came_again: list[tuple[Event, int, float]] = field(default_factory=list)

    def request(
        self, events: Iterable[Event], accepted: bool, certain: bool, refused: bool = False, at: float = 0.0
    ) -> None:
        """One request came, in the order of arrival.

        Args:
            events: what was in it.
            accepted: they were taken.
            certain: the answer surely came to the client.
            refused: the answer says that the events are to be dropped.
            at: when it was answered.
        """
        for name, thread, number in events:
            track = self.tracks.get((name, thread))
            if track is None:
                track = self.tracks[name, thread] = Track()
            track.grow(number)
            if track.heard[number]:
                self._came_again.append(((name, thread, number), track.heard[number], track.heard_at[number]))
            track.seen[number] = 1
            if accepted:
                self.figures["doubled" if track.arrivals[number] else "arrived"] += 1
                self.figures["heard"] += certain
                track.arrivals[number] = min(track.arrivals[number] + 1, 255)
            if refused:
                track.refused[number] = 1
            if accepted or refused:
                track.heard[number] = NOTHING if not certain else ACCEPTED if accepted else REFUSED
                track.heard_at[number] = at

    def shared(self, one: str, other: str) -> None:
        """A connection carried the events of two processes."""
        if (one, other) not in self._shared:
            self._shared.add((one, other))
            self.fault(f"{one} and {other} sent on one connection: each may have read the answers of the other")

    def again(self, deaf: Mapping[str, list[Period]]) -> None:
        """Judge what came again after a certain answer.

        Args:
            deaf: when a process may have missed an answer all the same, by its name.
        """
        threads: dict[tuple[str, str, int], list[int]] = {}
        for (name, thread, number), heard, at in self._came_again:
            if any(began <= at <= ended for began, ended in deaf.get(name, ())):
                self.figures["missed"] += 1
            else:
                threads.setdefault((name, thread, heard), []).append(number)
        for (name, thread, heard), numbers in threads.items():
            answer = "a refusal" if heard == REFUSED else "an answer"
            self.fault(f"{counted(numbers)} of {name}/{thread} came again after {answer} that was surely heard")

    def process(self, name: str, report: Report, sent: list[tuple[str, int]]) -> None:
        """A process that came to its end; `sent` is what its `on_success` was told of."""
        given, dropped, left = sum(report.given.values()), sum(report.dropped.values()), report.left
        self.figures.update(processes=1, given=given, dropped=dropped, left=left)
        if given != report.sent + dropped + left:
            self.fault(f"{name} was given {given}, and tells of {report.sent} sent, {dropped} dropped and {left} left")
        missing = unsure = refused = stranded = 0
        for thread, count in report.given.items():
            track = self.tracks.get((name, thread)) or Track()
            if len(track.arrivals) > count:
                self.fault(f"{name}/{thread} was given {count} events, and number {len(track.arrivals) - 1} came")
            missing += track.arrivals[:count].count(0) + max(count - len(track.arrivals), 0)
            unsure += sum(
                1 for came, heard in zip(track.arrivals, track.heard, strict=True) if came and heard != ACCEPTED
            )
            refused += track.refused.count(1)
            stranded += sum(
                1
                for seen, came, no in zip(track.seen, track.arrivals, track.refused, strict=True)
                if seen and not came and not no
            )
        if missing > dropped + left:
            self.fault(f"{name}: {events(missing)} missing, where {dropped} were dropped and {left} left")
            self.figures["lost"] += missing - dropped - left
        if missing + unsure < dropped + left:
            self.fault(f"{name}: {dropped} dropped and {left} left, where no more than {missing + unsure} can be")
        self._reasons(name, report, refused, stranded)
        # Where the time for the end was up, it was so for callbacks, too; and what was still in flight when the process
        # told of it may have been answered, and called back, before the process was gone.
        untold = report.sent - len(sent)
        if report.calls_back and (untold < -left or (untold > 0 and not left)):
            self.fault(f"{name} tells of {report.sent} events sent and {left} left, and called back for {len(sent)}")
        self.called_back(name, sent)

    def _reasons(self, name: str, report: Report, refused: int, stranded: int) -> None:
        """Whether there was a reason for what was dropped and left.

        Args:
            refused: events that were answered so that they are to be dropped.
            stranded: events that were tried, neither accepted nor refused, and so are to be kept.
        """
        if report.left and report.closing < report.shutdown:
            self.fault(
                f"{name}: {events(report.left)} left after {report.closing:.1f} s of closing, "
                f"where it had {report.shutdown:g} s"
            )
        rejected, overflow = report.dropped.get("rejected", 0), report.dropped.get("overflow", 0)
        if rejected > refused:
            self.fault(f"{name}: {events(rejected)} dropped as rejected, where the collector refused {refused}")
        if overflow and report.overflow == "block":
            self.fault(f"{name}: {events(overflow)} dropped for want of room, though input() is to wait for room")
        given = sum(report.given.values())
        if overflow and given <= report.capacity:
            self.fault(f"{name}: {events(overflow)} dropped for want of room, though there is room for all {given}")
        # Other policies drop an event before it is queued, and it has never been tried then.
        forgotten = stranded - report.left - (overflow if report.overflow == "drop_oldest" else 0)
        if forgotten > 0:
            self.fault(f"{name}: {events(forgotten)} gone that had been tried, and neither accepted nor refused")
        for reason, count in report.dropped.items():
            # None is larger than a request may be, and none is given after the close.
            if count and reason not in ("rejected", "overflow"):
                self.fault(f"{name}: {events(count)} dropped with the reason {reason!r}, which there was not")

    def called_back(self, name: str, sent: list[tuple[str, int]]) -> None:
        """What a process was told was sent, once each, has arrived: also if the process was killed later."""
        doubled: dict[str, list[int]] = {}
        absent: dict[str, list[int]] = {}
        for (thread, number), times in Counter(sent).items():
            if times > 1:
                doubled.setdefault(thread, []).append(number)
            track = self.tracks.get((name, thread)) or Track()
            if number >= len(track.arrivals) or not track.arrivals[number]:
                absent.setdefault(thread, []).append(number)
                self.figures["lost"] += 1
        for thread, numbers in doubled.items():
            self.fault(f"on_success was called more than once for {counted(numbers)} of {name}/{thread}")
        for thread, numbers in absent.items():
            self.fault(f"on_success was called for {counted(numbers)} of {name}/{thread}, which never arrived")

    def fault(self, text: str) -> None:
        self.figures["faults"] += 1
        if len(self.wrong) < MOST_TOLD:
            self.wrong.append(text)


def events(count: int) -> str:
    return f"{count} event is" if count == 1 else f"{count} events are"


def counted(numbers: list[int]) -> str:
    return f"event {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} events (the first: {numbers[0]})"
