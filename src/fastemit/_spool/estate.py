"""What dead processes have left: their directories are locked, and their files read in place, a few at a time.

Taking over keeps no state of its own. If a process dies while it takes over, the kernel releases its locks. The events
that it settled are marked in the files, so the next process continues from there.
"""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Final

from fastemit._buffer import EventBuffer
from fastemit._files import SegmentFileError
from fastemit._signals import raise_of_signal_handler
from fastemit._spool.home import Home, Owner
from fastemit._spool.survey import candidates, facts_of_files
from fastemit._words import counted

#: Kinds of lines for the log. TOLD is not a fault, ONCE is logged once for each thing, and the others are rate-limited.
TOLD: Final = ""
ONCE: Final = "spool"
DAMAGE: Final = "damaged events in the spool"
NO_ROOM: Final = "no room for events on the disk"
GONE: Final = "files of the spool are gone"
#: Files of dead processes that are in the buffer at the same time.
MOST_AT_ONCE: Final = 8
#: Directories that are locked at the same time: each takes two descriptors.
MOST_CLAIMS: Final = 32
#: Temporary errors: a file that cannot be opened because of one of these is tried again.
_GOES_BY: Final = frozenset({errno.EAGAIN, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE})
#: Why a file that this process cannot read is kept where it is: somebody else may be able to read it.
_OF_OTHERS: Final = {
    "newer": "a newer version of fastemit has written it",
    "byte order": "a machine of another byte order has written it",
    "other kind": "its events are for another method",
}


@dataclass
class Claim:
    """A directory of a dead process that is locked by this one.

    Attributes:
        waiting: names of files that are still to be read, in order.
        reading: files whose events are in the buffer, by their number there.
        damaged: names of files whose damaged parts were put aside.
        partly: names of files with events for which the buffer had no room.
        keep: whether the directory stays, because something in it is left alone.
    """

    home: Home
    waiting: deque[str]
    reading: dict[int, str] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    partly: set[str] = field(default_factory=set)
    keep: bool = False

    @property
    def done(self) -> bool:
        return not self.waiting and not self.reading


class Estate:
    """The directories that one emitter takes over.

    Thread safety: none of its own; the spool's lock is held around each call.

    Args:
        root: the spool.
        owner: the endpoint and method of this emitter.
        note: gets a kind and a text for the log.
        any_endpoint: take over events for any endpoint, if they are sent by the same method.
    """

    def __init__(
        self, root: str, owner: Owner, note: Callable[[str, str], None], *, any_endpoint: bool = False
    ) -> None:
        self._root = root
        self._owner = owner
        self._any_endpoint = any_endpoint
        self._note = note
        self._claims: list[Claim] = []
        #: Names of directories that are locked later, when others are done, in order.
        self._to_claim: deque[str] = deque()
        #: Directories, and files in them, that were logged already.
        self._left_alone: set[str] = set()
        #: Events that were given to the buffer.
        self.recovered_events = 0
        #: When to look again after there was no room for more.
        self.put_off = False

    @property
    def claims(self) -> list[Claim]:
        return self._claims

    @property
    def waiting(self) -> bool:
        """Whether there are files that are not in the buffer yet."""
        return bool(self._to_claim) or any(claim.waiting for claim in self._claims)

    # -- looking -----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Find what dead processes have left since the last look. Each directory is locked when its turn comes."""
        found: list[tuple[int, str]] = []
        known = set(self._to_claim)
        events, processes, oldest = 0, 0, None
        for name in candidates(self._root):
            home = Home.claim(self._root, name)
            if home is None:
                self._tell_of_others(name)
                continue
            facts, _ = facts_of_files(home)
            unsettled = sum(each.unsettled for each in facts.values())
            owner = home.owner
            if not home.names():
                home.remove()
                continue
            if owner is None or not self._sends_for(owner):
                self._leave_alone(home, owner, unsettled)
                continue
            # There may be more of them than the descriptors that this process may open.
            home.let_go()
            found.append((owner.created, name))
            if name in known:
                continue
            events += unsettled
            processes += unsettled > 0
            for each in facts.values():
                if each.unsettled and (oldest is None or each.created_ms < oldest):
                    oldest = each.created_ms
        self._to_claim = deque(name for _, name in sorted(found))
        self._claim_some()
        if events:
            since = "" if oldest is None else f", the oldest from {_date(oldest)}"
            dead = counted(processes, "dead process", "dead processes")
            self._note(TOLD, f"sending {counted(events, 'event')} that {dead} left in {self._root}{since}")

    def _claim_some(self) -> None:
        """Lock the next directories, a few at a time."""
        while self._to_claim and len(self._claims) < MOST_CLAIMS:
            # Another process may have been first.
            home = Home.claim(self._root, self._to_claim.popleft())
            if home is not None:
                facts, _ = facts_of_files(home)
                # In the order in which they were filled. Files that do not say when come last.
                last = float("inf")
                names = sorted(home.names(), key=lambda each: facts[each].first_seq if each in facts else last)
                self._claims.append(Claim(home, deque(names)))

    def _tell_of_others(self, name: str) -> None:
        """Log that a directory of another user is left alone. Log nothing if its process lives."""
        user = Home.user_of(self._root, name)
        if user is not None:
            self._once(name, f"{self._root}/{_shown(name)} belongs to user {user}, and is left alone")

    def _once(self, what: str, text: str) -> None:
        if what not in self._left_alone:
            self._left_alone.add(what)
            self._note(ONCE, text)

    def _sends_for(self, owner: Owner) -> bool:
        return self._owner.same(owner) or (self._any_endpoint and self._owner.method == owner.method)

    def _leave_alone(self, home: Home, owner: Owner | None, events: int) -> None:
        home.let_go()
        # A caller that asks for every endpoint of a method handles the other methods itself.
        if owner is not None and self._any_endpoint:
            return
        whose = "that do not say for which collector they are"
        if owner is not None:
            whose = f"for {_shown(owner.endpoint)} by {_shown(owner.method)}"
        self._once(
            home.name,
            f"{home.path} has {counted(events, 'event')} {whose}; they are left alone. To send all: "
            f"fastemit spool {self._root} --send COLLECTOR",
        )

    # -- reading -----------------------------------------------------------------------------------------------------

    def feed(self, buffer: EventBuffer, number: Callable[[], int]) -> None:
        """Give the buffer events, as long as it has room and does not hold many of them already.

        Args:
            number: gives a number for each file.
        """
        self.put_off = False
        while self._feed(buffer, number):
            # Every locked directory was read, and those without events were removed.
            if not self._to_claim or len(self._claims) >= MOST_CLAIMS:
                return
            self._claim_some()

    def _feed(self, buffer: EventBuffer, number: Callable[[], int]) -> bool:
        """Like `feed`, from the directories that are locked. False when some of it has to wait."""
        for claim in self._claims:
            while claim.waiting:
                if sum(len(each.reading) for each in self._claims) >= MOST_AT_ONCE:
                    return False
                if buffer.unsettled_events >= buffer.capacity or not self._read(claim, buffer, number()):
                    self.put_off = True
                    return False
        self._end_those_done()
        return True

    def _read(self, claim: Claim, buffer: EventBuffer, number: int) -> bool:
        """Read the next file. False when it has to wait."""
        # Noted before it is read. A signal handler may raise as soon as the events are in the buffer, and then the file
        # must not be read again.
        name = claim.waiting.popleft()
        claim.reading[number] = name
        try:
            memory = claim.home.map_file(name)
            found = buffer.recover(number, memory)
        except Exception as error:
            raise_of_signal_handler(error)
            del claim.reading[number]
            if not isinstance(error, (SegmentFileError, ValueError, OSError)):
                claim.waiting.appendleft(name)
                raise
            return self._not_read(claim, name, error)
        if found.damaged and name not in claim.damaged:
            claim.damaged.add(name)
            self._put_aside(claim, name, memoryview(memory), found.damaged)
        self.recovered_events += found.events
        if found.events:
            if found.left:
                claim.partly.add(name)
            return True
        del claim.reading[number]
        if found.left:
            claim.waiting.appendleft(name)
            return False
        claim.home.remove_file(name)
        return True

    def _not_read(self, claim: Claim, name: str, error: Exception) -> bool:
        """A file could not be read. False when it has to be tried again later."""
        if isinstance(error, SegmentFileError):
            self._cannot_read(claim, name, error.reason)
        elif isinstance(error, ValueError):
            # It is empty: there was no room for it.
            claim.home.remove_file(name)
        elif isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            if error.errno in _GOES_BY:
                claim.waiting.appendleft(name)
                return False
            # It is a link or a directory, for example, or a file that this process may not write to.
            claim.keep = True
            path = f"{claim.home.path}/{_shown(name)}"
            text = error.strerror or type(error).__name__
            self._once(path, f"{path} cannot be opened as a file of a spool ({text}), and is left alone")
        return True

    def _cannot_read(self, claim: Claim, name: str, reason: str) -> None:
        if reason == "blank":
            claim.home.remove_file(name)
        elif reason in _OF_OTHERS:
            claim.keep = True
            path = f"{claim.home.path}/{_shown(name)}"
            self._once(path, f"{path} cannot be read ({_OF_OTHERS[reason]}), and is left alone")
        else:
            try:
                kept = claim.home.put_aside(name)
            except OSError as error:
                claim.keep = True
                kept = f"where it is ({error.strerror})"
            self._note(DAMAGE, f"{claim.home.path}/{name} cannot be read ({reason}); it is kept as {kept}")

    def _put_aside(self, claim: Claim, name: str, memory: memoryview, runs: list[tuple[int, int, int]]) -> None:
        events, size = 0, 0
        try:
            for count, first, last in runs:
                claim.home.put_aside_part(name, memory[first:last], first)
                events += count
                size += last - first
        except OSError as error:
            claim.keep = True
            self._note(DAMAGE, f"what is damaged in {claim.home.path}/{name} cannot be kept: {error.strerror}")
            return
        finally:
            memory.release()
        where = f"{self._root}/damaged"
        damaged = counted(events, "damaged event")
        self._note(DAMAGE, f"{damaged} in {claim.home.path}/{name}: {size} bytes, kept in {where}")

    def finished(self, number: int) -> bool:
        """The buffer is done with a file. Returns whether it is one of these."""
        for claim in self._claims:
            name = claim.reading.pop(number, None)
            if name is not None:
                if name in claim.partly:
                    claim.partly.discard(name)
                    claim.waiting.appendleft(name)
                else:
                    claim.home.remove_file(name)
                self._end_those_done()
                return True
        return False

    def _end_those_done(self) -> None:
        for claim in [each for each in self._claims if each.done]:
            self._claims.remove(claim)
            if claim.keep:
                claim.home.let_go()
            else:
                claim.home.remove()

    def let_go(self) -> None:
        """Leave what is not sent to other processes."""
        self._to_claim.clear()
        claims, self._claims = self._claims, []
        for claim in claims:
            claim.home.let_go()

    def place_of(self, number: int) -> tuple[Home, str] | None:
        """Where the file of this number is."""
        for claim in self._claims:
            if number in claim.reading:
                return claim.home, claim.reading[number]
        return None


def _date(milliseconds: int) -> str:
    with contextlib.suppress(OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    return "an unknown time"


def _shown(text: str) -> str:
    """Text from outside, escaped so that it can neither imitate a log line nor control a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:200])
