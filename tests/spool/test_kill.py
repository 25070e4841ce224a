"""`kill -9` at any moment: what `append` had returned for is in the files, and what was settled is not sent again."""

from __future__ import annotations

import random
import shutil
import threading
from pathlib import Path

import pytest

from fastemit._buffer import EventBuffer
from tests.support.buffer import SANITIZED
from tests.support.crashes import Teller, killed_after
from tests.support.segment_files import Shelf
from tests.support.slow import slow_but


def produce_and_send(folder: Path, producers: int, teller: Teller, chance: random.Random) -> None:
    """Threads that append for ever, and one that sends, halves, gives back, parks and removes what is done with."""
    shelf = Shelf(folder)
    buffer = shelf.serve(EventBuffer(100_000, 1 << 28, 4000, 10, files=True))

    def produce(first: int) -> None:
        for number in range(first, 1 << 40, producers):
            teller.append(buffer, number)

    for first in range(producers):
        threading.Thread(target=produce, args=(first,), daemon=True).start()
    outage = chance.random() < 0.3
    while True:
        shelf.tend(chance.choice([None, 0, 1]))
        batch = buffer.take(chance.choice([None, 300, 3000]))
        if batch is None:
            continue
        batch.stamp(1_700_000_000_000)
        batch.body().release()
        if outage or chance.random() < 0.2:
            batch.give_back()
        elif len(batch) > 1 and chance.random() < 0.3:
            teller.settle(batch.split())
            batch.yield_place()
        else:
            teller.settle(batch)


@pytest.mark.parametrize("producers", [1, 4])
@pytest.mark.parametrize("times", slow_but([15], [15, 300]))
def test_nothing_is_lost_that_append_had_returned_for(tmp_path: Path, times: int, producers: int) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    found = 0
    for nth in range(min(times, 30) if SANITIZED else times):
        folder = tmp_path / str(nth)
        folder.mkdir()
        own = random.Random(chance.random())
        books = killed_after(
            lambda teller, folder=folder, own=own: produce_and_send(folder, producers, teller, own),  # type: ignore[misc]
            chance.randrange(1, 3000),
        )
        found += books.balance(folder)
        shutil.rmtree(folder)
    assert found > 0
