"""Loads the extension. If Python refuses that, the error says what to do. Each public module imports this first."""

from __future__ import annotations

try:
    from fastemit import _buffer as _buffer
except ImportError as error:
    # The messages of CPython in an interpreter with its own GIL, and of Cython in the second interpreter of a process.
    if "interpreter" not in str(error):
        raise
    raise ImportError(
        "fastemit cannot be loaded in this subinterpreter: its extension loads in one interpreter of a process, and "
        "not in one with its own GIL. Run the program in the main interpreter. mod_wsgi: set `WSGIApplicationGroup "
        "%{GLOBAL}`, with a WSGIDaemonProcess for each application. uWSGI: set `single-interpreter = true`. "
        "More is in docs/subinterpreters.md",
        name="fastemit._buffer",
    ) from error
