"""A griffe extension: the docstrings of the compiled modules, whose stub files have the types and no words."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

COMPILED = ("fastemit._buffer", "fastemit._payload")
#: Cython puts the signature before the words.
_SIGNATURE = re.compile(r"\A[\w.]+\(.*?\)(?: -> [^\n]*)?\n\n?")


class CompiledDocstrings(griffe.Extension):
    """Fills in what the stub file leaves out."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for path in COMPILED:
            package, _, name = path.rpartition(".")
            if pkg.name == package:
                describe_all(pkg[name], importlib.import_module(path))


def describe_all(module: griffe.Module, compiled: Any) -> None:
    for name, cls in module.classes.items():
        describe(cls, getattr(compiled, name, None))
        for member_name, member in cls.functions.items():
            describe(member, getattr(getattr(compiled, name, None), member_name, None))


def describe(item: Any, real: object) -> None:
    text = getattr(real, "__doc__", None)
    if text and item.docstring is None:
        words = inspect.cleandoc(_SIGNATURE.sub("", text))
        item.docstring = griffe.Docstring(words, parent=item, parser="google")
