"""The files of a living emitter: made, lent to its buffer, parked, used again, and removed at the end."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from fastemit._buffer import EventBuffer
from fastemit._files import format_file, read_header
from fastemit._signals import raise_of_signal_handler
from fastemit._spool.estate import GONE, ONCE, TOLD, Estate
from fastemit._spool.ground import checked_root
from fastemit._spool.home import Owner
from fastemit._spool.life import File, Life
from fastemit._spool.making import Maker
from fastemit._spool.registry import registry
from fastemit._spool.writing import Unwritten, find_unwritten, write_disk
from fastemit._time import monotonic
from fastemit._words import counted
from fastemit.stats import say

#: Spare files that a sender keeps ready, so that `input` makes none.
SPARES: Final = 3
#: The same for a while after `input` had to make one. While a sender waits for the GIL, a thread that computes can fill
#: eight files.
HURRIED_SPARES: Final = 12
#: How long that while is, in seconds.
HURRY: Final = 10.0
#: Files that are made in one step.
AT_ONCE: Final = 4
#: With more spare files than this, a finished file is removed and not used again.
MOST_SPARES: Final = 8
#: How many files may be mapped besides the spare ones that are wanted. Above that, files in the middle of the queue are
#: parked.
MOST_MAPPED: Final = 12
#: Segments at the front of the queue that stay mapped.
KEEP_MAPPED: Final = 2
#: Seconds between two looks for what dead processes have left.
LOOK_EVERY: Final = 60.0


class Spool:
    """Lends files to one buffer, and has it take over what dead processes have left.

    Thread safety: every method may be called from any thread. Its lock is held while files are looked after, and never
    while something is logged. No lock is held while files are made. So when `input` finds no file, it does not have to
    wait for a sender that gets no processor time. A forked child has locks of its own.

    Args:
        root: the directory, absolute.
        endpoint: where the events are sent to, without credentials.
        method: "post", "get" or "rpush".
        sync: seconds between two writes to the disk; None leaves it to the kernel.
        any_endpoint: take over what others have left for any endpoint.

    Raises:
        UnfitSpoolError: `root` cannot be a spool.
    """

    def __init__(
        self, root: str, endpoint: str, method: str, sync: float | None = None, *, any_endpoint: bool = False
    ) -> None:
        checked_root(root)
        self.root = root
        self._endpoint = endpoint
        self._method = method
        self._sync = sync
        self._any_endpoint = any_endpoint
        #: False once the emitter is being closed.
        self.takes_over = True
        self._served_meanwhile = False
        self._buffer: weakref.ref[EventBuffer] = lambda: None  # type: ignore[assignment]
        self._notes: deque[tuple[str, str]] = deque()
        #: Logs a warning, but not too often.
        self.warn: Callable[[str, str], None] = lambda kind, text: say(logging.WARNING, "spool: %s", f"{kind}: {text}")
        self._begin()

    def _begin(self) -> None:
        owner = Owner.here(self._endpoint, self._method)
        # No reference cycle, so that it is freed as soon as nobody refers to it.
        notes = self._notes

        def note(kind: str, text: str) -> None:
            notes.append((kind, text))

        self._maker = Maker(self.root, self._endpoint, self._method, note)
        estate = Estate(self.root, owner, note, any_endpoint=self._any_endpoint)
        self._life = Life(estate)

    def _note(self, kind: str, text: str) -> None:
        self._notes.append((kind, text))

    def serve(self, buffer: EventBuffer) -> None:
        """Lend files to this buffer from here on."""
        self._buffer = weakref.ref(buffer)
        buffer.spares_wanted = SPARES
        buffer.most_mapped = SPARES + MOST_MAPPED
        me = weakref.ref(self)

        # No reference cycle, so that a buffer is freed as soon as nobody refers to it.
        def more(size: int) -> bool:
            spool = me()
            return spool is not None and spool.more(size)

        def bring(number: int) -> bool:
            spool = me()
            return spool is not None and spool.bring(number)

        buffer.more = more
        buffer.bring = bring

    # -- what there is to see ----------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Where events are: this process's directory, or the spool."""
        home = self._life.home
        return self.root if home is None else home.path

    @property
    def recovered_events(self) -> int:
        """Events that were taken over."""
        return self._life.estate.recovered_events

    @property
    def has_room(self) -> bool:
        """Whether a file can be made, as far as is known."""
        buffer = self._buffer()
        return monotonic() >= self._life.try_again_at or (buffer is not None and buffer.spare_files > 0)

    @property
    def wants_tending(self) -> bool:
        """Whether `tend` should be called now."""
        buffer = self._buffer()
        wants_service = buffer is not None and buffer.wants_service
        return wants_service or self._life.has_room_again or bool(self._notes) or monotonic() >= self.due_at()

    def put_off(self) -> bool:
        """Leave `tend` to `tend_meanwhile` of the next request, if the last one has called that. False if not."""
        buffer = self._buffer()
        life = self._life
        served, self._served_meanwhile = self._served_meanwhile, False
        if not served or buffer is None or life.has_room_again or self._notes or monotonic() >= self.due_at():
            return False
        # Otherwise `input` would have to make a file.
        return life.home is None or buffer.spare_files > 0

    @property
    def closed(self) -> bool:
        """Whether the files that are left belong to other processes."""
        return self._life.closed

    @property
    def waiting(self) -> bool:
        """Whether dead processes have left files that are not in the buffer yet."""
        return self._life.estate.waiting

    @property
    def at_work_here(self) -> bool:
        """Whether this thread holds a lock of the files, which a signal handler may find."""
        life = self._life
        # Private, but threading.Condition relies on it, and gevent's lock has it for that reason.
        locks: tuple[Any, ...] = (life.lock, life.making_lock, registry().lock)
        return any(lock._is_owned() for lock in locks)

    def due_at(self) -> float:
        """When to call `tend` even if the buffer needs nothing, on the monotonic clock."""
        life = self._life
        if life.closed:
            return math.inf
        again = life.try_again_at if life.try_again_at > 0 else math.inf
        return min(life.look_at, life.feed_at, life.sync_at, again)

    # -- for the buffer ----------------------------------------------------------------------------------------------

    def more(self, size: int) -> bool:
        """Lend the buffer a file with room for `size` bytes of data. False when there is none."""
        life = self._life
        buffer = self._buffer()
        if buffer is not None and life.home is not None:
            life.hurried_until = monotonic() + HURRY
            self._say_how_many(life, buffer)
            if buffer.mapped_files > buffer.most_mapped + MOST_MAPPED:
                # The sender is far behind.
                self._park(life, buffer)
        made = buffer is not None and self._make(life, buffer, size)
        self._tell()
        return made

    @staticmethod
    def _say_how_many(life: Life, buffer: EventBuffer) -> None:
        """Tell the buffer how many files to keep ready, and how many may be mapped."""
        wanted = SPARES
        if monotonic() < life.hurried_until and (events := buffer.queued_events):
            # No more than the buffer has room for.
            room = (buffer.capacity - buffer.unsettled_events) * buffer.queued_bytes // events
            wanted = min(SPARES + room // buffer.file_bytes, HURRIED_SPARES)
        buffer.spares_wanted = wanted
        buffer.most_mapped = buffer.spares_wanted + MOST_MAPPED

    @staticmethod
    def _park(life: Life, buffer: EventBuffer) -> None:
        for number in buffer.park(KEEP_MAPPED):
            file = life.files.get(number)
            if file is not None:
                file.memory = None

    def _make(self, life: Life, buffer: EventBuffer, size: int, count: int = 1) -> bool:
        """Lend the buffer new files, `count` at the most. False when there is not even one."""
        made = self._maker.lend(life, buffer, size, count)
        if made and self._sync is not None and life.sync_at == math.inf:
            life.sync_at = monotonic() + self._sync
        return made

    def bring(self, number: int) -> bool:
        """Map a file that was parked. False when that is not possible now."""
        life = self._life
        buffer = self._buffer()
        if buffer is None:
            return False
        with life.lock:
            brought = not life.closed and self._bring(life, buffer, number)
        self._tell()
        return brought

    def _bring(self, life: Life, buffer: EventBuffer, number: int) -> bool:
        file = life.files.get(number)
        place = (file.home, file.name) if file is not None else life.estate.place_of(number)
        try:
            if place is None:
                raise FileNotFoundError(number)
            memory = place[0].map_file(place[1])
            buffer.attach(number, memory)
        except (FileNotFoundError, ValueError):
            events, size = buffer.forget(number)
            if events:
                self._note(GONE, f"a file was removed or changed, with {counted(events, 'event')} ({size} bytes)")
            life.files.pop(number, None)
            life.estate.finished(number)
            return True
        except OSError:
            return False
        if file is not None:
            file.memory, file.synced = memory, False
        return True

    # -- what a sender does ------------------------------------------------------------------------------------------

    def tend(self, take_over: bool = True) -> bool:
        """Do the work that is due: look after this process's files, and after what dead processes have left.

        Args:
            take_over: False to take over nothing now.

        Returns:
            Whether there may be room where there was none. In a signal handler that has interrupted this work, nothing
            is done, and the answer is False.
        """
        buffer = self._buffer()
        life = self._life
        if buffer is None or self.at_work_here:
            return False
        with life.lock:
            if life.closed:
                return False
            self._look_after_files(life, buffer, gone=self._was_removed(life))
            if take_over and self.takes_over:
                self._look_for_the_dead(life)
                self._feed(life, buffer)
            unwritten: list[Unwritten] = []
            if monotonic() >= life.sync_at and self._sync is not None:
                unwritten = find_unwritten(life)
                life.sync_at = monotonic() + self._sync
            roomy, life.has_room_again = life.has_room_again, False
        # Without the lock, because a write to the disk may take seconds.
        write_disk(unwritten, self._note)
        self._tell()
        return roomy

    def helper(self) -> Callable[[], None]:
        """Makes what a transport calls while the collector works on a request. It does not keep the spool alive."""
        me = weakref.ref(self)

        def tend_meanwhile() -> None:
            spool = me()
            if spool is not None:
                spool.tend_meanwhile()

        return tend_meanwhile

    def tend_meanwhile(self) -> None:
        """Do the quick part of what `tend` does, if some is due and nobody else is at it. It logs nothing.

        Raises:
            Exception: only what a signal handler raised meanwhile.
        """
        buffer = self._buffer()
        life = self._life
        if buffer is None or not buffer.wants_service:
            self._served_meanwhile = True
            return
        if self.at_work_here:
            # A signal handler has interrupted this work, and makes a request.
            return
        try:
            if not life.lock.acquire(blocking=False):
                # Whoever holds it does this work. The answer must not wait for that.
                return
            self._served_meanwhile = True
            if not life.closed:
                self._look_after_files(life, buffer)
                if self.takes_over:
                    self._feed(life, buffer)
        except Exception as error:  # noqa: BLE001 - the answer counts more than this, and `tend` meets it again
            raise_of_signal_handler(error)
            life.feed_at = 0.0
        finally:
            # One call, so that no signal handler runs between a look at the lock and its release.
            try:  # noqa: SIM105
                life.lock.release()
            except RuntimeError:
                pass  # it was not acquired

    @staticmethod
    def _was_removed(life: Life) -> bool:
        return life.home is not None and monotonic() >= life.look_at and life.home.was_removed

    def _look_after_files(self, life: Life, buffer: EventBuffer, gone: bool = False) -> None:
        """Remove finished files, park some, and make spare ones. `gone`: somebody has removed the directory."""
        full = life.try_again_at > 0
        self._say_how_many(life, buffer)
        wanted = buffer.spares_wanted
        self._serve_finished(life, buffer)
        if gone:
            self._maker.leave_removed(life, life.home)
            for number in buffer.take_back():
                life.files.pop(number, None)
        if buffer.mapped_files > buffer.most_mapped:
            self._park(life, buffer)
        if life.home is not None or full or gone:
            # No more than are wanted. If `input` uses them up as fast, others have to be parked in between.
            for _ in range(0, wanted, AT_ONCE):
                few = wanted - buffer.spare_files
                if few <= 0 or not self._make(life, buffer, buffer.file_bytes, min(few, AT_ONCE)):
                    break
            if buffer.spare_files >= wanted:
                life.try_again_at = 0.0
        if full and (life.try_again_at == 0 or buffer.spare_files > 0):
            life.has_room_again = True

    def _serve_finished(self, life: Life, buffer: EventBuffer) -> None:
        for number in buffer.finished():
            file = life.files.get(number)
            if file is None:
                life.estate.finished(number)
            elif not self._use_again(life, buffer, number, file):
                del life.files[number]
                file.home.remove_file(file.name)

    def _use_again(self, life: Life, buffer: EventBuffer, number: int, file: File) -> bool:
        most = max(MOST_SPARES, buffer.spares_wanted)
        if not file.again or file.memory is None or file.home is not life.home or buffer.spare_files >= most:
            return False
        file.synced = False
        format_file(file.memory, number, time.time_ns() // 1_000_000, buffer.file_bytes, buffer.query)
        buffer.lend(number, file.memory)
        life.try_again_at = 0.0
        return True

    @staticmethod
    def _look_for_the_dead(life: Life) -> None:
        now = monotonic()
        if now >= life.look_at:
            life.look_at = now + LOOK_EVERY
            life.estate.look()

    @staticmethod
    def _feed(life: Life, buffer: EventBuffer) -> None:
        if life.estate.claims or life.estate.waiting:
            life.estate.feed(buffer, life.next_number)
        # If there was no room, it is tried again when a file is finished, or at this time.
        life.feed_at = monotonic() + 1.0 if life.estate.put_off else math.inf

    # -- the end -----------------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Remove files without events, and the directory if it is empty. A directory is made again when needed."""
        buffer = self._buffer()
        life = self._life
        with life.lock:
            if life.closed:
                return
            # Not between the two steps of making a file. A file that was made is then either lent, or not seen here.
            with life.making_lock:
                if buffer is not None:
                    self._serve_finished(life, buffer)
                    for number in buffer.take_back():
                        self._drop(life, number)
                    if not buffer.unsettled_events:
                        for number in list(life.files):
                            self._drop(life, number)
                home = None if life.files or life.making else life.home
                if home is not None:
                    life.home = None
            if home is not None:
                home.remove()
            elif life.home is not None and self._sync is not None:
                write_disk(find_unwritten(life), self._note)
        self._tell()

    @staticmethod
    def _drop(life: Life, number: int) -> None:
        file = life.files.pop(number, None)
        if file is not None:
            with contextlib.suppress(OSError):
                file.home.remove_file(file.name)

    def close(self) -> None:
        """Leave what is there to other emitters, which may take it over from now on."""
        self.tidy()
        life = self._life
        with life.lock:
            if life.closed:
                return
            buffer = self._buffer()
            if buffer is not None:
                buffer.leave_files()
            with life.making_lock:
                life.closed = True
                if life.home is not None:
                    life.home.let_go()
            life.estate.let_go()

    def after_fork(self) -> None:
        """In a forked child: release everything of the parent, and start with nothing. Nothing here waits."""
        life = self._life
        closed = life.closed
        self._notes.clear()
        self._begin()
        self._life.closed = closed
        if life.home is not None:
            life.home.let_go()
        life.estate.let_go()

    def __del__(self) -> None:
        # Nobody sends any more. An empty directory is removed. If it holds events, other processes send them.
        life: Life | None = getattr(self, "_life", None)
        if life is None or life.closed:
            return
        life.closed = True
        # While Python shuts down anything may be missing. The kernel then releases the locks.
        with contextlib.suppress(Exception):
            home = life.home
            if home is not None and home.is_mine:
                for number, file in list(life.files.items()):
                    memory = home.map_file(file.name) if file.memory is None else file.memory
                    if not read_header(memory).unsettled:
                        self._drop(life, number)
                home.remove()
            elif home is not None:
                home.let_go()
            life.estate.let_go()

    def _tell(self) -> None:
        """Log what was noted. The lock is not held, unless this call is inside another one."""
        if self._life.lock._is_owned():  # type: ignore[attr-defined]
            return
        while self._notes:
            try:
                kind, text = self._notes.popleft()
            except IndexError:
                return
            if kind == TOLD:
                say(logging.INFO, "%s", text)
            elif kind == ONCE:
                say(logging.WARNING, "spool: %s", text)
            else:
                self.warn(kind, text)
