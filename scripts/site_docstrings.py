"""A griffe extension: the docstrings of the compiled modules, whose stub files have the types and no words."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

COMPILED = ("fastemit._batch", "fastemit._buffer", "fastemit._encode", "fastemit._payload", "fastemit._system")
#: Cython puts the signature before the words.
_SIGNATURE = re.compile(r"\A[\w.]+\(.*?\)(?: -> [^\n]*)?\n\n?")


class CompiledDocstrings(griffe.Extension):
    """Fills in what the stub file leaves out, without what Cython adds."""

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
    # What griffe says of a method of C is no news to a reader.
    item.labels.discard("method descriptor")
    # griffe may have looked at the module itself: then the words are there, with Cython's signature.
    if text:
        words = inspect.cleandoc(_SIGNATURE.sub("", text))
        item.docstring = griffe.Docstring(words, parent=item, parser="google")
