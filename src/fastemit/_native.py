"""Loads the extension, and says what to do where Python refuses that. Imported before everything else."""

from __future__ import annotations

try:
    from fastemit import _buffer as _buffer
except ImportError as error:
    # CPython's words in an interpreter with a lock of its own, and Cython's in the second one of a process.
    if "interpreter" not in str(error):
        raise
    raise ImportError(
        "fastemit cannot be loaded in this subinterpreter: its extension is for one interpreter of a process, and not "
        "for one with a GIL of its own. Run the program in the main interpreter. mod_wsgi: set `WSGIApplicationGroup "
        "%{GLOBAL}`, with a WSGIDaemonProcess for each application. uWSGI: set `single-interpreter = true`. "
        "More is in docs/subinterpreters.md",
        name="fastemit._buffer",
    ) from error
