"""`handling`: a signal handler for a while, and what is put back after it."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from fastemit._signals import handling


def test_the_earlier_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[int] = []
    with handling(lambda number, _: seen.append(number), signal.SIGTERM):
        signal.raise_signal(signal.SIGTERM)
    assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_that_was_not_installed_from_python_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install = signal.signal
    before = signal.getsignal(signal.SIGTERM)

    def not_from_python(number: Any, handler: Any) -> Any:
        install(number, handler)
        return None

    try:
        with monkeypatch.context() as patched:
            patched.setattr(signal, "signal", not_from_python)
            with handling(lambda *_: None, signal.SIGTERM):
                pass
    finally:
        install(signal.SIGTERM, before)
