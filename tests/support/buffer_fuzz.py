"""A fuzzer of `EventBuffer`: bytes are a program of operations, done to the buffer and to its model, which must agree.

    python -m tests.support.buffer_fuzz SECONDS [SEED]

Programs are made by a printed seed. One that fails is made as short as it gets and printed in hexadecimal;
`python -m tests.support.buffer_fuzz --run HEX` runs it again.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Iterator

from fastemit._batch import Batch
from fastemit._buffer import NOTIFY_ALWAYS, NOTIFY_NEVER, NOTIFY_WHEN_DUE
from tests.support.buffer import of_size
from tests.support.buffer_model import Model

BOUNDS = [(200, 20_000), (1000, 5000), (15, 20_000), (1000, 700), (2, 3000), (1, 60)]
AIMS = [None, 0, 1, 50, 300, 900, 5000, 2**31]
SETTLE = ["give back", "retried", "sent", "yield", "collect", "rejected", "overflow"]
#: Programs are this long at the most, in bytes.
LONGEST = 600


class Inbox:
    """What the buffer wakes."""

    def put(self, item: None) -> None:
        pass


class Bytes:
    """A program, read from its front."""

    def __init__(self, program: bytes) -> None:
        self._program = program
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._program)

    def take(self, count: int) -> bytes:
        taken = self._program[self._at : self._at + count]
        self._at += count
        return taken

    def number(self, below: int) -> int:
        """One byte, or two where that is not enough, as a number; 0 after the end."""
        return int.from_bytes(self.take(1 if below <= 256 else 2), "little") % below

    def text(self) -> str:
        """Up to 15 characters: control, quotes, astral; no lone surrogates, which the model cannot size."""
        length = self.number(16)
        kind = self.number(4)
        data = self.take(length)
        if kind == 0:
            return data.decode("utf-8", "replace")
        if kind == 1:
            return data.decode("latin-1")
        if kind == 2:
            return "".join(chr(0x10000 + byte * 257) for byte in data)
        return "".join(chr(byte & 0x7F) for byte in data)


def payload_of(program: Bytes) -> dict[str, object]:
    payload: dict[str, object] = {}
    for _ in range(program.number(5)):
        name = program.text()
        kind = program.number(8)
        value: object = program.text()
        if kind == 0:
            value = int.from_bytes(program.take(10), "little", signed=True)
        elif kind == 1:
            value = [None, True, False, 0, -1, 1.5, "stm", ""][program.number(8)]
        elif kind == 2:
            value = str(value) * (1 + program.number(200))
        payload[name] = value
    return payload


def use_what_is_settled(batch: Batch) -> None:
    """Everything that is asked of a settled batch is refused, and changes nothing."""
    for misuse in (
        batch.sent,
        batch.give_back,
        batch.yield_place,
        batch.split,
        batch.seal,
        lambda: batch.stamp(1),
        lambda: batch.dropped("rejected"),
    ):
        try:
            misuse()
        except ValueError:
            continue
        raise AssertionError("a settled batch was settled again")


def misuse(model: Model, program: Bytes) -> None:
    """Arguments that are refused, and change nothing."""
    buffer = model.buffer
    kind = program.number(6)
    with contextlib.suppress(ValueError, TypeError, OverflowError, KeyError):
        if kind == 0:
            buffer.append_encoded(program.take(program.number(2)))
        elif kind == 1 and model.out:
            model.pick(program.number(1000)).batch.stamp(-1 - program.number(256))
        elif kind == 2 and model.out:
            model.pick(program.number(1000)).batch.stamp(10**13 + program.number(256))
        elif kind == 3:
            buffer.count_dropped(program.text())
        elif kind == 4:
            buffer.append(program.number(256))  # type: ignore[arg-type]
        elif kind == 5:
            buffer.append({(program.number(256),): 1})
        else:
            return
        raise AssertionError(f"misuse {kind} was not refused")


def step(model: Model, program: Bytes, settled: list[Batch], inboxes: list[Inbox]) -> None:
    operation = program.number(20)
    if operation <= 2:
        model.put(payload_of(program), starving=program.number(8) == 0)
    elif operation <= 4:
        for _ in range(1 + program.number(16)):
            model.put(of_size(35 + program.number(120)))
    elif operation == 5:
        model.put(of_size(35 + program.number(3000)))
    elif operation == 6:
        edge = [model.buffer.max_bytes, model.segment_bytes, max(model.room, 40)][program.number(3)]
        model.put(of_size(max(edge - 1 + program.number(3), 35)))
    elif operation == 7:
        model.drop_oldest_for(35 + program.number(1500))
    elif operation <= 10:
        model.take(AIMS[program.number(len(AIMS))], 1 + program.number(12))
    elif operation == 11 and model.out:
        model.stamp(program.number(1000), int.from_bytes(program.take(5), "little") % 10**13)
    elif operation == 12 and model.out:
        model.body(program.number(1000), keep=program.number(2) == 0)
    elif operation == 13 and model.out:
        model.note_server_error(program.number(1000), seal=program.number(2) == 0)
    elif operation == 14 and model.out:
        model.split(program.number(1000))
    elif operation <= 17 and model.out:
        index = program.number(1000)
        how = SETTLE[program.number(len(SETTLE))]
        if how != "collect" and program.number(8) == 0:
            settled.append(model.pick(index).batch)
            del settled[:-5]
        model.settle(index, how)
    elif operation == 18:
        kind = program.number(6)
        if kind == 0 and model.kept:
            model.let_go_of_view(program.number(1000))
        elif kind == 1:
            model.look_and_trim(program.number(4))
        elif kind == 2:
            inboxes.append(Inbox())
            model.buffer.arm(inboxes[-1], model.buffer.signals - program.number(2))
        elif kind == 3:
            model.tend([None, 0, 1, 2][program.number(4)])
        elif kind == 4:
            model.is_left_by_a_crash()
        elif inboxes:
            model.buffer.disarm(inboxes.pop())
    else:
        for batch in settled:
            use_what_is_settled(batch)
        misuse(model, program)


def run(code: bytes) -> int:
    """Run a program; the number of its operations. Raises what went wrong."""
    program = Bytes(code)
    model = Model(
        BOUNDS[program.number(len(BOUNDS))],
        [1, 5, 1000][program.number(3)],
        [None, 1, 400, 5000][program.number(4)],
        [NOTIFY_NEVER, NOTIFY_WHEN_DUE, NOTIFY_ALWAYS][program.number(3)],
        in_files=program.number(2) == 1,
    )
    settled: list[Batch] = []
    inboxes: list[Inbox] = []
    steps = 0
    try:
        while program:
            step(model, program, settled, inboxes)
            model.agrees()
            model.views_of_settled_batches_stay()
            steps += 1
        for inbox in inboxes:
            model.buffer.disarm(inbox)
        settled.clear()
        model.finish()
    finally:
        model.clean_up()
    return steps


def fails(code: bytes) -> bool:
    try:
        run(code)
    except Exception:  # noqa: BLE001 - whatever it is
        return True
    return False


def shortened(code: bytes, seconds: float = 20.0) -> bytes:
    """The program without what it fails without."""
    deadline = time.monotonic() + seconds
    size = len(code) // 2
    while size and time.monotonic() < deadline:
        for at in range(0, len(code), size):
            less = code[:at] + code[at + size :]
            if len(less) < len(code) and fails(less):
                code = less
                break
        else:
            size //= 2
    return code


def programs(seed: int) -> Iterator[bytes]:
    """Random ones, and changed ones of those."""
    chance = random.Random(seed)
    while True:
        code = chance.randbytes(chance.randrange(4, LONGEST))
        yield code
        for _ in range(chance.randrange(4)):
            at, to = chance.randrange(len(code)), chance.randrange(len(code))
            code = code[:at] + chance.randbytes(chance.randrange(8)) + code[to : to + 200] + code[at:]
            yield code[:LONGEST]


def fuzz(seconds: float, seed: int, *, least: int = 1) -> tuple[int, int]:
    """Run programs for so long, and at least so many; how many, and the number of their operations."""
    deadline = time.monotonic() + seconds
    steps = 0
    for ran, code in enumerate(programs(seed)):
        if ran >= least and time.monotonic() >= deadline:
            return ran, steps
        try:
            steps += run(code)
        except Exception:
            print(
                f"seed {seed}, program {ran}: python -m tests.support.buffer_fuzz --run {shortened(code).hex()}",
                flush=True,
            )
            raise
    raise AssertionError


if __name__ == "__main__":
    if sys.argv[1] == "--run":
        run(bytes.fromhex(sys.argv[2]))
    else:
        chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(2**32)
        print(f"seed {chosen}, {sys.argv[1]} s", flush=True)
        print(
            "{:,} programs of {:,} operations: the buffer and its model agree".format(*fuzz(float(sys.argv[1]), chosen))
        )
