"""The books of the soak: what was given, and what became of it, event by event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

#: An event: the name of its process, its thread, its number there.
Event = tuple[str, str, int]


class Track:
    """The events of one thread, by number: how often each arrived, and whether an answer for it surely did."""

    def __init__(self) -> None:
        self.arrivals = bytearray()
        self.certain = bytearray()

    def grow(self, number: int) -> None:
        missing = number + 1 - len(self.arrivals)
        if missing > 0:
            self.arrivals.extend(bytes(missing))
            self.certain.extend(bytes(missing))


@dataclass
class Report:
    """What a process told at its end."""

    given: dict[str, int]
    sent: int
    dropped: int
    left: int
    calls_back: bool


@dataclass
class Books:
    """What is wrong is told in `wrong`, in words; the rest is figures.

    An answer is certain when nothing that was done to the network can have kept it from its client. After a certain
    answer an event must never be seen again. Where an answer may have been lost, doubles are what at-least-once means.
    """

    wrong: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    tracks: dict[tuple[str, str], Track] = field(default_factory=dict)

    def request(self, events: Iterable[Event], accepted: bool, certain: bool) -> None:
        """One request came, in the order of arrival: whether its events were accepted, and that was surely heard."""
        for name, thread, number in events:
            track = self.tracks.get((name, thread))
            if track is None:
                track = self.tracks[name, thread] = Track()
            track.grow(number)
            if track.certain[number]:
                self.fault(f"event {number} of {name}/{thread} came again after an answer that was surely heard")
            if accepted:
                if track.arrivals[number]:
                    self.figures["doubled"] += 1
                else:
                    self.figures["arrived"] += 1
                track.arrivals[number] = min(track.arrivals[number] + 1, 255)
                track.certain[number] = certain

    def process(self, name: str, report: Report, sent: list[tuple[str, int]]) -> None:
        """A process that came to its end; `sent` is what its `on_success` was told of."""
        given, dropped, left = sum(report.given.values()), report.dropped, report.left
        self.figures.update(processes=1, given=given, dropped=dropped, left=left)
        if given != report.sent + dropped + left:
            self.fault(f"{name} was given {given}, and tells of {report.sent} sent, {dropped} dropped and {left} left")
        missing = unsure = 0
        for thread, count in report.given.items():
            track = self.tracks.get((name, thread)) or Track()
            if len(track.arrivals) > count:
                self.fault(f"{name}/{thread} was given {count} events, and number {len(track.arrivals) - 1} came")
            missing += track.arrivals[:count].count(0) + max(count - len(track.arrivals), 0)
            unsure += sum(1 for came, sure in zip(track.arrivals, track.certain, strict=True) if came and not sure)
        if missing > dropped + left:
            self.fault(f"{name}: {missing} events are missing, where {dropped} were dropped and {left} left")
            self.figures["lost"] += missing - dropped - left
        if missing + unsure < dropped + left:
            self.fault(f"{name}: {dropped} dropped and {left} left, where no more than {missing + unsure} can be")
        # Where the time for the end was up, it was so for callbacks, too.
        untold = report.sent - len(sent)
        if report.calls_back and (untold < 0 or (untold > 0 and not left)):
            self.fault(f"{name} tells of {report.sent} events sent, and called back for {len(sent)}")
        self.called_back(name, sent)

    def called_back(self, name: str, sent: list[tuple[str, int]]) -> None:
        """What a process was told was sent, once each, has arrived: also if the process was killed later."""
        for (thread, number), times in Counter(sent).items():
            if times > 1:
                self.fault(f"event {number} of {name}/{thread} was called back {times} times")
            track = self.tracks.get((name, thread)) or Track()
            if number >= len(track.arrivals) or not track.arrivals[number]:
                self.fault(f"event {number} of {name}/{thread} was called back as sent, and never arrived")
                self.figures["lost"] += 1

    def fault(self, text: str) -> None:
        self.figures["faults"] += 1
        if len(self.wrong) < 20:
            self.wrong.append(text)
