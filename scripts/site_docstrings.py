"""A griffe extension: the docstrings of the compiled module, whose stub file has the types and no words."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

COMPILED = "fastemit._buffer"
#: Cython puts the signature before the words.
_SIGNATURE = re.compile(r"\A[\w.]+\(.*?\)(?: -> [^\n]*)?\n\n?")


class CompiledDocstrings(griffe.Extension):
    """Fills in what the stub file leaves out."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        if pkg.name != COMPILED.partition(".")[0]:
            return
        compiled = importlib.import_module(COMPILED)
        module = pkg[COMPILED.rpartition(".")[2]]
        for name, cls in module.classes.items():
            describe(cls, getattr(compiled, name, None))
            for member_name, member in cls.functions.items():
                describe(member, getattr(getattr(compiled, name, None), member_name, None))


def describe(item: Any, real: object) -> None:
    text = getattr(real, "__doc__", None)
    if text and item.docstring is None:
        words = inspect.cleandoc(_SIGNATURE.sub("", text))
        item.docstring = griffe.Docstring(words, parent=item, parser="google")
