"""Words of messages that depend on a number."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "", style: str = "d") -> str:
    """A number with what it counts: "1 event", "2 events".

    Args:
        one: the words after the number 1.
        many: the words after any other number. Default: `one` with an s.
        style: how to write the number: "d", or "," with commas between the thousands.
    """
    return f"{number:{style}} {one if number == 1 else many or one + 's'}"
