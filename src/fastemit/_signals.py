"""Signal handlers: setting one for a while, and telling whether an exception came out of one."""

from __future__ import annotations

import functools
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


@contextmanager
def handling(handler: Callable[[int, FrameType | None], object], *numbers: signal.Signals) -> Iterator[None]:
    """Have `handler` called for these signals, in the main thread; elsewhere nothing is set, since Python refuses it.

    The earlier handlers are put back at the end, but for one that was not installed from Python, which Python cannot
    put back. It then stays as it is.
    """
    earlier: list[tuple[signal.Signals, Any]] = []
    try:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                earlier.append((number, signal.signal(number, handler)))
        yield
    finally:
        for number, before in earlier:
            if before is not None:
                signal.signal(number, before)


def of_signal_handler(error: BaseException) -> BaseException | None:
    """The exception that a handler of a signal raised, if `error`, just caught, is that or was made of it; else None.

    Python runs handlers in the main thread, between any two steps of what it is doing. What they raise (Celery's
    `SoftTimeLimitExceeded`, the `TimeoutError` of many an alarm, the `SystemExit` of a SIGTERM) is meant for the
    program, and is no fault of the request or the callback that happens to run. Its traceback goes through the handler,
    which the traceback of anything else does not. (A handler that is written in C leaves no trace there.)
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    handlers = _handlers()
    callers = _callers()
    found: BaseException | None = None
    seen: set[int] = set()
    ahead: list[BaseException | None] = [error]
    while ahead:
        each = ahead.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        trace = each.__traceback__
        # One that a caller was handling already when it called (a flush in an `except` block) is the context of all
        # that goes wrong since, and not its reason.
        if each is not error and trace is not None and trace.tb_frame in callers:
            continue
        if any(frame.f_code in handlers and _broke_in(frame) for frame in _way_of(trace)):
            found = each
        # A library may have made an error of its own of it, as urllib3 does with a TimeoutError, and given that the
        # same traceback: so the innermost is what the handler raised.
        ahead += [each.__cause__, each.__context__]
    return found


def raise_of_signal_handler(error: BaseException) -> None:
    """Raise what a handler of a signal raised, if `error`, just caught, is that or was made of it."""
    raised = of_signal_handler(error)
    if raised is not None:
        context = raised.__context__
        try:
            raise raised
        finally:
            # Python has put `error` there, which was made of it.
            raised.__context__ = context


def guarded(call: Callable[[], T], otherwise: Callable[[Exception], U]) -> T | U:
    """Call code of the user's: a callback, a hook, a store, a client, a log handler.

    Args:
        call: calls it.
        otherwise: gets what it raised, and gives what is returned then.

    Raises:
        Exception: what a handler of a signal raised meanwhile. It is no fault of that code, and comes out.
    """
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - it is anybody's code
        raise_of_signal_handler(error)
        return otherwise(error)


def _callers() -> list[FrameType]:
    """Those who called what has caught an exception and asks here, or its helper."""
    callers = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        callers.append(frame)
        frame = frame.f_back
    return callers


def _way_of(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _broke_in(frame: FrameType) -> bool:
    """Whether this frame of a handler may have been called by Python for a signal, and not by the program.

    Python gives a handler the frame that it breaks into. Where none of its arguments is a frame, it was called as any
    function may be, such as a `stop()` that is also the handler of SIGTERM.
    """
    names, rest, _, values = inspect.getargvalues(frame)
    # One that the handler has deleted may have been it.
    given = [values.get(name, frame) for name in names] + list(values.get(rest, ()) if rest else ())
    return any(isinstance(value, FrameType) for value in given)


def _handlers() -> set[CodeType]:
    codes = (_code_of(signal.getsignal(number)) for number in signal.valid_signals())
    return {code for code in codes if code is not None}


def _code_of(handler: Any) -> CodeType | None:
    """The code of a handler that is a function, a method, a partial or an object that can be called."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    handler = getattr(handler, "__func__", handler)
    if not hasattr(handler, "__code__"):
        handler = getattr(type(handler), "__call__", None)  # noqa: B004 - its code is what is wanted
    code = getattr(handler, "__code__", None)
    return code if isinstance(code, CodeType) else None
