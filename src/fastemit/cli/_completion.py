"""What a shell completes, made by shtab (the extra `cli`) from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import import_module
from typing import Final

SHELLS: Final = ("bash", "zsh", "fish")
#: The help has these names for values that are the name of a file.
_FILES: Final = ("FILE", "PATH", "DIR")


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """A script for one of `SHELLS`. Raises `ImportError`, with what to install."""
    try:
        shtab = import_module("shtab")
    except ImportError as error:
        raise ImportError('--print-completion needs the package shtab: pip install "fastemit[cli]"') from error
    for action in _actions(parser):
        if action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell=shell)
    return script


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)
